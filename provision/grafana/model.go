package grafana

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// postgresType is the plugin of a PostgreSQL data source; "postgres" is an old alias of it.
const postgresType = "grafana-postgresql-datasource"

// model is a dashboard taken apart: what is compared and merged piece by piece.
type model struct {
	raw    map[string]any // the whole, canonical
	top    map[string]any // all but the pieces and what the server owns
	parts  []*part        // variables, annotations and panels, in their order
	source string         // the uid that the data source variable stands at
}

// part is a panel, a variable or an annotation query.
type part struct {
	kind string         // "panel", "variable", "annotation"
	key  string         // kind and what identifies it: "panel 7"
	name string         // as it is shown: "panel Market table (id 7)"
	raw  map[string]any // as it is stored, nested panels left out
	body map[string]any // what is compared
	row  string         // key of the collapsed row that holds it
}

// serverKeys are set by the server, or only tell of an export.
var serverKeys = []string{"id", "uid", "version", "iteration", "__inputs", "__requires", "__elements", "folderUid", "folderId", "meta"}

// pieces are the keys whose content is compared piece by piece.
var pieces = []string{"panels", "templating", "annotations"}

// take takes a canonical dashboard apart.
func take(raw map[string]any) *model {
	m := &model{raw: raw, top: map[string]any{}}
	for k, v := range raw {
		if !slices.Contains(serverKeys, k) && !slices.Contains(pieces, k) && (k != "gnetId" || v != nil) {
			m.top[k] = v
		}
	}
	if title, is := m.top["title"].(string); is {
		m.top["title"] = strings.TrimSpace(title)
	}
	seen := map[string]int{}
	add := func(p *part) *part {
		if seen[p.key]++; seen[p.key] > 1 {
			p.key, p.name = fmt.Sprintf("%s #%d", p.key, seen[p.key]), fmt.Sprintf("%s #%d", p.name, seen[p.key])
		}
		m.parts = append(m.parts, p)
		return p
	}
	for _, v := range objects(raw, "templating", "list") {
		add(variable(v))
		if v["type"] == "datasource" && m.source == "" && isPostgres(text(v["query"])) {
			current, _ := v["current"].(map[string]any)
			m.source = text(current["value"])
		}
	}
	for _, a := range objects(raw, "annotations", "list") {
		if integer(a["builtIn"]) == 0 && a["builtIn"] != true {
			name := text(a["name"])
			add(&part{kind: "annotation", key: "annotation " + name, name: "annotation " + name, raw: a, body: a})
		}
	}
	for _, p := range objects(raw, "panels") {
		row := add(panel(p))
		for _, nested := range objects(p, "panels") {
			add(panel(nested)).row = row.key
		}
	}
	return m
}

func isPostgres(kind string) bool { return kind == postgresType || kind == "postgres" }

// objects returns the objects of a list inside a value.
func objects(v any, path ...string) []map[string]any {
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	list, _ := v.([]any)
	var out []map[string]any
	for _, x := range list {
		if m, is := x.(map[string]any); is {
			out = append(out, m)
		}
	}
	return out
}

func without(m map[string]any, keys ...string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		if !slices.Contains(keys, k) {
			out[k] = v
		}
	}
	return out
}

// panel is compared without its place, which is one attribute of the whole dashboard, and without the version of its
// plugin.
func panel(raw map[string]any) *part {
	raw = without(raw, "panels")
	body := without(raw, "gridPos", "pluginVersion", "id")
	if lib, is := body["libraryPanel"].(map[string]any); is {
		body["libraryPanel"] = without(map[string]any{"uid": lib["uid"], "name": lib["name"]})
	}
	title := text(raw["title"])
	if title == "" {
		title = text(raw["type"])
	}
	id := integer(raw["id"])
	return &part{kind: "panel", key: fmt.Sprintf("panel %d", id), name: fmt.Sprintf("panel %s (id %d)", title, id), raw: raw, body: body}
}

// variable is compared without its options, which the editor fills in, and without what it stands at where that is
// found by a query. An editor that stores a query as an object means the same text.
func variable(raw map[string]any) *part {
	body := without(raw, "options")
	switch text(raw["type"]) {
	case "query", "datasource", "interval":
		delete(body, "current")
	default:
		if current, is := raw["current"].(map[string]any); is {
			body["current"] = map[string]any{"value": current["value"]}
		}
	}
	if query, is := raw["query"].(map[string]any); is {
		for _, k := range []string{"rawSql", "query"} {
			if sql := text(query[k]); sql != "" {
				body["query"] = sql
				break
			}
		}
	}
	name := text(raw["name"])
	return &part{kind: "variable", key: "variable " + name, name: "variable " + name, raw: raw, body: body}
}

// digest is the value of a part's attribute.
func (p *part) digest(body any) string {
	kind := text(p.body["type"])
	if p.kind == "annotation" || kind == "" {
		return digest(body)
	}
	return kind + " " + digest(body)
}

func (m *model) part(key string) *part {
	if i := slices.IndexFunc(m.parts, func(p *part) bool { return p.key == key }); i >= 0 {
		return m.parts[i]
	}
	return nil
}

// file reads the file of a dashboard block, with the data source filled in and an id for each panel that has none.
func file(d *spec.Dashboard) (*model, error) {
	raw, err := decode(d.JSON)
	if err != nil {
		return nil, fmt.Errorf("%s is not a dashboard JSON file: %w", d.File, err)
	}
	raw["uid"], raw["title"] = d.UID, strings.TrimSpace(text(raw["title"]))
	identify(raw)
	if d.DataSource != nil {
		fill(raw, d.DataSource)
	}
	return take(raw), nil
}

// withRowsOf is the model with the ids of the file's rows, where a row of the same title has another: a save in
// schema version 2 makes new ones, and a row is nothing but its title.
func (m *model) withRowsOf(file *model) *model {
	isRow := func(p *part) bool { return p.kind == "panel" && p.raw["type"] == "row" }
	ids := map[int64]any{}
	for _, w := range file.parts {
		if !isRow(w) || m.part(w.key) != nil {
			continue
		}
		for _, l := range m.parts {
			id := integer(l.raw["id"])
			if isRow(l) && ids[id] == nil && file.part(l.key) == nil && text(l.raw["title"]) == text(w.raw["title"]) {
				ids[id] = w.raw["id"]
				break
			}
		}
	}
	if len(ids) == 0 {
		return m
	}
	raw := maps.Clone(m.raw)
	var panels []any
	for _, p := range objects(m.raw, "panels") {
		if id := ids[integer(p["id"])]; id != nil {
			p = maps.Clone(p)
			p["id"] = id
		}
		panels = append(panels, p)
	}
	raw["panels"] = panels
	return take(raw)
}

// each visits all panels, those of collapsed rows too.
func each(raw map[string]any, do func(map[string]any)) {
	for _, p := range objects(raw, "panels") {
		do(p)
		for _, nested := range objects(p, "panels") {
			do(nested)
		}
	}
}

// identify gives each panel that has no id one that the dashboard does not use, by its place.
func identify(raw map[string]any) {
	used := map[int64]bool{}
	each(raw, func(p map[string]any) { used[integer(p["id"])] = true })
	next := int64(0)
	each(raw, func(p map[string]any) {
		if integer(p["id"]) > 0 {
			return
		}
		for next++; used[next]; next++ {
		}
		p["id"] = jsonInt(next)
	})
}

// fill gives the declared data source to the data source variable and to all that name none.
func fill(raw map[string]any, ds *spec.DataSource) {
	ref := func() map[string]any { return map[string]any{"type": postgresType, "uid": ds.UID} }
	for _, v := range objects(raw, "templating", "list") {
		switch {
		case v["type"] == "datasource" && isPostgres(text(v["query"])):
			v["current"] = map[string]any{"selected": true, "text": ds.Title, "value": ds.UID}
		case v["type"] == "query" && v["datasource"] == nil:
			v["datasource"] = ref()
		}
	}
	for _, a := range objects(raw, "annotations", "list") {
		if a["datasource"] == nil && a["builtIn"] == nil {
			a["datasource"] = ref()
		}
	}
	each(raw, func(p map[string]any) {
		targets := objects(p, "targets")
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
