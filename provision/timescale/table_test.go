package timescale

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// The kinds of tables: native partitions, a hypertable with policies, and one without.
func TestTableOnPostgres(t *testing.T) {
	t.Parallel()
	tables(t, newTableHarness(t, testkit.Postgres(t)), "native", "row")
}

// TestOnTimescale has one server for all, which takes seconds to start.
func TestOnTimescale(t *testing.T) {
	t.Parallel()
	url := testkit.Timescale(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *tableHarness)
	}{
		{"tables with policies", func(t *testing.T, w *tableHarness) { tables(t, w, "policies", "policies") }},
		{"tables without", func(t *testing.T, w *tableHarness) { tables(t, w, "bare", "row") }},
		{"drift", func(t *testing.T, w *tableHarness) { drifts(t, w, true) }},
		{"becomes a hypertable", becomesHypertable},
		{"retention", retentions},
		{"columnstore", columnstores},
		{"old names", oldNames},
		{"large", largeInPlace},
		{"blocks", func(t *testing.T, w *tableHarness) { tableBlocks(t, w, true) }},
		{"ledger", ledgers},
		{"engine", engines},
		{"catalog", catalogs},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newTableHarness(t, url)
			test.run(t, w)
			w.clean()
		})
	}
}

func column(t *spec.Table, name string) *spec.Column { return t.Column(name) }

func without(t *spec.Table, name string) {
	t.Columns = slices.DeleteFunc(t.Columns, func(c *spec.Column) bool { return c.Name == name })
}

// tableChanges are changes of pipeline.hcl, with the differences and findings that a table with 20 rows shows.
var tableChanges = []struct {
	name   string
	before string // SQL, % is the table
	change func(*spec.Table)
	diffs  string
	found  string
	only   string // "native", "policies", "row": all but policies, "hyper": all but native, "": all
}{
	{name: "description", change: func(t *spec.Table) { t.Description = "Other." }, diffs: "description intent"},
	{name: "no description", change: func(t *spec.Table) { t.Description = "" }, diffs: "description reset"},
	{name: "column description", change: func(t *spec.Table) { column(t, "source").Description = "Exchange." }, diffs: "column source description intent"},
	{name: "no column description", change: func(t *spec.Table) { column(t, "source").Description = "" }, diffs: "column source description reset"},
	{name: "nullable column", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "ask", Type: spec.Double, Null: true, Description: "New."})
	}, diffs: "column ask description intent, column ask intent"},
	{name: "column with a constant", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "ask", Type: spec.Double, Default: "1"})
	}, diffs: "column ask intent"},
	{name: "column without a value", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "ask", Type: spec.Double})
	}, diffs: "column ask intent", found: "CV-T02"},
	{name: "column with a volatile default", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "ask", Type: spec.Double, Default: "random()"})
	}, diffs: "column ask intent", found: "CV-T03", only: "row"},
	{name: "volatile default beside the columnstore", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "ask", Type: spec.Double, Default: "random()"})
	}, diffs: "column ask intent", found: "CV-T12", only: "policies"},
	{name: "a stable default", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "seen", Type: spec.Timestamptz, Default: "now()"})
	}, diffs: "column seen intent", only: "row"},
	{name: "generated column", change: func(t *spec.Table) {
		t.Columns = append(t.Columns, &spec.Column{Name: "half", Type: spec.Double, Null: true, Generated: "price / 2"})
	}, diffs: "column half intent", found: "CV-T03", only: "row"},
	{name: "column dropped", change: func(t *spec.Table) { without(t, "bid") }, diffs: "column bid reset", found: "CV-T06"},
	{name: "column renamed", change: func(t *spec.Table) { c := column(t, "bid"); c.Name, c.Was = "offer", "bid" }, diffs: "column offer intent", found: "CV-T19"},
	{name: "key column renamed", change: func(t *spec.Table) {
		c := column(t, "source")
		c.Name, c.Was, t.PrimaryKey[0], t.Indexes[1].Columns[1] = "venue", "source", "venue", "venue"
		if h := t.Hypertable; h.Columnstore != nil {
			h.Columnstore.SegmentBy[0] = "venue"
		}
	}, diffs: "column venue intent", found: "CV-T19"},
	{name: "renamed and changed", change: func(t *spec.Table) {
		c := column(t, "note")
		c.Name, c.Was, c.Default, c.Description = "remark", "note", "", "A remark."
	}, diffs: "column remark description intent, column remark intent", found: "CV-T19"},
	{name: "wider type", change: func(t *spec.Table) { column(t, "n").Type = spec.Bigint }, diffs: "column n intent", found: "CV-T09", only: "row"},
	{name: "every value fits", change: func(t *spec.Table) { column(t, "bid").Type = spec.Integer }, diffs: "column bid intent", found: "CV-T09", only: "row"},
	{name: "text to number", change: func(t *spec.Table) { column(t, "note").Type, column(t, "note").Default = spec.Integer, "7" }, diffs: "column note intent", found: "CV-T09", only: "row"},
	{name: "rounded", change: func(t *spec.Table) { without(t, "twice"); column(t, "price").Type = spec.Integer }, diffs: "column price intent, column twice description reset, column twice reset", found: "CV-T06 CV-T10", only: "row"},
	{name: "no number", before: "UPDATE % SET note = 'many' WHERE n > 0 AND bid = 2", change: func(t *spec.Table) { column(t, "note").Type, column(t, "note").Default = spec.Integer, "" }, diffs: "column note intent", found: "CV-T11", only: "row"},
	{name: "no conversion", change: func(t *spec.Table) { column(t, "bid").Type = spec.Boolean }, diffs: "column bid intent", found: "CV-T11", only: "row"},
	{name: "type of the time column", change: func(t *spec.Table) { column(t, "time").Type = spec.Text }, diffs: "column time intent", found: "CV-T08"},
	{name: "type beside the columnstore", change: func(t *spec.Table) { column(t, "n").Type = spec.Bigint }, diffs: "column n intent", found: "CV-T12", only: "policies"},
	{name: "type under a generated column", change: func(t *spec.Table) { column(t, "price").Type = spec.Numeric }, diffs: "column price intent, column twice intent", found: "CV-T09 CV-T32", only: "row"},
	{name: "type that a generated column reads", before: "ALTER TABLE % ADD COLUMN more boolean GENERATED ALWAYS AS (n IS NULL) STORED", change: func(t *spec.Table) {
		column(t, "n").Type = spec.Bigint
		t.Columns = append(t.Columns, &spec.Column{Name: "more", Type: spec.Boolean, Null: true, Generated: "n is null"})
	}, diffs: "column n intent", found: "CV-T09 CV-T32", only: "row"},
	{name: "not null, with nulls", change: func(t *spec.Table) { column(t, "bid").Null = false }, diffs: "column bid intent", found: "CV-T13"},
	{name: "not null, without nulls", change: func(t *spec.Table) { column(t, "note").Null = false }, diffs: "column note intent", found: "CV-T14"},
	{name: "null", change: func(t *spec.Table) { column(t, "n").Null = true }, diffs: "column n intent"},
	{name: "null time", change: func(t *spec.Table) { column(t, "time").Null = true }, diffs: "column time intent", found: "CV-T08"},
	{name: "other default", change: func(t *spec.Table) { column(t, "price").Default = "2" }, diffs: "column price intent"},
	{name: "no default", change: func(t *spec.Table) { column(t, "note").Default = "" }, diffs: "column note intent"},
	{name: "the same default in other words", change: func(t *spec.Table) {
		column(t, "price").Default, column(t, "n").Default, column(t, "at").Default = "(0.0)::double precision", "(((1::int8) + 1))", "NOW( )"
	}},
	{name: "a default that is none", change: func(t *spec.Table) { column(t, "n").Default = "many()" }, diffs: "column n intent", found: "CV-T28"},
	{name: "other expression", change: func(t *spec.Table) { column(t, "twice").Generated = "price * 3" }, diffs: "column twice intent", found: "CV-T32", only: "row"},
	{name: "the same expression in other words", change: func(t *spec.Table) { column(t, "twice").Generated = "( price * 2::double precision )" }, only: "row"},
	{name: "generated no more", change: func(t *spec.Table) { column(t, "twice").Generated = "" }, diffs: "column twice intent", only: "row"},
	{name: "generated from now on", change: func(t *spec.Table) { column(t, "bid").Generated = "price" }, diffs: "column bid intent", found: "CV-T33", only: "row"},
	{name: "other key", change: func(t *spec.Table) { t.PrimaryKey = []string{"time", "source"} }, diffs: "primary_key intent", found: "CV-T16"},
	{name: "key with duplicates", before: "INSERT INTO % (time, source) SELECT min(time), 'other' FROM %", change: func(t *spec.Table) { t.PrimaryKey = []string{"time"} }, diffs: "primary_key intent", found: "CV-T15 CV-T16"},
	{name: "key without the time", change: func(t *spec.Table) { t.PrimaryKey = []string{"source"} }, diffs: "primary_key intent", found: "CV-T16 CV-T17"},
	{name: "index", change: func(t *spec.Table) {
		t.Indexes = append(t.Indexes, &spec.Index{Name: t.Name + "_more", Columns: []string{"n", "time"}})
	}, diffs: "index NAME_more intent", found: "CV-T18"},
	{name: "unique index with duplicates", before: "INSERT INTO % (time, source) SELECT min(time), 'other' FROM %", change: func(t *spec.Table) {
		t.Indexes = append(t.Indexes, &spec.Index{Name: t.Name + "_more", Columns: []string{"time"}, Unique: true})
	}, diffs: "index NAME_more intent", found: "CV-T15 CV-T18"},
	{name: "unique index without the time", change: func(t *spec.Table) {
		t.Indexes = append(t.Indexes, &spec.Index{Name: t.Name + "_more", Columns: []string{"bid"}, Unique: true})
	}, diffs: "index NAME_more intent", found: "CV-T17 CV-T18"},
	{name: "index name taken", before: "CREATE TABLE %_other (a int); CREATE INDEX %_more ON %_other (a)", change: func(t *spec.Table) {
		t.Indexes = append(t.Indexes, &spec.Index{Name: t.Name + "_more", Columns: []string{"n"}})
	}, diffs: "index NAME_more intent", found: "CV-T30"},
	{name: "index dropped", change: func(t *spec.Table) { t.Indexes = t.Indexes[1:] }, diffs: "index NAME_price_idx reset"},
	{name: "index changed", change: func(t *spec.Table) { t.Indexes[0].Columns = []string{"price", "n"} }, diffs: "index NAME_price_idx intent", found: "CV-T18"},
	{name: "index renamed", change: func(t *spec.Table) { t.Indexes[0].Name = t.Name + "_p" }, diffs: "index NAME_p intent"},
	{name: "read by a view", before: "CREATE VIEW %_v AS SELECT bid FROM %", change: func(t *spec.Table) { without(t, "bid") }, diffs: "column bid reset", found: "CV-T20 CV-T06"},
	{name: "partitions of another length", change: func(t *spec.Table) { t.Hypertable.ChunkInterval = 48 * time.Hour }, diffs: "chunk_interval intent", found: "CV-T04", only: "native"},
	{name: "partitions of another length, empty", before: "DELETE FROM %", change: func(t *spec.Table) { t.Hypertable.ChunkInterval = 6 * time.Hour }, diffs: "chunk_interval intent", found: "CV-T04", only: "native"},
	{name: "partitions after one without an end", before: "CREATE TABLE %_rest PARTITION OF % FOR VALUES FROM ('2100-01-01') TO (MAXVALUE)", change: func(t *spec.Table) { t.Hypertable.ChunkInterval = 6 * time.Hour }, diffs: "chunk_interval intent", found: "CV-T05", only: "native"},
	{name: "chunks of another length", change: func(t *spec.Table) { t.Hypertable.ChunkInterval = 12 * time.Hour }, diffs: "chunk_interval intent", found: "CV-T04", only: "hyper"},
	{name: "no partitions any more", change: func(t *spec.Table) { t.Hypertable = nil }, diffs: "chunk_interval reset, layout intent, time reset", found: "CV-T22", only: "native"},
	{name: "no hypertable any more", change: func(t *spec.Table) { t.Hypertable = nil }, diffs: "chunk_interval reset, columnstore order_by reset, columnstore reset, columnstore segment_by reset, layout intent, retention reset, time reset", found: "CV-T22", only: "policies"},
	{name: "other time column", change: func(t *spec.Table) { t.Hypertable.Time = "at"; t.PrimaryKey[1] = "at"; t.Indexes[1].Columns[0] = "at" }, diffs: "index NAME_u intent, primary_key intent, time intent", found: "CV-T08 CV-T15 CV-T16 CV-T18"},
}

func tables(t *testing.T, w *tableHarness, kind, storage string) {
	for i, test := range tableChanges {
		if test.only != "" && test.only != kind && test.only != storage && (test.only != "hyper" || kind == "native") {
			continue
		}
		t.Run(kind+" "+test.name, func(t *testing.T) {
			w, name := w.on(t), fmt.Sprintf("%s%d", kind, i)
			timescale := kind == "policies"
			s := sample(name, timescale)
			if c := w.apply(w.table(s)); c.Action != plan.Create || len(c.Findings) > 0 {
				t.Fatalf("%s %+v", c.Action, c.Findings)
			}
			w.fill(name)
			if test.before != "" {
				for sql := range strings.SplitSeq(strings.ReplaceAll(test.before, "%", name), "; ") {
					w.exec(sql)
				}
			}
			if c := w.plan(w.table(s)); c.Action != plan.None {
				t.Fatalf("rows alone make a difference: %+v", c.Diffs)
			}
			next := sample(name, timescale)
			test.change(next)
			c := w.plan(w.table(next))
			found := strings.Fields(test.found)
			slices.Sort(found)
			w.expect(c, strings.ReplaceAll(test.diffs, "NAME", name), strings.Join(found, " "))
			if c.Impossible() {
				if len(c.Steps) > 0 {
					t.Errorf("steps of what is impossible: %q", c.Steps)
				}
				return
			}
			w.apply(w.table(next))
		})
	}
}

// tableDrifts are changes outside of pipeline.hcl, with the differences that they show.
var tableDrifts = []struct{ sql, diffs, only string }{
	{sql: "COMMENT ON TABLE % IS 'x'", diffs: "description drift"},
	{sql: "COMMENT ON TABLE % IS NULL", diffs: "description drift"},
	{sql: "COMMENT ON COLUMN %.source IS NULL", diffs: "column source description drift"},
	{sql: "ALTER TABLE % ALTER price DROP DEFAULT", diffs: "column price drift"},
	{sql: "ALTER TABLE % ALTER price SET DEFAULT 3", diffs: "column price drift"},
	{sql: "ALTER TABLE % ALTER note SET NOT NULL", diffs: "column note drift"},
	{sql: "ALTER TABLE % ALTER n DROP NOT NULL", diffs: "column n drift"},
	{sql: "ALTER TABLE % ALTER bid TYPE numeric", diffs: "column bid drift", only: "pg"},
	{sql: "ALTER TABLE % ALTER n DROP DEFAULT, ALTER n ADD GENERATED ALWAYS AS IDENTITY", diffs: "column n drift", only: "pg"},
	{sql: "ALTER TABLE % DROP COLUMN bid", diffs: "column bid drift"},
	{sql: "ALTER TABLE % ALTER twice DROP EXPRESSION", diffs: "column twice drift", only: "pg"},
	{sql: "ALTER TABLE % DROP CONSTRAINT %_pkey", diffs: "primary_key drift"},
	{sql: "ALTER TABLE % DROP CONSTRAINT %_pkey; ALTER TABLE % ADD CONSTRAINT mine_% PRIMARY KEY (time, source)", diffs: "primary_key drift"},
	{sql: "DROP INDEX %_price_idx", diffs: "index NAME_price_idx drift"},
	{sql: "DROP INDEX %_price_idx; CREATE INDEX %_price_idx ON % (price DESC)", diffs: "index NAME_price_idx drift"},
	{sql: "DROP INDEX %_price_idx; CREATE INDEX %_price_idx ON % (price) WHERE price > 1", diffs: "index NAME_price_idx drift"},
	{sql: "DROP INDEX %_u; CREATE INDEX %_u ON % (time, source, n)", diffs: "index NAME_u drift"},
	{sql: "DROP INDEX %_u; ALTER TABLE % ADD CONSTRAINT %_u UNIQUE (source, time)", diffs: "index NAME_u drift"},
	{sql: "SELECT set_chunk_time_interval('%', interval '2 days')", diffs: "chunk_interval drift", only: "ts"},
	{sql: "SELECT remove_retention_policy('%')", diffs: "retention drift", only: "ts"},
	{sql: "SELECT remove_retention_policy('%'); SELECT add_retention_policy('%', interval '3 days')", diffs: "retention drift", only: "ts"},
	{sql: "SELECT remove_retention_policy('%'); SELECT add_retention_policy('%', drop_created_before => interval '3 days')", diffs: "retention drift", only: "ts"},
	{sql: "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE hypertable_name = '%' AND proc_name = 'policy_retention'", diffs: "retention drift", only: "ts"},
	{sql: "CALL remove_columnstore_policy('%')", diffs: "columnstore drift", only: "ts"},
	{sql: "CALL remove_columnstore_policy('%'); CALL add_columnstore_policy('%', after => interval '1 day')", diffs: "columnstore drift", only: "ts"},
	{sql: "CALL remove_columnstore_policy('%'); ALTER TABLE % SET (timescaledb.enable_columnstore = false)", diffs: "columnstore drift, columnstore order_by drift, columnstore segment_by drift", only: "ts"},
	{sql: "ALTER TABLE % SET (timescaledb.segmentby = 'note')", diffs: "columnstore segment_by drift", only: "ts"},
	{sql: "ALTER TABLE % SET (timescaledb.orderby = 'time')", diffs: "columnstore order_by drift", only: "ts"},
}

func TestTableDriftOnPostgres(t *testing.T) {
	t.Parallel()
	drifts(t, newTableHarness(t, testkit.Postgres(t)), false)
}

func drifts(t *testing.T, w *tableHarness, timescale bool) {
	for i, test := range tableDrifts {
		if test.only == "ts" != timescale && test.only != "" {
			continue
		}
		t.Run(test.sql, func(t *testing.T) {
			w, name := w.on(t), fmt.Sprintf("d%d", i)
			s := sample(name, timescale)
			w.apply(w.table(s))
			w.fill(name)
			for sql := range strings.SplitSeq(strings.ReplaceAll(test.sql, "%", name), "; ") {
				w.exec(sql)
			}
			c := w.plan(w.table(s))
			var got []string
			for _, d := range differences(c) {
				got = append(got, strings.ReplaceAll(d, name, "NAME"))
			}
			if strings.Join(got, ", ") != test.diffs {
				t.Errorf("differences %q, want %q: %+v", got, test.diffs, c.Diffs)
			}
			w.apply(w.table(s))
		})
	}
}

// What nobody declares is left alone, and told.
func TestTableLeavesAloneWhatNobodyDeclares(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	s.Description = ""
	w.apply(w.table(s))
	w.exec("ALTER TABLE m ADD COLUMN mine jsonb; CREATE INDEX mine ON m USING gin (mine); COMMENT ON TABLE m IS 'mine'; COMMENT ON COLUMN m.price IS 'mine'")
	c := w.plan(w.table(s))
	var extra []string
	for _, a := range c.Extra {
		extra = append(extra, a.Name)
	}
	if want := []string{"description", "column price description", "column mine", "index mine"}; c.Action != plan.None || !slices.Equal(extra, want) {
		t.Errorf("%s %q, want %q", c.Action, extra, want)
	}
}

// A table that is there without our mark is adopted, and its differences are shown.
func TestTableIsAdopted(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.exec(`CREATE TABLE m (time timestamptz, source varchar(20) NOT NULL, price double precision NOT NULL DEFAULT 0, bid double precision, n integer NOT NULL DEFAULT 2,
		at timestamptz NOT NULL DEFAULT now(), note text DEFAULT 'a', twice double precision, more text, PRIMARY KEY (source, time)) PARTITION BY RANGE (time)`)
	c := w.plan(w.table(sample("m", false)))
	if !c.Adopt {
		t.Error("not adopted")
	}
	w.expect(c, "chunk_interval intent, column n intent, column price intent, column source description intent, column source intent, column twice description intent, column twice intent, description intent, index m_price_idx intent, index m_u intent", "")
	w.apply(w.table(sample("m", false)))
}
