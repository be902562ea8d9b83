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
	"github.com/cryptoviz/cryptoviz/provision/timescale/role"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// Clients reach the outside world. Grafana is reached by what the pipeline says of it.
type Clients struct {
	Kafka *kgo.Client
	DB    *pgxpool.Pool
	Roles *pgxpool.Pool    // who may make roles, where DB's user may not; nil is DB
	Now   func() time.Time // for the first partitions; nil is the machine's clock
}

// World is everything that a pipeline declares, and where it lives.
type World struct {
	Resources []plan.Resource // THE list, in apply order
	Systems   []System
	Ledger    Ledger

	// What prepare found.
	last      map[string]plan.State // what the last apply set on objects of these servers
	elsewhere map[string]string     // objects that it set on other ones, and where
	servers   plan.Servers
	refused   error // why nothing in the database could be planned
	notes     []string
	queries   *shadow.Queries

	p       *spec.Pipeline
	db      *pgxpool.Pool
	now     func() time.Time
	catalog *catalog.Catalog
	cluster *kafka.Cluster
	org     *grafana.Org // nil: no grafana block, or leftOut
	leftOut *leftOut
	client  *grafana.Client
}

// NewWorld lists what a pipeline declares. It opens no connection.
func NewWorld(p *spec.Pipeline, c Clients) (*World, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	w := &World{p: p, db: c.DB, now: c.Now, Ledger: &ledger.Ledger{DB: c.DB}}
	w.cluster = kafka.NewCluster(c.Kafka)
	w.catalog = catalog.NewCatalog(c.DB)
	w.catalog.RolePool = c.Roles
	w.catalog.Pipeline = p
	w.Systems = []System{w.cluster, w.catalog}
	switch {
	case p.Grafana == nil:
	case p.Grafana.Auth.Reveal() == "":
		w.leftOut = &leftOut{why: cmp.Or(p.Grafana.Auth.Unset(), "its value is empty")}
		w.Systems = append(w.Systems, w.leftOut)
	default:
		var err error
		if w.client, err = grafana.NewClient(p.Grafana); err != nil {
			return nil, err
		}
		w.org = grafana.NewOrg(w.client, p)
		w.Systems = append(w.Systems, w.org)
	}
	w.Resources = w.resources()
	return w, nil
}

// leftOut is Grafana without credentials.
type leftOut struct{ why, rest string }

func (*leftOut) Reset() {}

func (l *leftOut) Describe() plan.Read {
	text := fmt.Sprintf("left out: grafana.auth has no value (%s); it takes a service-account token%s", l.why, l.rest)
	return plan.Read{System: "Grafana", LeftOut: true, Text: text}
}

func (*leftOut) Unmanaged(context.Context) ([]string, error) { return nil, nil }

// Close ends what NewWorld opened.
func (w *World) Close() {
	if w.client != nil {
		w.client.Close()
	}
}

// resources is THE list.
func (w *World) resources() []plan.Resource {
	out := []plan.Resource{&timescale.Engine{Pipeline: w.p, Catalog: w.catalog}}
	for _, t := range w.p.Topics {
		out = append(out, w.cluster.Topic(t))
	}
	w.queries = timescale.NewQueries(w.p, w.catalog)
	for _, t := range w.p.Tables {
		out = append(out, &table.Table{Catalog: w.catalog, Queries: w.queries, Spec: t, Now: w.now})
	}
	for _, v := range w.p.Views {
		out = append(out, &view.View{Queries: w.queries, Spec: v})
	}
	for _, a := range w.p.Aggregates {
		out = append(out, &view.Aggregate{Queries: w.queries, Spec: a})
	}
	for _, r := range w.p.Roles {
		out = append(out, &role.Role{Queries: w.queries, Spec: r})
	}
	if w.org != nil {
		for _, f := range w.p.Folders {
			out = append(out, &grafana.Folder{Org: w.org, Spec: f})
		}
		for _, d := range w.p.DataSources {
			out = append(out, &grafana.DataSource{Org: w.org, Spec: d})
		}
		for _, d := range w.p.Dashboards {
			out = append(out, &grafana.Dashboard{Org: w.org, Spec: d})
		}
		for _, a := range w.p.Alerts {
			out = append(out, &grafana.Alert{Org: w.org, Spec: a})
		}
	}
	for _, r := range w.p.Removed {
		if gone := w.removed(r); gone != nil {
			out = append(out, gone)
		}
	}
	return out
}

// removed is the resource of a removed block; nil when its system is left out.
func (w *World) removed(r *spec.Removed) plan.Resource {
	switch r.Kind {
	case "topic":
		return w.cluster.Removed(r)
	case "table":
		return &table.Table{Catalog: w.catalog, Queries: w.queries, Removed: r, Now: w.now}
	case "view":
		return &view.View{Queries: w.queries, Removed: r}
	case "aggregate":
		return &view.Aggregate{Queries: w.queries, Removed: r}
	case "role":
		return &role.Role{Queries: w.queries, Removed: r}
	}
	if w.org == nil {
		return nil
	}
	return &grafana.Removed{Org: w.org, Spec: r, Last: w.managed}
}

// managed is what the last apply set on objects of these servers.
func (w *World) managed(context.Context) (map[string]plan.State, error) { return w.last, nil }

// lock takes the advisory lock: one apply at a time. The context ends when it is lost.
func (w *World) lock(ctx context.Context) (held context.Context, release func(), err error) {
	caps, err := w.catalog.Capabilities(ctx)
	if err == nil {
		err = caps.Writable()
	}
	if err != nil {
		return nil, nil, err
	}
	return ledger.Lock(ctx, w.db)
}

// deleting wants a resource gone. An object that no apply made is somebody else's and stays.
type deleting struct {
	plan.Resource
	where    string
	declared plan.Resource // what it depends on is what this one depends on; nil: what it depends on itself
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

// Destroying is the world whose plan deletes everything that carries our mark, or the targets alone.
func (w *World) Destroying(ctx context.Context, targets []string) (*World, error) {
	if err := w.readLedger(ctx); err != nil {
		return nil, err
	}
	last := w.last
	out, p := *w, *w.p
	out.Resources, p.Removed, p.Rollups = nil, nil, nil
	for _, r := range w.Resources {
		address := r.Address()
		if len(targets) > 0 && !slices.Contains(targets, address) {
			continue
		}
		_, ours := last[address]
		if address == plan.EngineAddress && w.leftOut != nil &&
			slices.ContainsFunc(slices.Collect(maps.Keys(last)), inGrafana) {
			w.leftOut.rest = ". The engine's tables stay: they know what apply made there"
			out.Resources = append(out.Resources, r)
			continue
		}
		kind, name, _ := strings.Cut(address, ".")
		gone := &spec.Removed{Kind: kind, Name: name}
		if ours {
			p.Removed = append(p.Removed, gone) // so that what reads it is known to go too
		}
		d := &deleting{Resource: r, where: r.Where(), managed: ours}
		switch kind {
		case "table", "view", "aggregate", "role": // what they hang on is what is live, not what is declared
			d.Resource = w.removed(gone)
		case "folder", "datasource", "dashboard", "alert": // the object of the uid that the last apply set, not of the declared one
			d.Resource, d.declared = w.removed(gone), r
		}
		out.Resources = append(out.Resources, d)
	}
	out.p, out.catalog.Pipeline, out.queries.Pipeline, out.queries.Destroying = &p, &p, &p, true
	return &out, nil
}

// Annotate leaves a mark of an apply in Grafana, where there is one.
func (w *World) Annotate(ctx context.Context, text string) error {
	if w.org == nil {
		return nil
	}
	return w.org.Annotate(ctx, text, []string{"cryptoviz", "apply"})
}
