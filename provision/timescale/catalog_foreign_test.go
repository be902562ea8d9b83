package timescale

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// mine is a table without anything special.
func mine(name string) *spec.Table {
	return &spec.Table{Name: name, PrimaryKey: []string{"id"}, Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "v", Type: spec.Text, Null: true}}}
}

// Bounds of partitions that are no time of Go's text form: of a table that nobody declares, so none may be in the way.
func TestPartitionBounds(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.exec(`CREATE TABLE others (t timestamptz NOT NULL) PARTITION BY RANGE (t);
		CREATE TABLE others_old PARTITION OF others FOR VALUES FROM ('-infinity') TO ('0044-03-15 00:00:00+00 BC');
		CREATE TABLE others_mid PARTITION OF others FOR VALUES FROM ('2020-01-01 00:00:00.000001+00') TO ('20000-01-01 00:00:00+00');
		CREATE TABLE others_new PARTITION OF others FOR VALUES FROM ('20000-01-01 00:00:00+00') TO ('infinity');
		CREATE TABLE ends (t timestamptz NOT NULL) PARTITION BY RANGE (t); CREATE TABLE ends_all PARTITION OF ends FOR VALUES FROM ('4714-11-24 00:00:00+00 BC') TO ('294276-12-31 23:59:59.999999+00');
		CREATE TABLE numbers (n integer NOT NULL) PARTITION BY RANGE (n); CREATE TABLE numbers_1 PARTITION OF numbers FOR VALUES FROM (1) TO (2);
		CREATE TABLE open (t timestamptz NOT NULL) PARTITION BY RANGE (t); CREATE TABLE open_all PARTITION OF open FOR VALUES FROM (MINVALUE) TO (MAXVALUE)`)
	if _, err := w.table(mine("mine")).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := w.cat.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	far := time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	for table, want := range map[string][]catalog.Partition{
		"others": {
			{Name: "others_old", To: time.Date(-43, 3, 15, 0, 0, 0, 0, time.UTC)},
			{Name: "others_mid", From: time.Date(2020, 1, 1, 0, 0, 0, 1000, time.UTC), To: far},
			{Name: "others_new", From: far},
		},
		"numbers": {{Name: "numbers_1"}},
		"open":    {{Name: "open_all"}},
	} {
		got := slices.Clone(s.Relations[table].Parts)
		for i := range got {
			got[i].Schema, got[i].Rows = "", 0
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", table, got, want)
		}
	}
}

// The policies of hypertables that are cut by a number: their ages are numbers, here nanoseconds, and no intervals.
func TestPoliciesInNumbers(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Timescale(t))
	for _, sql := range []string{
		"CREATE TABLE nanos (t bigint NOT NULL, v integer)",
		"SELECT create_hypertable('nanos', by_range('t', 86400000000000))",
		"CREATE FUNCTION nanos_now() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT (extract(epoch FROM now()) * 1000000000)::bigint'",
		"SELECT set_integer_now_func('nanos', 'nanos_now')",
		"SELECT add_retention_policy('nanos', BIGINT '604800000000000')",
		"ALTER TABLE nanos SET (timescaledb.enable_columnstore = true)",
		"CALL add_columnstore_policy('nanos', BIGINT '86400000000000')",
		"CREATE MATERIALIZED VIEW nanos_daily WITH (timescaledb.continuous) AS SELECT time_bucket(BIGINT '86400000000000', t) AS bucket, max(v) AS high FROM nanos GROUP BY 1 WITH NO DATA",
		"SELECT add_continuous_aggregate_policy('nanos_daily', BIGINT '864000000000000', BIGINT '86400000000000', interval '1 hour')",
	} {
		w.exec(sql)
	}
	w.apply(w.table(mine("mine")))
	live, err := w.table(mine("nanos")).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"retention": "604800000000000", "columnstore": "after 86400000000000"} {
		if a, _ := live.Get(name); a.Value != want {
			t.Errorf("%s: %q, want %q", name, a.Value, want)
		}
	}
}

// locked has another session hold a table as VACUUM FULL does, while f runs.
func (w *tableHarness) locked(table string, f func()) {
	w.t.Helper()
	tx, err := w.cat.DB.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(w.t.Context())) }()
	if _, err := tx.Exec(w.t.Context(), "LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		w.t.Fatal(err)
	}
	f()
}

// A table that the pipeline does not know, and what reads it, is in nobody's way while another session holds it. Once it is free,
// it can be imported whole.
func TestOthersAreLocked(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	w := newTableHarness(t, url+"&lock_timeout=1s")
	w.exec(`CREATE TABLE others (id bigint PRIMARY KEY, a integer, b integer GENERATED ALWAYS AS (a * 2) STORED); CREATE INDEX others_high ON others (a) WHERE a > 7;
		CREATE VIEW others_view AS SELECT a FROM others; CREATE VIEW others_second AS SELECT a FROM others_view; CREATE MATERIALIZED VIEW others_kept AS SELECT a FROM others;
		CREATE TABLE mine (id bigint PRIMARY KEY, v text, w bigint GENERATED ALWAYS AS (id * 2) STORED); CREATE VIEW mine_view AS SELECT id FROM mine; CREATE VIEW gone AS SELECT v FROM mine`)
	mine, over, gone := mine("mine"), &spec.View{Name: "mine_view", Query: "SELECT id FROM mine"}, &spec.Removed{Kind: "view", Name: "gone"}
	mine.Columns = append(mine.Columns, &spec.Column{Name: "w", Type: spec.Bigint, Null: true, Generated: "id * 2"})
	p := w.cat.Pipeline
	p.Tables, p.Views, p.Removed = []*spec.Table{mine}, []*spec.View{over}, []*spec.Removed{gone}
	queries := NewQueries(p, w.cat)
	w.locked("others", func() {
		for r, want := range map[resource]plan.Action{
			w.table(mine): plan.None, &view.View{Queries: queries, Spec: over}: plan.None, &view.View{Queries: queries, Removed: gone}: plan.Delete,
		} {
			c := w.plan(r)
			if query, _ := c.Live.Get("query"); c.Action != want || c.Impossible() || strings.HasPrefix(c.Address, "view.") && query.Value == "" {
				t.Errorf("%s: %s %+v %+v", c.Address, c.Action, c.Live, c.Findings)
			}
		}
		unmanaged, err := w.cat.Unmanaged(t.Context())
		if want := []string{"table.mine", "table.others", "view.gone", "view.mine_view", "view.others_second", "view.others_view"}; err != nil || !slices.Equal(unmanaged, want) {
			t.Errorf("%q %v, want %q", unmanaged, err, want)
		}
		if got, err := w.cat.DependentViews(t.Context(), "others", "a"); err != nil || !slices.Contains(got, "view.others_view") {
			t.Errorf("%q %v", got, err)
		}
		_, table := table.Block(t.Context(), w.cat, "others")
		_, reader := view.Block(t.Context(), w.cat, "others_view")
		for _, err := range []error{table, reader} {
			if pg.Code(err) != "55P03" || !strings.Contains(err.Error(), "another session holds") {
				t.Errorf("import under a lock: %v", err)
			}
		}
	})
	text, err := table.Block(t.Context(), w.cat, "others")
	for _, want := range []string{`generated = "(a * 2)"`, "# index others_high is of a kind"} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%v %s, want %q", err, text, want)
		}
	}
	for name, want := range map[string]string{"others_view": "FROM public.others", "others_second": "FROM public.others_view"} {
		if text, err := view.Block(t.Context(), w.cat, name); err != nil || !strings.Contains(text, want) {
			t.Errorf("%v %s, want %q", err, text, want)
		}
	}
}

// Another's aggregate is imported whole.
func TestOthersAggregateIsImported(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Timescale(t))
	w.exec("CREATE TABLE others (t timestamptz NOT NULL, v integer)")
	w.exec("SELECT create_hypertable('others', by_range('t'))")
	w.exec("CREATE MATERIALIZED VIEW others_daily WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS SELECT time_bucket('1 day', t) AS bucket, max(v) AS high FROM others GROUP BY 1 WITH NO DATA")
	w.cat.Pipeline.Aggregates = []*spec.Aggregate{{Name: "own_daily"}}
	text, err := view.AggregateBlock(t.Context(), w.cat, "others_daily")
	if err != nil || !strings.Contains(text, "table.others\n") || !strings.Contains(text, "FROM public.others") || !strings.Contains(text, "real_time = true") {
		t.Errorf("%v %s", err, text)
	}
}

// An index that treats values otherwise than a plain one over the same columns is another one.
func TestUnusualIndexes(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.exec(`CREATE TABLE ix (id bigint PRIMARY KEY, v text, c text COLLATE "C", n varchar(9), a integer[])`)
	unusual := map[string]string{
		"CREATE INDEX ix_pattern ON ix (v text_pattern_ops)":  "using btree (v text_pattern_ops)",
		`CREATE INDEX ix_collation ON ix (id, v COLLATE "C")`: `using btree (id, v COLLATE "C")`,
	}
	if w.text("SELECT (current_setting('server_version_num')::int >= 150000)::text") == "true" {
		unusual["CREATE UNIQUE INDEX ix_nulls ON ix (v) NULLS NOT DISTINCT"] = "unique using btree (v) NULLS NOT DISTINCT"
		unusual["ALTER TABLE ix ADD CONSTRAINT ix_null UNIQUE NULLS NOT DISTINCT (c)"] = "unique using btree (c) NULLS NOT DISTINCT"
	}
	usual := map[string]string{
		"CREATE INDEX ix_own ON ix (c)": "c", "CREATE INDEX ix_words ON ix (n, a)": "n, a", `CREATE INDEX ix_same ON ix (v COLLATE "default")`: "v", "ALTER TABLE ix ADD CONSTRAINT ix_both UNIQUE (v, n)": "unique v, n",
	}
	declared := mine("ix")
	for sql := range unusual {
		w.exec(sql)
	}
	for sql := range usual {
		w.exec(sql)
	}
	live, err := w.table(declared).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`ix_\w+`)
	for _, all := range []map[string]string{unusual, usual} {
		for sql, want := range all {
			if a, _ := live.Get("index " + name.FindString(sql)); a.Value != want {
				t.Errorf("%s: %q, want %q", sql, a.Value, want)
			}
		}
	}
	text, err := table.Block(t.Context(), w.cat, "ix")
	if err != nil {
		t.Fatal(err)
	}
	for sql := range unusual {
		if want := "# index " + name.FindString(sql) + " is of a kind"; !strings.Contains(text, want) {
			t.Errorf("%s lacks %q", text, want)
		}
	}
	if !strings.Contains(text, `name    = "ix_same"`) {
		t.Errorf("%s lacks ix_same", text)
	}
	// Declared as plain ones, they are created again.
	declared.Indexes = []*spec.Index{{Name: "ix_pattern", Columns: []string{"v"}}, {Name: "ix_collation", Columns: []string{"id", "v"}}, {Name: "ix_same", Columns: []string{"v"}}}
	w.expect(w.apply(w.table(declared)), "index ix_collation intent, index ix_pattern intent", "")
}

// The name of a column is no attribute of another one.
func TestColumnNamedLikeAnAttribute(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.exec(`CREATE TABLE ds (id bigint PRIMARY KEY, v text, "v description" integer, "Odd" text); COMMENT ON COLUMN ds.v IS 'The value.'; COMMENT ON COLUMN ds."v description" IS 'Another.'`)
	s := mine("ds")
	s.Columns[1].Description = "The value."
	c := w.apply(w.table(s))
	w.expect(c, "", "")
	for name, want := range map[string]string{
		"column v": "text", "column v description": "The value.", `column "v description"`: "integer", `column "v description" description`: "Another.", `column "Odd"`: "text",
	} {
		if a, _ := c.Live.Get(name); a.Value != want {
			t.Errorf("%s: %q, want %q", name, a.Value, want)
		}
	}
	// It is not ours either: the description goes, and the column stays.
	s.Columns[1].Description = ""
	w.expect(w.apply(w.table(s)), "column v description reset", "")
	if got := w.text(`SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'ds'::regclass AND attname = 'v description'`); got != "1" {
		t.Error("the column is gone")
	}
}

// A default is compared with the help of a temporary table. Without the right to make one, what the server computes is compared.
func TestTableWithoutTemporary(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	database := pg.Ident(w.text("SELECT current_database()"))
	w.exec("REVOKE TEMPORARY ON DATABASE " + database + " FROM PUBLIC; CREATE SCHEMA secret; CREATE FUNCTION secret.f() RETURNS text LANGUAGE sql AS 'SELECT 1'")
	them := w.as("CREATE ROLE %[1]s; GRANT CREATE ON SCHEMA public TO %[1]s")
	s := mine("tmp")
	s.Columns[1].Default = "'x'"
	s.Columns = append(s.Columns, &spec.Column{Name: "p", Type: spec.Double, Default: "0.0"}, &spec.Column{Name: "q", Type: spec.Timestamptz, Default: "now() - '1 hour'::interval"},
		&spec.Column{Name: "twice", Type: spec.Double, Null: true, Generated: "2 * p"})
	them.apply(them.table(s))
	s.Columns[1].Default, s.Columns[len(s.Columns)-2].Default = "('x'::text)", "(now()-interval '60 minutes')"
	if c := them.plan(them.table(s)); c.Action != plan.None {
		t.Errorf("the same in other words: %+v", c.Diffs)
	}
	s.Columns[1].Default = "'y'"
	if c := them.plan(them.table(s)); c.Action != plan.Update || len(c.Diffs) != 1 {
		t.Errorf("another default: %s %+v", c.Action, c.Diffs)
	}
	s.Columns[1].Default = "secret.f()"
	if _, err := them.table(s).Read(t.Context()); pg.Code(err) != "42501" {
		t.Error(err)
	}
}
