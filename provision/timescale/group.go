package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// NewQueries returns the queries of a pipeline. They know which changes must be made together.
func NewQueries(p *spec.Pipeline, c *catalog.Catalog) *shadow.Queries {
	q := &shadow.Queries{Pipeline: p, Catalog: c}
	q.FindGroups = func(ctx context.Context) (*ddl.Groups, error) { return findGroups(ctx, q) }
	return q
}

// findGroups finds the groups of all that the pipeline declares or removes.
func findGroups(ctx context.Context, q *shadow.Queries) (*ddl.Groups, error) {
	out := &ddl.Groups{ByAddress: map[string]*ddl.Group{}, Blocked: map[string][]string{}, Rebuilt: map[string]string{}}
	if q.Destroying || len(q.Ordered()) == 0 && !slices.ContainsFunc(q.Pipeline.Removed, func(r *spec.Removed) bool {
		return q.Successor(r) != ""
	}) {
		return out, nil
	}
	b := &grouping{q: q, out: out}
	var err error
	if b.s, err = q.Catalog.Snapshot(ctx); err != nil {
		return nil, err
	}
	if b.last, err = q.Catalog.Managed(ctx); err != nil {
		return nil, err
	}
	if b.v, err = q.Catalog.Views(ctx); err == nil {
		b.answers, err = q.Answers(ctx)
	}
	if pg.Is(err, pg.LockBusy) { // views wait for it; a table is assessed by itself, and says what its own dry run met
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, b.build(ctx)
}

// grouping finds the groups.
type grouping struct {
	q       *shadow.Queries
	s       *catalog.Snapshot
	v       *catalog.ViewSnapshot
	last    map[string]plan.State
	answers *shadow.Answers
	out     *ddl.Groups
	roots   []*root
}

// root is a change that dependents stand in the way of.
type root struct {
	address  string
	dropped  []string // addresses of live objects, what reads another before that one
	blockers []string
}

func (b *grouping) build(ctx context.Context) error {
	if err := b.findRoots(ctx); err != nil {
		return err
	}
	if err := b.findRebuilt(ctx); err != nil {
		return err
	}
	var all []*ddl.Group
	for _, r := range b.roots {
		if len(r.blockers) > 0 {
			b.out.Blocked[r.address] = r.blockers
			continue
		}
		all = merged(all, &ddl.Group{Members: append([]string{r.address}, r.dropped...)})
	}
	for _, g := range b.closed(all) {
		if err := b.complete(ctx, g); err != nil {
			return err
		}
		for _, address := range g.Members {
			b.out.ByAddress[address] = g
		}
	}
	return nil
}

// merged adds a group to others, and makes one of those that share an object.
func merged(all []*ddl.Group, g *ddl.Group) []*ddl.Group {
	one := &ddl.Group{Members: slices.Clone(g.Members)}
	all = slices.DeleteFunc(all, func(o *ddl.Group) bool {
		shares := slices.ContainsFunc(o.Members, func(a string) bool { return slices.Contains(g.Members, a) })
		if shares {
			one.Members = append(one.Members, o.Members...)
		}
		return shares
	})
	slices.Sort(one.Members)
	one.Members = slices.Compact(one.Members)
	return append(all, one)
}

// closed adds to each group what can be created neither before nor after it: it reads one of the group, and another one
// reads it.
func (b *grouping) closed(all []*ddl.Group) []*ddl.Group {
	depends := map[string][]string{}
	for _, x := range b.q.Ordered() {
		l, a := b.v.Views[x.Name], b.answers.ByName[x.Name]
		if a.Rejection == nil && (l == nil || l.Query != a.Text ||
			(b.s.Aggregates[x.Name] != nil) != (x.Aggregate != nil)) {
			depends[x.Address] = b.q.DependsOn(x.Name)
		}
	}
	for again := true; again; {
		again = false
		inside := map[string]*ddl.Group{}
		for _, g := range all {
			for _, a := range g.Members {
				inside[a] = g
			}
		}
		var reach func(from []string, seen map[string]bool)
		reach = func(from []string, seen map[string]bool) {
			for _, a := range from {
				if seen[a] {
					continue
				}
				seen[a] = true
				reach(depends[a], seen)
				if g := inside[a]; g != nil {
					reach(g.Members, seen)
				}
			}
		}
		for _, g := range all {
			before := map[string]bool{}
			reach(g.Members, before)
			for address := range depends {
				own := map[string]bool{}
				if reach(depends[address], own); before[address] && inside[address] != g && own[g.Members[0]] {
					all, again = merged(all, &ddl.Group{Members: append([]string{address}, g.Members...)}), true
					break
				}
			}
			if again {
				break
			}
		}
	}
	return all
}

// findRoots looks for what can be changed only when its dependents are out of the way.
func (b *grouping) findRoots(ctx context.Context) error {
	for _, t := range b.q.Pipeline.Tables {
		address := "table." + t.Name
		if err := b.takesOver(ctx, address); err != nil {
			return err
		}
		columns := table.Displaced(ctx, b.q, t, b.last)
		if len(columns) == 0 {
			continue
		}
		r := &root{address: address}
		for _, column := range columns {
			readers, err := b.q.Catalog.DependentViews(ctx, t.Name, column)
			if err != nil {
				return err
			}
			for _, reader := range readers {
				if err := b.drop(ctx, r, reader, column, false); err != nil {
					return err
				}
			}
		}
		if len(r.dropped)+len(r.blockers) > 0 {
			b.roots = append(b.roots, r)
		}
	}
	for _, x := range b.q.Ordered() {
		if err := b.takesOver(ctx, x.Address); err != nil {
			return err
		}
		l, a := b.v.Views[x.Name], b.answers.ByName[x.Name]
		if l == nil || a.Text == "" || a.Text == l.Query || (b.s.Aggregates[x.Name] != nil) != (x.Aggregate != nil) ||
			a.Rejection != nil || a.Guessed || x.Aggregate == nil && shadow.IsPrefix(l.Columns, a.Columns) ||
			x.Aggregate != nil && a.InPlace != nil {
			continue
		}
		r := &root{address: x.Address}
		if err := b.dropOwn(ctx, r, x.Address, x.Aggregate != nil); err != nil {
			return err
		}
		b.roots = append(b.roots, r)
	}
	return nil
}

// takesOver adds the root of an object that takes over the name of a removed one, which must go first.
func (b *grouping) takesOver(ctx context.Context, address string) error {
	old := b.q.Predecessor(address)
	kind, name, _ := strings.Cut(old, ".")
	live := b.s.Relations[name]
	if old == "" || live == nil || kind != b.s.KindOf(live) || strings.HasPrefix(address, "aggregate.") &&
		!b.s.Caps.Community() {
		return nil
	}
	r := &root{address: address}
	b.roots = append(b.roots, r)
	if a := b.answers.ByName[name]; a != nil && a.Rejection != nil {
		r.blockers = append(r.blockers, "the query of "+address+", which takes its name, is refused")
		return nil
	}
	return b.dropOwn(ctx, r, old, kind == "aggregate")
}

// dropOwn adds an object that must be dropped, with all that reads it.
func (b *grouping) dropOwn(ctx context.Context, r *root, address string, under bool) error {
	kind, name, _ := strings.Cut(address, ".")
	live := b.s.Relations[name]
	var readers []string
	var err error
	if kind == "table" {
		readers, err = b.q.Catalog.DependentViews(ctx, name, "")
	} else if readers, err = b.q.Catalog.Dependents(ctx, name, live.OID); err == nil && kind == "view" &&
		b.q.IsDeclared(address) {
		readers = slices.DeleteFunc(readers, ownPart) // it gets these back
	}
	if err != nil {
		return err
	}
	for _, reader := range readers {
		if err := b.drop(ctx, r, reader, "", under, address); err != nil {
			return err
		}
	}
	if err := b.undeclaredReaders(ctx, r, name); err != nil {
		return err
	}
	r.dropped = append(r.dropped, address)
	return nil
}

// ownPart tells whether a dependent is a trigger or a rule on the view itself.
func ownPart(dependent string) bool {
	return strings.HasPrefix(dependent, "trigger ") || strings.HasPrefix(dependent, "rule ")
}

// drop adds a dependent: of a column of the root, or of what on names. Undeclared views block it, unless they
// read an aggregate: under. They come back as they are.
func (b *grouping) drop(ctx context.Context, r *root, address, column string, under bool, on ...string) error {
	if slices.Contains(r.dropped, address) {
		return nil
	}
	block := func(format string, args ...any) error {
		if text := fmt.Sprintf(format, args...); !slices.Contains(r.blockers, text) {
			r.blockers = append(r.blockers, text)
		}
		return nil
	}
	what := address + " reads " + column
	if len(on) > 0 {
		if what = address + " depends on " + on[0]; on[0] == r.address || on[0] == b.q.Predecessor(r.address) {
			what = address + " depends on it"
		}
	}
	kind, name, _ := strings.Cut(address, ".")
	l := b.v.Views[name]
	if l == nil || kind != "view" && kind != "aggregate" || kind != b.s.KindOf(b.s.Relations[name]) {
		return block("%s", what)
	}
	declared, removed := b.q.IsDeclared(address), b.q.IsRemoved(address)
	switch {
	case !declared && !removed && (kind == "aggregate" || !under):
		return block("%s", what)
	case declared && b.answers.ByName[name].Rejection != nil:
		return block("%s, and its query is refused", what)
	case declared && kind == "aggregate" && b.answers.ByName[name].Text == "":
		return block("%s, and it is left out", what)
	case !l.Mine:
		return block("%s, and its owner is %s", what, l.Owner)
	}
	return b.dropOwn(ctx, r, address, under || kind == "aggregate")
}

// undeclaredReaders looks for undeclared views that name a column which is not there afterwards.
func (b *grouping) undeclaredReaders(ctx context.Context, r *root, name string) error {
	a, l := b.answers.ByName[name], b.v.Views[name]
	if a == nil || l == nil || a.Guessed {
		return nil
	}
	for _, col := range l.Columns {
		if slices.Contains(a.Columns, col) {
			continue
		}
		readers, err := b.q.Catalog.DependentViews(ctx, name, col.Name)
		if err != nil {
			return err
		}
		for _, reader := range readers {
			if strings.HasPrefix(reader, "view.") && !b.q.IsDeclared(reader) && !b.q.IsRemoved(reader) {
				r.blockers = append(r.blockers, fmt.Sprintf("%s reads column %s of %s, which goes or changes its type",
					reader, col.Name, name))
			}
		}
	}
	return nil
}

// findRebuilt lists the aggregates that are dropped and created again.
func (b *grouping) findRebuilt(ctx context.Context) error {
	for _, r := range b.roots {
		for _, address := range r.dropped {
			if kind, name, _ := strings.Cut(address, "."); kind == "aggregate" && b.q.IsDeclared(address) &&
				(len(r.blockers) == 0 || !strings.HasPrefix(r.address, "table.")) {
				b.out.Rebuilt[name] = ""
			}
		}
	}
	for _, x := range b.q.Ordered() { // in order, so that it reaches all descendants
		if _, rebuilt := b.out.Rebuilt[x.Name]; !rebuilt {
			continue
		}
		for _, parent := range x.Depends {
			readers, err := b.q.Catalog.DependentViews(ctx, parent, "")
			if err != nil {
				return err
			}
			if _, goes := b.out.Rebuilt[parent]; goes && slices.Contains(readers, x.Address) {
				b.out.Rebuilt[x.Name] = parent
			}
		}
	}
	return nil
}

// complete gives a group its leader, its order and its statements.
func (b *grouping) complete(ctx context.Context, g *ddl.Group) error {
	for _, t := range b.q.Pipeline.Tables {
		if slices.Contains(g.Members, "table."+t.Name) {
			g.Tables = append(g.Tables, t.Name)
		}
	}
	b.lead(g)
	origins, err := b.dropAll(ctx, g)
	if err != nil {
		return err
	}
	for _, x := range shadow.InOrder(origins) {
		if err := b.create(ctx, g, x); err != nil {
			return err
		}
	}
	for _, address := range g.Members {
		if _, name, _ := strings.Cut(address, "."); b.q.IsDeclared(address) {
			g.Depends = append(g.Depends, b.q.DependsOn(name)...)
		}
	}
	g.Depends = slices.DeleteFunc(g.Depends, func(a string) bool { return slices.Contains(g.Members, a) })
	slices.Sort(g.Depends)
	g.Depends = slices.Compact(g.Depends)
	return nil
}

// lead chooses the leader: a table, else the first root that is created.
func (b *grouping) lead(g *ddl.Group) {
	if len(g.Tables) > 0 {
		g.Leader = "table." + g.Tables[0]
		return
	}
	for _, x := range b.q.Ordered() {
		if slices.ContainsFunc(b.roots, func(r *root) bool {
			return r.address == x.Address && slices.Contains(g.Members, x.Address)
		}) {
			g.Leader = x.Address
			return
		}
	}
}

// dropAll orders what is dropped. It returns what is created afterwards.
func (b *grouping) dropAll(ctx context.Context, g *ddl.Group) (creates []shadow.Origin, err error) {
	var order []string
	for _, r := range b.roots { // each list is in order, and what is in two lists has all its readers in both
		if slices.Contains(g.Members, r.address) && len(r.blockers) == 0 {
			for _, address := range r.dropped {
				if !slices.Contains(order, address) {
					order = append(order, address)
				}
			}
		}
	}
	for _, address := range order {
		kind, name, _ := strings.Cut(address, ".")
		live := b.s.Relations[name]
		g.Drops = append(g.Drops, map[string]string{
			"table": ddl.DropTable, "view": ddl.DropView,
			"aggregate": ddl.DropAggregate,
		}[kind]+pg.Ident(live.Schema, live.Name))
		if kind == "view" && !b.q.IsDeclared(address) && !b.q.IsRemoved(address) {
			l, err := b.q.Catalog.FullView(ctx, b.v.Views[name])
			if err != nil {
				return nil, err
			}
			creates = append(creates, shadow.Origin{View: &spec.View{Name: name, Query: l.Query}, Query: l.Query})
		}
		if !b.q.IsRemoved(address) {
			g.Recreated = append(g.Recreated, address)
		}
	}
	for _, v := range b.q.Pipeline.Views {
		if slices.Contains(g.Members, "view."+v.Name) {
			creates = append(creates, shadow.Origin{View: v, Query: v.Query})
		}
	}
	for _, a := range b.q.Pipeline.Aggregates {
		if slices.Contains(g.Members, "aggregate."+a.Name) {
			creates = append(creates, shadow.Origin{Aggregate: a, Query: a.Query})
		}
	}
	return creates, nil
}

// create adds the statements that create one view or aggregate of a group, with what its predecessor had.
func (b *grouping) create(ctx context.Context, g *ddl.Group, x *shadow.Query) error {
	l, a, name := b.v.Views[x.Name], b.answers.ByName[x.Name], pg.Ident(x.Name)
	if l != nil && (b.s.Aggregates[x.Name] != nil) != (x.Aggregate != nil) { // of another kind: it goes
		l = nil
	}
	if l != nil {
		name = pg.Ident(l.Schema, l.Name)
	}
	if a == nil { // it is undeclared
		a = &shadow.Answer{Text: shadow.Statement(x.Text), Columns: l.Columns}
	}
	description := ""
	if x.Aggregate != nil {
		caps := b.s.Caps
		g.Creates = append(g.Creates, ddl.AggregateSQL(name, a.Text, x.Aggregate, caps)...)
		g.Refreshes = append(g.Refreshes, ddl.RefreshSQL(name, "", x.Aggregate.Refresh, false, caps))
		if len(g.Members) > 1 {
			g.Notes = append(g.Notes, "the refresh of "+x.Address+
				" follows after the transaction: TimescaleDB runs it in none")
		}
		description = x.Aggregate.Description
	} else {
		options := ""
		if l != nil && len(l.Options) > 0 { // they would go with the old query
			options = " WITH (" + strings.Join(l.Options, ", ") + ")"
		}
		g.Creates = append(g.Creates, ddl.CreateView+name+options+" AS\n"+a.Text)
		if i := slices.IndexFunc(b.q.Pipeline.Views, func(v *spec.View) bool { return v.Name == x.Name }); i >= 0 {
			if description = b.q.Pipeline.Views[i].Description; description != "" {
				g.Creates = append(g.Creates, ddl.ViewCommentSQL(name, description))
			}
		}
	}
	if l == nil {
		return nil
	}
	last := b.last[x.Address]
	if _, resets := last.Get("description"); description == "" && l.Comment != "" && !resets {
		g.Creates = append(g.Creates, ddl.ViewCommentSQL(name, l.Comment))
	}
	kept, err := view.ReadPreserved(ctx, b.q.Catalog, l)
	if err != nil {
		return err
	}
	if x.Aggregate != nil {
		kept.Alter = "ALTER MATERIALIZED VIEW "
	}
	g.Creates = append(g.Creates, kept.Statements(a.Columns)...)
	return nil
}
