// Package plan is the difference between the world and pipeline.hcl, as a value: read, compare, then print or apply.
package plan

import "context"

// Action is what a change does to its object.
type Action string

// The actions.
const (
	None   Action = "none"   // live and wanted agree
	Create Action = "create" // the object is missing
	Update Action = "update" // it differs and can be changed in place
	Report Action = "report" // it differs; this version only says so
	Block  Action = "block"  // it cannot be done; Reason says why and what to do
)

// Resource is one object of the outside world that pipeline.hcl declares.
type Resource interface {
	// Address names it as the user does: "topic.binance".
	Address() string
	// DependsOn lists the addresses that must be applied before it.
	DependsOn() []string
	// Plan reads the live object and compares; it changes nothing.
	Plan(ctx context.Context) (Change, error)
	// Apply carries out a change that Plan returned.
	Apply(ctx context.Context, c Change) error
}

// Change is what Plan found about one resource.
type Change struct {
	Address string      `json:"address"`
	Action  Action      `json:"action"`
	Reason  string      `json:"reason,omitempty"` // for Report and Block: what is wrong and the remedy
	Attrs   []Attribute `json:"attributes,omitempty"`
	Notes   []string    `json:"notes,omitempty"` // e.g. a degraded feature
	SQL     []string    `json:"sql,omitempty"`   // statements that Apply will run, in order, where it is SQL
}

// Attribute is one difference. Old is empty for a create.
type Attribute struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Plan is all changes, in the order in which they would be applied.
type Plan struct {
	Changes []Change `json:"changes"`
}

// Count returns how many changes have one of the actions.
func (p Plan) Count(actions ...Action) int {
	n := 0
	for _, c := range p.Changes {
		for _, a := range actions {
			if c.Action == a {
				n++
			}
		}
	}
	return n
}
