package shadow

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// Queries is what the views and aggregates of a pipeline share: their queries as the server understands them. The
// server rewrites a query when it stores it, so two texts are compared only after it rewrote both.
type Queries struct {
	Pipeline *spec.Pipeline
	Catalog  *catalog.Catalog
	// FindGroups finds what must be changed together; nil: nothing is.
	FindGroups func(ctx context.Context) (*ddl.Groups, error)
	// Destroying: all that is declared goes, and nothing is changed.
	Destroying bool

	Granting sync.Mutex // held while a role is changed

	mu      sync.Mutex
	origins []Origin // that order was made from
	order   []*Query
}

// Origin is where a query is declared.
type Origin struct {
	View      *spec.View
	Aggregate *spec.Aggregate
	Query     string
}

// Query is one declared query.
type Query struct {
	Address, Name string
	Text, at      string
	Aggregate     *spec.Aggregate // nil: a view
	Depends       []string        // names of the views and aggregates that it may read, earlier ones only
}

// Ordered lists the declared queries, each after those that it reads.
func (q *Queries) Ordered() []*Query {
	var declared []Origin
	for _, v := range q.Pipeline.Views {
		declared = append(declared, Origin{v, nil, v.Query})
	}
	for _, a := range q.Pipeline.Aggregates {
		declared = append(declared, Origin{nil, a, a.Query})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.Equal(declared, q.origins) {
		return q.order
	}
	q.origins, q.order = declared, InOrder(declared)
	return q.order
}

// InOrder lists queries, each after those that it reads.
func InOrder(declared []Origin) []*Query {
	var all []*Query
	var names []string
	for _, d := range declared {
		x := &Query{Text: Statement(d.Query), Aggregate: d.Aggregate}
		if d.View != nil {
			x.Name, x.at = d.View.Name, d.View.QueryAt
			x.Address = "view." + x.Name
		} else {
			x.Name, x.at = d.Aggregate.Name, d.Aggregate.QueryAt
			x.Address = "aggregate." + x.Name
		}
		all, names = append(all, x), append(names, x.Name)
	}
	var out []*Query
	done, under := map[string]bool{}, map[string]bool{}
	var visit func(*Query)
	visit = func(x *Query) {
		if done[x.Name] {
			return
		}
		under[x.Name] = true
		for _, name := range Mentions(x.Text, names) {
			// A column may have the name of a view: what would close a circle is none.
			if i := slices.Index(names, name); !under[name] {
				visit(all[i])
				x.Depends = append(x.Depends, name)
			}
		}
		under[x.Name], done[x.Name] = false, true
		out = append(out, x)
	}
	for _, x := range all {
		visit(x)
	}
	return out
}

// ancestors lists the views and aggregates that a query reads, directly or not.
func (q *Queries) ancestors(name string) (out []*Query) {
	all := q.Ordered()
	wanted := []string{name}
	for _, x := range slices.Backward(all) { // each after those that it reads
		if slices.Contains(wanted, x.Name) {
			wanted = append(wanted, x.Depends...)
			if x.Name != name {
				out = append(out, x)
			}
		}
	}
	return out
}

// DependsOn lists the addresses of what a query reads.
func (q *Queries) DependsOn(name string) []string {
	out := []string{plan.EngineAddress}
	var tables []string
	for _, t := range q.Pipeline.Tables {
		tables = append(tables, t.Name)
	}
	all := q.Ordered()
	for _, x := range all {
		if x.Name != name {
			continue
		}
		for _, t := range Mentions(x.Text, tables) {
			out = append(out, "table."+t)
		}
		if x.Aggregate != nil && x.Aggregate.From != nil && !slices.Contains(out, "table."+x.Aggregate.From.Name) {
			out = append(out, "table."+x.Aggregate.From.Name)
		}
		for _, d := range x.Depends {
			i := slices.IndexFunc(all, func(o *Query) bool { return o.Name == d })
			out = append(out, all[i].Address)
		}
	}
	return out
}

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

// Successor is the address of what is declared under the name of a removed table, view or aggregate, as another kind;
// or "".
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

// Blocking tells which dependents of a removed object keep it from being dropped: not what goes, too, nor what is
// declared and does not read it any more. g is its group.
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

// names are those of all relations that the pipeline declares or removes.
func (q *Queries) names() (out []string) {
	for _, t := range q.Pipeline.Tables {
		out = append(out, t.Name)
	}
	for _, x := range q.Ordered() {
		out = append(out, x.Name)
	}
	for _, r := range q.Pipeline.Removed {
		out = append(out, r.Name)
	}
	return out
}
