package view

import (
	"context"
	"fmt"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Aggregate is the resource of one aggregate block: a continuous aggregate of TimescaleDB with its policies.
//
// Make makes it WITH NO DATA, together with its policies, in one transaction. The first refresh comes after that,
// outside of a transaction as TimescaleDB wants it, and over all data of the source: a policy only ever looks at its
// window. When it fails, Apply fails, the aggregate stays, and the next plan finds it empty and refreshes again.
type Aggregate struct {
	Queries *shadow.Queries
	Spec    *spec.Aggregate // nil: the aggregate is to be deleted
	Removed *spec.Removed   // of an aggregate that is to be deleted

	query string     // as the server writes it, known after Read
	reads []string   // of an aggregate that goes
	group *ddl.Group // what it changes together with
}

// Observe reads the aggregate.
func (a *Aggregate) Observe(ctx context.Context) (plan.Observation, error) {
	return plan.Observed(ctx, &Aggregate{Queries: a.Queries, Spec: a.Spec, Removed: a.Removed})
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
		return spec.Place(a.Removed.Range)
	}
	return spec.Place(a.Spec.Range)
}

// DependsOn lists what the query reads; of an aggregate that goes: what it reads now, known after Read.
func (a *Aggregate) DependsOn() []string {
	if a.Spec == nil {
		return a.reads
	}
	return a.group.DependsOn(a.Address(), a.Queries.DependsOn(a.name()))
}

// Want is the declared state. The query is as the server writes it once Read has asked for that.
func (a *Aggregate) Want() *plan.State {
	if a.Spec == nil {
		return nil
	}
	query := a.query
	if query == "" {
		query = shadow.Statement(a.Spec.Query)
	}
	s := &plan.State{}
	s.Set(plan.Attr{Name: "query", Value: query, Raw: shadow.Statement(a.Spec.Query)})
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
	*catalog.View
	ref       *catalog.AggregateRef
	refresh   *catalog.Job // the policy that the block means
	retention *catalog.Job
	more      []*catalog.Job // other policies on it
}

// live finds an aggregate. Of several refresh policies the block means the one with its window, else the oldest.
func live(ctx context.Context, q *shadow.Queries, name string, r *spec.Refresh) (*liveAggregate, error) {
	s, err := q.Catalog.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v, err := q.Catalog.Views(ctx)
	if err != nil {
		return nil, err
	}
	ref, view := s.Aggregates[name], v.Views[name]
	if ref == nil || view == nil {
		return nil, nil
	}
	if view, err = q.Catalog.FullView(ctx, view); err != nil {
		return nil, err
	}
	out := &liveAggregate{View: view, ref: ref}
	for _, j := range ref.Refresh {
		if r != nil && j.Start != nil && j.End != nil && *j.Start == r.Start && *j.End == r.End {
			out.refresh = j
		}
	}
	if out.refresh == nil && len(ref.Refresh) > 0 {
		out.refresh = ref.Refresh[0]
	}
	for i := range s.Jobs {
		j := &s.Jobs[i]
		on := j.Schema == ref.Schema && j.Name == ref.Name || j.Schema == ref.StoredSchema && j.Name == ref.StoredName
		switch {
		case !on || j == out.refresh:
		case j.Proc == "policy_retention":
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
		answers, err := a.Queries.Answers(ctx)
		if err != nil {
			return nil, err
		}
		a.query, refresh = answers.ByName[a.name()].Text, a.Spec.Refresh
	}
	l, err := live(ctx, a.Queries, a.name(), refresh)
	if err != nil {
		return nil, err
	}
	if a.group, err = a.Queries.GroupOf(ctx, a.Address()); err != nil || l == nil {
		return nil, err
	}
	if a.Spec == nil {
		if a.reads, err = a.Queries.Catalog.Dependencies(ctx, a.Address()); err != nil {
			return nil, err
		}
	}
	out := &plan.State{ID: fmt.Sprint(l.OID)}
	out.Set(plan.Attr{Name: "query", Value: l.Query})
	out.Set(plan.Attr{Name: "real_time", Value: fmt.Sprint(l.Real)})
	if j := l.refresh; j != nil {
		setRefresh(out, j.Start, j.End, catalog.PolicyAge(j, &j.Every))
	}
	if j := l.retention; j != nil {
		out.Set(plan.Attr{Name: "retention", Value: catalog.PolicyAge(j, j.DropAfter)})
	}
	if l.Comment != "" {
		out.Set(plan.Attr{Name: "description", Value: l.Comment})
	}
	if l.Columnar {
		out.Set(plan.Attr{Name: "columnstore", Value: "on"})
	}
	for _, j := range l.more {
		out.Set(plan.Attr{Name: fmt.Sprintf("policy %d", j.ID), Value: describeJob(j)})
	}
	return out, nil
}

func describeJob(j *catalog.Job) string {
	switch {
	case j.Proc == "policy_retention":
		return "retention of " + catalog.PolicyAge(j, j.DropAfter)
	case j.Proc == "policy_compression" && j.After != nil:
		return "columnstore after " + units.FormatDuration(*j.After)
	case j.Proc == "policy_refresh_continuous_aggregate":
		return fmt.Sprintf("refresh from %s to %s, every %s", spanOrOpen(j.Start), spanOrOpen(j.End),
			units.FormatDuration(j.Every))
	}
	return j.Proc
}

// Make carries out the steps. All of them may be repeated; a column that is there already is no error.
func (a *Aggregate) Make(ctx context.Context, c plan.Change) error {
	if err := a.countAgain(ctx, c); err != nil {
		return err
	}
	err := ddl.Apply(ctx, a.Queries.Catalog.DB, c)
	if pg.Code(err) != "42701" {
		return err
	}
	a.Queries.Catalog.Reset()
	if live, readErr := a.Read(ctx); readErr == nil && ddl.Reached(c, live) {
		return nil
	}
	return err
}

// countAgain assesses the change once more when its turn comes: rows that its source still had, and that it could be
// computed from, may have gone since the plan. A change without steps is made by the one that it belongs to.
func (a *Aggregate) countAgain(ctx context.Context, c plan.Change) error {
	if c.Action == plan.Create || len(c.Steps) == 0 {
		return nil
	}
	again := c
	again.Findings, again.Notes, again.Steps = nil, nil, nil
	if again.Action == plan.Replace {
		again.Action = plan.Update
	}
	if err := a.Assess(ctx, &again); err != nil {
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
