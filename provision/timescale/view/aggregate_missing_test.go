package view

import (
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// The Apache edition has no continuous aggregates, either; what is there from before cannot be changed.
func TestAggregateOnApache(t *testing.T) {
	t.Parallel()
	p := &spec.Pipeline{}
	a := &Aggregate{Queries: &shadow.Queries{Pipeline: p}, Spec: &spec.Aggregate{Name: "daily"}}
	apache := catalog.Capabilities{Server: "17.5", Version: "2.28.3", Edition: "apache"}
	for _, c := range []struct {
		onMissing string
		action    plan.Action
	}{{"error", plan.Create}, {"error", plan.Update}, {"degrade", plan.Update}} {
		p.Database.OnMissing = c.onMissing
		change := plan.Change{Action: c.action}
		a.assessMissing(&change, apache)
		if change.Action != c.action || len(change.Findings) != 1 || change.Findings[0].Code != "CV-A01" {
			t.Errorf("%+v: %+v", c, change)
		}
	}
}
