package provision

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/kafka"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Clients reach the systems. Grafana is reached by what the pipeline says of it.
type Clients struct {
	Kafka *kgo.Client
	DB    *pgxpool.Pool
	Roles *pgxpool.Pool    // who may make roles, where DB's user may not; nil is DB
	Now   func() time.Time // for the first partitions; nil is the machine's clock
}

// Stack is what one pipeline declares, with the clients that reach it.
type Stack struct {
	Ledger Ledger

	pipeline *spec.Pipeline
	clients  Clients
	grafana  *grafana.Client // nil: no grafana block, or no credentials
	destroy  bool            // what is declared is to be deleted
	targets  []string        // destroy: only these; none: all
}

// NewStack opens no connection.
func NewStack(p *spec.Pipeline, c Clients) (*Stack, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Stack{Ledger: &ledger.Ledger{DB: c.DB}, pipeline: p, clients: c}
	if p.Grafana == nil || p.Grafana.Auth.Reveal() == "" {
		return s, nil
	}
	var err error
	s.grafana, err = grafana.NewClient(p.Grafana)
	return s, err
}

// Close ends what NewStack opened.
func (s *Stack) Close() {
	if s.grafana != nil {
		s.grafana.Close()
	}
}

// Destroying is the stack whose plan deletes everything that apply manages, or the targets alone.
func (s *Stack) Destroying(targets []string) *Stack {
	out := *s
	out.destroy, out.targets = true, targets
	return &out
}

// Annotate leaves a note of an apply in Grafana, where there is one.
func (s *Stack) Annotate(ctx context.Context, text string) error {
	if s.grafana == nil {
		return nil
	}
	return s.grafana.Annotate(ctx, text, []string{"cryptoviz", "apply"})
}

// Declared finds the block of an object: by its address, and in Grafana by the uid too. "" when there is none.
func (s *Stack) Declared(address string) string {
	kind, uid, _ := strings.Cut(address, ".")
	for _, b := range s.pipeline.Blocks() {
		if b.Address() == address {
			return address
		}
	}
	for _, d := range s.pipeline.Dashboards {
		if kind == "dashboard" && d.UID == uid {
			return "dashboard." + d.Name
		}
	}
	for _, d := range s.pipeline.DataSources {
		if kind == "datasource" && d.UID == uid {
			return "datasource." + d.Name
		}
	}
	return ""
}

// lock takes the advisory lock: one apply at a time. The context ends when it is lost.
func (s *Stack) lock(ctx context.Context) (held context.Context, release func(), err error) {
	caps, err := catalog.NewCatalog(s.clients.DB).Capabilities(ctx)
	if err == nil {
		err = caps.Writable()
	}
	if err != nil {
		return nil, nil, err
	}
	return ledger.Lock(ctx, s.clients.DB)
}

// objects is what a pipeline declares, with one snapshot of each system, none of which is read yet.
type objects struct {
	pipeline *spec.Pipeline
	now      func() time.Time
	cluster  *kafka.Cluster
	catalog  *catalog.Catalog
	queries  *shadow.Queries
	org      *grafana.Org // nil: no grafana block, or leftOut
	leftOut  *leftOut
	leaving  bool // what is declared is to be deleted, and other pipelines use the database, too
}

func (s *Stack) objects() *objects {
	p := new(*s.pipeline)
	if s.destroy {
		p.Removed, p.Rollups = nil, nil
	}
	o := &objects{
		pipeline: p, now: s.clients.Now, cluster: kafka.NewCluster(s.clients.Kafka),
		catalog: catalog.NewCatalog(s.clients.DB),
	}
	o.catalog.RolePool, o.catalog.Pipeline = s.clients.Roles, p
	o.queries = timescale.NewQueries(p, o.catalog)
	o.queries.Destroying = s.destroy
	switch {
	case s.grafana != nil:
		o.org = grafana.NewOrg(s.grafana, p)
	case p.Grafana != nil:
		o.leftOut = &leftOut{why: cmp.Or(p.Grafana.Auth.Unset(), "its value is empty")}
	}
	return o
}

// Resources lists what is declared, and what removed blocks delete, in apply order. Nothing is read.
func (s *Stack) Resources() []plan.Resource { return s.resources(s.objects(), nil) }

func (s *Stack) resources(o *objects, last map[string]plan.State) []plan.Resource {
	if s.destroy {
		return s.destroying(o, last)
	}
	return append(o.declared(), o.removals(last)...)
}

func (o *objects) declared() (out []plan.Resource) {
	for _, k := range kinds {
		if !o.leavesOut(k.name) {
			out = append(out, k.declared(o)...)
		}
	}
	return out
}

// removals lists what removed blocks delete.
func (o *objects) removals(last map[string]plan.State) (out []plan.Resource) {
	for _, r := range o.pipeline.Removed {
		if !o.leavesOut(r.Kind) {
			out = append(out, kindOf(r.Kind).removed(o, r, last[r.Address()]))
		}
	}
	return out
}

// leavesOut tells whether objects of a kind are not looked at.
func (o *objects) leavesOut(kind string) bool {
	return o.org == nil && plan.SystemOf(kind) == plan.Grafana
}

// systems lists the snapshots.
func (o *objects) systems() []System {
	out := []System{o.cluster, o.catalog}
	switch {
	case o.org != nil:
		out = append(out, o.org)
	case o.leftOut != nil:
		out = append(out, o.leftOut)
	}
	return out
}

// leftOut is Grafana without credentials.
type leftOut struct{ why, more string }

// Describe says why.
func (l *leftOut) Describe() plan.Read {
	text := fmt.Sprintf("left out: grafana.auth has no value (%s); it takes a service-account token%s", l.why, l.more)
	return plan.Read{System: "Grafana", LeftOut: true, Text: text}
}

// Unmanaged is nothing.
func (*leftOut) Unmanaged(context.Context) ([]string, error) { return nil, nil }

// deleting wants a resource gone. An object that no apply made is somebody else's and stays.
type deleting struct {
	plan.Resource
	where    string
	declared plan.Resource // what it depends on is what this one depends on; nil: what is live
	managed  bool
}

func (d *deleting) Where() string { return d.where }

func (d *deleting) Observe(ctx context.Context) (plan.Observation, error) {
	o, err := d.Resource.Observe(ctx)
	if err != nil {
		return o, err
	}
	if o.Want = nil; !d.managed {
		o.Live = nil
	}
	if d.declared != nil {
		declared, err := d.declared.Observe(ctx)
		o.DependsOn = declared.DependsOn
		return o, err
	}
	return o, nil
}

// destroying lists what destroy deletes: of what is declared, or named by a removed block, that which the last apply
// set.
func (s *Stack) destroying(o *objects, last map[string]plan.State) (out []plan.Resource) {
	o.pipeline.Removed = s.pipeline.Removed
	all := append(o.declared(), o.removals(last)...)
	o.pipeline.Removed = nil
	for _, r := range all {
		if _, managed := last[r.Address()]; managed && s.wanted(r.Address()) && r.Address() != plan.EngineAddress {
			kind, name, _ := strings.Cut(r.Address(), ".")
			// so that what uses it knows that it goes
			o.pipeline.Removed = append(o.pipeline.Removed, &spec.Removed{Kind: kind, Name: name})
		}
	}
	for _, r := range all {
		address := r.Address()
		if !s.wanted(address) {
			continue
		}
		if address == plan.EngineAddress && o.leftOut != nil && slices.ContainsFunc(slices.Collect(maps.Keys(last)),
			inGrafana) {
			o.leftOut.more = ". The engine's tables stay: they know what apply made there"
			out = append(out, r)
			continue
		}
		if address == plan.EngineAddress && o.leaving {
			out = append(out, r)
			continue
		}
		state, managed := last[address]
		d := &deleting{Resource: r, where: r.Where(), managed: managed}
		kind, name, _ := strings.Cut(address, ".")
		switch {
		case inGrafana(address): // the object of the uid that the last apply set, not of the declared one
			d.Resource, d.declared = kindOf(kind).removed(o, &spec.Removed{Kind: kind, Name: name}, state), r
		case dependent(address): // its dependencies are what is live, not what is declared
			d.Resource = kindOf(kind).removed(o, &spec.Removed{Kind: kind, Name: name}, state)
		}
		out = append(out, d)
	}
	return out
}

// wanted tells whether destroy is to delete an object.
func (s *Stack) wanted(address string) bool {
	return len(s.targets) == 0 || slices.Contains(s.targets, address)
}
