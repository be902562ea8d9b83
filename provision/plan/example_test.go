package plan_test

import (
	"fmt"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Three states are compared: what the last apply set, what is live, and what pipeline.hcl wants.
func ExampleCompare() {
	last := &plan.State{Attrs: []plan.Attr{{Name: "partitions", Value: "3"}, {Name: "retention", Value: "7d"}}}
	live := &plan.State{Attrs: []plan.Attr{{Name: "partitions", Value: "3"}, {Name: "retention", Value: "1d"}}}
	want := &plan.State{Attrs: []plan.Attr{{Name: "partitions", Value: "6"}, {Name: "retention", Value: "7d"}}}
	diffs, _ := plan.Compare(last, live, want)
	for _, d := range diffs {
		fmt.Printf("%s: %s -> %s (%s)\n", d.Name, d.Old, d.New, d.Cause)
	}
	// Output:
	// partitions: 3 -> 6 (intent)
	// retention: 1d -> 7d (drift)
}
