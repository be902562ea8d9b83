package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// View is the resource of one view block, or of a removed block that names a view.
type View struct {
	Queries *Queries
	Spec    *spec.View    // nil: the view shall be deleted
	Removed *spec.Removed // of a view that shall be deleted

	query string   // as the server writes it, known after Read
	reads []string // of a view that goes
	group *group   // what it changes together with
}

func (v *View) name() string {
	if v.Spec == nil {
		return v.Removed.Name
	}
	return v.Spec.Name
}

// Address is view.NAME.
func (v *View) Address() string { return "view." + v.name() }

// Where is the place of the block.
func (v *View) Where() string {
	if v.Spec == nil {
		return place(v.Removed.Range)
	}
	return place(v.Spec.Range)
}

func place(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

// DependsOn lists what the query reads; of a view that goes: what it reads now, known after Read.
func (v *View) DependsOn() []string {
	if v.Spec == nil {
		return v.reads
	}
	return v.group.dependsOn(v.Address(), v.Queries.dependsOn(v.name()))
}

// Want is the declared state. The query is as the server writes it once Read has asked for that.
func (v *View) Want() *plan.State {
	if v.Spec == nil {
		return nil
	}
	s := &plan.State{}
	query := v.query
	if query == "" {
		query = statement(v.Spec.Query)
	}
	s.Set(plan.Attr{Name: "query", Value: query, Raw: statement(v.Spec.Query)})
	if v.Spec.Description != "" {
		s.Set(plan.Attr{Name: "description", Value: v.Spec.Description})
	}
	return s
}

// Read is the live view, nil when the name is free or another object has it.
func (v *View) Read(ctx context.Context) (*plan.State, error) {
	s, err := v.Queries.Catalog.load(ctx)
	if err != nil {
		return nil, err
	}
	live, err := v.Queries.Catalog.views(ctx)
	if err != nil {
		return nil, err
	}
	if v.Spec != nil {
		a, err := v.Queries.answers(ctx)
		if err != nil {
			return nil, err
		}
		v.query = a.by[v.name()].text
	}
	if v.group, err = v.Queries.groupOf(ctx, v.Address()); err != nil {
		return nil, err
	}
	l := live.views[v.name()]
	if l == nil || s.aggregates[v.name()] != nil {
		return nil, nil
	}
	if v.Spec == nil {
		if v.reads, err = v.Queries.Catalog.readBy(ctx, v.Address()); err != nil {
			return nil, err
		}
	}
	out := &plan.State{ID: fmt.Sprint(l.oid)}
	out.Set(plan.Attr{Name: "query", Value: l.query})
	if l.comment != "" {
		out.Set(plan.Attr{Name: "description", Value: l.comment})
	}
	for _, o := range l.options {
		name, value, _ := strings.Cut(o, "=")
		out.Set(plan.Attr{Name: "option " + name, Value: value})
	}
	return out, nil
}

// Judge completes the change.
func (v *View) Judge(ctx context.Context, c *plan.Change) error {
	if c.Action == plan.None && (v.group == nil || c.Live == nil) {
		return nil
	}
	s, err := v.Queries.Catalog.load(ctx)
	if err != nil {
		return err
	}
	live, err := v.Queries.Catalog.views(ctx)
	if err != nil {
		return err
	}
	l := live.views[v.name()]
	if c.Action != plan.Create && !l.mine {
		c.Find("CV-V07", "", "its owner is %s", l.owner)
		return nil
	}
	if c.Action == plan.Delete {
		return v.judgeDelete(ctx, c, l)
	}
	answers, err := v.Queries.answers(ctx)
	if err != nil {
		return err
	}
	a := answers.by[v.name()]
	if c.Action == plan.Create {
		l = nil // what has the name, if anything
		if what := live.taken(v.name(), s); what != "" && v.group == nil {
			return nameTaken(ctx, v.Queries, c, what)
		}
	}
	if a.refusal != nil {
		return v.judgeRefusal(ctx, c, a.refusal, answers)
	}
	if v.group != nil || l != nil && !a.guessed && !prefix(l.columns, a.columns) {
		return v.recreate(ctx, c, l, a)
	}
	name := pg.Ident(v.name())
	if l != nil {
		name = pg.Ident(l.schema, l.name)
	}
	var steps []string
	if _, changed := c.Diff("query"); changed && a.guessed {
		steps = append(steps, "CREATE OR REPLACE VIEW "+name+" AS\n"+a.text)
		c.Note("its query is not checked, and neither is what depends on it: the database is read-only here")
	} else if changed {
		options := ""
		if l != nil && len(l.options) > 0 { // they would be taken off with the old query
			options = " WITH (" + strings.Join(l.options, ", ") + ")"
		}
		steps = append(steps, createView+name+options+" AS\n"+a.text)
	}
	if d, changed := c.Diff("description"); changed {
		steps = append(steps, commentOnView(name, d.New))
	}
	c.Steps = transaction(steps...)
	return nil
}

// nameTaken adds the finding that another object has the name of a new view or aggregate.
func nameTaken(ctx context.Context, q *Queries, c *plan.Change, what string) error {
	groups, err := q.groups(ctx)
	if err != nil {
		return err
	}
	if blocked := groups.blocked[c.Address]; len(blocked) > 0 {
		c.Find("CV-V01", "", "the name belongs to a %s, which cannot be dropped: %s", what, strings.Join(blocked, "; "))
		return nil
	}
	c.Find("CV-V01", "", "the name belongs to a %[1]s: give the block another one, or rename the %[1]s", what)
	return nil
}

// recreate drops a view and makes it again with what hung on it, where PostgreSQL cannot replace it: its columns change, or
// something that it reads must be out of its way.
func (v *View) recreate(ctx context.Context, c *plan.Change, l *liveView, a *answer) error {
	what := ""
	if a.guessed {
		c.Note("its query is not checked, and neither is what depends on it: the database is read-only here")
	} else if l != nil && !prefix(l.columns, a.columns) {
		what = "its columns change: " + columnChanges(l.columns, a.columns)
	}
	if v.group == nil {
		groups, err := v.Queries.groups(ctx)
		if err != nil {
			return err
		}
		c.Find("CV-V03", "query", "%s, and %s", what, strings.Join(groups.blocked[c.Address], ", "))
		return nil
	}
	if what != "" {
		kept, err := keep(ctx, v.Queries.Catalog, l)
		if err != nil {
			return err
		}
		if lost := kept.lostDefaults(a.columns); len(lost) > 0 {
			what += "; the default of " + strings.Join(lost, ", ") + " goes"
		}
		c.Action = plan.Replace
		c.Find("CV-V04", "query", "%s", what)
	}
	if c.Action == plan.None {
		return nil
	}
	v.group.join(c, nil)
	return tryGroup(ctx, v.Queries, c, v.group)
}

// columnChanges tells what becomes of columns.
func columnChanges(have, want []viewColumn) string {
	var out []string
	for _, h := range have {
		i := slices.IndexFunc(want, func(n viewColumn) bool { return n.name == h.name })
		switch {
		case i < 0:
			out = append(out, h.name+" goes")
		case want[i] != h:
			out = append(out, h.name+" becomes "+want[i].typ)
		}
	}
	if out == nil {
		return "their order changes"
	}
	return strings.Join(out, ", ")
}

// judgeRefusal tells of a query that the server did not take; unless it reads what is left out here.
func (v *View) judgeRefusal(ctx context.Context, c *plan.Change, r *objection, answers *answers) error {
	caps, err := v.Queries.Catalog.Capabilities(ctx)
	if err != nil {
		return err
	}
	switch missing := v.Queries.leftOut(v.name(), caps); {
	case missing != "" && slices.Contains([]string{"42P01", "42883"}, r.code):
		c.Action, c.Diffs = plan.None, nil
		c.Note("left out: it reads %s, which is left out on %s", missing, caps.Name())
	case caps.Version == "" && caps.Available != "" && (r.code == "42883" || r.code == "42P01" && (answers.unplanned != "" || v.Queries.overAggregate(v.name()))):
		steps := []string{createView + pg.Ident(v.name()) + " AS\n" + statement(v.Spec.Query)}
		if v.Spec.Description != "" {
			steps = append(steps, commentOnView(pg.Ident(v.name()), v.Spec.Description))
		}
		c.Steps = transaction(steps...)
		c.Note("not checked: the same apply installs TimescaleDB first")
	case caps.ReadOnly != "" && answers.unplanned != "":
		c.Note("its query is not checked: what it depends on could not be tried out, since the database is read-only here")
	case answers.unplanned != "" && r.code == "42P01":
		c.Find("CV-V02", "query", "%s. The tables that this plan makes could not be tried out: %s", r, answers.unplanned)
	default:
		c.Find("CV-V02", "query", "%s", r)
	}
	return nil
}

func (v *View) judgeDelete(ctx context.Context, c *plan.Change, l *liveView) error {
	readers, err := v.Queries.Catalog.hanging(ctx, v.name(), l.oid)
	if err != nil {
		return err
	}
	blocked, err := v.Queries.keepers(ctx, v.Removed, v.group, readers)
	if err != nil {
		return err
	}
	if blocked != "" {
		c.Find("CV-V05", "", "%s", blocked)
		return nil
	}
	kept, err := keep(ctx, v.Queries.Catalog, l)
	if err != nil {
		return err
	}
	if others := kept.grantees(); len(others) > 0 {
		c.Find("CV-V06", "", "%s may read it", strings.Join(others, ", "))
	}
	if v.group != nil {
		v.group.join(c, nil)
		return nil
	}
	c.Steps = transaction(dropView + pg.Ident(l.schema, l.name))
	return nil
}

// Apply carries out the steps. All of them may be repeated.
func (v *View) Apply(ctx context.Context, c plan.Change) error {
	return carryOut(ctx, v.Queries.Catalog.DB, c)
}

// carryOut applies a change that is all in its steps.
func carryOut(ctx context.Context, db *pgxpool.Pool, c plan.Change) error {
	if c.Impossible() {
		return fmt.Errorf("change %s: it cannot be done, as the plan says", c.Address)
	}
	if err := execute(ctx, db, c); err != nil {
		return fmt.Errorf("%s %s: %w", c.Action, c.Address, explain(ctx, db, err))
	}
	return nil
}

// overAggregate tells whether a query reads an aggregate, directly or not.
func (q *Queries) overAggregate(name string) bool {
	return slices.ContainsFunc(q.ancestors(name), func(x *query) bool { return x.aggregate != nil })
}

// keepers tells which dependents of a removed object keep it from being dropped: not what goes, too, nor what is declared and does
// not read it any more. g is its group.
func (q *Queries) keepers(ctx context.Context, removed *spec.Removed, g *group, readers []string) (string, error) {
	if g != nil {
		return "", nil
	}
	if next := q.Successor(removed); next != "" && !q.Destroying {
		groups, err := q.groups(ctx)
		if err != nil {
			return "", err
		}
		if blocked := groups.blocked[next]; len(blocked) > 0 {
			return strings.Join(blocked, "; "), nil
		}
	}
	readers, err := q.stillReading(ctx, removed.Name, slices.DeleteFunc(readers, q.removed))
	if err != nil || len(readers) == 0 {
		return "", err
	}
	return areHanging(readers), nil
}

// stillReading leaves out what is declared and does not read an object any more.
func (q *Queries) stillReading(ctx context.Context, name string, readers []string) ([]string, error) {
	if q.Destroying || !slices.ContainsFunc(readers, q.declared) {
		return readers, nil
	}
	answers, err := q.answers(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(readers, func(reader string) bool {
		i := slices.IndexFunc(q.queries(), func(x *query) bool { return x.address == reader })
		if i < 0 {
			return false
		}
		x := q.queries()[i]
		return answers.by[x.name].refusal == nil && (answers.hides || len(mentions(x.text, []string{name})) == 0)
	}), nil
}

// removed tells whether a removed block takes an object away in the same plan.
func (q *Queries) removed(address string) bool {
	return slices.ContainsFunc(q.Pipeline.Removed, func(r *spec.Removed) bool { return r.Address() == address })
}

func commentOnView(name, text string) string {
	return "COMMENT ON VIEW " + name + " IS " + pg.LiteralOrNull(text)
}

// transaction puts statements into one transaction that waits for no lock for long.
func transaction(statements ...string) []string {
	if len(statements) == 0 {
		return nil
	}
	return slices.Concat([]string{"BEGIN", fmt.Sprintf("SET LOCAL lock_timeout = '%s'", pg.LockWait)}, statements, []string{"COMMIT"})
}

// dependentsSQL lists what goes with a view, or forbids that it goes, beyond the views that read it: triggers and rules on it,
// and what needs it or the type of its rows; with the relation that it is a part of.
const dependentsSQL = `SELECT 'trigger ' || quote_ident(tgname), 0::oid FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
	UNION SELECT 'rule ' || quote_ident(rulename), 0 FROM pg_rewrite WHERE ev_class = $1 AND rulename <> '_RETURN'
	UNION SELECT CASE WHEN w.rulename = '_RETURN' THEN 'view ' || w.ev_class::regclass ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END,
		CASE d.classid WHEN 'pg_class'::regclass THEN d.objid ELSE coalesce(w.ev_class, 0) END
	FROM pg_class c JOIN pg_type t ON t.oid = c.reltype JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)
	LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
	WHERE c.oid = $1 AND d.deptype = 'n' AND (w.oid IS NULL OR w.ev_class <> $1 AND d.refclassid = 'pg_type'::regclass) ORDER BY 1`

// hanging lists what stands in the way of dropping a view. What Reads names already is not named again as a user of the type.
func (c *Catalog) hanging(ctx context.Context, name string, oid uint32) ([]string, error) {
	readers, err := c.Reads(ctx, name, "")
	if err != nil {
		return nil, err
	}
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	named := map[uint32]bool{}
	for _, r := range s.relations {
		named[r.oid] = slices.Contains(readers, s.addressOf(r))
	}
	rows, err := c.query(ctx, dependentsSQL, oid)
	if err != nil {
		return nil, fmt.Errorf("read what depends on %s: %w", name, err)
	}
	var what string
	var part uint32
	if _, err := pgx.ForEachRow(rows, []any{&what, &part}, func() error {
		if !named[part] && !slices.Contains(readers, what) {
			readers = append(readers, what)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what depends on %s: %w", name, err)
	}
	return readers, nil
}

func areHanging(readers []string) string {
	if len(readers) == 1 {
		return readers[0] + " depends on it"
	}
	return strings.Join(readers, ", ") + " depend on it"
}
