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
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
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

// topics lists the topics whose names begin with a prefix, with what is set on them.
func topics(t testing.TB, client *kgo.Client, prefix string) (out []string) {
	t.Helper()
	admin := kadm.NewClient(client)
	ctx := kadm.WithAuthorizedOps(t.Context()) // past the client's cache
	all, err := admin.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range all.Sorted() {
		if strings.HasPrefix(d.Topic, prefix) {
			names = append(names, d.Topic)
			out = append(out, fmt.Sprintf("topic %s %d partitions, %d replicas", d.Topic, len(d.Partitions), d.Partitions.NumReplicas()))
		}
	}
	if len(names) == 0 {
		return out
	}
	configs, err := admin.DescribeTopicConfigs(context.WithoutCancel(t.Context()), names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if kv.Source == kmsg.ConfigSourceDynamicTopicConfig {
				out = append(out, fmt.Sprintf("config %s %s=%s", c.Name, kv.Key, kv.MaybeValue()))
			}
		}
	}
	return out
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
