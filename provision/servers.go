package provision

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// readLedger reads what the last apply set, and where that was. Rows of another Kafka cluster or Grafana are no rows of the
// objects that are here. Those of objects in the database always are: a copy of it has its own, by other ids.
func (w *World) readLedger(ctx context.Context) error {
	w.last = nil
	entries, err := w.Ledger.Entries(ctx)
	if err != nil {
		return err
	}
	if err := w.readServers(ctx); err != nil {
		return err
	}
	w.last, w.elsewhere = map[string]plan.State{}, map[string]string{}
	for address, e := range entries {
		here := w.servers.Place(address)
		switch same := e.Server == "" || here == "" || e.Server == here; {
		case same:
			w.last[address] = e.State
		case inDatabase(address):
			e.State.ID = ""
			w.last[address] = e.State
		default:
			w.elsewhere[address] = e.Server
		}
	}
	return nil
}

// readServers learns which servers these are. One that does not answer is not known: its objects say so.
func (w *World) readServers(ctx context.Context) error {
	var s plan.Servers
	var copied string
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		s.Database, copied, err = w.Ledger.Identity(gctx)
		return err
	})
	group.Go(func() error {
		s.Kafka, _ = w.cluster.ID(ctx)
		return nil
	})
	if w.org != nil {
		group.Go(func() error {
			s.Grafana, _ = w.org.Identity(ctx)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	w.servers, w.notes = s, nil
	if copied != "" {
		w.notes = []string{fmt.Sprintf("PostgreSQL: this database is a copy: the last apply was on system and database %s, and this is %s. "+
			"What the ledger says of its tables counts here, too.", copied, s.Place(plan.EngineAddress))}
	}
	return nil
}

// movedServers lists the systems on which declared objects were applied elsewhere.
func (w *World) movedServers() (out []plan.Moved) {
	for _, r := range w.Resources {
		there, address := w.elsewhere[r.Address()], r.Address()
		kind := plan.Change{Address: address}.Kind()
		if there == "" || slices.ContainsFunc(out, func(m plan.Moved) bool { return m.System == plan.SystemOf(kind) }) {
			continue
		}
		out = append(out, plan.Moved{System: plan.SystemOf(kind), Then: there, Now: w.servers.Place(address)})
	}
	return out
}
