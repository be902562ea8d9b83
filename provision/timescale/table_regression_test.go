package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
)

const days = 24 * time.Hour

func (w *tableHarness) removed(name string) *table.Table {
	return &table.Table{Catalog: w.cat, Removed: &spec.Removed{Kind: "table", Name: name}, Now: time.Now}
}

func TestTableIsDropped(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.apply(w.table(sample("m", false)))
	w.fill("m")
	w.exec("CREATE VIEW v AS SELECT price FROM m")
	w.expect(w.plan(w.removed("m")), "", "CV-T20 CV-T29")
	w.cat.Pipeline.Removed = []*spec.Removed{{Kind: "view", Name: "v"}}
	w.expect(w.plan(w.removed("m")), "", "CV-T29")
	w.exec("DROP VIEW v")
	c := w.plan(w.removed("m"))
	if loss := c.Findings[0].Loss; loss == nil || loss.Count != 20 || loss.Bytes < 20*50 || loss.When != "at once" {
		t.Errorf("loss %+v", loss)
	}
	w.apply(w.removed("m"))
	if again := w.plan(w.removed("m")); again.Action != plan.None || again.Live != nil {
		t.Errorf("%+v", again)
	}
	w.exec("CREATE VIEW m AS SELECT 1 AS price")
	w.expect(w.plan(w.removed("m")), "", "CV-T01")
	c = w.plan(w.table(sample("m", false)))
	if strings.Join(codes(c), " ") != "CV-T01" || !c.Impossible() {
		t.Errorf("%+v", c.Findings)
	}
}

// An empty table takes what one with rows does not.
func TestTableWithoutRows(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.apply(w.table(sample("m", false)))
	s := sample("m", false)
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double}, &spec.Column{Name: "lot", Type: spec.Double, Default: "random()"})
	column(s, "bid").Null = false
	column(s, "note").Type, column(s, "note").Default = spec.Integer, "1"
	s.PrimaryKey = []string{"time"}
	s.Hypertable.ChunkInterval = 12 * time.Hour
	if c := w.apply(w.table(s)); strings.Join(codes(c), " ") != "CV-T04" {
		t.Errorf("%+v", c.Findings)
	}
	// Rows that come between plan and apply stay: partitions of the other length follow those that exist.
	s = sample("m", false)
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double}, &spec.Column{Name: "lot", Type: spec.Double, Default: "random()"})
	column(s, "bid").Null = false
	column(s, "note").Type, column(s, "note").Default = spec.Integer, "1"
	s.PrimaryKey = []string{"time"}
	c := w.plan(w.table(s))
	w.exec("INSERT INTO m (time, source, bid, ask) VALUES (now(), 'a', 1, 1)")
	if err := w.table(s).Make(t.Context(), c); err != nil {
		t.Errorf("apply over new rows: %v", err)
	}
	if n := w.text("SELECT count(*)::text FROM m"); n != "1" {
		t.Errorf("%s rows", n)
	}
}

// The values that a type change spoils are counted; names in SQL are quoted.
func TestTableTypes(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	for _, test := range []struct {
		from   string
		values string
		to     spec.ColumnType
		found  string
		rows   int64
	}{
		{"double precision", "(1), (2), (NULL)", spec.Integer, "CV-T09", 0},
		{"double precision", "(1.5), (2), (2.5)", spec.Integer, "CV-T10", 2},
		{"double precision", "(1e30), (2)", spec.Bigint, "CV-T11", 0},
		{"double precision", "(0.1), ('NaN')", spec.Numeric, "CV-T09", 0},
		{"double precision", "(1.0000000000000002)", spec.Numeric, "CV-T10", 1},
		{"numeric", "(1.00000000000000000001), (1)", spec.Double, "CV-T10", 1},
		{"numeric(18,8)", "(1.5)", spec.Numeric, "", 0},
		{"character varying(9)", "('a')", spec.Text, "", 0},
		{"bigint", "(9007199254740993), (1)", spec.Double, "CV-T10", 1},
		{"text", "('1'), ('-2')", spec.Integer, "CV-T09", 0},
		{"text", "('1'), ('01'), ('2 ')", spec.Integer, "CV-T10", 2},
		{"text", "('1'), ('x'), ('')", spec.Integer, "CV-T11", 0},
		{"text", "('2026-01-01 00:00:00+00')", spec.Timestamptz, "CV-T09", 0},
		{"timestamptz", "(now())", spec.Text, "CV-T09", 0},
		{"timestamptz", "(now())", spec.Bigint, "CV-T11", 0},
		{"integer", "(0), (1)", spec.Boolean, "CV-T09", 0},
		{"integer", "(0), (2)", spec.Boolean, "CV-T10", 1},
		{"jsonb", `('{"a": 1}')`, spec.Text, "CV-T09", 0},
		{"json", `('{"a":  1}'), (NULL)`, spec.Text, "CV-T09", 0},
		{"json[]", `('{"1", " 2"}')`, spec.Text, "CV-T09", 0},
		{"xml", "('<a/>')", spec.Text, "", 0},
		{"point", "('(1,2)')", spec.Text, "CV-T09", 0},
		{"json", "('1')", spec.Bigint, "CV-T11", 0},
	} {
		t.Run(test.from+" to "+string(test.to)+" "+test.values, func(t *testing.T) {
			w := w.on(t)
			delete(w.ledger, "table.order")
			w.exec(`DROP TABLE IF EXISTS "order"; CREATE TABLE "order" (id bigint PRIMARY KEY, "user" ` + test.from + `); INSERT INTO "order" SELECT row_number() OVER (), v::` + test.from + ` FROM (VALUES ` + test.values + `) x(v)`)
			s := &spec.Table{Name: "order", Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "user", Type: test.to, Null: true}}, PrimaryKey: []string{"id"}}
			c := w.plan(w.table(s))
			w.expect(c, "column user intent", test.found)
			if f := c.Findings; test.rows > 0 && (f[0].Loss == nil || f[0].Loss.Count != test.rows) {
				t.Errorf("%+v", f)
			}
			if !c.Impossible() {
				w.apply(w.table(s))
			}
		})
	}
}

// What gives a column its value without being asked is taken off with a warning, unless the last apply had set it.
func TestTableFillsNoMore(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := &spec.Table{Name: "m", PrimaryKey: []string{"id"}, Columns: []*spec.Column{
		{Name: "id", Type: spec.Bigint}, {Name: "a", Type: spec.Text, Null: true}, {Name: "b", Type: spec.Integer}, {Name: "c", Type: spec.Bigint, Null: true}, {Name: "d", Type: spec.Text, Default: "'y'"},
	}}
	adopted := `CREATE TABLE m (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a text NOT NULL DEFAULT 'x', b bigint NOT NULL DEFAULT 7, c bigint GENERATED ALWAYS AS (id * 2) STORED, d text NOT NULL DEFAULT 'x')`
	w.exec(adopted + "; INSERT INTO m DEFAULT VALUES")
	c := w.plan(w.table(s))
	w.expect(c, "column a intent, column b intent, column c intent, column d intent, column id intent", "CV-T09 CV-T37")
	var found []string
	for _, f := range c.Findings {
		if f.Code == "CV-T37" {
			found = append(found, f.Attr+": "+f.Text)
		}
	}
	if want := []string{
		"column id: id has an identity, which apply takes off: inserts that do not name it fail from then on",
		"column a: a has the default 'x'::text, which apply takes off: inserts that do not name it leave it empty from then on",
		"column b: b has the default 7, which apply takes off: inserts that do not name it fail from then on",
		"column c: c has the expression (id * 2), which apply takes off: inserts that do not name it leave it empty from then on",
	}; !slices.Equal(found, want) {
		t.Errorf("%q", found)
	}
	w.apply(w.table(s))

	t.Log("what somebody added outside")
	w.exec("ALTER TABLE m ALTER b SET DEFAULT 5")
	w.expect(w.apply(w.table(s)), "column b drift", "CV-T37")

	t.Log("what the last apply set, also under another name, with another type, and where somebody changed it since")
	s.Columns[1].Default, s.Columns[2].Default, s.Columns[3].Generated = "'z'", "3", "id * 4"
	w.apply(w.table(s))
	w.exec("ALTER TABLE m ALTER b SET DEFAULT 5")
	s.Columns[1] = &spec.Column{Name: "e", Was: "a", Type: spec.Text, Null: true}
	s.Columns[2].Type, s.Columns[2].Default, s.Columns[3].Generated = spec.Bigint, "", ""
	w.expect(w.apply(w.table(s)), "column b both, column c intent, column e intent", "CV-T09 CV-T19")
}

// A generated column that is created again takes indexes with it: those that are declared are made again, the plan names the others.
// From PostgreSQL 17 on its expression changes in place, and all of them stay.
func TestTableGeneratedIndexes(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := &spec.Table{Name: "m", PrimaryKey: []string{"id"}, Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "d", Type: spec.Bigint, Null: true, Generated: "id * 2"}}}
	s.Indexes = []*spec.Index{{Name: "m_d", Columns: []string{"d"}}, {Name: "m_id", Columns: []string{"id"}}}
	w.apply(w.table(s))
	w.exec("CREATE INDEX one ON m (id, d); CREATE UNIQUE INDEX two ON m (id) INCLUDE (d); CREATE INDEX three ON m ((d + 1)); CREATE INDEX four ON m (id) WHERE d > 1; CREATE INDEX five ON m (id) WHERE id > 1")
	s.Columns[1].Generated = "id * 3"
	c := w.apply(w.table(s))
	notes, indexes := []string{"index four goes with column d", "index one goes with column d", "index three goes with column d", "index two goes with column d"}, "five m_d m_id m_pkey"
	if w.text("SELECT (current_setting('server_version_num')::int >= 170000)::text") == "true" {
		notes, indexes = nil, "five four m_d m_id m_pkey one three two"
	}
	if !slices.Equal(c.Notes, notes) {
		t.Errorf("%q", c.Notes)
	}
	if have := w.text("SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'm'"); have != indexes {
		t.Errorf("indexes afterwards: %s", have)
	}
}

// A plain table with rows becomes a hypertable; the way back is impossible.
func becomesHypertable(t *testing.T, w *tableHarness) {
	s := sample("m", true)
	h := s.Hypertable
	s.Hypertable = nil
	w.apply(w.table(s))
	w.fill("m")
	w.exec("INSERT INTO m (time, source) VALUES (now() - interval '500 days', 'old')")
	s.Hypertable = h
	c := w.plan(w.table(s))
	w.expect(c, "chunk_interval intent, columnstore intent, columnstore order_by intent, columnstore segment_by intent, layout intent, retention intent, time intent", "CV-T07 CV-T21")
	if i := slices.IndexFunc(c.Findings, func(f plan.Finding) bool { return f.Code == "CV-T07" }); c.Findings[i].Loss.Count != 1 {
		t.Errorf("loss %+v", c.Findings[i].Loss)
	}
	w.apply(w.table(s))
	if n := w.text("SELECT count(*)::text FROM m"); n != "21" {
		t.Errorf("%s rows after the move", n)
	}
	w.exec("CREATE TABLE p (time timestamptz NOT NULL, source text PRIMARY KEY)")
	c = w.plan(w.table(&spec.Table{
		Name: "p", Columns: []*spec.Column{{Name: "time", Type: spec.Timestamptz}, {Name: "source", Type: spec.Text}}, PrimaryKey: []string{"source"},
		Hypertable: &spec.Hypertable{Time: "time", ChunkInterval: day},
	}))
	w.expect(c, "chunk_interval intent, layout intent, time intent", "CV-T17")
}

// Retention says what goes, and when; policies are set exactly.
func retentions(t *testing.T, w *tableHarness) {
	s := sample("m", true)
	s.Hypertable.Retention = 0
	w.apply(w.table(s))
	w.exec(`INSERT INTO m (time, source) SELECT date_trunc('day', now()) - i * interval '1 day', 'a' FROM generate_series(0, 39) i`)
	s.Hypertable.Retention = 60 * days
	w.expect(w.apply(w.table(s)), "retention intent", "CV-T31")
	s.Hypertable.Retention = 31 * days
	c := w.plan(w.table(s))
	w.expect(c, "retention intent", "CV-T07")
	loss := c.Findings[0].Loss
	// Of 40 days, those that ended 31 days ago or earlier: days 32 to 39.
	if loss.Chunks != 8 || loss.Count != 8 || loss.Bytes < 8*8192 || loss.When != "when the policy runs next" {
		t.Errorf("loss %+v", loss)
	}
	from, to := time.Now().UTC().Truncate(days).Add(-39*days), time.Now().UTC().Truncate(days).Add(-31*days)
	if loss.From != from.Format(time.RFC3339) || loss.To != to.Format(time.RFC3339) {
		t.Errorf("%s .. %s, want %s .. %s", loss.From, loss.To, from, to)
	}
	w.apply(w.table(s))
	w.exec("CALL run_job(" + w.text("SELECT job_id::text FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention' AND hypertable_name = 'm'") + ")")
	if n := w.text("SELECT count(*)::text FROM m"); n != "32" {
		t.Errorf("%s rows are left after the policy ran; the plan said 8 go", n)
	}
	s.Hypertable.Retention = 0
	w.expect(w.apply(w.table(s)), "retention reset", "")
	if n := w.text("SELECT count(*)::text FROM timescaledb_information.jobs WHERE hypertable_name = 'm' AND proc_name = 'policy_retention'"); n != "0" {
		t.Error("the policy is still there")
	}

	// Retention must not undercut what needs the rows.
	w.exec(`CREATE MATERIALIZED VIEW live_hours WITH (timescaledb.continuous) AS SELECT time_bucket('1 hour', time) AS hour, max(price) AS high FROM m GROUP BY 1 WITH NO DATA`)
	w.exec(`SELECT add_continuous_aggregate_policy('live_hours', interval '30 days', interval '1 hour', interval '1 hour')`)
	s.Hypertable.Retention = 29 * days
	w.expect(w.plan(w.table(s)), "retention intent", "CV-T07 CV-T26")
	w.cat.Pipeline.Aggregates = []*spec.Aggregate{{Name: "live_hours", From: s, Refresh: &spec.Refresh{Start: 20 * days}}}
	w.expect(w.plan(w.table(s)), "retention intent", "CV-T07")
	w.cat.Pipeline.Aggregates = append(w.cat.Pipeline.Aggregates, &spec.Aggregate{Name: "months", From: s, Refresh: &spec.Refresh{Start: 35 * days}})
	w.expect(w.plan(w.table(s)), "retention intent", "CV-T07 CV-T26")
	w.cat.Pipeline.Aggregates = nil
	w.exec("DROP MATERIALIZED VIEW live_hours")
	w.cat.Pipeline.Rollups = []*spec.Rollup{{Name: "hourly", From: s, KeepRaw: 28 * days}}
	w.expect(w.plan(w.table(s)), "retention intent", "CV-T07 CV-T27")
}

// The columnstore's changes tell how many chunks do not follow; what a chunk in it forbids is told.
func columnstores(t *testing.T, w *tableHarness) {
	s := sample("m", true)
	w.apply(w.table(s))
	w.exec(`INSERT INTO m (time, source) SELECT date_trunc('day', now()) - i * interval '1 day', 'a' FROM generate_series(0, 39) i`)
	w.exec("SELECT compress_chunk(c) FROM show_chunks('m', older_than => interval '30 days') c")
	s.Hypertable.Columnstore.SegmentBy = nil
	s.Hypertable.Columnstore.OrderBy = []string{"time"}
	s.Hypertable.Columnstore.After = 20 * days
	c := w.apply(w.table(s))
	w.expect(c, "columnstore intent, columnstore order_by intent, columnstore segment_by reset", "CV-T23")
	if len(c.Findings) != 2 || !strings.Contains(c.Findings[0].Text, "9 chunks") || !strings.Contains(c.Findings[1].Text, "10 chunks are older than 20d") {
		t.Errorf("%+v", c.Findings)
	}
	s.Hypertable.Columnstore.OrderBy = nil
	w.expect(w.apply(w.table(s)), "columnstore order_by reset", "CV-T23")
	s.Hypertable.Columnstore.OrderBy = []string{"time"}
	w.apply(w.table(s))
	column(s, "n").Type = spec.Bigint
	c = w.plan(w.table(s))
	w.expect(c, "column n intent", "CV-T12")
	if !strings.Contains(c.Findings[0].Text, "9 of 40 chunks") {
		t.Errorf("%+v", c.Findings)
	}
	column(s, "n").Type = spec.Integer
	s.Hypertable.Columnstore = nil
	w.expect(w.apply(w.table(s)), "columnstore order_by reset, columnstore reset", "CV-T23")
	if got := w.text("SELECT compression_enabled::text FROM timescaledb_information.hypertables WHERE hypertable_name = 'm'"); got != "true" {
		t.Error("the columnstore is off with chunks in it")
	}
	w.exec("SELECT decompress_chunk(c, true) FROM show_chunks('m') c")
	s.Hypertable.Columnstore = &spec.Columnstore{After: 50 * days}
	w.apply(w.table(s))
	s.Hypertable.Columnstore = nil
	w.apply(w.table(s))
	if got := w.text("SELECT compression_enabled::text FROM timescaledb_information.hypertables WHERE hypertable_name = 'm'"); got != "false" {
		t.Error("the columnstore is on with nothing in it")
	}
}

// The statements of TimescaleDB before 2.18 do the same.
func oldNames(t *testing.T, w *tableHarness) {
	s := sample("m", true)
	caps, err := w.cat.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !caps.Columns || !caps.ByRange || caps.Edition != "community" || !caps.AtLeast(2, 20) || caps.AtLeast(3, 0) {
		t.Errorf("%+v", caps)
	}
	caps.Columns, caps.ByRange = false, false
	for _, sql := range ddl.CreateSQL(s, caps, time.Now()) {
		w.exec(sql)
	}
	if c := w.plan(w.table(s)); c.Action != plan.None {
		t.Errorf("%+v", c.Diffs)
	}
	for _, sql := range []string{ddl.RemoveConversionSQL("m", caps), ddl.ColumnstoreOffSQL("m", caps), ddl.ColumnstoreSettingsSQL("m", []string{"note"}, []string{"n DESC"}, caps)} {
		w.exec(sql)
	}
	w.expect(w.plan(w.table(s)), "columnstore intent, columnstore order_by intent, columnstore segment_by intent", "")
}

// Editions and servers without TimescaleDB: what is declared and cannot be is told.
func TestTableFeatures(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", true)
	c := w.apply(w.table(s))
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "no retention, no columnstore") {
		t.Errorf("%q", c.Notes)
	}
	if c = w.plan(w.table(s)); len(c.Notes) != 1 || c.Action != plan.None {
		t.Errorf("%+v", c)
	}
	w.cat.Pipeline.Database.OnMissing = "error"
	w.expect(w.plan(w.table(s)), "", "CV-T25")
	apache := w.table(s)
	s.Name, s.Hypertable.ChunkInterval = "fresh", 2*days
	w.cat.Reset()
	now, err := w.cat.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now.Caps.Version, now.Caps.Edition = "2.23.0", "apache"
	if _, err := apache.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = compared(apache, nil, false, nil)
	if err := apache.Assess(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	if strings.Join(codes(c), " ") != "CV-T24" || len(c.Findings) != 2 {
		t.Errorf("%+v", c.Findings)
	}
	w.cat.Pipeline.Database.OnMissing = "degrade"
	c = compared(apache, nil, false, nil)
	if err := apache.Assess(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	_, retention := c.Diff("retention")
	_, columnstore := c.Diff("columnstore")
	if slices.Contains(codes(c), "CV-T24") || retention || columnstore || len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "no retention, no columnstore") {
		t.Errorf("%+v %+v %q", c.Diffs, c.Findings, c.Notes)
	}
}

// Large tables: nothing heavy is tried on them, and an index is built CONCURRENTLY where that is possible.
func TestTableLarge(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	s.Hypertable = nil
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source, note) SELECT now() + i * interval '1 second', 'a', repeat('x', 600) FROM generate_series(1, 30000) i")
	node := w.text("SELECT pg_relation_filenode('m')::text")
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double, Default: "random()"})
	column(s, "n").Type = spec.Bigint
	s.Indexes = append(s.Indexes, &spec.Index{Name: "m_more", Columns: []string{"n"}})
	c := w.plan(w.table(s))
	w.expect(c, "column ask intent, column n intent, index m_more intent", "CV-T03 CV-T09 CV-T18")
	if last := c.Steps[len(c.Steps)-1]; !strings.Contains(last, "CONCURRENTLY") || c.Steps[len(c.Steps)-2] != "COMMIT" {
		t.Errorf("%q", c.Steps)
	}
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "empty copy") || !strings.Contains(c.Findings[0].Text, "30,000 rows") {
		t.Errorf("%q %+v", c.Notes, c.Findings)
	}
	if w.text("SELECT pg_relation_filenode('m')::text") != node {
		t.Error("planning wrote the table anew")
	}
	w.apply(w.table(s))

	// What only the copy can tell: no conversion of the default.
	column(s, "n").Type, column(s, "n").Default = spec.Boolean, "'maybe'"
	if c := w.plan(w.table(s)); !c.Impossible() {
		t.Errorf("%+v", c.Findings)
	}
	// A build that was interrupted leaves an invalid index.
	column(s, "n").Type, column(s, "n").Default = spec.Bigint, "1::bigint + 1"
	w.exec("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'm_more'::regclass")
	c = w.plan(w.table(s))
	w.expect(c, "index m_more drift", "CV-T18")
	w.apply(w.table(s))
}

// PostgreSQL 17 gives a generated column another expression in place.
func largeInPlace(t *testing.T, w *tableHarness) {
	s := sample("m", false)
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source, note) SELECT now() + i * interval '1 second', 'a', repeat('x', 600) FROM generate_series(1, 30000) i")
	column(s, "twice").Generated = "price * 4"
	c := w.plan(w.table(s))
	w.expect(c, "column twice intent", "CV-T32")
	if !slices.ContainsFunc(c.Steps, func(sql string) bool { return strings.Contains(sql, "SET EXPRESSION") }) || len(c.Notes) != 1 {
		t.Errorf("%q %q", c.Steps, c.Notes)
	}
	w.apply(w.table(s))
}

// Another session holds a lock: plan says that it could not try, and apply ends by itself and names it.
func TestTableLocked(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	w.apply(w.table(s))
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double, Null: true})
	tx, err := w.cat.DB.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SELECT FROM m"); err != nil {
		t.Fatal(err)
	}
	c := w.plan(w.table(s))
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "another session holds a lock") || len(c.Steps) == 0 {
		t.Errorf("%q %q", c.Notes, c.Steps)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) //nolint:forbidigo // it ends with its context
	if err := w.table(s).Make(ctx, c); err == nil {
		t.Error("applied under the lock")
	}
	cancel()
	err = ddl.Explain(t.Context(), w.cat.DB, &pg.StatementError{SQL: "ALTER", Err: lockError(w)})
	if pid := fmt.Sprint(tx.Conn().PgConn().PID()); !strings.Contains(err.Error(), "process "+pid) {
		t.Errorf("%v, want process %s", err, pid)
	}
	// The lock comes free after a first try has ended without it.
	done := make(chan error, 1)
	go func() { done <- w.table(s).Make(t.Context(), c) }()
	for _, waiting := range []string{"true", "false"} {
		testkit.Eventually(t, func() error {
			if got := w.text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'm'::regclass)::text"); got != waiting {
				return fmt.Errorf("apply waits for the lock: %s", got)
			}
			return nil
		})
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.apply(w.table(s))
}

// lockError is PostgreSQL's own.
func lockError(w *tableHarness) error {
	_, err := w.cat.DB.Exec(w.t.Context(), "SET lock_timeout = 1; ALTER TABLE m ADD COLUMN lock_probe text")
	return err
}

// A user that does not own the table cannot change it: the plan says so.
func TestTableOfAnotherUser(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	w.apply(w.table(s))
	theirs := w.as("CREATE ROLE %s LOGIN; GRANT SELECT ON m TO %[1]s")
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double, Null: true})
	c := theirs.plan(theirs.table(s))
	theirs.expect(c, "column ask intent", "CV-T28")
	if !strings.Contains(c.Findings[0].Text, "must be owner") {
		t.Errorf("%+v", c.Findings)
	}
}
