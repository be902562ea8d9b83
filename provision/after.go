package provision

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// states reads all objects of one kind of system that are in the ledger or were just made.
func (w *World) states(ctx context.Context, wanted func(address string) bool) (map[string]*plan.State, error) {
	found := make([]*plan.State, len(w.Resources))
	failed := make([]error, len(w.Resources))
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for i, r := range w.Resources {
		if wanted(r.Address()) {
			group.Go(func() error { o, err := r.Observe(ctx); found[i], failed[i] = o.Live, err; return nil })
		}
	}
	_ = group.Wait()
	out := map[string]*plan.State{}
	for i, r := range w.Resources {
		if wanted(r.Address()) && failed[i] == nil {
			out[r.Address()] = found[i]
		}
	}
	return out, ctx.Err()
}

// dependent tells whether a change of another object may change this one: the text of a view, a privilege.
func dependent(address string) bool { return inDatabase(address) && address != plan.EngineAddress }

// carried is what the ledger says of an object once apply has changed others: what became of it by that is no change from
// outside. nil: it is gone.
func carried(last plan.State, before, after *plan.State) *plan.State {
	if before != nil && after == nil {
		return nil
	}
	out := plan.State{ID: last.ID}
	if after != nil && last.ID != "" && before != nil && before.ID == last.ID {
		out.ID = after.ID
	}
	for _, a := range last.Attrs {
		was, had := before.Get(a.Name)
		is, has := after.Get(a.Name)
		if had && was.Value == a.Value && was.Value != is.Value {
			if a.Value = is.Value; !has {
				continue
			}
		}
		out.Attrs = append(out.Attrs, a)
	}
	return &out
}

// consequences writes down what the changes of this apply did to other objects, and which objects it made.
func (run *applying) consequences(ctx context.Context, before map[string]*plan.State) error {
	made := map[string]bool{}
	for address, o := range run.outcome {
		if c := run.changes[address]; o == Done && c.Changes() {
			made[address] = true
		}
	}
	touched := slices.ContainsFunc(run.Resources, func(r plan.Resource) bool { return made[r.Address()] && dependent(r.Address()) })
	after, err := run.states(ctx, func(address string) bool {
		return made[address] && run.changes[address].Action != plan.Delete || touched && dependent(address)
	})
	if err != nil || len(after) == 0 {
		return err
	}
	rows, err := run.Ledger.Entries(ctx)
	if err != nil {
		return err
	}
	for address, is := range after {
		entry, managed := rows[address]
		row := entry.State
		if !managed {
			continue
		}
		next := &plan.State{Attrs: row.Attrs, ID: row.ID}
		if made[address] {
			if is != nil {
				next.ID = is.ID
			}
		} else {
			was, known := before[address]
			if !known {
				continue
			}
			next = carried(row, was, is)
		}
		switch {
		case next == nil:
			err = run.Ledger.Forget(ctx, address)
		case next.ID != row.ID || next.Fingerprint() != row.Fingerprint():
			err = run.Ledger.Put(ctx, address, ledger.Entry{State: *next, Server: entry.Server}, run.opt.By, run.opt.Version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
