package shadow

import (
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// A column that nobody declares stays, also where its name reads like an attribute that the last apply set: queries may read it.
func TestColumnNamedLikeAnAttributeStays(t *testing.T) {
	declared := &spec.Table{Name: "ds", Columns: []*spec.Column{{Name: "v", Type: spec.Text, Null: true, Description: "The value."}}}
	var last plan.State
	last.Set(plan.Attr{Name: "column v", Value: "text"})
	last.Set(plan.Attr{Name: "column v description", Value: "The value."})
	last.Set(plan.Attr{Name: "column w", Value: "text"})
	live := []catalog.Column{{Name: "v", Type: "text"}, {Name: "v description", Type: "integer"}}
	if out := withColumns(declared, live, last); out != nil {
		t.Errorf("other columns than there are: %+v", out.Columns)
	}
	if out := withColumns(declared, append(live, catalog.Column{Name: "w", Type: "text"}), last); out == nil || len(out.Columns) != 2 {
		t.Errorf("w goes: %+v", out)
	}
}
