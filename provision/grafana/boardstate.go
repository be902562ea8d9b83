package grafana

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// firstKeys are shown first, in this order; the other keys of a dashboard follow by name.
var firstKeys = []string{"title", "description", "tags", "refresh", "time", "timezone"}

// taken are the attributes that are no key of the dashboard.
var taken = []string{"uid", "folder", "datasource", "variables", "layout"}

// stateOf is a dashboard as attributes. want is the file's model: the live one is cut down to what that speaks of.
func stateOf(m *model, uid, folder string, want *model) *plan.State {
	s := &plan.State{}
	s.Set(plan.Attr{Name: "uid", Value: uid})
	s.Set(plan.Attr{Name: "folder", Value: folder})
	keys := slices.Sorted(maps.Keys(m.top))
	for _, k := range append(slices.Clone(firstKeys), keys...) {
		if v, there := m.top[k]; there {
			if w, declared := want.top[k]; declared {
				s.Set(keyAttr(k, v, w))
			} else if !empty(v) {
				s.Set(keyAttr(k, v, v))
			}
		}
	}
	for k, w := range want.top { // an empty value is the same as none
		if _, there := m.top[k]; !there && empty(w) {
			s.Set(keyAttr(k, w, w))
		}
	}
	if want.source != "" {
		s.Set(plan.Attr{Name: "datasource", Value: m.source})
	}
	if v := variableOrder(m, want); v != "" {
		s.Set(plan.Attr{Name: "variables", Value: v})
	}
	for _, p := range m.parts {
		name, body := p.name, any(p.body)
		if w := want.part(p.key); w != nil {
			name, body = w.name, project(p.body, w.body)
		}
		s.Set(plan.Attr{Name: name, Value: p.digest(body), Raw: encode(p.body)})
	}
	if v := layoutOf(m, want); v != nil {
		s.Set(plan.Attr{Name: "layout", Value: fmt.Sprintf("%d panels %s", len(v), digest(v)), Raw: encode(v)})
	}
	return s
}

// keyAttr is the attribute of one key of the dashboard.
func keyAttr(k string, live, want any) plan.Attr {
	a := plan.Attr{Name: k, Raw: encode(live)}
	if slices.Contains(taken, k) {
		a.Name = "key " + k
	}
	v := project(live, want)
	switch v := v.(type) {
	case string:
		a.Value = v
	case map[string]any, []any:
		a.Value = composite(k, v)
	default:
		a.Value = encode(v)
	}
	if k == "schemaVersion" && integer(live) > integer(want) { // the editor moves a dashboard to its own version
		a.Value = encode(want)
	}
	return a
}

// composite shows a list or an object: readable where it is short.
func composite(k string, v any) string {
	switch k {
	case "tags":
		return strings.Join(tagSet(v), ", ")
	case "time":
		m, _ := v.(map[string]any)
		if from, to := text(m["from"]), text(m["to"]); from != "" && to != "" && len(m) == 2 {
			return from + " to " + to
		}
	}
	if out := encode(v); len(out) <= 60 {
		return out
	}
	return digest(v)
}

func tagSet(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, t := range list {
		out = append(out, text(t))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// variableOrder is the order of the declared variables. One that is missing does not change it.
func variableOrder(m, want *model) string {
	names := func(of, in *model) []string {
		var out []string
		for _, p := range of.parts {
			if p.kind == "variable" && in.part(p.key) != nil {
				out = append(out, text(p.raw["name"]))
			}
		}
		return out
	}
	if slices.Equal(names(m, want), names(want, m)) {
		return strings.Join(names(want, want), ", ")
	}
	return strings.Join(names(m, want), ", ")
}

// layoutOf is the place of each declared panel, by its key. A panel that is missing does not change it.
func layoutOf(m, want *model) map[string]any {
	out := map[string]any{}
	for _, w := range want.parts {
		if w.kind != "panel" {
			continue
		}
		p := m.part(w.key)
		if p == nil {
			p = w
		}
		at, _ := project(p.raw["gridPos"], w.raw["gridPos"]).(map[string]any)
		out[w.key] = at
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

var idForm = regexp.MustCompile(`\(id (\d+)\)( #\d+)?$`)

// keyOf is the key of a part by its attribute, "" when it is none.
func keyOf(attr string) string {
	if strings.HasPrefix(attr, "variable ") || strings.HasPrefix(attr, "annotation ") {
		return attr
	}
	if m := idForm.FindStringSubmatch(attr); m != nil && strings.HasPrefix(attr, "panel ") {
		return "panel " + m[1] + m[2]
	}
	return ""
}

// renamed gives the attributes of an earlier state today's names: a panel is known by its id, whatever its title was.
func renamed(last, live, want *plan.State) *plan.State {
	if last == nil {
		return nil
	}
	names := map[string]string{}
	for _, s := range []*plan.State{live, want} {
		if s == nil {
			continue
		}
		for _, a := range s.Attrs {
			if key := keyOf(a.Name); key != "" {
				names[key] = a.Name
			}
		}
	}
	out := &plan.State{}
	for _, a := range last.Attrs {
		if now := names[keyOf(a.Name)]; now != "" {
			a.Name = now
		}
		out.Attrs = append(out.Attrs, a)
	}
	return out
}
