package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// group is what PostgreSQL changes only together: a view or an aggregate keeps a column, or a whole view, from being changed, so
// it is dropped before and created after, all in one transaction. The change of the leader has the statements of all.
type group struct {
	leader    string
	of        []string // addresses of what is changed, dropped or created in it
	depends   []string // what must be there before the transaction
	tables    []string // names of the tables that are changed in it, the leader first if it is one
	drops     []string // statements, what reads another before that one
	creates   []string // statements, what reads another after that one
	refreshes []string // statements that TimescaleDB runs in no transaction
	again     []string // addresses of what is dropped and created again
	notes     []string
}

// aggregates tells whether continuous aggregates are dropped or created: that is too much for a dry run.
func (g *group) aggregates() bool {
	return slices.ContainsFunc(slices.Concat(g.drops, g.creates), func(sql string) bool {
		return strings.HasPrefix(sql, dropAggregate) || strings.HasPrefix(sql, createAggregate)
	})
}

// groups is how the changes of a plan hang together.
type groups struct {
	of      map[string]*group   // by address
	blocked map[string][]string // what forbids a change: by address, "view.x depends on it"
	rebuilt map[string]string   // aggregates that are created again: by name, the one that they read and that is, too, or ""
}

// groups returns what must be changed together; it is known once Read was called.
func (q *Queries) groups(ctx context.Context) (*groups, error) {
	return cached(ctx, q.Catalog, "groups", func(ctx context.Context) (*groups, error) {
		if q.FindGroups == nil {
			return &groups{}, nil
		}
		return q.FindGroups(ctx)
	})
}

// NewQueries returns the queries of a pipeline. They know which changes must be made together.
func NewQueries(p *spec.Pipeline, c *Catalog) *Queries {
	q := &Queries{Pipeline: p, Catalog: c}
	q.FindGroups = func(ctx context.Context) (*groups, error) { return findGroups(ctx, q) }
	return q
}

// findGroups finds the groups of all that the pipeline declares or removes.
func findGroups(ctx context.Context, q *Queries) (*groups, error) {
	out := &groups{of: map[string]*group{}, blocked: map[string][]string{}, rebuilt: map[string]string{}}
	if q.Destroying || len(q.queries()) == 0 && !slices.ContainsFunc(q.Pipeline.Removed, func(r *spec.Removed) bool { return q.Successor(r) != "" }) {
		return out, nil
	}
	b := &grouping{q: q, out: out}
	var err error
	if b.s, err = q.Catalog.load(ctx); err != nil {
		return nil, err
	}
	if b.last, err = q.Catalog.managed(ctx); err != nil {
		return nil, err
	}
	if b.v, err = q.Catalog.views(ctx); err == nil {
		b.answers, err = q.answers(ctx)
	}
	if pg.Is(err, pg.LockBusy) { // views wait for it; a table is judged by itself, and says what its own dry run met
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, b.build(ctx)
}

// Successor is the address of what is declared under the name of a removed table, view or aggregate, as another kind; or "".
func (q *Queries) Successor(r *spec.Removed) string {
	if !slices.Contains([]string{"table", "view", "aggregate"}, r.Kind) {
		return ""
	}
	if slices.ContainsFunc(q.Pipeline.Tables, func(t *spec.Table) bool { return t.Name == r.Name }) {
		return "table." + r.Name
	}
	for _, x := range q.queries() {
		if x.name == r.Name {
			return x.address
		}
	}
	return ""
}

// predecessor is the address of the removed object whose name a declared one takes over; or "".
func (q *Queries) predecessor(address string) string {
	for _, r := range q.Pipeline.Removed {
		if q.Successor(r) == address {
			return r.Address()
		}
	}
	return ""
}

// grouping finds the groups.
type grouping struct {
	q       *Queries
	s       *snapshot
	v       *viewSnapshot
	last    map[string]plan.State
	answers *answers
	out     *groups
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
	var all []*group
	for _, r := range b.roots {
		if len(r.blockers) > 0 {
			b.out.blocked[r.address] = r.blockers
			continue
		}
		all = merged(all, &group{of: append([]string{r.address}, r.dropped...)})
	}
	for _, g := range b.closed(all) {
		if err := b.complete(ctx, g); err != nil {
			return err
		}
		for _, address := range g.of {
			b.out.of[address] = g
		}
	}
	return nil
}

// merged adds a group to others, and makes one of those that share an object.
func merged(all []*group, g *group) []*group {
	one := &group{of: slices.Clone(g.of)}
	all = slices.DeleteFunc(all, func(o *group) bool {
		shares := slices.ContainsFunc(o.of, func(a string) bool { return slices.Contains(g.of, a) })
		if shares {
			one.of = append(one.of, o.of...)
		}
		return shares
	})
	slices.Sort(one.of)
	one.of = slices.Compact(one.of)
	return append(all, one)
}

// closed adds to each group what can be created neither before nor after it: it reads one of the group, and another one reads it.
func (b *grouping) closed(all []*group) []*group {
	depends := map[string][]string{}
	for _, x := range b.q.queries() {
		l, a := b.v.views[x.name], b.answers.by[x.name]
		if a.refusal == nil && (l == nil || l.query != a.text || (b.s.aggregates[x.name] != nil) != (x.aggregate != nil)) {
			depends[x.address] = b.q.dependsOn(x.name)
		}
	}
	for again := true; again; {
		again = false
		inside := map[string]*group{}
		for _, g := range all {
			for _, a := range g.of {
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
					reach(g.of, seen)
				}
			}
		}
		for _, g := range all {
			before := map[string]bool{}
			reach(g.of, before)
			for address := range depends {
				own := map[string]bool{}
				if reach(depends[address], own); before[address] && inside[address] != g && own[g.of[0]] {
					all, again = merged(all, &group{of: append([]string{address}, g.of...)}), true
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
		columns := displaced(ctx, b.q, t, b.last)
		if len(columns) == 0 {
			continue
		}
		r := &root{address: address}
		for _, column := range columns {
			readers, err := b.q.Catalog.Reads(ctx, t.Name, column)
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
	for _, x := range b.q.queries() {
		if err := b.takesOver(ctx, x.address); err != nil {
			return err
		}
		l, a := b.v.views[x.name], b.answers.by[x.name]
		if l == nil || a.text == "" || a.text == l.query || (b.s.aggregates[x.name] != nil) != (x.aggregate != nil) ||
			a.refusal != nil || a.guessed || x.aggregate == nil && prefix(l.columns, a.columns) || x.aggregate != nil && a.inPlace != nil {
			continue
		}
		r := &root{address: x.address}
		if err := b.dropOwn(ctx, r, x.address, x.aggregate != nil); err != nil {
			return err
		}
		b.roots = append(b.roots, r)
	}
	return nil
}

// takesOver adds the root of an object that takes over the name of a removed one, which must go first.
func (b *grouping) takesOver(ctx context.Context, address string) error {
	old := b.q.predecessor(address)
	kind, name, _ := strings.Cut(old, ".")
	live := b.s.relations[name]
	if old == "" || live == nil || kind != b.s.kindOf(live) || strings.HasPrefix(address, "aggregate.") && !b.s.caps.Community() {
		return nil
	}
	r := &root{address: address}
	b.roots = append(b.roots, r)
	if a := b.answers.by[name]; a != nil && a.refusal != nil {
		r.blockers = append(r.blockers, "the query of "+address+", which takes its name, is refused")
		return nil
	}
	return b.dropOwn(ctx, r, old, kind == "aggregate")
}

// kindOf is the kind of a block that could declare a relation; "" for none.
func (s *snapshot) kindOf(r *relation) string {
	if s.aggregates[r.name] != nil {
		return "aggregate"
	}
	return map[string]string{"r": "table", "p": "table", "v": "view"}[r.kind]
}

// dropOwn adds an object that must be dropped, with all that reads it.
func (b *grouping) dropOwn(ctx context.Context, r *root, address string, under bool) error {
	kind, name, _ := strings.Cut(address, ".")
	live := b.s.relations[name]
	var readers []string
	var err error
	if kind == "table" {
		readers, err = b.q.Catalog.Reads(ctx, name, "")
	} else if readers, err = b.q.Catalog.hanging(ctx, name, live.oid); err == nil && kind == "view" && b.q.declared(address) {
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

// declared tells whether a view or an aggregate has a block.
func (q *Queries) declared(address string) bool {
	return slices.ContainsFunc(q.queries(), func(x *query) bool { return x.address == address })
}

// drop adds a dependent: of a column of the root, or of what on names. Views that nobody declares stay in the way, unless they
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
		if what = address + " depends on " + on[0]; on[0] == r.address || on[0] == b.q.predecessor(r.address) {
			what = address + " depends on it"
		}
	}
	kind, name, _ := strings.Cut(address, ".")
	l := b.v.views[name]
	if l == nil || kind != "view" && kind != "aggregate" || kind != b.s.kindOf(b.s.relations[name]) {
		return block("%s", what)
	}
	declared, removed := b.q.declared(address), b.q.removed(address)
	switch {
	case !declared && !removed && (kind == "aggregate" || !under):
		return block("%s", what)
	case declared && b.answers.by[name].refusal != nil:
		return block("%s, and its query is refused", what)
	case declared && kind == "aggregate" && b.answers.by[name].text == "":
		return block("%s, and it is left out", what)
	case !l.mine:
		return block("%s, and its owner is %s", what, l.owner)
	}
	return b.dropOwn(ctx, r, address, under || kind == "aggregate")
}

// undeclaredReaders looks for views that nobody declares and that name a column which is not there afterwards.
func (b *grouping) undeclaredReaders(ctx context.Context, r *root, name string) error {
	a, l := b.answers.by[name], b.v.views[name]
	if a == nil || l == nil || a.guessed {
		return nil
	}
	for _, col := range l.columns {
		if slices.Contains(a.columns, col) {
			continue
		}
		readers, err := b.q.Catalog.Reads(ctx, name, col.name)
		if err != nil {
			return err
		}
		for _, reader := range readers {
			if strings.HasPrefix(reader, "view.") && !b.q.declared(reader) && !b.q.removed(reader) {
				r.blockers = append(r.blockers, fmt.Sprintf("%s reads column %s of %s, which goes or changes its type", reader, col.name, name))
			}
		}
	}
	return nil
}

// findRebuilt lists the aggregates that are dropped and created again.
func (b *grouping) findRebuilt(ctx context.Context) error {
	for _, r := range b.roots {
		for _, address := range r.dropped {
			if kind, name, _ := strings.Cut(address, "."); kind == "aggregate" && b.q.declared(address) && (len(r.blockers) == 0 || !strings.HasPrefix(r.address, "table.")) {
				b.out.rebuilt[name] = ""
			}
		}
	}
	for _, x := range b.q.queries() { // in order, so that it reaches all descendants
		if _, rebuilt := b.out.rebuilt[x.name]; !rebuilt {
			continue
		}
		for _, parent := range x.depends {
			readers, err := b.q.Catalog.Reads(ctx, parent, "")
			if err != nil {
				return err
			}
			if _, goes := b.out.rebuilt[parent]; goes && slices.Contains(readers, x.address) {
				b.out.rebuilt[x.name] = parent
			}
		}
	}
	return nil
}

// complete gives a group its leader, its order and its statements.
func (b *grouping) complete(ctx context.Context, g *group) error {
	for _, t := range b.q.Pipeline.Tables {
		if slices.Contains(g.of, "table."+t.Name) {
			g.tables = append(g.tables, t.Name)
		}
	}
	b.lead(g)
	origins, err := b.dropAll(ctx, g)
	if err != nil {
		return err
	}
	for _, x := range inOrder(origins) {
		if err := b.create(ctx, g, x); err != nil {
			return err
		}
	}
	for _, address := range g.of {
		if _, name, _ := strings.Cut(address, "."); b.q.declared(address) {
			g.depends = append(g.depends, b.q.dependsOn(name)...)
		}
	}
	g.depends = slices.DeleteFunc(g.depends, func(a string) bool { return slices.Contains(g.of, a) })
	slices.Sort(g.depends)
	g.depends = slices.Compact(g.depends)
	return nil
}

// lead chooses the leader: a table, else the first root that is created.
func (b *grouping) lead(g *group) {
	if len(g.tables) > 0 {
		g.leader = "table." + g.tables[0]
		return
	}
	for _, x := range b.q.queries() {
		if slices.ContainsFunc(b.roots, func(r *root) bool { return r.address == x.address && slices.Contains(g.of, x.address) }) {
			g.leader = x.address
			return
		}
	}
}

// dropAll orders what is dropped. It returns what is created afterwards.
func (b *grouping) dropAll(ctx context.Context, g *group) (creates []origin, err error) {
	var order []string
	for _, r := range b.roots { // each list is in order, and what is in two lists has all its readers in both
		if slices.Contains(g.of, r.address) && len(r.blockers) == 0 {
			for _, address := range r.dropped {
				if !slices.Contains(order, address) {
					order = append(order, address)
				}
			}
		}
	}
	for _, address := range order {
		kind, name, _ := strings.Cut(address, ".")
		live := b.s.relations[name]
		g.drops = append(g.drops, map[string]string{"table": dropTable, "view": dropView, "aggregate": dropAggregate}[kind]+pg.Ident(live.schema, live.name))
		if kind == "view" && !b.q.declared(address) && !b.q.removed(address) {
			l, err := b.q.Catalog.defined(ctx, b.v.views[name])
			if err != nil {
				return nil, err
			}
			creates = append(creates, origin{&spec.View{Name: name, Query: l.query}, nil, l.query})
		}
		if !b.q.removed(address) {
			g.again = append(g.again, address)
		}
	}
	for _, v := range b.q.Pipeline.Views {
		if slices.Contains(g.of, "view."+v.Name) {
			creates = append(creates, origin{v, nil, v.Query})
		}
	}
	for _, a := range b.q.Pipeline.Aggregates {
		if slices.Contains(g.of, "aggregate."+a.Name) {
			creates = append(creates, origin{nil, a, a.Query})
		}
	}
	return creates, nil
}

// Statements of groups begin with these.
const (
	dropTable       = "DROP TABLE IF EXISTS "
	dropView        = "DROP VIEW IF EXISTS "
	dropAggregate   = "DROP MATERIALIZED VIEW IF EXISTS "
	createView      = "CREATE OR REPLACE VIEW "
	createAggregate = "CREATE MATERIALIZED VIEW IF NOT EXISTS "
)

// create adds the statements that create one view or aggregate of a group, with what its predecessor had.
func (b *grouping) create(ctx context.Context, g *group, x *query) error {
	l, a, name := b.v.views[x.name], b.answers.by[x.name], pg.Ident(x.name)
	if l != nil && (b.s.aggregates[x.name] != nil) != (x.aggregate != nil) { // of another kind: it goes
		l = nil
	}
	if l != nil {
		name = pg.Ident(l.schema, l.name)
	}
	if a == nil { // nobody declares it
		a = &answer{text: statement(x.text), columns: l.columns}
	}
	description := ""
	if x.aggregate != nil {
		caps := b.s.caps
		g.creates = append(g.creates, aggregateSQL(name, a.text, x.aggregate, caps)...)
		g.refreshes = append(g.refreshes, refreshSQL(name, "", x.aggregate.Refresh, false, caps))
		if len(g.of) > 1 {
			g.notes = append(g.notes, "the refresh of "+x.address+" follows after the transaction: TimescaleDB runs it in none")
		}
		description = x.aggregate.Description
	} else {
		options := ""
		if l != nil && len(l.options) > 0 { // they would go with the old query
			options = " WITH (" + strings.Join(l.options, ", ") + ")"
		}
		g.creates = append(g.creates, createView+name+options+" AS\n"+a.text)
		if i := slices.IndexFunc(b.q.Pipeline.Views, func(v *spec.View) bool { return v.Name == x.name }); i >= 0 {
			if description = b.q.Pipeline.Views[i].Description; description != "" {
				g.creates = append(g.creates, commentOnView(name, description))
			}
		}
	}
	if l == nil {
		return nil
	}
	last := b.last[x.address]
	if _, resets := last.Get("description"); description == "" && l.comment != "" && !resets {
		g.creates = append(g.creates, commentOnView(name, l.comment))
	}
	kept, err := keep(ctx, b.q.Catalog, l)
	if err != nil {
		return err
	}
	if x.aggregate != nil {
		kept.alter = "ALTER MATERIALIZED VIEW "
	}
	g.creates = append(g.creates, kept.statements(a.columns)...)
	return nil
}

// join says on a change that it belongs to a group, and gives the leader's the statements of all. tables are those of the
// leader's table, as inTransaction has them; others lists those of the other tables.
func (g *group) join(c *plan.Change, steps []string) {
	if len(g.of) > 1 {
		c.Group = g.leader
	}
	if c.Address != g.leader {
		c.Steps = nil
		c.Note("done in the transaction of %s", g.leader)
		return
	}
	for _, n := range g.notes {
		c.Note("%s", n)
	}
	if again := slices.DeleteFunc(slices.Clone(g.again), func(a string) bool { return a == c.Address }); len(again) > 0 {
		c.Note("dropped and created again in the same transaction, with grants and comments: %s", strings.Join(again, ", "))
	}
	inside, after := unwrapped(steps)
	c.Steps = slices.Concat(transaction(slices.Concat(g.drops, inside, g.creates)...), after, g.refreshes)
}

// dependsOn lists what a member of a group depends on, other than those that are changed with it. Of no group: own.
func (g *group) dependsOn(address string, own []string) []string {
	switch {
	case g == nil:
		return own
	case g.leader != address:
		return append(slices.Clone(own), g.leader)
	}
	return g.depends
}

// groupOf returns the group of an object; nil when it is in none.
func (q *Queries) groupOf(ctx context.Context, address string) (*group, error) {
	if q == nil {
		return nil, nil
	}
	groups, err := q.groups(ctx)
	if err != nil {
		return nil, err
	}
	return groups.of[address], nil
}

// tryGroup runs the transaction of a group and rolls it back: what a view gets back need not suit its new columns.
func tryGroup(ctx context.Context, q *Queries, c *plan.Change, g *group) error {
	if c.Address != g.leader || g.aggregates() || len(g.tables) > 0 {
		return nil
	}
	inside, _ := unwrapped(c.Steps)
	at := ""
	err := q.Catalog.trial(ctx, func(tx pgx.Tx) error {
		for _, sql := range inside {
			at = sql
			if err := pg.ExecSingle(ctx, tx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil, strings.HasPrefix(at, createView): // the query was tried with all that the plan makes first
	case refused(err) != nil:
		c.Find("CV-V03", "query", "%s: %s", pg.FirstLine(at), refused(err))
		c.Steps = nil
	case pg.Code(err) != "":
		c.Note("not tried on the server: %s", pg.ServerText(err))
	default:
		return fmt.Errorf("try the change of %s: %w", c.Address, err)
	}
	return nil
}

// unwrapped takes steps out of their transaction; after is what follows it.
func unwrapped(steps []string) (inside, after []string) {
	end := slices.Index(steps, "COMMIT")
	if end < 0 {
		return nil, steps
	}
	return steps[2:end], steps[end+1:] // after BEGIN and the bound of its locks
}
