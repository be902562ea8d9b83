// Package jsonvalue treats JSON as encoding/json decodes it: one canonical form, comparison, merging, changes in words.
package jsonvalue

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Decode reads one JSON object; numbers keep their text, in one canonical form.
func Decode(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	return Canonical(out).(map[string]any), nil
}

// Canonical copies a value: numbers in one form, no byte-order marks, which newer servers strip.
func Canonical(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = Canonical(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = Canonical(x)
		}
		return out
	case json.Number:
		return Number(v)
	case string:
		return strings.ReplaceAll(v, "\ufeff", "")
	}
	return v
}

// Number writes 1, 1.0 and 1e0 alike.
func Number(n json.Number) json.Number {
	if _, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(string(n), 64)
	switch {
	case err != nil || !strings.ContainsAny(string(n), ".eE"): // too large for a float, or for an int64: as it is
		return n
	case f == math.Trunc(f) && math.Abs(f) < 1<<53:
		return json.Number(strconv.FormatInt(int64(f), 10))
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
}

// Encode writes a canonical value with sorted keys.
func Encode(v any) string {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("grafana: a decoded JSON value cannot be encoded: " + err.Error())
	}
	return strings.TrimSuffix(buf.String(), "\n")
}

// Digest is a short hash of a canonical value.
func Digest(v any) string {
	sum := sha256.Sum256([]byte(Encode(v)))
	return hex.EncodeToString(sum[:6])
}

// Equal compares two canonical values.
func Equal(a, b any) bool { return Encode(a) == Encode(b) }

// Empty reports whether a value says no more than its absence does: Grafana's editor drops such keys, or adds them.
func Empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// Project cuts a live value down to what the wanted one speaks of: a key that is not declared is no difference, and
// an empty value is the same as none. Lists of the same length are cut element by element.
func Project(live, want any) any {
	if Empty(live) && Empty(want) {
		return want
	}
	switch want := want.(type) {
	case map[string]any:
		have, isMap := live.(map[string]any)
		if !isMap {
			return live
		}
		out := map[string]any{}
		for k, w := range want {
			if l, there := have[k]; there || Empty(w) {
				out[k] = Project(l, w)
			}
		}
		return out
	case []any:
		have, isList := live.([]any)
		if !isList || len(have) != len(want) {
			return live
		}
		out := make([]any, len(have))
		for i := range have {
			out[i] = Project(have[i], want[i])
		}
		return out
	}
	return live
}

// Covers reports whether a live value has all that is wanted.
func Covers(live, want any) bool { return Equal(Project(live, want), want) }

// Merge puts what is wanted over what is live. Keys that are not declared stay; keys that the last apply had set and
// that are wanted no more go.
func Merge(live, want, last any) any {
	switch want := want.(type) {
	case map[string]any:
		have, isMap := live.(map[string]any)
		if !isMap {
			return want
		}
		was, _ := last.(map[string]any)
		out := maps.Clone(have)
		for k := range was {
			if _, still := want[k]; !still {
				delete(out, k)
			}
		}
		for k, w := range want {
			if l, there := out[k]; there {
				out[k] = Merge(l, w, was[k])
			} else {
				out[k] = w
			}
		}
		return out
	case []any:
		have, isList := live.([]any)
		if !isList || len(have) != len(want) {
			return want
		}
		was, _ := last.([]any)
		out := make([]any, len(want))
		for i := range want {
			var before any
			if len(was) == len(want) {
				before = was[i]
			}
			out[i] = Merge(have[i], want[i], before)
		}
		return out
	}
	return want
}

// Dropped lists the keys that the last apply had set, that are wanted no more, and that are still live.
func Dropped(live, want, last any) []string {
	var out []string
	var walk func(path string, live, want, last any)
	walk = func(path string, live, want, last any) {
		switch last := last.(type) {
		case map[string]any:
			w, isMap := want.(map[string]any)
			l, isLive := live.(map[string]any)
			if !isMap || !isLive {
				return
			}
			for _, k := range slices.Sorted(maps.Keys(last)) {
				_, still := w[k]
				switch {
				case still:
					walk(join(path, k), l[k], w[k], last[k])
				case !Empty(l[k]):
					out = append(out, join(path, k))
				}
			}
		case []any:
			w, isList := want.([]any)
			l, isLive := live.([]any)
			if !isList || !isLive || len(w) != len(last) || len(l) != len(last) {
				return
			}
			for i := range last {
				walk(join(path, label(w[i], i)), l[i], w[i], last[i])
			}
		}
	}
	walk("", live, want, last)
	return out
}

// Differences names what changes from one value to another, each with its path: `title "A" -> "B"`.
func Differences(from, to any) []string {
	var out []string
	var walk func(path string, a, b any)
	walk = func(path string, a, b any) {
		if Equal(a, b) || Empty(a) && Empty(b) {
			return
		}
		am, aMap := a.(map[string]any)
		bm, bMap := b.(map[string]any)
		al, aList := a.([]any)
		bl, bList := b.([]any)
		switch {
		case (aMap || a == nil) && (bMap || b == nil) && (aMap || bMap) && path == "", aMap && bMap:
			keys := maps.Clone(am)
			if keys == nil {
				keys = map[string]any{}
			}
			maps.Copy(keys, bm)
			for _, k := range slices.Sorted(maps.Keys(keys)) {
				walk(join(path, k), am[k], bm[k])
			}
		case aList && bList && len(al) == len(bl):
			for i := range al {
				walk(join(path, label(bl[i], i)), al[i], bl[i])
			}
		case aList && bList:
			out = append(out, fmt.Sprintf("%s %d -> %d entries", path, len(al), len(bl)))
		default:
			out = append(out, path+" "+change(a, b))
		}
	}
	walk("", from, to)
	return out
}

// change words one value's change; long texts are only said to have changed.
func change(a, b any) string {
	from, to := Describe(a), Describe(b)
	if len(from) > 48 && len(to) > 48 {
		return "changed"
	}
	return units.ClipTo(from, 48) + " -> " + units.ClipTo(to, 48)
}

// Describe is a value for a message.
func Describe(v any) string {
	if v == nil {
		return "none"
	}
	return Encode(v)
}

// label names an element of a list: by what identifies it, else by its place.
func label(v any, i int) string {
	m, _ := v.(map[string]any)
	for _, k := range []string{"refId", "id", "name", "title"} {
		if s, is := m[k].(string); is && s != "" {
			return s
		}
	}
	return strconv.Itoa(i)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Text is a string, "" for anything else.
func Text(v any) string {
	s, _ := v.(string)
	return s
}

// Integer reads a JSON number.
func Integer(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}

// Int is a JSON number.
func Int(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

// Objects returns the objects of a list inside a value.
func Objects(v any, path ...string) []map[string]any {
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

// Without is an object without some of its keys.
func Without(m map[string]any, keys ...string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		if !slices.Contains(keys, k) {
			out[k] = v
		}
	}
	return out
}
