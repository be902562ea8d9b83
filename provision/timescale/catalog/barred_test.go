package catalog

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// database is one with TimescaleDB, and what is read of it.
type database struct {
	*Catalog
	t *testing.T
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), testkit.Timescale(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := &database{NewCatalog(pool), t}
	w.Pipeline = &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}}
	return w
}

func (w *database) exec(sql string) {
	w.t.Helper()
	if _, err := w.DB.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// glimpse is what a session reads of TimescaleDB, where others have hypertables too.
type glimpse struct {
	own        *Hypertable
	aggregates map[string]*AggregateRef
	jobs       []Job
	views      map[string]*View
}

// glimpseAs reads as a role. All connections are one session in this server, and others may not read all that a snapshot takes:
// so the role is changed for TimescaleDB's part only.
func (w *database) glimpseAs(role string) (g glimpse) {
	w.t.Helper()
	caps, err := w.Capabilities(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	s := &Snapshot{Caps: caps, Relations: map[string]*Relation{}, Aggregates: map[string]*AggregateRef{}}
	err = pgx.BeginFunc(w.t.Context(), w.DB, func(tx pgx.Tx) error {
		if _, err := s.readRelations(w.t.Context(), tx); err != nil {
			return err
		}
		if _, err := tx.Exec(w.t.Context(), "SET LOCAL ROLE "+role); err != nil {
			return err
		}
		if err := s.readTimescale(w.t.Context(), tx); err != nil {
			return err
		}
		v := &ViewSnapshot{Views: map[string]*View{}}
		for name, r := range s.Relations {
			v.Views[name] = &View{Schema: r.Schema, Name: name}
		}
		g = glimpse{s.Relations["own"].Hyper, s.Aggregates, s.Jobs, v.Views}
		_, named := s.viewsAmong(nil)
		rows, err := tx.Query(w.t.Context(), s.aggregatesSQL(), named)
		if err != nil {
			return err
		}
		return v.scanAggregates(rows)
	})
	if err != nil {
		w.t.Fatalf("as %s: %v", role, err)
	}
	return g
}

// Hypertables in a schema that the session's user may not use are not in the way of what he reads, and he reads the same as one
// who may.
func TestHypertableInSecretSchema(t *testing.T) {
	t.Parallel()
	w := newDatabase(t)
	for _, sql := range []string{
		`CREATE TABLE own (t timestamptz NOT NULL, seg text, a integer, b integer, c integer)`,
		"SELECT create_hypertable('own', by_range('t'))",
		`ALTER TABLE own SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = 'seg', timescaledb.orderby = 't DESC NULLS LAST, a NULLS FIRST, b DESC, c')`,
		"CREATE SCHEMA secret", "CREATE TABLE secret.h (t timestamptz NOT NULL, v integer)", "SELECT create_hypertable('secret.h', by_range('t'))",
		"INSERT INTO secret.h VALUES (now(), 1)", "ALTER TABLE secret.h SET (timescaledb.enable_columnstore = true)",
		"CREATE MATERIALIZED VIEW secret.unseen WITH (timescaledb.continuous) AS SELECT time_bucket('1 day', t) AS bucket FROM secret.h GROUP BY 1 WITH NO DATA",
		"CREATE MATERIALIZED VIEW daily WITH (timescaledb.continuous) AS SELECT time_bucket('1 day', t) AS bucket, max(v) AS high FROM secret.h GROUP BY 1",
		"CREATE MATERIALIZED VIEW weekly WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS SELECT time_bucket('7 days', bucket) AS bucket, max(high) AS high FROM daily GROUP BY 1 WITH NO DATA",
		"ALTER MATERIALIZED VIEW weekly SET (timescaledb.enable_columnstore = true)",
		"SELECT add_retention_policy('secret.h', interval '1000000 years')", "CREATE ROLE lowly",
	} {
		w.exec(sql)
	}
	mighty, lowly := w.glimpseAs("postgres"), w.glimpseAs("lowly")
	if !reflect.DeepEqual(lowly, mighty) {
		t.Errorf("%+v, want %+v", lowly, mighty)
	}
	if want := "t DESC NULLS LAST|a NULLS FIRST|b DESC|c"; strings.Join(lowly.own.OrderBy, "|") != want || !slices.Equal(lowly.own.SegmentBy, []string{"seg"}) {
		t.Errorf("%q %q, want %q", lowly.own.SegmentBy, lowly.own.OrderBy, want)
	}
	if a := lowly.aggregates["daily"]; len(lowly.aggregates) != 2 || a == nil || a.FromSchema != "secret" || a.FromName != "h" {
		t.Errorf("%+v", lowly.aggregates)
	}
	if l := lowly.views["weekly"]; !l.Real || !l.Columnar || l.Filled || !strings.Contains(l.Query, "GROUP BY") || !lowly.views["daily"].Filled {
		t.Errorf("%+v", l)
	}
	i := slices.IndexFunc(lowly.jobs, func(j Job) bool { return j.Proc == "policy_retention" })
	if i < 0 || lowly.jobs[i].DropAfter == nil || *lowly.jobs[i].DropAfter < 290*365*24*time.Hour {
		t.Errorf("%+v", lowly.jobs)
	}
}

// Of aggregates, the query is read of those that the pipeline is about, and of the views that depend on them and are rebuilt with
// them.
func TestOthersAggregates(t *testing.T) {
	t.Parallel()
	w := newDatabase(t)
	for _, name := range []string{"own", "others"} {
		w.exec("CREATE TABLE " + name + " (t timestamptz NOT NULL, v integer)")
		w.exec("SELECT create_hypertable('" + name + "', by_range('t'))")
		w.exec("CREATE MATERIALIZED VIEW " + name + "_daily WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS SELECT time_bucket('1 day', t) AS bucket, max(v) AS high FROM " + name + " GROUP BY 1 WITH NO DATA")
		w.exec("CREATE MATERIALIZED VIEW " + name + "_weekly WITH (timescaledb.continuous) AS SELECT time_bucket('7 days', bucket) AS bucket, max(high) AS high FROM " + name + "_daily GROUP BY 1 WITH NO DATA")
		w.exec("CREATE VIEW " + name + "_top AS SELECT max(high) AS top FROM " + name + "_weekly")
		w.exec("CREATE VIEW " + name + "_raw AS SELECT v FROM " + name)
	}
	w.Pipeline.Aggregates = []*spec.Aggregate{{Name: "own_daily"}}
	v, err := w.Views(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var read []string
	for name, l := range v.Views {
		if !l.Partial && l.Query != "" {
			read = append(read, name)
		}
	}
	slices.Sort(read)
	if want := []string{"own_daily", "own_top", "own_weekly"}; !slices.Equal(read, want) || !v.Views["own_daily"].Real {
		t.Errorf("%q, want %q", read, want)
	}
	s, err := w.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), s.aggregatesSQL(), []string{"public.own_daily"}); err != nil {
			return err
		}
		var locked []string
		err := tx.QueryRow(t.Context(), "SELECT array_agg(DISTINCT c.relname::text ORDER BY c.relname::text) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname ~ '^(own|others)'").Scan(&locked)
		if !slices.Equal(locked, []string{"own"}) {
			t.Errorf("locked: %q", locked)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
