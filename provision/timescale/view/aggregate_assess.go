package view

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Assess completes the change.
func (a *Aggregate) Assess(ctx context.Context, c *plan.Change) error {
	caps, err := a.Queries.Catalog.Capabilities(ctx)
	if err != nil {
		return err
	}
	var refresh *spec.Refresh
	if a.Spec != nil {
		refresh = a.Spec.Refresh
	}
	l, err := live(ctx, a.Queries, a.name(), refresh)
	if err != nil {
		return err
	}
	switch {
	case l != nil && !l.Mine && c.Changes():
		c.Find(codeOtherOwner, "", "its owner is %s", l.Owner)
		return nil
	case c.Action == plan.Delete:
		return a.assessDelete(ctx, c, l)
	case c.Want == nil: // and there is none
		return nil
	case !caps.Community():
		if l != nil {
			c.Note("aggregate.%s: what it holds can be read, and %s does not refresh it", a.name(), caps.Name())
		}
		a.assessMissing(c, caps)
		return nil
	case c.Action == plan.Create:
		return a.assessCreate(ctx, c, caps)
	}
	answers, err := a.Queries.Answers(ctx)
	if err != nil {
		return err
	}
	return a.assessUpdate(ctx, c, l, answers, caps)
}

// assessMissing is about a server without continuous aggregates.
func (a *Aggregate) assessMissing(c *plan.Change, caps catalog.Capabilities) {
	if c.Action == plan.None {
		return
	}
	if c.Action == plan.Create && a.Queries.Pipeline.Database.OnMissing == "degrade" {
		c.Action, c.Diffs = plan.None, nil
		c.Note("left out: %s has no continuous aggregates, and on_missing is \"degrade\"", caps.Name())
		return
	}
	c.Find(codeNoAggregates, "", "%s has no continuous aggregates", caps.Name())
}

func (a *Aggregate) assessCreate(ctx context.Context, c *plan.Change, caps catalog.Capabilities) error {
	v, err := a.Queries.Catalog.Views(ctx)
	if err != nil {
		return err
	}
	s, err := a.Queries.Catalog.Snapshot(ctx)
	if err != nil {
		return err
	}
	if what := v.Taken(a.name(), s); what != "" && a.group == nil {
		return nameTaken(ctx, a.Queries, c, what)
	}
	answers, err := a.Queries.Answers(ctx)
	if err != nil {
		return err
	}
	answer, query := answers.ByName[a.name()], a.query
	switch {
	case answer.Rejection == nil:
	case caps.Version == "": // time_bucket is missing, for one
		query = shadow.Statement(a.Spec.Query)
		c.Note("not checked: the same apply installs TimescaleDB first")
	default:
		a.refused(c, answer, answers)
		return nil
	}
	if answer.Untried != "" {
		c.Note("the aggregate could not be tried out: %s", answer.Untried)
	}
	if answer.Guessed {
		c.Note("its query is not checked: the database is read-only here")
	}
	a.warnOfWindow(c)
	if r := s.Relations[a.Spec.From.Name]; r != nil && r.Hyper != nil && r.Hyper.Chunks > 0 {
		c.Find(codeFirstRefresh, "", "it reads %s: %s", a.Spec.From.Name, extent(r))
	}
	if a.group != nil {
		a.group.Join(c, nil)
		return nil
	}
	name := pg.Ident(a.name())
	c.Steps = append(ddl.Transaction(ddl.AggregateSQL(name, query, a.Spec, caps)...),
		ddl.RefreshSQL(name, "", a.Spec.Refresh, false, caps))
	return nil
}

func extent(r *catalog.Relation) string {
	text := fmt.Sprintf("%d chunks", r.Hyper.Chunks)
	if r.Rows > 0 {
		text += fmt.Sprintf(", about %d rows", r.Rows)
	}
	return text
}

// refused tells what the server has against the query, or against the aggregate with its policies.
func (a *Aggregate) refused(c *plan.Change, answer *shadow.Answer, answers *shadow.Answers) {
	code := codeQueryRejected
	if answer.Text != "" { // the query itself was fine
		code = codeAggregateRejected
	}
	text := answer.Rejection.String()
	if answers.Unplanned != "" && answer.Rejection.Code == "42P01" {
		text += ". The tables that this plan makes could not be tried out: " + answers.Unplanned
	}
	c.Find(code, "query", "%s", text)
}

// warnOfWindow tells of a refresh window that reaches to where the source's rows are gone.
func (a *Aggregate) warnOfWindow(c *plan.Change) {
	r := a.Spec.Refresh
	if r == nil {
		return
	}
	warn := func(from string, lives time.Duration, why string) {
		if r.Start > lives {
			c.Find(codeRefreshReachesBack, "refresh.start", "refresh starts %s back, and rows of %s go after %s (%s)",
				units.FormatDuration(r.Start), from, units.FormatDuration(lives), why)
		}
	}
	p := a.Queries.Pipeline
	for _, t := range p.Tables {
		if len(shadow.Mentions(a.Spec.Query, []string{t.Name})) == 0 {
			continue
		}
		if t.Hypertable != nil && t.Hypertable.Retention > 0 {
			warn(t.Name, t.Hypertable.Retention, "retention")
		}
		for _, roll := range p.Rollups {
			if roll.From == t {
				warn(t.Name, roll.KeepRaw, "keep_raw of rollup."+roll.Name)
			}
		}
	}
	for _, from := range p.Aggregates {
		if from.Retention > 0 && from.Name != a.name() && len(shadow.Mentions(a.Spec.Query, []string{from.Name})) > 0 {
			warn(from.Name, from.Retention, "retention")
		}
	}
}

func (a *Aggregate) assessUpdate(ctx context.Context, c *plan.Change, l *liveAggregate, answers *shadow.Answers,
	caps catalog.Capabilities,
) error {
	answer := answers.ByName[a.name()]
	if answer.Rejection != nil {
		a.refused(c, answer, answers)
		return nil
	}
	groups, err := a.Queries.Groups(ctx)
	if err != nil {
		return err
	}
	if parent, rebuilt := groups.Rebuilt[a.name()]; rebuilt {
		if answer.Untried != "" {
			c.Note("the aggregate could not be tried out: %s", answer.Untried)
		}
		a.warnOfWindow(c)
		return a.assessRebuild(ctx, c, l, parent, groups)
	}
	name := pg.Ident(l.Schema, l.Name)
	steps, after := slices.Clone(answer.InPlace), []string(nil)
	if steps != nil {
		forced, err := a.assessInPlace(ctx, c, l, answer, caps)
		if err != nil {
			return err
		}
		after = forced
	}
	if d, changed := c.Diff("real_time"); changed {
		steps = append(steps, fmt.Sprintf("ALTER MATERIALIZED VIEW %s SET (timescaledb.materialized_only = %t)", name,
			d.New != "true"))
	}
	policies, err := a.assessPolicies(ctx, c, l, caps)
	if err != nil {
		return err
	}
	steps = append(steps, policies...)
	if d, changed := c.Diff("description"); changed {
		steps = append(steps, ddl.ViewCommentSQL(name, d.New))
	}
	last, _ := c.Last.Get("query")
	if unfinished := !c.Ours || last.Value != answer.Text; unfinished && !l.Filled && after == nil {
		waits, err := a.sourceWaits(ctx, l)
		if err != nil {
			return err
		}
		if waits {
			c.Action = plan.Update
			c.Find(codeFirstRefresh, "",
				"it is empty, and its source has data: its first refresh did not come to an end")
			after = append(after, ddl.RefreshSQL(name, "", a.Spec.Refresh, false, caps))
		}
	}
	c.Steps = append(ddl.Transaction(steps...), after...)
	return nil
}

// assessPolicies changes policies: an old job goes, a new one comes.
func (a *Aggregate) assessPolicies(ctx context.Context, c *plan.Change, l *liveAggregate,
	caps catalog.Capabilities,
) ([]string, error) {
	name := pg.Ident(l.Schema, l.Name)
	var steps []string
	if slices.ContainsFunc(c.Diffs, func(d plan.Diff) bool { return strings.HasPrefix(d.Name, "refresh.") }) {
		if l.refresh != nil {
			steps = append(steps, ddl.DeleteJobSQL(l.refresh, caps))
		}
		if a.Spec.Refresh != nil {
			steps = append(steps, ddl.AddRefreshSQL(name, a.Spec.Refresh, caps))
			a.warnOfWindow(c)
		}
	}
	if _, changed := c.Diff("retention"); changed {
		if l.retention != nil {
			steps = append(steps, ddl.DeleteJobSQL(l.retention, caps))
		}
		if a.Spec.Retention > 0 {
			steps = append(steps, ddl.RetainSQL(name, a.Spec.Retention, caps))
			if err := a.assessRetention(ctx, c, l, caps); err != nil {
				return nil, err
			}
		}
	}
	if len(steps) == 0 {
		return nil, nil
	}
	var no *shadow.Rejection
	err := a.Queries.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		err := pg.Savepoint(ctx, tx, func() error {
			for _, sql := range steps {
				if err := pg.ExecSingle(ctx, tx, sql); err != nil {
					return err
				}
			}
			return nil
		})
		if no = shadow.Rejected(err); no != nil {
			return nil
		}
		return err
	})
	switch {
	case no != nil:
		c.Find(codeAggregateRejected, "", "%s", no)
		return nil, nil
	case err != nil && pg.Code(err) != "":
		c.Note("the policies could not be tried out: %v", err)
	case err != nil:
		return nil, err
	}
	return steps, nil
}

// assessInPlace is about columns that the server adds to the aggregate as it is. It returns the refresh that fills them
// where the source still has the data; further back it would compute buckets from nothing.
func (a *Aggregate) assessInPlace(ctx context.Context, c *plan.Change, l *liveAggregate, answer *shadow.Answer,
	caps catalog.Capabilities,
) ([]string, error) {
	cover, err := readCoverage(ctx, a.Queries, l, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, col := range answer.Columns[len(l.Columns):] {
		names = append(names, col.Name)
	}
	text := "column " + strings.Join(names, ", ") + " is added in place"
	if cover.rows > 0 {
		text += fmt.Sprintf("; %d rows before %s keep NULL", cover.rows, moment(cover.source))
	}
	c.Find(codeColumnWithoutHistory, "query", "%s", text)
	if cover.source == nil || !cover.holds(a.Spec.Refresh) {
		return nil, nil
	}
	return []string{ddl.RefreshSQL(pg.Ident(l.Schema, l.Name), cover.source.Format(time.RFC3339Nano), a.Spec.Refresh,
		true, caps)}, nil
}
