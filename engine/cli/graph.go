package cli

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func (e *env) newGraph() *cobra.Command {
	var form string
	c := &cobra.Command{
		Use:   "graph",
		Short: "Draw the data flow: sources, topics, tables, rollups, dashboards",
		Long: `Draw pipeline.hcl as a graph, in Mermaid (for Markdown) or DOT (for Graphviz). No connection is opened. An arrow is
the data flow; what a dashboard, view or alert reads is found in its SQL.`,
		Example: "  cryptoviz graph > graph.mmd\n  cryptoviz graph --form dot | dot -Tsvg > graph.svg",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := oneOf("form", form, "mermaid", "dot"); err != nil {
				return err
			}
			p, err := e.load()
			if err != nil {
				return err
			}
			g := graphOf(p)
			if form == "dot" {
				e.print("%s", g.dot())
			} else {
				e.print("%s", g.mermaid())
			}
			return nil
		},
	}
	c.Flags().StringVar(&form, "form", "mermaid", "`FORM` of the graph: mermaid or dot")
	return c
}

type node struct {
	kind, name string
	off        bool
}

func (n node) id() string { return n.kind + "_" + n.name }

type graph struct {
	nodes []node
	edges [][2]string
}

// edge adds an arrow, once.
func (g *graph) edge(from, to node) {
	if e := [2]string{from.id(), to.id()}; !slices.Contains(g.edges, e) {
		g.edges = append(g.edges, e)
	}
}

// graphOf follows the data: from sources over topics and tables to what reads them.
func graphOf(p *spec.Pipeline) *graph {
	g := &graph{}
	relations := map[string]node{}
	add := func(kind, name string, off bool) node {
		n := node{kind, name, off}
		g.nodes = append(g.nodes, n)
		return n
	}
	sources := map[string]node{}
	for _, s := range p.Sources {
		sources[s.Name] = add("source", s.Name, !s.Enabled)
	}
	topics := map[string]node{}
	for _, t := range p.Topics {
		topics[t.Name] = add("topic", t.Name, false)
	}
	for _, t := range p.Tables {
		relations[t.Name] = add("table", t.Name, false)
	}
	for _, s := range p.Sources {
		g.edge(sources[s.Name], topics[s.Topic.Name])
		g.edge(topics[s.Topic.Name], relations[s.Table.Name])
	}
	for _, a := range p.Aggregates {
		relations[a.Name] = add("aggregate", a.Name, false)
	}
	for _, v := range p.Views {
		relations[v.Name] = add("view", v.Name, false)
	}
	reads := func(to node, sql string) {
		for _, name := range sortedNames(relations) {
			if name != to.name && regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).MatchString(sql) {
				g.edge(relations[name], to)
			}
		}
	}
	for _, a := range p.Aggregates {
		reads(relations[a.Name], a.Query)
	}
	for _, v := range p.Views {
		reads(relations[v.Name], v.Query)
	}
	for _, r := range p.Rollups {
		n := add("rollup", r.Name, false)
		g.edge(relations[r.From.Name], n)
		g.edge(n, relations[r.Into.Name])
	}
	for _, d := range p.Dashboards {
		n := add("dashboard", d.Name, false)
		if queries, err := dashboard.SQL(d); err == nil {
			for _, q := range queries {
				reads(n, q.SQL)
			}
		}
	}
	for _, a := range p.Alerts {
		reads(add("alert", a.Name, false), a.Query)
	}
	return g
}

// shapes of Mermaid's nodes, by kind.
var shapes = map[string][2]string{
	"source": {"([", "])"}, "topic": {"[[", "]]"}, "table": {"[(", ")]"}, "aggregate": {"[(", ")]"},
	"view": {"[/", "/]"}, "rollup": {"{{", "}}"},
	"dashboard": {"[", "]"}, "alert": {">", "]"},
}

func (g *graph) mermaid() string {
	var out strings.Builder
	out.WriteString("flowchart LR\n")
	for _, n := range g.nodes {
		label := n.kind + " " + n.name
		if n.off {
			label += " (disabled)"
		}
		fmt.Fprintf(&out, "  %s%s\"%s\"%s\n", n.id(), shapes[n.kind][0], label, shapes[n.kind][1])
	}
	for _, e := range g.edges {
		fmt.Fprintf(&out, "  %s --> %s\n", e[0], e[1])
	}
	return out.String()
}

// forms of DOT's nodes, by kind.
var forms = map[string]string{
	"source": "oval", "topic": "cds", "table": "cylinder", "aggregate": "cylinder", "view": "parallelogram",
	"rollup": "hexagon", "dashboard": "box", "alert": "house",
}

func (g *graph) dot() string {
	var out strings.Builder
	out.WriteString("digraph pipeline {\n  rankdir = LR\n  node [fontname = \"sans-serif\"]\n")
	for _, n := range g.nodes {
		style := ""
		if n.off {
			style = ", style = dashed"
		}
		fmt.Fprintf(&out, "  %s [label = \"%s\\n%s\", shape = %s%s]\n", n.id(), n.kind, n.name, forms[n.kind], style)
	}
	for _, e := range g.edges {
		fmt.Fprintf(&out, "  %s -> %s\n", e[0], e[1])
	}
	out.WriteString("}\n")
	return out.String()
}

func sortedNames[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
