package provision

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// states reads objects again: the live ones by address, without those that cannot be read.
func states(ctx context.Context, resources []plan.Resource) (map[string]*plan.State, error) {
	found := make([]*plan.State, len(resources))
	failed := make([]error, len(resources))
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for i, r := range resources {
		group.Go(func() error {
			o, err := r.Observe(ctx)
			found[i], failed[i] = o.Live, err
			return nil
		})
	}
	_ = group.Wait()
	out := map[string]*plan.State{}
	for i, r := range resources {
		if failed[i] == nil {
			out[r.Address()] = found[i]
		}
	}
	return out, ctx.Err()
}

// dependent tells whether a change of another object may change this one: the text of a view, a privilege.
func dependent(address string) bool { return inDatabase(address) && address != plan.EngineAddress }

// carried is what the ledger says of an object once apply has changed others: what became of it by that is no change
// from outside. nil: it is gone.
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
func (run *applying) consequences(ctx context.Context, b *baseline, before plan.Plan) error {
	made := map[string]bool{}
	touched := false
	for address, o := range run.outcome {
		if c := run.changes[address]; o == Done && c.Changes() {
			made[address] = true
			touched = touched || dependent(address)
		}
	}
	live := map[string]*plan.State{}
	for _, c := range before.Changes {
		live[c.Address] = c.Live
	}
	again := slices.DeleteFunc(run.stack.resources(run.stack.objects(), b.last), func(r plan.Resource) bool {
		address := r.Address()
		remade := made[address] && run.changes[address].Action != plan.Delete
		return !remade && (!touched || !dependent(address))
	})
	after, err := states(ctx, again)
	if err != nil || len(after) == 0 {
		return err
	}
	rows, err := run.stack.Ledger.Entries(ctx)
	if err != nil {
		return err
	}
	for address, is := range after {
		entry, managed := rows[address]
		row := entry.State
		if !managed {
			continue
		}
		if _, theirs := b.others[address]; theirs && !made[address] {
			continue
		}
		next := &plan.State{Attrs: row.Attrs, ID: row.ID}
		if made[address] {
			if is != nil {
				next.ID = is.ID
			}
		} else {
			was, known := live[address]
			if !known {
				continue
			}
			next = carried(row, was, is)
		}
		switch {
		case next == nil:
			err = run.stack.Ledger.Forget(ctx, address)
		case next.ID != row.ID || next.Fingerprint() != row.Fingerprint():
			entry.State = *next
			err = run.stack.Ledger.Put(ctx, address, entry, run.opt.By, run.opt.Version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
