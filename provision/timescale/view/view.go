package view

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
)

// View is the resource of one view block, or of a removed block that names a view.
type View struct {
	Queries *shadow.Queries
	Spec    *spec.View    // nil: the view is to be deleted
	Removed *spec.Removed // of a view that is to be deleted

	query string     // as the server writes it, known after Read
	reads []string   // of a view that goes
	group *ddl.Group // what it changes together with
}

// Observe reads the view.
func (v *View) Observe(ctx context.Context) (plan.Observation, error) {
	return plan.Observed(ctx, &View{Queries: v.Queries, Spec: v.Spec, Removed: v.Removed})
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
		return spec.Place(v.Removed.Range)
	}
	return spec.Place(v.Spec.Range)
}

// DependsOn lists what the query reads; of a view that goes: what it reads now, known after Read.
func (v *View) DependsOn() []string {
	if v.Spec == nil {
		return v.reads
	}
	return v.group.DependsOn(v.Address(), v.Queries.DependsOn(v.name()))
}

// Want is the declared state. The query is as the server writes it once Read has asked for that.
func (v *View) Want() *plan.State {
	if v.Spec == nil {
		return nil
	}
	s := &plan.State{}
	query := v.query
	if query == "" {
		query = shadow.Statement(v.Spec.Query)
	}
	s.Set(plan.Attr{Name: "query", Value: query, Raw: shadow.Statement(v.Spec.Query)})
	if v.Spec.Description != "" {
		s.Set(plan.Attr{Name: "description", Value: v.Spec.Description})
	}
	return s
}

// Read is the live view, nil when the name is free or another object has it.
func (v *View) Read(ctx context.Context) (*plan.State, error) {
	s, err := v.Queries.Catalog.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	live, err := v.Queries.Catalog.Views(ctx)
	if err != nil {
		return nil, err
	}
	if v.Spec != nil {
		a, err := v.Queries.Answers(ctx)
		if err != nil {
			return nil, err
		}
		v.query = a.ByName[v.name()].Text
	}
	if v.group, err = v.Queries.GroupOf(ctx, v.Address()); err != nil {
		return nil, err
	}
	l := live.Views[v.name()]
	if l == nil || s.Aggregates[v.name()] != nil {
		return nil, nil
	}
	if v.Spec == nil {
		if v.reads, err = v.Queries.Catalog.Dependencies(ctx, v.Address()); err != nil {
			return nil, err
		}
	}
	out := &plan.State{ID: fmt.Sprint(l.OID)}
	out.Set(plan.Attr{Name: "query", Value: l.Query})
	if l.Comment != "" {
		out.Set(plan.Attr{Name: "description", Value: l.Comment})
	}
	for _, o := range l.Options {
		name, value, _ := strings.Cut(o, "=")
		out.Set(plan.Attr{Name: "option " + name, Value: value})
	}
	return out, nil
}

// Assess completes the change.
func (v *View) Assess(ctx context.Context, c *plan.Change) error {
	if c.Action == plan.None && (v.group == nil || c.Live == nil) {
		return nil
	}
	s, err := v.Queries.Catalog.Snapshot(ctx)
	if err != nil {
		return err
	}
	live, err := v.Queries.Catalog.Views(ctx)
	if err != nil {
		return err
	}
	l := live.Views[v.name()]
	if c.Action != plan.Create && !l.Mine {
		c.Find(codeOtherOwner, "", "its owner is %s", l.Owner)
		return nil
	}
	if c.Action == plan.Delete {
		return v.assessDelete(ctx, c, l)
	}
	answers, err := v.Queries.Answers(ctx)
	if err != nil {
		return err
	}
	a := answers.ByName[v.name()]
	if c.Action == plan.Create {
		l = nil // what has the name, if anything
		if what := live.Taken(v.name(), s); what != "" && v.group == nil {
			return nameTaken(ctx, v.Queries, c, what)
		}
	}
	if a.Rejection != nil {
		return v.assessRejection(ctx, c, a.Rejection, answers)
	}
	if v.group != nil || l != nil && !a.Guessed && !shadow.IsPrefix(l.Columns, a.Columns) {
		return v.recreate(ctx, c, l, a)
	}
	name := pg.Ident(v.name())
	if l != nil {
		name = pg.Ident(l.Schema, l.Name)
	}
	var steps []string
	if _, changed := c.Diff("query"); changed && a.Guessed {
		steps = append(steps, "CREATE OR REPLACE VIEW "+name+" AS\n"+a.Text)
		c.Note("its query is not checked, and neither is what depends on it: the database is read-only here")
	} else if changed {
		options := ""
		if l != nil && len(l.Options) > 0 { // they would be taken off with the old query
			options = " WITH (" + strings.Join(l.Options, ", ") + ")"
		}
		steps = append(steps, ddl.CreateView+name+options+" AS\n"+a.Text)
	}
	if d, changed := c.Diff("description"); changed {
		steps = append(steps, ddl.ViewCommentSQL(name, d.New))
	}
	c.Steps = ddl.Transaction(steps...)
	return nil
}

// nameTaken adds the finding that another object has the name of a new view or aggregate.
func nameTaken(ctx context.Context, q *shadow.Queries, c *plan.Change, what string) error {
	groups, err := q.Groups(ctx)
	if err != nil {
		return err
	}
	if blocked := groups.Blocked[c.Address]; len(blocked) > 0 {
		c.Find(codeNameTaken, "", "the name belongs to a %s, which cannot be dropped: %s", what,
			strings.Join(blocked, "; "))
		return nil
	}
	c.Find(codeNameTaken, "", "the name belongs to a %[1]s: give the block another one, or rename the %[1]s", what)
	return nil
}

// recreate drops a view and makes it again with its dependents, where PostgreSQL cannot replace it: its columns change,
// or something that it reads must be out of its way.
func (v *View) recreate(ctx context.Context, c *plan.Change, l *catalog.View, a *shadow.Answer) error {
	what := ""
	if a.Guessed {
		c.Note("its query is not checked, and neither is what depends on it: the database is read-only here")
	} else if l != nil && !shadow.IsPrefix(l.Columns, a.Columns) {
		what = "its columns change: " + columnChanges(l.Columns, a.Columns)
	}
	if v.group == nil {
		groups, err := v.Queries.Groups(ctx)
		if err != nil {
			return err
		}
		c.Find(codeColumnsNeeded, "query", "%s, and %s", what, strings.Join(groups.Blocked[c.Address], ", "))
		return nil
	}
	if what != "" {
		kept, err := ReadPreserved(ctx, v.Queries.Catalog, l)
		if err != nil {
			return err
		}
		if lost := kept.lostDefaults(a.Columns); len(lost) > 0 {
			what += "; the default of " + strings.Join(lost, ", ") + " goes"
		}
		c.Action = plan.Replace
		c.Find(codeViewRebuilt, "query", "%s", what)
	}
	if c.Action == plan.None {
		return nil
	}
	v.group.Join(c, nil)
	return tryGroup(ctx, v.Queries, c, v.group)
}

// columnChanges tells what becomes of columns.
func columnChanges(have, want []catalog.ViewColumn) string {
	var out []string
	for _, h := range have {
		i := slices.IndexFunc(want, func(n catalog.ViewColumn) bool { return n.Name == h.Name })
		switch {
		case i < 0:
			out = append(out, h.Name+" goes")
		case want[i] != h:
			out = append(out, h.Name+" becomes "+want[i].Type)
		}
	}
	if out == nil {
		return "their order changes"
	}
	return strings.Join(out, ", ")
}

// assessRejection reports a query that the server did not take; unless it reads what is left out here.
func (v *View) assessRejection(ctx context.Context, c *plan.Change, r *shadow.Rejection,
	answers *shadow.Answers,
) error {
	caps, err := v.Queries.Catalog.Capabilities(ctx)
	if err != nil {
		return err
	}
	switch missing := v.Queries.LeftOut(v.name(), caps); {
	case missing != "" && slices.Contains([]string{"42P01", "42883"}, r.Code):
		c.Action, c.Diffs = plan.None, nil
		c.Note("left out: it reads %s, which is left out on %s", missing, caps.Name())
	case caps.Version == "" && caps.Available != "" && (r.Code == "42883" || r.Code == "42P01" &&
		(answers.Unplanned != "" || v.Queries.OverAggregate(v.name()))):
		steps := []string{ddl.CreateView + pg.Ident(v.name()) + " AS\n" + shadow.Statement(v.Spec.Query)}
		if v.Spec.Description != "" {
			steps = append(steps, ddl.ViewCommentSQL(pg.Ident(v.name()), v.Spec.Description))
		}
		c.Steps = ddl.Transaction(steps...)
		c.Note("not checked: the same apply installs TimescaleDB first")
	case caps.ReadOnly != "" && answers.Unplanned != "":
		c.Note("its query is not checked: what it depends on could not be tried out, since the database is " +
			"read-only here")
	case answers.Unplanned != "" && r.Code == "42P01":
		c.Find(codeQueryRejected, "query", "%s. The tables that this plan makes could not be tried out: %s", r,
			answers.Unplanned)
	default:
		c.Find(codeQueryRejected, "query", "%s", r)
	}
	return nil
}

func (v *View) assessDelete(ctx context.Context, c *plan.Change, l *catalog.View) error {
	readers, err := v.Queries.Catalog.Dependents(ctx, v.name(), l.OID)
	if err != nil {
		return err
	}
	blocked, err := v.Queries.Blocking(ctx, v.Removed, v.group, readers)
	if err != nil {
		return err
	}
	if blocked != "" {
		c.Find(codeViewNeeded, "", "%s", blocked)
		return nil
	}
	kept, err := ReadPreserved(ctx, v.Queries.Catalog, l)
	if err != nil {
		return err
	}
	if others := kept.grantees(); len(others) > 0 {
		c.Find(codeViewGranted, "", "%s may read it", strings.Join(others, ", "))
	}
	if v.group != nil {
		v.group.Join(c, nil)
		return nil
	}
	c.Steps = ddl.Transaction(ddl.DropView + pg.Ident(l.Schema, l.Name))
	return nil
}

// Make carries out the steps. All of them may be repeated.
func (v *View) Make(ctx context.Context, c plan.Change) error {
	return ddl.Apply(ctx, v.Queries.Catalog.DB, c)
}
