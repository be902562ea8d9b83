package timescale

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// A type change is said to rewrite rows or indexes exactly when it does: the files of the table and its index tell.
func TestTypeChangeTellsWhatIsRewritten(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	values := map[string]string{
		"varchar(20)": "'1'", "varchar": "'1'", "character(3)": "'1'", "name": "'1'", "text": "'1'", "cidr": "'10.0.0.0/8'", "uuid": "gen_random_uuid()",
		"timestamptz(6)": "date_trunc('second', now())", "timestamptz(3)": "date_trunc('second', now())", "timestamptz(0)": "date_trunc('second', now())", "timestamp": "date_trunc('second', now())", "date": "now()",
		"numeric(18,8)": "i", "numeric(5,0)": "i", "smallint": "i", "integer": "i", "bigint": "i", "real": "i", "double precision": "i", "boolean": "true",
	}
	targets := []spec.ColumnType{spec.Timestamptz, spec.Text, spec.Double, spec.Numeric, spec.Bigint, spec.Integer, spec.Boolean}
	files := map[string]int{}
	n := 0
	for from, value := range values {
		for _, to := range targets {
			n++
			name := fmt.Sprint("c", n)
			w.exec(fmt.Sprintf("CREATE TABLE %[1]s (id bigint PRIMARY KEY, v %[2]s); CREATE INDEX %[1]s_v ON %[1]s (v); INSERT INTO %[1]s SELECT i, %[3]s FROM generate_series(1, 100) i", name, from, value))
			s := &spec.Table{
				Name: name, Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "v", Type: to, Null: true}}, PrimaryKey: []string{"id"},
				Indexes: []*spec.Index{{Name: name + "_v", Columns: []string{"v"}}},
			}
			c := w.plan(w.table(s))
			if c.Class() == plan.Impossible || c.Class() == plan.Destroys || c.Action == plan.None {
				continue
			}
			file := "SELECT pg_relation_filenode('%s')::text"
			table, index := w.text(fmt.Sprintf(file, name)), w.text(fmt.Sprintf(file, name+"_v"))
			if err := w.table(s).Make(t.Context(), c); err != nil {
				t.Errorf("%s to %s: %v", from, to, err)
				continue
			}
			want := "at once"
			switch {
			case table != w.text(fmt.Sprintf(file, name)):
				want = "are rewritten"
			case index != w.text(fmt.Sprintf(file, name+"_v")):
				want = "no row is rewritten, but 1 index is rebuilt"
			}
			files[want]++
			said := strings.Join(c.Notes, "; ")
			for _, f := range c.Findings {
				said += " " + f.Code + " " + f.Text
			}
			if !strings.Contains(said, want) || strings.Contains(said, "CV-T09") != (want != "at once") {
				t.Errorf("%s to %s: said %q, and it was %q", from, to, said, want)
			}
		}
	}
	for _, want := range []string{"at once", "are rewritten", "no row is rewritten, but 1 index is rebuilt"} {
		if files[want] == 0 {
			t.Errorf("no change was %q: %v", want, files)
		}
	}
	t.Log(files)
}
