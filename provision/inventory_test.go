package provision_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// inventorySQL lists all that a database holds, and the server's roles, one line each.
const inventorySQL = `
WITH mine AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|_timescaledb|timescaledb)'),
rel AS (SELECT c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS path FROM pg_class c JOIN mine n ON n.oid = c.relnamespace)
SELECT 'schema ' || quote_ident(nspname) || ' ' || coalesce((SELECT s.nspacl::text FROM pg_namespace s WHERE s.oid = mine.oid), '') FROM mine
UNION ALL SELECT 'relation ' || path || ' ' || relkind::text || ' ' || relpersistence::text || ' ' || coalesce(relacl::text, '') || ' ' || coalesce(reloptions::text, '') || ' ' || relowner::regrole || ' file ' || coalesce(pg_relation_filenode(oid), 0) FROM rel
UNION ALL SELECT 'column ' || path || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnum || ' ' || a.attnotnull || ' ' || a.attgenerated::text || ' ' || a.attisdropped || ' ' || coalesce(a.attacl::text, '')
	|| ' ' || coalesce((SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum), '') FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0
UNION ALL SELECT 'constraint ' || path || ' ' || conname || ' ' || pg_get_constraintdef(k.oid) FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid
UNION ALL SELECT 'index ' || pg_get_indexdef(oid) || ' ' || (SELECT indisvalid FROM pg_index WHERE indexrelid = rel.oid) FROM rel WHERE relkind IN ('i', 'I')
UNION ALL SELECT 'query ' || path || ' ' || pg_get_viewdef(oid) FROM rel WHERE relkind IN ('v', 'm')
UNION ALL SELECT 'comment ' || path || ' ' || d.objsubid || ' ' || d.description FROM rel JOIN pg_description d ON d.objoid = rel.oid AND d.classoid = 'pg_class'::regclass
UNION ALL SELECT 'function ' || p.oid::regprocedure FROM pg_proc p JOIN mine ON mine.oid = p.pronamespace WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL SELECT 'role ' || r.rolname || ' ' || r.rolcanlogin || ' ' || r.rolsuper || ' ' || r.rolcreaterole || ' ' || r.rolconnlimit || ' ' || coalesce((SELECT string_agg(d.datname || ' ' || s.setconfig::text, ' ' ORDER BY s.setdatabase) FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase WHERE s.setrole = r.oid), '')
	|| ' ' || coalesce((SELECT rolpassword FROM pg_authid a WHERE a.oid = r.oid), '') FROM pg_roles r WHERE r.rolname ~ $1
UNION ALL SELECT 'database ' || datname || ' ' || coalesce(datacl::text, '') FROM pg_database WHERE datname = current_database()`

// inventory lists what is in the database, in Kafka under a prefix, and what the last apply set. Two equal ones mean that
// nothing happened in between.
func inventory(t testing.TB, db *pgxpool.Pool, client *kgo.Client, prefix string) []string {
	t.Helper()
	out := collect(t, db, inventorySQL, "^"+prefix)
	if slices.ContainsFunc(out, func(l string) bool { return strings.HasPrefix(l, "relation cryptoviz.managed ") }) {
		out = append(out, collect(t, db, "SELECT 'ledger ' || address || ' ' || state || ' ' || applied_at FROM cryptoviz.managed")...)
		out = append(out, collect(t, db, "SELECT 'meta ' || m.*::text FROM cryptoviz.meta m")...)
	}
	if len(collect(t, db, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")) > 0 {
		out = append(out, collect(t, db, "SELECT 'job ' || proc_name || ' ' || coalesce(hypertable_name, '') || ' ' || schedule_interval || ' ' || scheduled || ' ' || coalesce(config::text, '') FROM timescaledb_information.jobs")...)
		out = append(out, collect(t, db, "SELECT 'hypertable ' || h.*::text FROM timescaledb_information.hypertables h")...)
		out = append(out, collect(t, db, "SELECT 'aggregate ' || a.*::text FROM timescaledb_information.continuous_aggregates a")...)
	}
	out = append(out, topics(t, client, prefix)...)
	slices.Sort(out)
	return out
}

func collect(t testing.TB, db *pgxpool.Pool, sql string, args ...any) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// topics lists the topics whose names begin with a prefix, with what is set on them. A broker follows the controller after a
// while, and which one answers is chance: so it is what all brokers answer, once they agree.
func topics(t testing.TB, client *kgo.Client, prefix string) (out []string) {
	t.Helper()
	testkit.Eventually(t, func() error {
		brokers, err := kadm.NewClient(client).BrokerMetadata(kadm.WithAuthorizedOps(t.Context())) // past the client's cache
		if err != nil {
			return err
		}
		out = nil
		for i, b := range brokers.Brokers {
			lines, err := topicsOf(t.Context(), client.Broker(int(b.NodeID)), prefix)
			if err != nil {
				return err
			}
			if i > 0 && !slices.Equal(out, lines) {
				return fmt.Errorf("broker %d shows %q, another %q", b.NodeID, lines, out)
			}
			out = lines
		}
		return nil
	})
	return out
}

// topicsOf is what one broker says of topics.
func topicsOf(ctx context.Context, broker *kgo.Broker, prefix string) (out []string, err error) {
	answer, err := broker.RetriableRequest(ctx, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return nil, err
	}
	configs := kmsg.NewPtrDescribeConfigsRequest()
	for _, t := range answer.(*kmsg.MetadataResponse).Topics {
		if name := *t.Topic; strings.HasPrefix(name, prefix) {
			replicas := 0
			for _, p := range t.Partitions {
				replicas = max(replicas, len(p.Replicas))
			}
			out = append(out, fmt.Sprintf("topic %s %d partitions, %d replicas", name, len(t.Partitions), replicas))
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
			configs.Resources = append(configs.Resources, r)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	if answer, err = broker.RetriableRequest(ctx, configs); err != nil {
		return nil, err
	}
	for _, r := range answer.(*kmsg.DescribeConfigsResponse).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, err
		}
		for _, kv := range r.Configs {
			if kv.Source == kmsg.ConfigSourceDynamicTopicConfig {
				value := kadm.Config{Value: kv.Value}
				out = append(out, fmt.Sprintf("config %s %s=%s", r.ResourceName, kv.Name, value.MaybeValue()))
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// differ lists the lines that only one of two inventories has.
func differ(before, after []string) (out []string) {
	for _, l := range before {
		if !slices.Contains(after, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			out = append(out, "+ "+l)
		}
	}
	return out
}
