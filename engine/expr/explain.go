package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

const (
	maxNames = 10  // of what is there, in a message
	maxSaid  = 480 // bytes of it all
	maxReads = 3   // values that an expression met, in a message
)

// Explain adds to the reason why an expression failed how it is written, where, and what it met in the record. fields
// is nil for JSON; raw is a record whose form is good.
func Explain(def *spec.Definition, fields *HTMLFields, reason string, expr hcl.Expression, raw, key []byte) string {
	text, at := def.Quote(expr)
	out := []string{fmt.Sprintf("%s; %s (%s)", reason, text, at)}
	var met []string
	for _, tr := range expr.Variables() {
		var what string
		switch tr.RootName() {
		case "r":
			what = found(fields, raw, PathOf(tr))
		case "key":
			what = fmt.Sprintf("key is %q", units.Clip(string(key)))
		default:
			continue
		}
		if !slices.Contains(met, what) && len(met) < maxReads {
			met = append(met, what)
		}
	}
	said := strings.Join(append(out, met...), "; ")
	if len(said) > maxSaid {
		said = strings.ToValidUTF8(said[:maxSaid], "") + "…"
	}
	return said
}

// found says what a path finds: its value, or how far it leads and what is there.
func found(fields *HTMLFields, raw []byte, path spec.Path) string {
	if fields != nil {
		return fields.met(raw, path)
	}
	v, err := whole(raw)
	if err != nil {
		return err.Error()
	}
	for i, step := range path {
		next := member(v, step)
		if next.Kind == rawjson.Missing {
			return lacks(Dotted("r", path[:i]), step, v)
		}
		v = next
	}
	return Dotted("r", path) + " is " + describe(v)
}

func whole(raw []byte) (rawjson.Value, error) {
	var tree rawjson.Tree
	tree.Add(nil)
	out := make([]rawjson.Value, 1)
	err := tree.Scan(raw, out)
	return out[0], err
}

// member is one step into a value; of equal names the last counts, as everywhere.
func member(v rawjson.Value, step any) (found rawjson.Value) {
	if v.Kind != rawjson.Object && v.Kind != rawjson.Array {
		return found
	}
	i := 0
	_ = v.Each(func(name []byte, e rawjson.Value) error {
		if step == string(name) && v.Kind == rawjson.Object || step == i && v.Kind == rawjson.Array {
			found = e
		}
		i++
		return nil
	})
	return found
}

// names lists the members of an object, or gives the length of a list.
func names(v rawjson.Value) (out []string, length int) {
	if v.Kind != rawjson.Object && v.Kind != rawjson.Array {
		return nil, 0
	}
	_ = v.Each(func(name []byte, _ rawjson.Value) error {
		if length++; v.Kind == rawjson.Object {
			out = append(out, units.Clip(string(name)))
		}
		return nil
	})
	return out, length
}

func lacks(parent string, step any, v rawjson.Value) string {
	name := fmt.Sprint(step)
	if v.Kind != rawjson.Object {
		return fmt.Sprintf("%s has no %q: it is %s", parent, units.Clip(name), describe(v))
	}
	there, _ := names(v)
	return notThere(parent, name, there)
}

// notThere says that a name is not there, what is, and which of these is nearest.
func notThere(parent, name string, there []string) string {
	out := fmt.Sprintf("%s has no %q, it has %s", parent, units.Clip(name), list(there))
	if near := diag.Nearest(name, there); near != "" {
		out += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return out
}

func list(there []string) string {
	switch {
	case len(there) == 0:
		return "nothing"
	case len(there) > maxNames:
		return fmt.Sprintf("%s and %d more", strings.Join(there[:maxNames], ", "), len(there)-maxNames)
	}
	return strings.Join(there, ", ")
}

func describe(v rawjson.Value) string {
	switch there, n := names(v); v.Kind {
	case rawjson.Object:
		return "an object with " + list(there)
	case rawjson.Array:
		return fmt.Sprintf("a list of %d", n)
	case rawjson.String:
		if len(v.Raw) == 0 || v.Raw[0] != '"' { // a record that is a text itself: Each leaves the quotes on
			return fmt.Sprintf("%q", units.Clip(string(v.Raw)))
		}
	}
	return units.Clip(strings.ToValidUTF8(string(v.Raw), "\uFFFD"))
}

// met says what a field holds.
func (h *HTMLFields) met(src []byte, path spec.Path) string {
	values := make([]rawjson.Value, 1+slices.Max(append([]int{0}, h.slots...)))
	if err := h.Read(src, values); err != nil {
		return err.Error()
	}
	var there []string
	for i, f := range h.fields {
		v := values[h.slots[i]]
		if v.Kind == rawjson.Missing {
			continue
		}
		if len(path) == 1 && path[0] == f.Name {
			return fmt.Sprintf("r.%s is %q", f.Name, units.Clip(string(v.Raw)))
		}
		there = append(there, f.Name)
	}
	if len(path) == 0 {
		return "r has " + list(there)
	}
	return fmt.Sprintf("r has no %q in this element, it has %s", fmt.Sprint(path[0]), list(there))
}

// KindName names what a reply has in some place.
func KindName(k rawjson.Kind) string {
	return [...]string{"nothing", "null", "false", "true", "a number", "a text", "an object", "a list"}[k]
}

// Dotted writes a path as the language does.
func Dotted(root string, p spec.Path) string {
	for _, step := range p {
		switch step := step.(type) {
		case string:
			root += "." + step
		case int:
			root += "[" + strconv.Itoa(step) + "]"
		}
	}
	return root
}
