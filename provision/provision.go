// Package provision makes the outside world match pipeline.hcl: read, compare, print or apply.
package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/kafka"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale"
)

// Clients reach the outside world.
type Clients struct {
	Kafka *kgo.Client
	DB    *pgxpool.Pool
	Now   func() time.Time // for the first partitions; nil is the machine's clock
}

// Resources lists everything that pipeline.hcl declares, in apply order: THE list.
func Resources(p *spec.Pipeline, c Clients) []plan.Resource {
	if c.Now == nil {
		c.Now = time.Now
	}
	out := []plan.Resource{&timescale.Engine{Pipeline: p, DB: c.DB}}
	for _, t := range p.Topics {
		out = append(out, &kafka.Topic{Spec: t, Client: c.Kafka})
	}
	for _, t := range p.Tables {
		out = append(out, &timescale.Table{Spec: t, DB: c.DB, Now: c.Now})
	}
	return out
}

// Plan reads every resource and returns what differs. It changes nothing.
func Plan(ctx context.Context, resources []plan.Resource) (plan.Plan, error) {
	var out plan.Plan
	for _, r := range resources {
		c, err := r.Plan(ctx)
		if err != nil {
			return out, err
		}
		out.Changes = append(out.Changes, c)
	}
	return out, nil
}

// Event tells of one change while it is applied.
type Event struct {
	Change plan.Change
	Done   bool
	Took   time.Duration
	Err    error
}

// ErrBlocked means that the plan holds a change that cannot be done.
var ErrBlocked = errors.New("the plan holds a change that cannot be done")

// Apply carries out a plan's creations and updates. A failure stops what depends on it, and the next Apply does the rest.
func Apply(ctx context.Context, resources []plan.Resource, p plan.Plan, progress func(Event)) error {
	var errs []error
	failed := map[string]bool{}
	for i, c := range p.Changes {
		r := resources[i]
		if c.Action == plan.Block {
			failed[c.Address] = true
			errs = append(errs, fmt.Errorf("%s: %w: %s", c.Address, ErrBlocked, c.Reason))
			continue
		}
		if c.Action != plan.Create && c.Action != plan.Update {
			continue
		}
		if slices.ContainsFunc(r.DependsOn(), func(a string) bool { return failed[a] }) {
			failed[c.Address] = true
			errs = append(errs, fmt.Errorf("%s: left out, because what it depends on failed", c.Address))
			continue
		}
		if progress != nil {
			progress(Event{Change: c})
		}
		started := time.Now()
		err := r.Apply(ctx, c)
		if err != nil {
			failed[c.Address] = true
			errs = append(errs, err)
		}
		if progress != nil {
			progress(Event{Change: c, Done: true, Took: time.Since(started), Err: err})
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}
