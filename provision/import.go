package provision

import (
	"context"
	"fmt"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/kafka"
	"github.com/cryptoviz/cryptoviz/provision/timescale/role"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// Imported is an object as a block of pipeline.hcl.
type Imported struct {
	Address string            // of the block
	HCL     string            // the block
	Files   map[string][]byte // files beside pipeline.hcl that it names
}

// Declared finds the block of an object: by its address, and in Grafana by the uid too. "" when there is none.
func (w *World) Declared(address string) string {
	for _, r := range w.Resources {
		if r.Address() == address {
			return address
		}
	}
	kind, uid, _ := strings.Cut(address, ".")
	for _, d := range w.p.Dashboards {
		if kind == "dashboard" && d.UID == uid {
			return "dashboard." + d.Name
		}
	}
	for _, d := range w.p.DataSources {
		if kind == "datasource" && d.UID == uid {
			return "datasource." + d.Name
		}
	}
	return ""
}

// Import writes an object that exists as the block that declares it exactly as it is.
func (w *World) Import(ctx context.Context, address string) (Imported, error) {
	out := Imported{Address: address}
	kind, name, ok := strings.Cut(address, ".")
	if !ok || name == "" {
		return out, fmt.Errorf("%q is no address: write KIND.NAME, such as topic.trades, table.trades or dashboard.UID", address)
	}
	var err error
	switch kind {
	case "topic":
		out.HCL, err = kafka.Block(ctx, w.cluster, name)
	case "table":
		out.HCL, err = table.Block(ctx, w.catalog, name)
	case "view":
		out.HCL, err = view.Block(ctx, w.catalog, name)
	case "aggregate":
		out.HCL, err = view.AggregateBlock(ctx, w.catalog, name)
	case "role":
		out.HCL, err = role.Block(ctx, w.catalog, name)
	case "folder", "datasource", "dashboard", "alert":
		if w.org == nil {
			return out, fmt.Errorf("%s: Grafana is left out, since there is no grafana block, or its auth is empty", address)
		}
		var b grafana.Imported
		b, err = grafana.Block(ctx, w.org, kind, name)
		out = Imported(b)
	default:
		err = fmt.Errorf("there is no kind %q: topics, tables, views, aggregates, roles, folders, data sources, dashboards and alerts can be imported", kind)
	}
	return out, err
}
