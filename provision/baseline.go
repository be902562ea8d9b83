package provision

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// baseline is everything that one planning goes by. It does not change, but for what its snapshots read when they are
// asked first.
type baseline struct {
	*objects
	resources []plan.Resource       // THE list, in apply order
	last      map[string]plan.State // what the last apply set on objects of these servers
	elsewhere map[string]string     // objects that it set on other servers, and where
	others    map[string]string     // objects that other pipelines manage, and which one does
	servers   plan.Servers
	notes     []string
	refused   error // the database answers, and nothing in it can be planned; the other systems can
}

// loadBaseline reads the ledger, which servers these are, and whether the database can be planned for.
func (s *Stack) loadBaseline(ctx context.Context) (*baseline, error) {
	b := &baseline{}
	entries, err := s.Ledger.Entries(ctx)
	if err != nil {
		return nil, err
	}
	b.objects = s.objects()
	if err := b.identify(ctx, s.Ledger); err != nil {
		return nil, err
	}
	b.split(entries)
	b.leaving = s.destroy && len(b.others) > 0
	b.noteOthers()
	b.resources = s.resources(b.objects, b.last)
	if _, err := b.catalog.Capabilities(ctx); err != nil {
		if wrapConnError(err).Error() != err.Error() || ctx.Err() != nil {
			return nil, err
		}
		b.refused = err
	}
	return b, nil
}

// split takes rows of the ledger apart. Those of another Kafka cluster or Grafana are no rows of the objects that are
// here. Those of objects in the database always are: a copy of it has its own, by other ids. Those of other pipelines
// are theirs; the engine's tables serve them all.
func (b *baseline) split(entries map[string]ledger.Entry) {
	b.last, b.elsewhere, b.others = map[string]plan.State{}, map[string]string{}, map[string]string{}
	for address, e := range entries {
		here := b.servers.Place(address)
		switch same := e.Server == "" || here == "" || e.Server == here; {
		case e.Pipeline != "" && e.Pipeline != b.pipeline.Name && address != plan.EngineAddress:
			b.others[address] = e.Pipeline
		case same:
			b.last[address] = e.State
		case inDatabase(address):
			e.State.ID = ""
			b.last[address] = e.State
		default:
			b.elsewhere[address] = e.Server
		}
	}
}

// noteOthers names the other pipelines of the database.
func (b *baseline) noteOthers() {
	count := map[string]int{}
	for _, name := range b.others {
		count[name]++
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		b.notes = append(b.notes,
			fmt.Sprintf("PostgreSQL: this database serves pipeline %q, too: its %s are left alone.",
				name, plan.Counted(count[name], "object")))
	}
	if b.leaving {
		b.notes = append(b.notes, "The engine's tables stay: the other pipelines use them.")
	}
}

// identify learns which servers these are. One that does not answer is not known: its objects say so.
func (b *baseline) identify(ctx context.Context, from Ledger) error {
	var copied string
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		b.servers.Database, copied, err = from.Identity(gctx)
		return err
	})
	group.Go(func() error {
		b.servers.Kafka, _ = b.cluster.ID(ctx)
		return nil
	})
	if b.org != nil {
		group.Go(func() error {
			b.servers.Grafana, _ = b.org.Identity(ctx)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if copied != "" {
		b.notes = []string{fmt.Sprintf("PostgreSQL: this database is a copy: the last apply was on system and "+
			"database %s, and this is %s. "+
			"What the ledger says of its tables counts here, too.", copied, b.servers.Place(plan.EngineAddress))}
	}
	return nil
}

// moved lists the systems on which declared objects were applied elsewhere.
func (b *baseline) moved() (out []plan.Moved) {
	for _, r := range b.resources {
		there, address := b.elsewhere[r.Address()], r.Address()
		system := plan.SystemOf(plan.Change{Address: address}.Kind())
		if there == "" || slices.ContainsFunc(out, func(m plan.Moved) bool { return m.System == system }) {
			continue
		}
		out = append(out, plan.Moved{System: system, Then: there, Now: b.servers.Place(address)})
	}
	return out
}

// assess assesses one resource.
func (b *baseline) assess(ctx context.Context, r plan.Resource) (plan.Change, error) {
	if b.refused != nil && inDatabase(r.Address()) {
		return plan.Change{}, b.refused
	}
	var last *plan.State
	state, managed := b.last[r.Address()]
	if managed {
		last = &state
	}
	c, err := plan.Assess(ctx, r, last, managed)
	if there := b.elsewhere[r.Address()]; there != "" && err == nil {
		c.Note("last applied on %s", there)
	}
	if other := b.others[r.Address()]; other != "" && err == nil && c.Live != nil {
		if c.Want == nil {
			c.Note("pipeline %q manages it", other)
		} else {
			c.Find(plan.CodeOtherPipeline, "", "pipeline %q manages it; apply makes it an object of pipeline %q", other,
				b.pipeline.Name)
		}
	}
	return c, err
}
