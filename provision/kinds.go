package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/kafka"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale"
	"github.com/cryptoviz/cryptoviz/provision/timescale/role"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// kind is one kind of object.
type kind struct {
	name     string
	declared func(o *objects) []plan.Resource
	removed  func(o *objects, r *spec.Removed, last plan.State) plan.Resource // nil: no block removes it
	block    func(ctx context.Context, o *objects, name string) (Imported, error)
}

// kinds is THE list, in apply order. plan.SystemOf tells on which system a kind lives.
var kinds = []kind{
	{
		name: "engine",
		declared: func(o *objects) []plan.Resource {
			return []plan.Resource{
				&timescale.Engine{Pipeline: o.pipeline, Catalog: o.catalog, Leaving: o.leaving},
			}
		},
	},
	{
		name: "topic",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Topics, func(t *spec.Topic) plan.Resource { return o.cluster.Topic(t) })
		},
		removed: func(o *objects, r *spec.Removed, _ plan.State) plan.Resource { return o.cluster.Removed(r) },
		block: text(func(ctx context.Context, o *objects, name string) (string, error) {
			return kafka.Block(ctx, o.cluster, name)
		}),
	},
	{
		name: "table",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Tables, func(t *spec.Table) plan.Resource {
				return &table.Table{Catalog: o.catalog, Queries: o.queries, Spec: t, Now: o.now}
			})
		},
		removed: func(o *objects, r *spec.Removed, _ plan.State) plan.Resource {
			return &table.Table{Catalog: o.catalog, Queries: o.queries, Removed: r, Now: o.now}
		},
		block: text(func(ctx context.Context, o *objects, name string) (string, error) {
			return table.Block(ctx, o.catalog, name)
		}),
	},
	{
		name: "view",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Views, func(v *spec.View) plan.Resource {
				return &view.View{Queries: o.queries, Spec: v}
			})
		},
		removed: func(o *objects, r *spec.Removed, _ plan.State) plan.Resource {
			return &view.View{Queries: o.queries, Removed: r}
		},
		block: text(func(ctx context.Context, o *objects, name string) (string, error) {
			return view.Block(ctx, o.catalog, name)
		}),
	},
	{
		name: "aggregate",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Aggregates, func(a *spec.Aggregate) plan.Resource {
				return &view.Aggregate{Queries: o.queries, Spec: a}
			})
		},
		removed: func(o *objects, r *spec.Removed, _ plan.State) plan.Resource {
			return &view.Aggregate{Queries: o.queries, Removed: r}
		},
		block: text(func(ctx context.Context, o *objects, name string) (string, error) {
			return view.AggregateBlock(ctx, o.catalog, name)
		}),
	},
	{
		name: "role",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Roles, func(r *spec.Role) plan.Resource {
				return &role.Role{Queries: o.queries, Spec: r}
			})
		},
		removed: func(o *objects, r *spec.Removed, _ plan.State) plan.Resource {
			return &role.Role{Queries: o.queries, Removed: r}
		},
		block: text(func(ctx context.Context, o *objects, name string) (string, error) {
			return role.Block(ctx, o.catalog, name)
		}),
	},
	{
		name: "folder",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Folders, func(f *spec.Folder) plan.Resource {
				return &grafana.Folder{Org: o.org, Spec: f}
			})
		},
		removed: removedInGrafana, block: blockOfGrafana("folder"),
	},
	{
		name: "datasource",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.DataSources, func(d *spec.DataSource) plan.Resource {
				return &grafana.DataSource{Org: o.org, Spec: d}
			})
		},
		removed: removedInGrafana, block: blockOfGrafana("datasource"),
	},
	{
		name: "dashboard",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Dashboards, func(d *spec.Dashboard) plan.Resource {
				return &grafana.Dashboard{Org: o.org, Spec: d}
			})
		},
		removed: removedInGrafana, block: blockOfGrafana("dashboard"),
	},
	{
		name: "alert",
		declared: func(o *objects) []plan.Resource {
			return each(o.pipeline.Alerts, func(a *spec.Alert) plan.Resource {
				return &grafana.Alert{Org: o.org, Spec: a}
			})
		},
		removed: removedInGrafana, block: blockOfGrafana("alert"),
	},
}

func kindOf(name string) *kind {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return &kinds[i]
}

func each[T any](list []*T, resource func(*T) plan.Resource) (out []plan.Resource) {
	for _, x := range list {
		out = append(out, resource(x))
	}
	return out
}

func removedInGrafana(o *objects, r *spec.Removed, last plan.State) plan.Resource {
	return &grafana.Removed{Org: o.org, Spec: r, Last: last}
}

// text is of a kind whose block needs no files.
func text(block func(ctx context.Context, o *objects, name string) (string, error)) func(context.Context, *objects,
	string) (Imported, error) {
	return func(ctx context.Context, o *objects, name string) (out Imported, err error) {
		out.HCL, err = block(ctx, o, name)
		return out, err
	}
}

func blockOfGrafana(kind string) func(context.Context, *objects, string) (Imported, error) {
	return func(ctx context.Context, o *objects, name string) (Imported, error) {
		if o.org == nil {
			return Imported{}, fmt.Errorf("%s.%s: Grafana is left out, since there is no grafana block, or its "+
				"auth is empty", kind, name)
		}
		b, err := grafana.Block(ctx, o.org, kind, name)
		return Imported(b), err
	}
}

// Imported is an object as a block of pipeline.hcl.
type Imported struct {
	Address string            // of the block
	HCL     string            // the block
	Files   map[string][]byte // files that it names, relative to pipeline.hcl
}

// Import writes objects that exist as the blocks that declare them exactly as they are.
func (s *Stack) Import(ctx context.Context, address string) (Imported, error) {
	name, object, ok := strings.Cut(address, ".")
	if !ok || object == "" {
		return Imported{}, fmt.Errorf("%q is no address: write KIND.NAME, such as topic.trades, table.trades or "+
			"dashboard.UID", address)
	}
	k := kindOf(name)
	if k == nil || k.block == nil {
		return Imported{}, fmt.Errorf("there is no kind %q: topics, tables, views, aggregates, roles, folders, data "+
			"sources, dashboards and alerts can be imported", name)
	}
	out, err := k.block(ctx, s.objects(), object)
	if out.Address == "" {
		out.Address = address
	}
	return out, err
}

func inDatabase(address string) bool {
	kind, _, _ := strings.Cut(address, ".")
	return plan.SystemOf(kind) == plan.Postgres
}

func inGrafana(address string) bool {
	kind, _, _ := strings.Cut(address, ".")
	return plan.SystemOf(kind) == plan.Grafana
}
