package timescale

import (
	"context"
	"fmt"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Aggregate is the resource of one aggregate block: a continuous aggregate of TimescaleDB with its policies.
//
// Apply makes it WITH NO DATA, together with its policies, in one transaction. The first refresh comes after that, outside of
// a transaction as TimescaleDB wants it, and over all data of the source: a policy only ever looks at its window. When it
// fails, Apply fails, the aggregate stays, and the next plan finds it empty and refreshes again.
type Aggregate struct {
	Queries *Queries
	Spec    *spec.Aggregate // nil: the aggregate shall be deleted
	Removed *spec.Removed   // of an aggregate that shall be deleted

	query string   // as the server writes it, known after Read
	reads []string // of an aggregate that goes
	group *group   // what it changes together with
}

func (a *Aggregate) name() string {
	if a.Spec == nil {
		return a.Removed.Name
	}
	return a.Spec.Name
}

// Address is aggregate.NAME.
func (a *Aggregate) Address() string { return "aggregate." + a.name() }

// Where is the place of the block.
func (a *Aggregate) Where() string {
	if a.Spec == nil {
		return place(a.Removed.Range)
	}
	return place(a.Spec.Range)
}

// DependsOn lists what the query reads; of an aggregate that goes: what it reads now, known after Read.
func (a *Aggregate) DependsOn() []string {
	if a.Spec == nil {
		return a.reads
	}
	return a.group.dependsOn(a.Address(), a.Queries.dependsOn(a.name()))
}

// Want is the declared state. The query is as the server writes it once Read has asked for that.
func (a *Aggregate) Want() *plan.State {
	if a.Spec == nil {
		return nil
	}
	query := a.query
	if query == "" {
		query = statement(a.Spec.Query)
	}
	s := &plan.State{}
	s.Set(plan.Attr{Name: "query", Value: query, Raw: statement(a.Spec.Query)})
	s.Set(plan.Attr{Name: "real_time", Value: fmt.Sprint(a.Spec.RealTime)})
	if r := a.Spec.Refresh; r != nil {
		setRefresh(s, &r.Start, &r.End, units.FormatDuration(r.Every))
	}
	if a.Spec.Retention > 0 {
		s.Set(plan.Attr{Name: "retention", Value: units.FormatDuration(a.Spec.Retention)})
	}
	if a.Spec.Description != "" {
		s.Set(plan.Attr{Name: "description", Value: a.Spec.Description})
	}
	return s
}

func setRefresh(s *plan.State, start, end *time.Duration, every string) {
	s.Set(plan.Attr{Name: "refresh.start", Value: spanOrOpen(start)})
	s.Set(plan.Attr{Name: "refresh.end", Value: spanOrOpen(end)})
	s.Set(plan.Attr{Name: "refresh.every", Value: every})
}

func spanOrOpen(d *time.Duration) string {
	if d == nil {
		return "open"
	}
	return units.FormatDuration(*d)
}

// liveAggregate is a continuous aggregate with its policies.
type liveAggregate struct {
	*liveView
	ref       *aggregateRef
	refresh   *job // the policy that the block means
	retention *job
	more      []*job // other policies on it
}

// live finds an aggregate. Of several refresh policies the block means the one with its window, else the oldest.
func live(ctx context.Context, q *Queries, name string, r *spec.Refresh) (*liveAggregate, error) {
	s, err := q.Catalog.load(ctx)
	if err != nil {
		return nil, err
	}
	v, err := q.Catalog.views(ctx)
	if err != nil {
		return nil, err
	}
	ref, view := s.aggregates[name], v.views[name]
	if ref == nil || view == nil {
		return nil, nil
	}
	if view, err = q.Catalog.defined(ctx, view); err != nil {
		return nil, err
	}
	out := &liveAggregate{liveView: view, ref: ref}
	for _, j := range ref.refresh {
		if r != nil && j.start != nil && j.end != nil && *j.start == r.Start && *j.end == r.End {
			out.refresh = j
		}
	}
	if out.refresh == nil && len(ref.refresh) > 0 {
		out.refresh = ref.refresh[0]
	}
	for i := range s.jobs {
		j := &s.jobs[i]
		on := j.schema == ref.schema && j.name == ref.name || j.schema == ref.storedSchema && j.name == ref.storedName
		switch {
		case !on || j == out.refresh:
		case j.proc == "policy_retention":
			out.retention = j
		default:
			out.more = append(out.more, j)
		}
	}
	return out, nil
}

// Read is the live aggregate, nil when the name is free or another object has it.
func (a *Aggregate) Read(ctx context.Context) (*plan.State, error) {
	var refresh *spec.Refresh
	if a.Spec != nil {
		answers, err := a.Queries.answers(ctx)
		if err != nil {
			return nil, err
		}
		a.query, refresh = answers.by[a.name()].text, a.Spec.Refresh
	}
	l, err := live(ctx, a.Queries, a.name(), refresh)
	if err != nil {
		return nil, err
	}
	if a.group, err = a.Queries.groupOf(ctx, a.Address()); err != nil || l == nil {
		return nil, err
	}
	if a.Spec == nil {
		if a.reads, err = a.Queries.Catalog.readBy(ctx, a.Address()); err != nil {
			return nil, err
		}
	}
	out := &plan.State{ID: fmt.Sprint(l.oid)}
	out.Set(plan.Attr{Name: "query", Value: l.query})
	out.Set(plan.Attr{Name: "real_time", Value: fmt.Sprint(l.real)})
	if j := l.refresh; j != nil {
		setRefresh(out, j.start, j.end, policyAge(j, &j.every))
	}
	if j := l.retention; j != nil {
		out.Set(plan.Attr{Name: "retention", Value: policyAge(j, j.dropAfter)})
	}
	if l.comment != "" {
		out.Set(plan.Attr{Name: "description", Value: l.comment})
	}
	if l.columnar {
		out.Set(plan.Attr{Name: "columnstore", Value: "on"})
	}
	for _, j := range l.more {
		out.Set(plan.Attr{Name: fmt.Sprintf("policy %d", j.id), Value: describeJob(j)})
	}
	return out, nil
}

func describeJob(j *job) string {
	switch {
	case j.proc == "policy_retention":
		return "retention of " + policyAge(j, j.dropAfter)
	case j.proc == "policy_compression" && j.after != nil:
		return "columnstore after " + units.FormatDuration(*j.after)
	case j.proc == "policy_refresh_continuous_aggregate":
		return fmt.Sprintf("refresh from %s to %s, every %s", spanOrOpen(j.start), spanOrOpen(j.end), units.FormatDuration(j.every))
	}
	return j.proc
}

// leftOut returns the first aggregate that is left out here and that a query reads; "" for none.
func (q *Queries) leftOut(name string, caps Capabilities) string {
	if caps.Community() || q.Pipeline.Database.OnMissing != "degrade" {
		return ""
	}
	for _, x := range q.ancestors(name) {
		if x.aggregate != nil {
			return x.address
		}
	}
	return ""
}

// Apply carries out the steps. All of them may be repeated; a column that is there already is no error.
func (a *Aggregate) Apply(ctx context.Context, c plan.Change) error {
	if err := a.countAgain(ctx, c); err != nil {
		return err
	}
	err := carryOut(ctx, a.Queries.Catalog.DB, c)
	if pg.Code(err) != "42701" {
		return err
	}
	a.Queries.Catalog.Reset()
	if live, readErr := a.Read(ctx); readErr == nil && reached(c, live) {
		return nil
	}
	return err
}

// countAgain judges the change once more when its turn comes: rows that its source still had, and that it could be computed from,
// may have gone since the plan. A change without steps is made by the one that it belongs to.
func (a *Aggregate) countAgain(ctx context.Context, c plan.Change) error {
	if c.Action == plan.Create || len(c.Steps) == 0 {
		return nil
	}
	again := c
	again.Findings, again.Notes, again.Steps = nil, nil, nil
	if again.Action == plan.Replace {
		again.Action = plan.Update
	}
	if err := a.Judge(ctx, &again); err != nil {
		return fmt.Errorf("count again what is lost of %s: %w", c.Address, err)
	}
	for _, f := range again.Findings {
		if loss, lost := again.Lost(f.Code); lost {
			if err := c.Check(c.Address, f.Code, loss); err != nil {
				return err
			}
		}
	}
	return nil
}
