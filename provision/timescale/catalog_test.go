package timescale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

func TestCatalogOnPostgres(t *testing.T) { catalogs(t, newTableHarness(t, testkit.Postgres(t))) }

func catalogs(t *testing.T, w *tableHarness) {
	w.exec(schema.SQL)
	w.apply(w.table(sample("m", false)))
	w.fill("m")
	w.exec(`CREATE VIEW direct AS SELECT price, time FROM m; CREATE VIEW counted AS SELECT count(*) AS n FROM m; CREATE VIEW second AS SELECT price AS p FROM direct`)
	w.exec(`CREATE MATERIALIZED VIEW kept AS SELECT price + bid AS x FROM m`)
	w.exec(`CREATE SCHEMA other; CREATE TABLE other.hidden (a int); CREATE VIEW other.far AS SELECT note FROM m`)
	want, reads := []string{"table.m", "view.counted", "view.direct", "view.second"}, "materialized view "+w.text("SELECT current_schema()::text")+".kept, view.direct"
	caps, err := w.cat.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Version != "" {
		w.exec(`CREATE MATERIALIZED VIEW hours WITH (timescaledb.continuous) AS SELECT time_bucket('1 hour', time) AS hour, max(price) AS high FROM m GROUP BY 1 WITH NO DATA`)
		w.exec(`CREATE MATERIALIZED VIEW days WITH (timescaledb.continuous) AS SELECT time_bucket('1 day', hour) AS day, max(high) AS high FROM hours GROUP BY 1 WITH NO DATA`)
		want, reads = append([]string{"aggregate.days", "aggregate.hours"}, want...), "aggregate.hours, "+reads
	}
	w.cat.Reset()
	if got, err := w.cat.Unmanaged(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v, want %q", got, err, want)
	}
	for _, test := range []struct{ table, column, readers string }{
		{"m", "price", reads},
		{"m", "note", "view other.far"},
		{"m", "source", ""},
		{"direct", "price", "view.second"},
		{"second", "", ""},
	} {
		if got, err := w.cat.DependentViews(t.Context(), test.table, test.column); err != nil || strings.Join(got, ", ") != test.readers {
			t.Errorf("%s.%s is read by %q %v, want %q", test.table, test.column, got, err, test.readers)
		}
	}
	if got, _ := w.cat.DependentViews(t.Context(), "m", ""); !slices.Contains(got, "view.counted") {
		t.Errorf("the table is read by %q", got)
	}
	if caps.Version != "" {
		if got, _ := w.cat.DependentViews(t.Context(), "hours", "high"); !slices.Equal(got, []string{"aggregate.days"}) {
			t.Errorf("aggregate.hours is read by %q", got)
		}
	}
	d := w.cat.Describe()
	if d.System != "PostgreSQL" || !strings.Contains(d.Text, "1 table, 4 views") || strings.Contains(d.Text, "password") || d.Requests == 0 || d.Seconds <= 0 {
		t.Errorf("%+v", d)
	}
}

// A database user named cryptoviz has the engine's schema first in its path: its tables are made there, and the engine's own
// are not taken for them.
func TestCatalogOfUserCryptoviz(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	cfg := w.cat.DB.Config()
	cfg.ConnConfig.RuntimeParams["search_path"] = "cryptoviz, public"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.cat = catalog.NewCatalog(pool)
	w.exec(schema.SQL)
	if got, err := w.cat.Unmanaged(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("%q %v: the engine's own tables are missing in engineRelations", got, err)
	}
	w.apply(w.table(sample("m", false)))
	if got := w.text("SELECT schemaname FROM pg_tables WHERE tablename = 'm'"); got != "cryptoviz" {
		t.Error(got)
	}
	// A table with the name of an engine's own is not taken for done.
	s := sample("slot", false)
	c := w.plan(w.table(s))
	if c.Action != plan.Create || !c.Impossible() {
		t.Errorf("%s %+v", c.Action, c.Findings)
	}
}

// The same user before the first apply, when he may make nothing in the schema public: the plan must not call it impossible.
func TestTableInTheEngineSchema(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.exec("DROP SCHEMA IF EXISTS cryptoviz CASCADE")
	database := pg.Ident(w.text("SELECT current_database()"))
	theirs := w.as("CREATE ROLE %[1]s LOGIN; GRANT CREATE ON DATABASE " + database + " TO %[1]s; ALTER DATABASE " + database + " SET search_path = cryptoviz, public")
	if c := theirs.plan(theirs.table(sample("m", false))); c.Impossible() {
		t.Errorf("%+v", c.Findings)
	}
	theirs.apply(&Engine{Pipeline: theirs.cat.Pipeline, Catalog: theirs.cat})
	theirs.apply(theirs.table(sample("m", false)))
	w.exec("ALTER DATABASE " + database + " RESET search_path")
	// Who may write to the ledger applies; who may not only plans, and lacks nothing.
	applies := w.as("CREATE ROLE %[1]s LOGIN; GRANT USAGE ON SCHEMA cryptoviz TO %[1]s; " +
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cryptoviz TO %[1]s")
	if c := applies.plan(applies.table(sample("n", false))); strings.Join(codes(c), " ") != "CV-T28" {
		t.Errorf("%+v", c.Findings)
	}
}

// A server, or a user, that takes no changes can be planned for: what a change would be is compared all the same.
func planReadOnly(t *testing.T, w *tableHarness, theirs *pgxpool.Pool, why string) {
	t.Helper()
	them := &tableHarness{t: t, cat: catalog.NewCatalog(theirs), ledger: w.ledger}
	them.cat.Pipeline = w.cat.Pipeline
	caps, err := them.cat.Capabilities(t.Context())
	if err != nil || !strings.Contains(caps.ReadOnly, why) {
		t.Fatalf("%q %v, want %q", caps.ReadOnly, err, why)
	}
	if err := caps.Writable(); !errors.Is(err, catalog.ErrReadOnly) || !strings.Contains(err.Error(), why) {
		t.Error(err)
	}
	if c := them.plan(them.table(sample("m", false))); c.Action != plan.None {
		t.Errorf("as it is: %+v %q", c.Diffs, c.Notes)
	}
	s := sample("m", false)
	s.Columns = slices.Insert(s.Columns, 1, &spec.Column{Name: "more", Type: spec.Double, Null: true})
	s.Columns[len(s.Columns)-2].Default = "'b'"
	s.Columns[len(s.Columns)-4].Type = "bigint"
	c := them.plan(them.table(s))
	if c.Action != plan.Update || len(c.Diffs) != 3 || c.Impossible() || !strings.Contains(strings.Join(c.Notes, " "), "not tried on the server") {
		t.Errorf("changed: %s %+v %+v %q", c.Action, c.Diffs, c.Findings, c.Notes)
	}
	for _, d := range c.Diffs {
		if d.Cause != plan.Intent {
			t.Errorf("%s: %s", d.Name, d.Cause)
		}
	}
	if c := them.plan(them.table(sample("another", false))); c.Action != plan.Create || c.Impossible() {
		t.Errorf("new: %s %+v %q", c.Action, c.Findings, c.Notes)
	}
	if c := them.plan(them.removed("m")); c.Action != plan.Delete || c.Findings[0].Code != "CV-T29" || c.Findings[0].Loss == nil {
		t.Errorf("removed: %s %+v %q", c.Action, c.Findings, c.Notes)
	}
	if text := them.cat.Describe().Text; !strings.Contains(text, "read-only: "+caps.ReadOnly) {
		t.Error(text)
	}
}

// readOnlyWorld has the engine's tables, a table and rows.
func readOnlyWorld(t *testing.T, url string) *tableHarness {
	w := newTableHarness(t, url)
	w.apply(&Engine{Pipeline: w.cat.Pipeline, Catalog: w.cat})
	w.apply(w.table(sample("m", false)))
	w.fill("m")
	for address, state := range w.ledger {
		if err := (&ledger.Ledger{DB: w.cat.DB}).Put(t.Context(), address, ledger.Entry{State: state}, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func TestPlanReadOnly(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t) + "&search_path=public"
	w := readOnlyWorld(t, url)
	pool, err := pgxpool.New(t.Context(), url+"&default_transaction_read_only=on")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	planReadOnly(t, w, pool, "default_transaction_read_only")

	const reader = "CREATE ROLE %[1]s LOGIN; GRANT USAGE ON SCHEMA public, cryptoviz TO %[1]s; GRANT SELECT ON ALL TABLES IN SCHEMA public, cryptoviz TO %[1]s"
	theirs := w.as(reader)
	planReadOnly(t, w, theirs.cat.DB, "may not write to cryptoviz.managed")
	w.exec("REVOKE TEMPORARY ON DATABASE " + pg.Ident(w.text("SELECT current_database()")) + " FROM PUBLIC")
	planReadOnly(t, w, theirs.cat.DB, "may not write to cryptoviz.managed")
}

// A standby can be planned for, and apply is told where to go instead.
func TestStandby(t *testing.T) {
	t.Parallel()
	server := testkit.StartPostgres(t, nil)
	pool, err := pgxpool.New(t.Context(), server.URL()+"&search_path=public")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	w := readOnlyWorld(t, server.URL()+"&search_path=public")
	var data string
	if err := pool.QueryRow(t.Context(), "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644); err != nil { //nolint:gosec // the server's account reads it
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	planReadOnly(t, w, pool, "standby")
}

// many makes n tables of the kinds that a pipeline has.
func many(n int) *spec.Pipeline {
	p := &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}}
	for i := range n {
		s := sample(fmt.Sprintf("m%04d", i), false)
		if i%2 == 1 {
			s.Hypertable = nil
		} else {
			s.Hypertable.ChunkInterval = 30 * 24 * time.Hour
		}
		p.Tables = append(p.Tables, s)
	}
	return p
}

// The whole catalog takes the same number of requests whatever the number of tables.
func TestCatalogRequests(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	requests := map[int]int{}
	for _, n := range []int{2, 30} {
		w.cat = catalog.NewCatalog(w.cat.DB)
		w.cat.Pipeline = many(n)
		for _, s := range w.cat.Pipeline.Tables {
			w.apply(w.table(s))
		}
		w.cat = catalog.NewCatalog(w.cat.DB)
		w.cat.Pipeline = many(n)
		w.converged()
		requests[n] = w.cat.Describe().Requests
	}
	if requests[2] != requests[30] || requests[30] > 20 {
		t.Errorf("requests by number of tables: %v", requests)
	}
}

// converged plans all tables with one snapshot, as plan does, and demands that nothing differs.
func (w *tableHarness) converged() {
	w.t.Helper()
	for _, s := range w.cat.Pipeline.Tables {
		r := w.table(s)
		live, err := r.Read(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		c := compared(r, nil, false, live)
		if err := r.Assess(w.t.Context(), &c); err != nil {
			w.t.Fatal(err)
		}
		if c.Action != plan.None {
			w.t.Fatalf("%s differs: %+v", c.Address, c.Diffs)
		}
	}
}

// TestCatalogSpeed measures; it runs only when asked for.
func TestCatalogSpeed(t *testing.T) {
	t.Parallel()
	if os.Getenv("CRYPTOVIZ_BENCH") == "" {
		t.Skip("set CRYPTOVIZ_BENCH=1 to measure")
	}
	for name, url := range map[string]func(testing.TB) string{"PostgreSQL": testkit.Postgres, "TimescaleDB": testkit.Timescale} {
		w := newTableHarness(t, url(t))
		have := 0
		for _, n := range []int{200, 1000} {
			p := many(n)
			w.cat = catalog.NewCatalog(w.cat.DB)
			w.cat.Pipeline = p
			started := time.Now()
			for _, s := range p.Tables[have:] {
				r := w.table(s)
				if _, err := r.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
				c := compared(r, nil, false, nil)
				if err := r.Assess(t.Context(), &c); err != nil {
					t.Fatal(err)
				}
				if err := r.Make(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			made := time.Since(started)
			have = n
			for range 3 {
				w.cat = catalog.NewCatalog(w.cat.DB)
				w.cat.Pipeline = p
				started = time.Now()
				if _, err := w.cat.Snapshot(context.Background()); err != nil {
					t.Fatal(err)
				}
				loaded := time.Since(started)
				requests := w.cat.Describe().Requests
				w.converged()
				t.Logf("%s: %d tables: made in %s; catalog %s in %d requests; whole plan %s in %d requests", name, n, made.Round(time.Millisecond), loaded.Round(time.Millisecond), requests, time.Since(started).Round(time.Millisecond), w.cat.Describe().Requests)
			}
		}
	}
}
