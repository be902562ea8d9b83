package grafana

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// mixing puts a dashboard together: each piece that differs in the plan comes from the file, the rest stays as it is
// live.
type mixing struct {
	want, live *model
	c          plan.Change
	last       *plan.State // what the last apply had set, with today's names
}

func jsonInt(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

// before is what the last apply had set of an attribute, as JSON; nil when it is not known.
func (m mixing) before(attr string) any {
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
func (m mixing) keys() map[string]any {
	out := without(m.live.raw, slices.Concat(serverKeys, pieces)...)
	for _, d := range m.c.Diffs {
		k := strings.TrimPrefix(d.Name, "key ")
		if keyOf(d.Name) != "" || slices.Contains(taken, d.Name) {
			continue
		}
		w, declared := m.want.top[k]
		switch {
		case declared:
			out[k] = merge(m.live.top[k], w, m.before(d.Name))
		case d.Cause == plan.Reset:
			delete(out, k)
		}
	}
	return out
}

// piece is one part as it is to be saved, nil when it is to go.
func (m mixing) piece(w, l *part) map[string]any {
	switch {
	case w == nil: // it is not declared: it stays, unless the last apply had made it
		if d, differs := m.c.Diff(l.name); differs && d.Cause == plan.Reset {
			return nil
		}
		return l.raw
	case l == nil:
		return w.raw
	}
	out := l.raw
	if _, differs := m.c.Diff(w.name); differs {
		if text(w.body["type"]) != text(l.body["type"]) { // another kind: no key of the old one means anything
			out = w.raw
		} else {
			out, _ = merge(l.raw, any(w.body), m.before(w.name)).(map[string]any)
		}
	}
	out = maps.Clone(out)
	if w.kind == "variable" && w.raw["type"] == "datasource" && isPostgres(text(w.raw["query"])) {
		if _, differs := m.c.Diff("datasource"); differs {
			out["current"] = w.raw["current"]
		}
	}
	if w.kind == "panel" {
		out["id"] = w.raw["id"]
		if _, differs := m.c.Diff("layout"); differs && w.raw["gridPos"] != nil {
			out["gridPos"] = w.raw["gridPos"]
		} else if l.raw["gridPos"] != nil {
			out["gridPos"] = l.raw["gridPos"]
		}
	}
	return out
}

// list are all variables, or all annotations: those of the file in its order, then those that are not declared.
func (m mixing) list(kind string) []any {
	var out []any
	for _, p := range m.ordered(kind) {
		if v := m.piece(m.want.part(p.key), m.live.part(p.key)); v != nil {
			out = append(out, v)
		}
	}
	return out
}

// ordered are the parts of a kind: the file's, then the others.
func (m mixing) ordered(kind string) []*part {
	var out []*part
	for _, p := range m.want.parts {
		if p.kind == kind {
			out = append(out, p)
		}
	}
	for _, p := range m.live.parts {
		if p.kind == kind && m.want.part(p.key) == nil {
			out = append(out, p)
		}
	}
	return out
}

// panels are all panels, those of collapsed rows inside of them.
func (m mixing) panels() []any {
	var out []any
	rows := map[string]map[string]any{}
	for _, p := range m.ordered("panel") {
		w, l := m.want.part(p.key), m.live.part(p.key)
		v := m.piece(w, l)
		if v == nil {
			continue
		}
		row := p.row
		if l != nil && w != nil && !m.restructured(w) {
			row = l.row
		}
		if text(v["type"]) == "row" {
			v = maps.Clone(v)
			v["panels"] = []any{}
			rows[p.key] = v
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
func (m mixing) restructured(w *part) bool {
	if _, differs := m.c.Diff("layout"); differs {
		return true
	}
	row := m.want.part(w.row)
	if row == nil {
		row = w
	}
	_, differs := m.c.Diff(row.name)
	return differs
}
