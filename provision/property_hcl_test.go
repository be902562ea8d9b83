package provision_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// written is a pipeline as its files: what a failing seed prints, and what makes a copy that shares nothing.
func written(p *spec.Pipeline) fstest.MapFS {
	files := fstest.MapFS{}
	w := &hclText{}
	w.line(`kafka {`, `  brokers = ["localhost:9092"]`, `}`, `database {`, `  url        = "postgres://x@x/x"`, fmt.Sprintf("  on_missing = %s", quoted(p.Database.OnMissing)), `}`)
	w.line(`grafana {`, `  url  = env("GRAFANA_URL")`, `  auth = env("GRAFANA_AUTH")`, `}`)
	for _, t := range p.Topics {
		w.open("topic", t.Name)
		w.line(fmt.Sprintf("partitions = %d", t.Partitions), fmt.Sprintf("replication = %d", t.Replication))
		w.texts("config", t.Config)
		w.end()
	}
	for _, t := range p.Tables {
		w.table(t)
	}
	for _, v := range p.Views {
		w.open("view", v.Name)
		w.text("description", v.Description)
		w.text("query", v.Query)
		w.end()
	}
	for _, a := range p.Aggregates {
		w.open("aggregate", a.Name)
		w.text("description", a.Description)
		w.text("query", a.Query)
		w.line("from = table."+a.From.Name, fmt.Sprintf("real_time = %t", a.RealTime))
		w.duration("retention", a.Retention > 0, units.FormatDuration(a.Retention))
		if r := a.Refresh; r != nil {
			w.line("refresh {", "start = "+quoted(units.FormatDuration(r.Start)), "end = "+quoted(units.FormatDuration(r.End)), "every = "+quoted(units.FormatDuration(r.Every)), "}")
		}
		w.end()
	}
	for _, r := range p.Roles {
		w.role(p, r)
	}
	w.grafana(p, files)
	for _, r := range p.Removed {
		w.line("removed {", "object = "+r.Address(), "}")
	}
	files["pipeline.hcl"] = &fstest.MapFile{Data: hclwrite.Format([]byte(w.String()))}
	return files
}

type hclText struct{ strings.Builder }

func quoted(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

func quotedList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoted(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func (w *hclText) line(lines ...string) {
	for _, l := range lines {
		w.WriteString(l + "\n")
	}
}

func (w *hclText) open(kind, name string) { w.line(kind + " " + quoted(name) + " {") }
func (w *hclText) end()                   { w.line("}") }

// text writes an attribute unless it is empty.
func (w *hclText) text(name, value string) {
	if value != "" {
		w.line(name + " = " + quoted(value))
	}
}

// secret takes a value from the environment, as the language wants it; its name there tells it to load.
func (w *hclText) secret(name string, value spec.Secret) {
	if value.Reveal() != "" {
		w.line(fmt.Sprintf("%s = env(\"SECRET_%x\")", name, value.Reveal()))
	}
}

func (w *hclText) duration(name string, set bool, value string) {
	if set {
		w.line(name + " = " + quoted(value))
	}
}

func (w *hclText) texts(name string, values map[string]string) {
	if len(values) == 0 {
		return
	}
	w.line(name + " = {")
	for _, k := range slices.Sorted(maps.Keys(values)) {
		w.line(quoted(k) + " = " + quoted(values[k]))
	}
	w.end()
}

func (w *hclText) table(t *spec.Table) {
	w.open("table", t.Name)
	w.text("description", t.Description)
	for _, c := range t.Columns {
		w.open("column", c.Name)
		w.line("type = "+quoted(string(c.Type)), fmt.Sprintf("null = %t", c.Null))
		w.text("default", c.Default)
		w.text("generated", c.Generated)
		w.text("description", c.Description)
		w.text("was", c.Was)
		w.end()
	}
	w.line("primary_key = " + quotedList(t.PrimaryKey))
	for _, x := range t.Indexes {
		w.line("index {", "name = "+quoted(x.Name), "columns = "+quotedList(x.Columns), fmt.Sprintf("unique = %t", x.Unique), "}")
	}
	if h := t.Hypertable; h != nil {
		w.line("hypertable {", "time = "+quoted(h.Time), "chunk_interval = "+quoted(units.FormatDuration(h.ChunkInterval)))
		w.duration("retention", h.Retention > 0, units.FormatDuration(h.Retention))
		if c := h.Columnstore; c != nil {
			w.line("columnstore {", "after = "+quoted(units.FormatDuration(c.After)))
			if len(c.SegmentBy) > 0 {
				w.line("segment_by = " + quotedList(c.SegmentBy))
			}
			if len(c.OrderBy) > 0 {
				w.line("order_by = " + quotedList(c.OrderBy))
			}
			w.end()
		}
		w.end()
	}
	w.end()
}

func (w *hclText) role(p *spec.Pipeline, r *spec.Role) {
	w.open("role", r.Name)
	w.line(fmt.Sprintf("login = %t", r.Login), fmt.Sprintf("read_only = %t", r.ReadOnly))
	w.secret("password", r.Password)
	w.duration("statement_timeout", r.Timeout > 0, units.FormatDuration(r.Timeout))
	for _, g := range r.Grants {
		var on []string
		for _, name := range g.On {
			on = append(on, reference(p, name))
		}
		w.line("grant {", "privileges = "+quotedList(g.Privileges), "on = ["+strings.Join(on, ", ")+"]", "}")
	}
	w.end()
}

// reference is how a grant names a relation.
func reference(p *spec.Pipeline, name string) string {
	switch {
	case slices.ContainsFunc(p.Views, func(v *spec.View) bool { return v.Name == name }):
		return "view." + name
	case slices.ContainsFunc(p.Aggregates, func(a *spec.Aggregate) bool { return a.Name == name }):
		return "aggregate." + name
	case name == "cryptoviz":
		return name
	}
	return "table." + name
}

func (w *hclText) grafana(p *spec.Pipeline, files fstest.MapFS) {
	for _, f := range p.Folders {
		w.open("folder", f.Name)
		w.text("title", f.Title)
		if f.Parent != nil {
			w.line("parent = folder." + f.Parent.Name)
		}
		w.end()
	}
	for _, d := range p.DataSources {
		w.open("datasource", d.Name)
		w.text("title", d.Title)
		w.text("uid", d.UID)
		w.text("host", d.Host)
		w.text("database", d.Database)
		w.text("user", d.User)
		w.secret("password", d.Password)
		w.text("sslmode", d.SSLMode)
		w.line("min_interval = "+quoted(units.FormatDuration(d.MinInterval)), fmt.Sprintf("default = %t", d.Default))
		w.end()
	}
	for _, d := range p.Dashboards {
		w.open("dashboard", d.Name)
		w.text("file", d.Name+".json")
		files[d.Name+".json"] = &fstest.MapFile{Data: d.JSON}
		if d.Folder != nil {
			w.line("folder = folder." + d.Folder.Name)
		}
		if d.DataSource != nil {
			w.line("datasource = datasource." + d.DataSource.Name)
		}
		w.end()
	}
	for _, a := range p.Alerts {
		w.open("alert", a.Name)
		w.text("title", a.Title)
		w.line("folder = folder."+a.Folder.Name, "datasource = datasource."+a.DataSource.Name)
		w.text("query", a.Query)
		if a.Above != nil {
			w.line(fmt.Sprintf("above = %v", *a.Above))
		} else {
			w.line(fmt.Sprintf("below = %v", *a.Below))
		}
		w.line("for = "+quoted(units.FormatDuration(a.For)), "every = "+quoted(units.FormatDuration(a.Every)), "no_data = "+quoted(a.NoData))
		w.texts("labels", a.Labels)
		w.text("summary", a.Summary)
		w.text("description", a.Description)
		w.end()
	}
}

// mustLoad reads a pipeline. That it has no source is no mistake here: what runs is not what is provisioned.
func mustLoad(t testing.TB, files fstest.MapFS, env map[string]string) *spec.Pipeline {
	t.Helper()
	p, d := load.Load(files, "pipeline.hcl", load.Options{Env: func(name string) (string, bool) {
		if code, ok := strings.CutPrefix(name, "SECRET_"); ok {
			text, err := hex.DecodeString(code)
			return string(text), err == nil
		}
		v, ok := env[name]
		return v, ok
	}})
	for _, diag := range d.Diags {
		if diag.Summary != "No source" {
			t.Errorf("%s: %s: %s", diag.Subject, diag.Summary, diag.Detail)
		}
	}
	if t.Failed() {
		t.Fatalf("%s", files["pipeline.hcl"].Data)
	}
	return p
}
