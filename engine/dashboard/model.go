// Package dashboard reads the JSON of Grafana's dashboards: panels, variables, and their queries as PostgreSQL gets
// them.
package dashboard

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// PostgresType is the plugin of a PostgreSQL data source; "postgres" is an old alias of it.
const PostgresType = "grafana-postgresql-datasource"

// Model is a dashboard taken apart: what is compared and merged piece by piece.
type Model struct {
	Raw    map[string]any // the whole, canonical
	Top    map[string]any // all but the pieces and what the server owns
	Parts  []*Part        // variables, annotations and panels, in their order
	Source string         // the uid that the data source variable stands at
}

// Part is a panel, a variable or an annotation query.
type Part struct {
	Kind string         // "panel", "variable", "annotation"
	Key  string         // kind and what identifies it: "panel 7"
	Name string         // as it is shown: "panel Market table (id 7)"
	Raw  map[string]any // as it is stored, nested panels left out
	Body map[string]any // what is compared
	Row  string         // key of the collapsed row that holds it
}

// ServerKeys are set by the server, or only tell of an export.
var ServerKeys = []string{
	"id", "uid", "version", "iteration", "__inputs", "__requires", "__elements", "folderUid",
	"folderId", "meta",
}

// PieceKeys are the keys whose content is compared piece by piece.
var PieceKeys = []string{"panels", "templating", "annotations"}

// Parse takes a canonical dashboard apart.
func Parse(raw map[string]any) *Model {
	m := &Model{Raw: raw, Top: map[string]any{}}
	for k, v := range raw {
		if !slices.Contains(ServerKeys, k) && !slices.Contains(PieceKeys, k) && (k != "gnetId" || v != nil) {
			m.Top[k] = v
		}
	}
	if title, is := m.Top["title"].(string); is {
		m.Top["title"] = strings.TrimSpace(title)
	}
	seen := map[string]int{}
	add := func(p *Part) *Part {
		if seen[p.Key]++; seen[p.Key] > 1 {
			p.Key, p.Name = fmt.Sprintf("%s #%d", p.Key, seen[p.Key]), fmt.Sprintf("%s #%d", p.Name, seen[p.Key])
		}
		m.Parts = append(m.Parts, p)
		return p
	}
	for _, v := range jsonvalue.Objects(raw, "templating", "list") {
		add(variable(v))
		if v["type"] == "datasource" && m.Source == "" && IsPostgres(jsonvalue.Text(v["query"])) {
			current, _ := v["current"].(map[string]any)
			m.Source = jsonvalue.Text(current["value"])
		}
	}
	for _, a := range jsonvalue.Objects(raw, "annotations", "list") {
		if jsonvalue.Integer(a["builtIn"]) == 0 && a["builtIn"] != true {
			name := jsonvalue.Text(a["name"])
			add(&Part{Kind: "annotation", Key: "annotation " + name, Name: "annotation " + name, Raw: a, Body: a})
		}
	}
	for _, p := range jsonvalue.Objects(raw, "panels") {
		row := add(panel(p))
		for _, nested := range jsonvalue.Objects(p, "panels") {
			add(panel(nested)).Row = row.Key
		}
	}
	return m
}

// IsPostgres reports whether a data source's type is the PostgreSQL plugin.
func IsPostgres(kind string) bool { return kind == PostgresType || kind == "postgres" }

// panel is compared without its place, which is one attribute of the whole dashboard, and without the version of its
// plugin.
func panel(raw map[string]any) *Part {
	raw = jsonvalue.Without(raw, "panels")
	body := jsonvalue.Without(raw, "gridPos", "pluginVersion", "id")
	if lib, is := body["libraryPanel"].(map[string]any); is {
		body["libraryPanel"] = jsonvalue.Without(map[string]any{"uid": lib["uid"], "name": lib["name"]})
	}
	title := jsonvalue.Text(raw["title"])
	if title == "" {
		title = jsonvalue.Text(raw["type"])
	}
	id := jsonvalue.Integer(raw["id"])
	return &Part{
		Kind: "panel", Key: fmt.Sprintf("panel %d", id), Name: fmt.Sprintf("panel %s (id %d)", title, id),
		Raw: raw, Body: body,
	}
}

// variable is compared without its options, which the editor fills in, and without what it stands at where that is
// found by a query. An editor that stores a query as an object means the same text.
func variable(raw map[string]any) *Part {
	body := jsonvalue.Without(raw, "options")
	switch jsonvalue.Text(raw["type"]) {
	case "query", "datasource", "interval":
		delete(body, "current")
	default:
		if current, is := raw["current"].(map[string]any); is {
			body["current"] = map[string]any{"value": current["value"]}
		}
	}
	if query, is := raw["query"].(map[string]any); is {
		for _, k := range []string{"rawSql", "query"} {
			if sql := jsonvalue.Text(query[k]); sql != "" {
				body["query"] = sql
				break
			}
		}
	}
	name := jsonvalue.Text(raw["name"])
	return &Part{Kind: "variable", Key: "variable " + name, Name: "variable " + name, Raw: raw, Body: body}
}

// Digest is the value of a part's attribute.
func (p *Part) Digest(body any) string {
	kind := jsonvalue.Text(p.Body["type"])
	if p.Kind == "annotation" || kind == "" {
		return jsonvalue.Digest(body)
	}
	return kind + " " + jsonvalue.Digest(body)
}

// Part finds a part by its key; nil: there is none.
func (m *Model) Part(key string) *Part {
	if i := slices.IndexFunc(m.Parts, func(p *Part) bool { return p.Key == key }); i >= 0 {
		return m.Parts[i]
	}
	return nil
}

// Load reads the file of a dashboard block, with the data source filled in and an id for each panel that has none.
func Load(d *spec.Dashboard) (*Model, error) {
	raw, err := jsonvalue.Decode(d.JSON)
	if err != nil {
		return nil, fmt.Errorf("%s is not a dashboard JSON file: %w", d.File, err)
	}
	raw["uid"], raw["title"] = d.UID, strings.TrimSpace(jsonvalue.Text(raw["title"]))
	AddPanelIDs(raw)
	if d.DataSource != nil {
		fill(raw, d.DataSource)
	}
	return Parse(raw), nil
}

// WithRowsOf is the model with the ids of the file's rows, where a row of the same title has another: a save in
// schema version 2 makes new ones, and a row is nothing but its title.
func (m *Model) WithRowsOf(file *Model) *Model {
	isRow := func(p *Part) bool { return p.Kind == "panel" && p.Raw["type"] == "row" }
	ids := map[int64]any{}
	for _, w := range file.Parts {
		if !isRow(w) || m.Part(w.Key) != nil {
			continue
		}
		for _, l := range m.Parts {
			id := jsonvalue.Integer(l.Raw["id"])
			if isRow(l) && ids[id] == nil && file.Part(l.Key) == nil &&
				jsonvalue.Text(l.Raw["title"]) == jsonvalue.Text(w.Raw["title"]) {
				ids[id] = w.Raw["id"]
				break
			}
		}
	}
	if len(ids) == 0 {
		return m
	}
	raw := maps.Clone(m.Raw)
	var panels []any
	for _, p := range jsonvalue.Objects(m.Raw, "panels") {
		if id := ids[jsonvalue.Integer(p["id"])]; id != nil {
			p = maps.Clone(p)
			p["id"] = id
		}
		panels = append(panels, p)
	}
	raw["panels"] = panels
	return Parse(raw)
}

// each visits all panels, those of collapsed rows too.
func each(raw map[string]any, do func(map[string]any)) {
	for _, p := range jsonvalue.Objects(raw, "panels") {
		do(p)
		for _, nested := range jsonvalue.Objects(p, "panels") {
			do(nested)
		}
	}
}

// AddPanelIDs gives each panel that has no id one that the dashboard does not use, by its place.
func AddPanelIDs(raw map[string]any) {
	used := map[int64]bool{}
	each(raw, func(p map[string]any) { used[jsonvalue.Integer(p["id"])] = true })
	next := int64(0)
	each(raw, func(p map[string]any) {
		if jsonvalue.Integer(p["id"]) > 0 {
			return
		}
		for next++; used[next]; next++ {
		}
		p["id"] = jsonvalue.Int(next)
	})
}

// fill gives the declared data source to the data source variable and to all that name none.
func fill(raw map[string]any, ds *spec.DataSource) {
	ref := func() map[string]any { return map[string]any{"type": PostgresType, "uid": ds.UID} }
	for _, v := range jsonvalue.Objects(raw, "templating", "list") {
		switch {
		case v["type"] == "datasource" && IsPostgres(jsonvalue.Text(v["query"])):
			v["current"] = map[string]any{"selected": true, "text": ds.Title, "value": ds.UID}
		case v["type"] == "query" && v["datasource"] == nil:
			v["datasource"] = ref()
		}
	}
	for _, a := range jsonvalue.Objects(raw, "annotations", "list") {
		if a["datasource"] == nil && a["builtIn"] == nil {
			a["datasource"] = ref()
		}
	}
	each(raw, func(p map[string]any) {
		targets := jsonvalue.Objects(p, "targets")
		if len(targets) == 0 {
			return
		}
		if p["datasource"] == nil {
			p["datasource"] = ref()
		}
		for _, t := range targets {
			if t["datasource"] == nil && t["rawSql"] != nil {
				t["datasource"] = p["datasource"]
			}
		}
	})
}
