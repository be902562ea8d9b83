package grafana

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
)

// decode reads one JSON object; numbers keep their text, in one canonical form.
func decode(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	return canonical(out).(map[string]any), nil
}

// canonical copies a value: numbers in one form, no byte-order marks, which newer servers strip.
func canonical(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = canonical(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = canonical(x)
		}
		return out
	case json.Number:
		return number(v)
	case string:
		return strings.ReplaceAll(v, "\ufeff", "")
	}
	return v
}

// number writes 1, 1.0 and 1e0 alike.
func number(n json.Number) json.Number {
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

// encode writes a canonical value with sorted keys.
func encode(v any) string {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("grafana: a decoded JSON value cannot be encoded: " + err.Error())
	}
	return strings.TrimSuffix(buf.String(), "\n")
}

func digest(v any) string {
	sum := sha256.Sum256([]byte(encode(v)))
	return hex.EncodeToString(sum[:6])
}

func same(a, b any) bool { return encode(a) == encode(b) }

// empty reports whether a value says no more than its absence does: Grafana's editor drops such keys, or adds them.
func empty(v any) bool {
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

// project cuts a live value down to what the wanted one speaks of: a key that is not declared is no difference, and
// an empty value is the same as none. Lists of the same length are cut element by element.
func project(live, want any) any {
	if empty(live) && empty(want) {
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
			if l, there := have[k]; there || empty(w) {
				out[k] = project(l, w)
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
			out[i] = project(have[i], want[i])
		}
		return out
	}
	return live
}

// covers reports whether a live value has all that is wanted.
func covers(live, want any) bool { return same(project(live, want), want) }

// merge puts what is wanted over what is live. Keys that are not declared stay; keys that the last apply had set and
// that are wanted no more go.
func merge(live, want, last any) any {
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
				out[k] = merge(l, w, was[k])
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
			out[i] = merge(have[i], want[i], before)
		}
		return out
	}
	return want
}

// dropped lists the keys that the last apply had set, that are wanted no more, and that are still live.
func dropped(live, want, last any) []string {
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
				case !empty(l[k]):
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

// differences names what changes from one value to another, each with its path: `title "A" -> "B"`.
func differences(from, to any) []string {
	var out []string
	var walk func(path string, a, b any)
	walk = func(path string, a, b any) {
		if same(a, b) || empty(a) && empty(b) {
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
	from, to := glance(a), glance(b)
	if len(from) > 48 && len(to) > 48 {
		return "changed"
	}
	return clip(from, 48) + " -> " + clip(to, 48)
}

func glance(v any) string {
	if v == nil {
		return "none"
	}
	return encode(v)
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

func text(v any) string {
	s, _ := v.(string)
	return s
}

// integer reads a JSON number.
func integer(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}

// some lists the first few, and how many more there are.
func some(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
