package timescale

import (
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// What a sequence gave out stays given out when a transaction is rolled back: planning evaluates nothing that may do such a thing.
func TestPlanHasNoEffects(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	w.exec(`CREATE SEQUENCE calls;
		CREATE FUNCTION honest() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT nextval(''calls'')';
		CREATE FUNCTION claimed_stable() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN nextval(''calls''); END';
		CREATE FUNCTION claimed(v double precision) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN nextval(''calls''); END';
		CREATE FUNCTION allowed() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT nextval(''calls'') > 0'`)
	w.apply(w.table(sample("m", false)))
	w.fill("m")
	for name, c := range map[string]*spec.Column{
		"nextval":        {Type: "bigint", Default: "nextval('calls')"},
		"inside":         {Type: spec.Double, Null: true, Default: "1 + nextval('calls'::regclass)::double precision"},
		"setval":         {Type: "bigint", Default: "setval('calls', 500)"},
		"volatile":       {Type: "bigint", Default: "honest()"},
		"claimed_stable": {Type: "bigint", Default: "claimed_stable()"},
		"claimed":        {Type: "bigint", Default: "claimed(1)"},
		"generated":      {Type: "bigint", Null: true, Generated: "claimed(price)"},
	} {
		s := sample("m", false)
		c.Name = "more"
		s.Columns = append(s.Columns, c)
		before := w.text("SELECT is_called::text || last_value FROM calls")
		change := w.plan(w.table(s))
		if after := w.text("SELECT is_called::text || last_value FROM calls"); after != before {
			t.Errorf("%s: the sequence went from %s to %s", name, before, after)
		}
		if change.Impossible() || !strings.Contains(strings.Join(change.Notes, "\n"), "plan does not evaluate the expression of column more") {
			t.Errorf("%s: %+v %q", name, change.Findings, change.Notes)
		}
		if !strings.Contains(strings.Join(change.Steps, "\n"), "ADD COLUMN IF NOT EXISTS "+ddl.ColumnSQL(c)) {
			t.Errorf("%s: apply would do something else: %q", name, change.Steps)
		}
	}
	for _, harmless := range []string{"now()", "1.5", "'2026-01-01'::timestamptz", "round(2.5)"} { // these are tried
		s := sample("m", false)
		c := &spec.Column{Name: "more", Type: "timestamptz", Default: harmless}
		if strings.Contains("1.5 round(2.5)", harmless) {
			c.Type = spec.Double
		}
		s.Columns = append(s.Columns, c)
		if change := w.plan(w.table(s)); change.Action != plan.Update || len(change.Notes) > 0 {
			t.Errorf("%s: %+v %q", harmless, change.Findings, change.Notes)
		}
	}

	// A policy on rows is a function that a count would run, and rows that it would miss.
	theirs := w.as("CREATE ROLE %s LOGIN; GRANT ALL ON m, calls TO %[1]s; ALTER TABLE m ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON m USING (allowed())")
	before := w.text("SELECT is_called::text || last_value FROM calls")
	s := sample("m", false)
	s.Columns = s.Columns[:len(s.Columns)-1]
	theirs.plan(theirs.table(s))
	if after := w.text("SELECT is_called::text || last_value FROM calls"); after != before {
		t.Errorf("row security: the sequence went from %s to %s", before, after)
	}
}

// A database that is opened with the Apache edition has what the Community edition made, and can do nothing with it.
func TestTableOfAnotherEdition(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, timescaleURL(t))
	s := sample("m", true)
	w.apply(w.table(s))
	w.fill("m")
	w.exec("SELECT compress_chunk(c) FROM show_chunks('m') c LIMIT 1")
	r := w.table(s)
	w.cat.Reset()
	now, err := w.cat.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now.Caps.Edition = "apache"
	live, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := w.ledger[r.Address()]
	c := compared(r, &last, true, live)
	if err := r.Assess(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(c.Notes, "\n")
	if c.Action != plan.None || !strings.Contains(notes, "can neither read nor write") || !strings.Contains(notes, "its policies (retention, columnstore) stay") {
		t.Errorf("%s %+v %q", c.Action, c.Diffs, c.Notes)
	}
}

// A generated column that is not stored is another one than was declared.
func TestTableVirtualColumn(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	caps, err := w.cat.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Number < 180000 {
		t.Skip("PostgreSQL 18 has virtual columns")
	}
	s := sample("m", false)
	w.apply(w.table(s))
	w.exec("ALTER TABLE m DROP COLUMN twice; ALTER TABLE m ADD COLUMN twice double precision GENERATED ALWAYS AS (price * 2) VIRTUAL; COMMENT ON COLUMN m.twice IS 'Of price.'")
	w.fill("m")
	w.expect(w.apply(w.table(s)), "column twice drift", "CV-T32")
	if kind := w.text("SELECT attgenerated::text FROM pg_attribute WHERE attrelid = 'm'::regclass AND attname = 'twice'"); kind != "s" {
		t.Errorf("it is %q", kind)
	}
}
