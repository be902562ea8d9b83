package timescale

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// What newer versions of TimescaleDB do differently: on a real server, where there is one.
func TestTableOnTimescale(t *testing.T) {
	t.Parallel()
	url := timescaleURL(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *tableHarness)
	}{
		{"columns in the columnstore", columnstoreDrops},
		{"in use", hangings},
		{"locked", lockedRetention},
		{"search_path", hiddenExtension}, // last: in WebAssembly all share one session, which keeps it
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, newTableHarness(t, url))
			newTableHarness(t, url).clean()
		})
	}
}

// columnstoreDrops drops columns whose values are in the columnstore, of which TimescaleDB knows the statistics: then it vectorizes
// aggregates.
func columnstoreDrops(t *testing.T, w *tableHarness) {
	s := sample("m", true)
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source, bid, note) SELECT date_trunc('day', now()) - i * interval '1 minute', 'a', i, 'x' FROM generate_series(1, 9000) i")
	w.exec("SELECT compress_chunk(c) FROM show_chunks('m') c")
	w.exec("ANALYZE m")
	without(s, "bid")
	without(s, "note")
	s.Indexes = append(s.Indexes, &spec.Index{Name: "m_more", Columns: []string{"time", "n"}, Unique: true})
	column(s, "at").Null = true
	c := w.plan(w.table(s))
	w.expect(c, "column at intent, column bid reset, column note reset, index m_more intent", "CV-T06 CV-T18")
	for _, f := range c.Findings {
		if f.Code == "CV-T06" && (f.Text != "9,000 rows have a value in it" || f.Loss.Count != 9000 || f.Loss.Bytes < 9000) {
			t.Errorf("%+v %+v", f, f.Loss)
		}
	}
	w.apply(w.table(s))
	column(s, "at").Null = false
	w.expect(w.plan(w.table(s)), "column at intent", "CV-T14")
}

// A measurement that fails leaves its amount unknown, and its finding.
func TestTableMeasurementFails(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	w.apply(w.table(s))
	w.fill("m")
	w.exec(`CREATE FUNCTION pg_column_size(double precision) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE 'cache lookup failed for type 0' USING ERRCODE = 'XX000'; END $$`)
	without(s, "bid")
	c := w.plan(w.table(s))
	w.expect(c, "column bid reset", "CV-T06")
	if f := c.Findings[0]; f.Text != "how many rows have a value in it is not known: the server says cache lookup failed for type 0" || f.Loss == nil || f.Loss.Count != 0 {
		t.Errorf("%+v %+v", f, f.Loss)
	}
	w.apply(w.table(s))
}

// lock takes a table away from all others, until the test ends or the function is called.
func (w *tableHarness) lock(name string) (free func()) {
	w.t.Helper()
	tx, err := w.cat.DB.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := tx.Exec(w.t.Context(), "LOCK TABLE "+name+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return func() { _ = tx.Rollback(w.t.Context()) }
}

// Of a table that another session has locked, nothing is known: that is said, once, and no number stands for it. What depends on
// the table's size takes the careful way.
func TestTableLockedAway(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	s.Hypertable = nil
	without(s, "twice") // to read what a generated column says takes a lock
	w.apply(w.table(s))
	w.fill("m")
	free := w.lock("m")
	column(s, "note").Generated, column(s, "note").Default = "source", ""
	column(s, "at").Null, column(s, "n").Type, column(s, "price").Type = true, spec.Bigint, spec.Numeric
	column(s, "bid").Null = false
	s.Indexes = append(s.Indexes, &spec.Index{Name: "m_more", Columns: []string{"n"}}, &spec.Index{Name: "m_once", Columns: []string{"bid"}, Unique: true})
	c := w.plan(w.table(s))
	w.expect(c, "column at intent, column bid intent, column n intent, column note intent, column price intent, index m_more intent, index m_once intent", "CV-T09 CV-T10 CV-T14 CV-T18 CV-T33")
	texts := map[string]string{
		"CV-T09 column n":     "an unknown number of rows are rewritten; every value fits",
		"CV-T10 column price": "how many of an unknown number of rows come out different is not known: another session holds a lock on it",
		"CV-T14 column bid":   "an unknown number of rows are read; whether each has a value is not known: another session holds a lock on it",
		"CV-T18 index m_more": "built over an unknown number of rows, CONCURRENTLY: readers and writers go on",
		"CV-T18 index m_once": "built over an unknown number of rows, CONCURRENTLY: readers and writers go on",
		"CV-T33 column note":  "how many rows have a stored value in it is not known: another session holds a lock on it",
	}
	for _, f := range c.Findings {
		if want := texts[f.Code+" "+f.Attr]; f.Text != want {
			t.Errorf("%s %s: %q, want %q", f.Code, f.Attr, f.Text, want)
		}
	}
	notes := []string{
		"not measured: another session holds a lock on it",
		"index m_once: whether there are duplicates is not known: another session holds a lock on it; with some, apply stops and changes nothing",
		"not tried on the server: another session holds a lock on it",
	}
	if !slices.Equal(c.Notes, notes) {
		t.Errorf("%q, want %q", c.Notes, notes)
	}
	w.expect(w.plan(w.removed("m")), "", "CV-T29")
	if c := w.plan(w.removed("m")); c.Findings[0].Text != "an unknown number of rows" || len(c.Notes) != 2 {
		t.Errorf("%+v %q", c.Findings, c.Notes)
	}
	free()
	w.exec("UPDATE m SET bid = extract(epoch FROM time - date_trunc('day', now())), price = 7")
	w.apply(w.table(s))

	// What ANALYZE left is known under the lock, too; it may be old.
	s = sample("o", false)
	s.Hypertable = nil
	without(s, "twice")
	w.apply(w.table(s))
	w.fill("o")
	w.exec("ANALYZE o")
	w.lock("o")
	s.Indexes = append(s.Indexes, &spec.Index{Name: "o_at", Columns: []string{"at"}})
	if c := w.plan(w.table(s)); c.Findings[0].Text != "built over about 20 rows, 8.0 KiB, CONCURRENTLY: readers and writers go on" {
		t.Errorf("%+v", c.Findings)
	}
}

// A reader of a large table is in the way of the statements on the table, and not of those on its empty copy.
func TestTableTriedOnCopyUnderLock(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source, note) SELECT now() + i * interval '1 second', 'a', repeat('x', 600) FROM generate_series(1, 30000) i")
	tx, err := w.cat.DB.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SELECT FROM m"); err != nil {
		t.Fatal(err)
	}
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double, Null: true})
	column(s, "n").Type = spec.Bigint
	if c := w.plan(w.table(s)); !slices.Equal(c.Notes, []string{"tried on an empty copy only: another session holds a lock on it"}) {
		t.Errorf("%q", c.Notes)
	}
}

// A policy that cannot be counted for may drop rows: none is not said.
func lockedRetention(t *testing.T, w *tableHarness) {
	if w.cat.DB.Config().ConnConfig.Database == "template1" {
		return // in WebAssembly there is one session, and nobody to hold a lock
	}
	s := sample("m", true)
	s.Hypertable.Columnstore = nil
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source) SELECT now() - i * interval '1 day', 'a' FROM generate_series(0, 39) i")
	defer w.lock("m")()
	s.Hypertable.Retention = 9 * days
	c := w.plan(w.table(s))
	w.expect(c, "retention intent", "CV-T07")
	if !strings.HasPrefix(c.Findings[0].Text, "how much is older than 9d, and goes, is not known: another session holds a lock on it; when the policy runs next") {
		t.Errorf("%+v", c.Findings)
	}
}
