package timescale

import "github.com/cryptoviz/cryptoviz/provision/plan"

// resource is one of this system.
type resource interface {
	plan.Resource
	plan.Object
}

func compared(r resource, last *plan.State, managed bool, live *plan.State) plan.Change {
	return plan.New(r, plan.Observation{Live: live, Want: r.Want(), DependsOn: r.DependsOn()}, last, managed)
}
