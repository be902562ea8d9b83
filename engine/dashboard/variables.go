package dashboard

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
)

var variableForm = regexp.MustCompile(`\$(\w+)|\$\{(\w+)(?:\.[^:^}]+)?(?::([^}]+))?\}|\[\[(\w+?)(?::(\w+))?\]\]`)

// interpolate puts variables in. Names that are none stay: macros and dollar quotes look like them.
func (x expansion) interpolate(sql string) string {
	return variableForm.ReplaceAllStringFunc(sql, func(found string) string {
		m := variableForm.FindStringSubmatch(found)
		name, format := m[1]+m[2]+m[4], m[3]+m[5]
		if t, is := map[string]time.Time{"__from": x.from, "__to": x.to}[name]; is {
			return instant(t, format)
		}
		switch name {
		case "__interval":
			return inUnit(x.interval)
		case "__interval_ms":
			return strconv.FormatInt(x.interval.Milliseconds(), 10)
		case "__range_s":
			return strconv.FormatInt(int64(x.to.Sub(x.from).Seconds()), 10)
		case "__range_ms":
			return strconv.FormatInt(x.to.Sub(x.from).Milliseconds(), 10)
		case "__range":
			return fmt.Sprintf("%ds", int64(x.to.Sub(x.from).Seconds()))
		}
		if v, known := x.variables[name]; known {
			return v.format(format)
		}
		return found
	})
}

// instant writes $__from and $__to.
func instant(t time.Time, format string) string {
	switch format {
	case "date", "date:iso":
		return t.UTC().Format("2006-01-02T15:04:05.000Z")
	case "date:seconds":
		return strconv.FormatInt(t.Unix(), 10)
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

func (v value) format(format string) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	each := func(do func(string) string) []string {
		var out []string
		for _, s := range v.texts {
			out = append(out, do(s))
		}
		return out
	}
	same := func(s string) string { return s }
	switch format {
	case "raw", "csv", "text":
		return strings.Join(each(same), ",")
	case "sqlstring":
		return strings.Join(each(func(s string) string { return strings.ReplaceAll(quote(s), `"`, `\"`) }), ",")
	case "singlequote":
		return strings.Join(each(func(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }), ",")
	case "doublequote":
		return strings.Join(each(func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }), ",")
	case "pipe":
		return strings.Join(each(same), "|")
	case "regex":
		out := strings.Join(each(regexp.QuoteMeta), "|")
		if len(v.texts) > 1 {
			out = "(" + out + ")"
		}
		return out
	case "json":
		text, err := json.Marshal(v.texts)
		if err != nil {
			return ""
		}
		return string(text)
	}
	switch {
	case v.raw:
		return strings.Join(v.texts, ",")
	case v.quoted || len(v.texts) > 1:
		return strings.Join(each(quote), ",")
	}
	return strings.Join(each(func(s string) string { return strings.ReplaceAll(s, "'", "''") }), ",")
}

// guess stands for a value that only a query on the data could tell. It is a number and, in quotes, a text.
const guess = "1"

// values reads what the dashboard's variables stand at, and which of them had to be guessed.
func values(m *Model, interval time.Duration) (out map[string]value, guessed []string) {
	out = map[string]value{}
	for _, p := range m.Parts {
		if p.Kind != "variable" {
			continue
		}
		v, known := valueOf(p.Raw, interval)
		name := jsonvalue.Text(p.Raw["name"])
		out[name] = v
		if !known {
			guessed = append(guessed, name)
		}
	}
	slices.Sort(guessed)
	return out, guessed
}

func valueOf(raw map[string]any, interval time.Duration) (v value, known bool) {
	current, _ := raw["current"].(map[string]any)
	stands := texts(current["value"])
	query := jsonvalue.Text(raw["query"])
	all := slices.Contains(stands, "$__all")
	v.quoted = raw["multi"] == true || all // a list; a single text is not, also where it could be All
	if set := jsonvalue.Text(raw["allValue"]); all && set != "" {
		return value{texts: []string{set}, raw: true}, true
	}
	switch jsonvalue.Text(raw["type"]) {
	case "datasource":
		v.texts = stands
		return v, true
	case "interval":
		if len(stands) == 0 || strings.HasPrefix(stands[0], "$__auto") {
			v.texts = []string{inUnit(interval)}
			return v, true
		}
	case "custom":
		options := customOptions(query)
		if all {
			stands = options
		} else if len(stands) == 0 && len(options) > 0 {
			stands = options[:1]
		}
	case "textbox", "constant":
		if len(stands) == 0 || stands[0] == "" {
			stands = []string{query}
		}
	default:
		if all {
			stands = nil
		}
	}
	if len(stands) == 0 || len(stands) == 1 && stands[0] == "" && jsonvalue.Text(raw["type"]) == "query" {
		v.texts = []string{guess}
		return v, false
	}
	v.texts = stands
	return v, true
}

func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number:
		return []string{string(v)}
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, texts(x)...)
		}
		return out
	}
	return nil
}

// customOptions reads "a,b" and "Label : value,…"; a comma behind a backslash is none.
func customOptions(query string) []string {
	var out []string
	for s := range strings.SplitSeq(strings.ReplaceAll(query, `\,`, "\x00"), ",") {
		s = strings.TrimSpace(strings.ReplaceAll(s, "\x00", ","))
		if _, v, labelled := strings.Cut(s, " : "); labelled {
			s = strings.TrimSpace(v)
		}
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
