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

// System is a snapshot of one system that its resources share: read at once in few requests.
type System interface {
	Reset()
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
	// FillIn writes the servers into rows that name none.
	FillIn(ctx context.Context, s plan.Servers) error
}

// prepare reads what the last apply set, and whether the database can be planned for.
func (w *World) prepare(ctx context.Context) error {
	if err := w.readLedger(ctx); err != nil {
		return err
	}
	_, err := w.catalog.Capabilities(ctx)
	return err
}

// Plan reads every object and compares. It changes nothing. What cannot be read is in Plan.Errors, and does not hide the rest.
func (w *World) Plan(ctx context.Context) (plan.Plan, error) {
	var out plan.Plan
	var refused error // the database answers, and cannot be planned for: the other systems can
	if err := w.prepare(ctx); err != nil {
		if refused = err; w.last == nil || lost(err).Error() != err.Error() || ctx.Err() != nil {
			return out, lost(err)
		}
	}
	w.refused = refused
	last := w.last
	out.Servers, out.Moved, out.Notes = w.servers, w.movedServers(), w.notes
	changes := make([]plan.Change, len(w.Resources))
	failed := make([]error, len(w.Resources))
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for i, r := range w.Resources {
		group.Go(func() error {
			if refused != nil && inDatabase(r.Address()) {
				failed[i] = refused
				return nil
			}
			changes[i], failed[i] = w.one(ctx, r)
			if there := w.elsewhere[r.Address()]; there != "" && failed[i] == nil {
				changes[i].Note("last applied on %s", there)
			}
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	declared := map[string]bool{}
	for i, r := range w.Resources {
		declared[r.Address()] = true
		if failed[i] != nil {
			out.Errors = append(out.Errors, plan.ReadError{Address: r.Address(), Text: lostBy(r.Address(), failed[i]).Error()})
			continue
		}
		out.Changes = append(out.Changes, changes[i])
	}
	for _, s := range w.Systems {
		names, err := s.Unmanaged(ctx)
		if err != nil && len(out.Errors) == 0 {
			return out, err
		}
		for _, name := range names {
			if _, managed := last[name]; !managed && !declared[name] {
				out.Unmanaged = append(out.Unmanaged, name)
			}
		}
		out.Reads = append(out.Reads, s.Describe())
	}
	for _, address := range slices.Sorted(maps.Keys(last)) {
		if !declared[address] && (w.leftOut == nil || !inGrafana(address)) {
			out.Orphans = append(out.Orphans, address)
		}
	}
	if refused == nil {
		if err := w.checkQueries(ctx, &out); err != nil {
			return out, lost(err)
		}
	}
	out.Wait()
	return out, nil
}

// one assesses one resource.
func (w *World) one(ctx context.Context, r plan.Resource) (plan.Change, error) {
	state, managed := w.last[r.Address()]
	if !managed {
		return plan.Assess(ctx, r, nil, false)
	}
	return plan.Assess(ctx, r, &state, true)
}
