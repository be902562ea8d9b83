// Package provision makes the outside world match pipeline.hcl: read, compare, print, apply.
package provision

import (
	"context"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// System is a snapshot of one system that its resources share: read on first use, in few requests.
type System interface {
	// Describe tells what was read, where, and in how many requests.
	Describe() plan.Read
	// Unmanaged lists the addresses of objects that are there and that pipeline.hcl does not declare.
	Unmanaged(ctx context.Context) ([]string, error)
}

// Ledger keeps what the last apply set.
type Ledger interface {
	Entries(ctx context.Context) (map[string]ledger.Entry, error)
	Put(ctx context.Context, address string, e ledger.Entry, by, version string) error
	Forget(ctx context.Context, address string) error
	// Identity tells the database, and where it was copied from since the last apply.
	Identity(ctx context.Context) (d plan.Database, copied string, err error)
	// FillIn writes the servers and the pipeline into rows that name none.
	FillIn(ctx context.Context, s plan.Servers, pipeline string) error
}

// Plan reads every object and compares. It changes nothing. What cannot be read is in Plan.Errors, and hides nothing
// else.
func (s *Stack) Plan(ctx context.Context) (plan.Plan, error) {
	_, p, err := s.plan(ctx)
	return p, err
}

func (s *Stack) plan(ctx context.Context) (*baseline, plan.Plan, error) {
	b, err := s.loadBaseline(ctx)
	if err != nil {
		return nil, plan.Plan{}, wrapConnError(err)
	}
	out := plan.Plan{Servers: b.servers, Moved: b.moved(), Notes: b.notes}
	changes := make([]plan.Change, len(b.resources))
	failed := make([]error, len(b.resources))
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for i, r := range b.resources {
		group.Go(func() error { changes[i], failed[i] = b.assess(ctx, r); return nil })
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return b, out, ctx.Err()
	}
	declared := map[string]bool{}
	for i, r := range b.resources {
		declared[r.Address()] = true
		if failed[i] != nil {
			out.Errors = append(out.Errors, plan.ReadError{Address: r.Address(), Text: wrapConnErrorOf(r.Address(),
				failed[i]).Error()})
			continue
		}
		out.Changes = append(out.Changes, changes[i])
	}
	for _, system := range b.systems() {
		names, err := system.Unmanaged(ctx)
		if err != nil && len(out.Errors) == 0 {
			return b, out, err
		}
		for _, name := range names {
			if _, managed := b.last[name]; !managed && !declared[name] && b.others[name] == "" {
				out.Unmanaged = append(out.Unmanaged, name)
			}
		}
		out.Reads = append(out.Reads, system.Describe())
	}
	for _, address := range slices.Sorted(maps.Keys(b.last)) {
		if !declared[address] && (b.leftOut == nil || !inGrafana(address)) {
			out.Orphans = append(out.Orphans, address)
		}
	}
	if b.refused == nil {
		if err := b.checkQueries(ctx, &out); err != nil {
			return b, out, wrapConnError(err)
		}
	}
	out.Wait()
	return b, out, nil
}
