package grafana

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// merging puts a dashboard together: each piece that differs in the plan comes from the file, the rest stays as it is
// live.
type merging struct {
	want, live *dashboard.Model
	c          plan.Change
	last       *plan.State // what the last apply had set, with today's names
}

// before is what the last apply had set of an attribute, as JSON; nil when it is not known.
func (m merging) before(attr string) any {
	a, _ := m.last.Get(attr)
	return parsed(a.Raw)
}

func parsed(raw string) any {
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	var out any
	if d.Decode(&out) != nil {
		return nil
	}
	return out
}

// keys are the keys of the dashboard itself.
func (m merging) keys() map[string]any {
	out := jsonvalue.Without(m.live.Raw, slices.Concat(dashboard.ServerKeys, dashboard.PieceKeys)...)
	for _, d := range m.c.Diffs {
		k := strings.TrimPrefix(d.Name, "key ")
		if keyOf(d.Name) != "" || slices.Contains(taken, d.Name) {
			continue
		}
		w, declared := m.want.Top[k]
		switch {
		case declared:
			out[k] = jsonvalue.Merge(m.live.Top[k], w, m.before(d.Name))
		case d.Cause == plan.Reset:
			delete(out, k)
		}
	}
	return out
}

// piece is one part as it is to be saved, nil when it is to go.
func (m merging) piece(w, l *dashboard.Part) map[string]any {
	switch {
	case w == nil: // it is not declared: it stays, unless the last apply had made it
		if d, differs := m.c.Diff(l.Name); differs && d.Cause == plan.Reset {
			return nil
		}
		return l.Raw
	case l == nil:
		return w.Raw
	}
	out := l.Raw
	if _, differs := m.c.Diff(w.Name); differs {
		// another kind: no key of the old one means anything
		if jsonvalue.Text(w.Body["type"]) != jsonvalue.Text(l.Body["type"]) {
			out = w.Raw
		} else {
			out, _ = jsonvalue.Merge(l.Raw, any(w.Body), m.before(w.Name)).(map[string]any)
		}
	}
	out = maps.Clone(out)
	if w.Kind == "variable" && w.Raw["type"] == "datasource" && dashboard.IsPostgres(jsonvalue.Text(w.Raw["query"])) {
		if _, differs := m.c.Diff("datasource"); differs {
			out["current"] = w.Raw["current"]
		}
	}
	if w.Kind == "panel" {
		out["id"] = w.Raw["id"]
		if _, differs := m.c.Diff("layout"); differs && w.Raw["gridPos"] != nil {
			out["gridPos"] = w.Raw["gridPos"]
		} else if l.Raw["gridPos"] != nil {
			out["gridPos"] = l.Raw["gridPos"]
		}
	}
	return out
}

// list are all variables, or all annotations: those of the file in its order, then those that are not declared.
func (m merging) list(kind string) []any {
	var out []any
	for _, p := range m.ordered(kind) {
		if v := m.piece(m.want.Part(p.Key), m.live.Part(p.Key)); v != nil {
			out = append(out, v)
		}
	}
	return out
}

// ordered are the parts of a kind: the file's, then the others.
func (m merging) ordered(kind string) []*dashboard.Part {
	var out []*dashboard.Part
	for _, p := range m.want.Parts {
		if p.Kind == kind {
			out = append(out, p)
		}
	}
	for _, p := range m.live.Parts {
		if p.Kind == kind && m.want.Part(p.Key) == nil {
			out = append(out, p)
		}
	}
	return out
}

// panels are all panels, those of collapsed rows inside of them.
func (m merging) panels() []any {
	var out []any
	rows := map[string]map[string]any{}
	for _, p := range m.ordered("panel") {
		w, l := m.want.Part(p.Key), m.live.Part(p.Key)
		v := m.piece(w, l)
		if v == nil {
			continue
		}
		row := p.Row
		if l != nil && w != nil && !m.restructured(w) {
			row = l.Row
		}
		if jsonvalue.Text(v["type"]) == "row" {
			v = maps.Clone(v)
			v["panels"] = []any{}
			rows[p.Key] = v
		}
		if in := rows[row]; in != nil && row != "" {
			in["panels"] = append(in["panels"].([]any), v)
			continue
		}
		out = append(out, v)
	}
	return out
}

// restructured reports whether a panel's row is to be as in the file.
func (m merging) restructured(w *dashboard.Part) bool {
	if _, differs := m.c.Diff("layout"); differs {
		return true
	}
	row := m.want.Part(w.Row)
	if row == nil {
		row = w
	}
	_, differs := m.c.Diff(row.Name)
	return differs
}
