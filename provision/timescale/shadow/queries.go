package shadow

import (
	"context"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// LeftOut returns the first aggregate that is left out here and that a query reads; "" for none.
func (q *Queries) LeftOut(name string, caps catalog.Capabilities) string {
	if caps.Community() || q.Pipeline.Database.OnMissing != "degrade" {
		return ""
	}
	for _, x := range q.ancestors(name) {
		if x.Aggregate != nil {
			return x.Address
		}
	}
	return ""
}

// Groups returns what must be changed together; it is known once Read was called.
func (q *Queries) Groups(ctx context.Context) (*ddl.Groups, error) {
	return catalog.Cached(ctx, q.Catalog, "groups", func(ctx context.Context) (*ddl.Groups, error) {
		if q.FindGroups == nil {
			return &ddl.Groups{}, nil
		}
		return q.FindGroups(ctx)
	})
}

// Successor is the address of what is declared under the name of a removed table, view or aggregate, as another kind; or "".
func (q *Queries) Successor(r *spec.Removed) string {
	if !slices.Contains([]string{"table", "view", "aggregate"}, r.Kind) {
		return ""
	}
	if slices.ContainsFunc(q.Pipeline.Tables, func(t *spec.Table) bool { return t.Name == r.Name }) {
		return "table." + r.Name
	}
	for _, x := range q.Ordered() {
		if x.Name == r.Name {
			return x.Address
		}
	}
	return ""
}

// Predecessor is the address of the removed object whose name a declared one takes over; or "".
func (q *Queries) Predecessor(address string) string {
	for _, r := range q.Pipeline.Removed {
		if q.Successor(r) == address {
			return r.Address()
		}
	}
	return ""
}

// IsDeclared tells whether a view or an aggregate has a block.
func (q *Queries) IsDeclared(address string) bool {
	return slices.ContainsFunc(q.Ordered(), func(x *Query) bool { return x.Address == address })
}

// GroupOf returns the group of an object; nil when it is in none.
func (q *Queries) GroupOf(ctx context.Context, address string) (*ddl.Group, error) {
	if q == nil {
		return nil, nil
	}
	groups, err := q.Groups(ctx)
	if err != nil {
		return nil, err
	}
	return groups.ByAddress[address], nil
}

// AddressOf returns the address of a declared relation.
func (q *Queries) AddressOf(name string) string {
	p := q.Pipeline
	switch {
	case slices.ContainsFunc(p.Tables, func(t *spec.Table) bool { return t.Name == name }):
		return "table." + name
	case slices.ContainsFunc(p.Views, func(v *spec.View) bool { return v.Name == name }):
		return "view." + name
	case slices.ContainsFunc(p.Aggregates, func(a *spec.Aggregate) bool { return a.Name == name }):
		return "aggregate." + name
	}
	return ""
}

// OverAggregate tells whether a query reads an aggregate, directly or not.
func (q *Queries) OverAggregate(name string) bool {
	return slices.ContainsFunc(q.ancestors(name), func(x *Query) bool { return x.Aggregate != nil })
}

// Blocking tells which dependents of a removed object keep it from being dropped: not what goes, too, nor what is declared and does
// not read it any more. g is its group.
func (q *Queries) Blocking(ctx context.Context, removed *spec.Removed, g *ddl.Group, readers []string) (string, error) {
	if g != nil {
		return "", nil
	}
	if next := q.Successor(removed); next != "" && !q.Destroying {
		groups, err := q.Groups(ctx)
		if err != nil {
			return "", err
		}
		if blocked := groups.Blocked[next]; len(blocked) > 0 {
			return strings.Join(blocked, "; "), nil
		}
	}
	readers, err := q.stillReading(ctx, removed.Name, slices.DeleteFunc(readers, q.IsRemoved))
	if err != nil || len(readers) == 0 {
		return "", err
	}
	return catalog.DependOnIt(readers), nil
}

// stillReading leaves out what is declared and does not read an object any more.
func (q *Queries) stillReading(ctx context.Context, name string, readers []string) ([]string, error) {
	if q.Destroying || !slices.ContainsFunc(readers, q.IsDeclared) {
		return readers, nil
	}
	answers, err := q.Answers(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(readers, func(reader string) bool {
		i := slices.IndexFunc(q.Ordered(), func(x *Query) bool { return x.Address == reader })
		if i < 0 {
			return false
		}
		x := q.Ordered()[i]
		return answers.ByName[x.Name].Rejection == nil && (answers.hides || len(Mentions(x.Text, []string{name})) == 0)
	}), nil
}

// IsRemoved tells whether a removed block takes an object away in the same plan.
func (q *Queries) IsRemoved(address string) bool {
	return slices.ContainsFunc(q.Pipeline.Removed, func(r *spec.Removed) bool { return r.Address() == address })
}
