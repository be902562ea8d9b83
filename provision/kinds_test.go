package provision

import (
	"slices"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// A kind of object is known everywhere or nowhere: to the language and its reference, to plan, and here.
func TestKindsAgree(t *testing.T) {
	t.Parallel()
	reference := spec.PipelineReference().Kinds()
	var names []string
	for _, k := range kinds[1:] { // the first is the engine's own schema
		names = append(names, k.name)
		if plan.SystemOf(k.name) == "" || k.removed == nil || k.block == nil || !slices.Contains(reference, k.name) {
			t.Errorf("%s: on %q, can be removed %t, can be imported %t, in the reference %t",
				k.name, plan.SystemOf(k.name), k.removed != nil, k.block != nil, slices.Contains(reference, k.name))
		}
	}
	if !slices.Equal(names, spec.Kinds) {
		t.Errorf("%v, and package spec has %v", names, spec.Kinds)
	}
	if all := slices.Concat(plan.KindsOf(plan.Kafka), plan.KindsOf(plan.Postgres), plan.KindsOf(plan.Grafana)); len(all) != len(kinds)+1 { // and rollup
		t.Errorf("package plan has %v", all)
	}
}
