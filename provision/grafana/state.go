package grafana

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// firstKeys are shown first, in this order; the other keys of a dashboard follow by name.
var firstKeys = []string{"title", "description", "tags", "refresh", "time", "timezone"}

// taken are the attributes that are no key of the dashboard.
var taken = []string{"uid", "folder", "datasource", "variables", "layout"}

// stateOf is a dashboard as attributes. want is the file's model: the live one is cut down to what that speaks of.
func stateOf(m *dashboard.Model, uid, folder string, want *dashboard.Model) *plan.State {
	s := &plan.State{}
	s.Set(plan.Attr{Name: "uid", Value: uid})
	s.Set(plan.Attr{Name: "folder", Value: folder})
	keys := slices.Sorted(maps.Keys(m.Top))
	for _, k := range append(slices.Clone(firstKeys), keys...) {
		if v, there := m.Top[k]; there {
			if w, declared := want.Top[k]; declared {
				s.Set(keyAttr(k, v, w))
			} else if !jsonvalue.Empty(v) {
				s.Set(keyAttr(k, v, v))
			}
		}
	}
	for k, w := range want.Top { // an empty value is the same as none
		if _, there := m.Top[k]; !there && jsonvalue.Empty(w) {
			s.Set(keyAttr(k, w, w))
		}
	}
	if want.Source != "" {
		s.Set(plan.Attr{Name: "datasource", Value: m.Source})
	}
	if v := variableOrder(m, want); v != "" {
		s.Set(plan.Attr{Name: "variables", Value: v})
	}
	for _, p := range m.Parts {
		name, body := p.Name, any(p.Body)
		if w := want.Part(p.Key); w != nil {
			name, body = w.Name, jsonvalue.Project(p.Body, w.Body)
		}
		s.Set(plan.Attr{Name: name, Value: p.Digest(body), Raw: jsonvalue.Encode(p.Body)})
	}
	if v := layoutOf(m, want); v != nil {
		s.Set(plan.Attr{
			Name: "layout", Value: fmt.Sprintf("%d panels %s", len(v), jsonvalue.Digest(v)),
			Raw: jsonvalue.Encode(v),
		})
	}
	return s
}

// keyAttr is the attribute of one key of the dashboard.
func keyAttr(k string, live, want any) plan.Attr {
	a := plan.Attr{Name: k, Raw: jsonvalue.Encode(live)}
	if slices.Contains(taken, k) {
		a.Name = "key " + k
	}
	v := jsonvalue.Project(live, want)
	switch v := v.(type) {
	case string:
		a.Value = v
	case map[string]any, []any:
		a.Value = composite(k, v)
	default:
		a.Value = jsonvalue.Encode(v)
	}
	// the editor moves a dashboard to its own version
	if k == "schemaVersion" && jsonvalue.Integer(live) > jsonvalue.Integer(want) {
		a.Value = jsonvalue.Encode(want)
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
		if from, to := jsonvalue.Text(m["from"]), jsonvalue.Text(m["to"]); from != "" && to != "" && len(m) == 2 {
			return from + " to " + to
		}
	}
	if out := jsonvalue.Encode(v); len(out) <= 60 {
		return out
	}
	return jsonvalue.Digest(v)
}

func tagSet(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, t := range list {
		out = append(out, jsonvalue.Text(t))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// variableOrder is the order of the declared variables. One that is missing does not change it.
func variableOrder(m, want *dashboard.Model) string {
	names := func(of, in *dashboard.Model) []string {
		var out []string
		for _, p := range of.Parts {
			if p.Kind == "variable" && in.Part(p.Key) != nil {
				out = append(out, jsonvalue.Text(p.Raw["name"]))
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
func layoutOf(m, want *dashboard.Model) map[string]any {
	out := map[string]any{}
	for _, w := range want.Parts {
		if w.Kind != "panel" {
			continue
		}
		p := m.Part(w.Key)
		if p == nil {
			p = w
		}
		at, _ := jsonvalue.Project(p.Raw["gridPos"], w.Raw["gridPos"]).(map[string]any)
		out[w.Key] = at
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
