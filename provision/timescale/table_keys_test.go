package timescale

import (
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// A column that is renamed takes its index along, whose name follows from it: that is one difference, and nothing is built.
func TestTableIndexRenamedWithColumn(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	s.Hypertable = nil
	w.apply(w.table(s))
	w.fill("m")
	node := w.text("SELECT pg_relation_filenode('m_u')::text")
	c := column(s, "n")
	c.Name, c.Was, s.Indexes[1].Name, s.Indexes[1].Columns[2] = "lots", "n", "m_lots_idx", "lots"
	change := w.plan(w.table(s))
	w.expect(change, "column lots intent, index m_lots_idx intent", "CV-T19")
	if d, _ := change.Diff("index m_lots_idx"); d.Old != "named m_u: unique time, source, lots" || d.New != "unique time, source, lots" {
		t.Errorf("%+v", d)
	}
	w.apply(w.table(s))
	if got := w.text("SELECT pg_relation_filenode('m_lots_idx')::text"); got != node {
		t.Error("it was rebuilt")
	}
}
