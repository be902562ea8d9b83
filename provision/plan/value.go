package plan

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// value is the difference of one attribute in words.
func (o *printer) value(d Diff) string {
	from, to := shown(content(d.Old, d.OldRaw), d.Secret), shown(content(d.New, d.NewRaw), d.Secret)
	changed := d.Old != "" && d.New != ""
	if changed && !o.Verbose {
		from, to = pieces(from, to)
	}
	from, to = o.clip(from), o.clip(to)
	if d.Origin != "" && d.Old != "" {
		from += " (" + d.Origin + ")"
	}
	out := from + " -> " + to
	switch {
	case d.Secret && changed:
		return "(sensitive, changed)"
	case d.Cause == Reset:
		return from + " -> (no longer in pipeline.hcl; will be reset)"
	case d.Old == "":
		return to
	case d.New == "":
		out = from + " -> none"
	case from == "" && to == "":
		out = "changed"
	case from == to:
		out = from + ", changed"
	}
	if d.Cause == Both {
		out += " (changed outside: the last apply had set " + shown(content(d.Applied, ""), d.Secret) + ")"
	}
	return out
}

var digestForm = regexp.MustCompile(`^(.*?) ?\b[0-9a-f]{12}$`)

// content takes off the digest that stands for a content which is too large to show.
func content(value, raw string) string {
	if m := digestForm.FindStringSubmatch(value); m != nil && raw != value {
		return m[1]
	}
	return value
}

// Text is the value as it is shown to people.
func (a Attr) Text() string { return shown(content(a.Value, a.Raw), a.Secret) }

// longest is how much of a value is shown without Verbose: queries are long.
const longest = 160

func (o *printer) clip(text string) string {
	if runes := []rune(text); !o.Verbose && len(runes) > longest {
		return fmt.Sprintf("%s … (%d characters)", string(runes[:longest]), len(runes))
	}
	return text
}

func shown(v string, secret bool) string {
	if secret && v != "" {
		return "(sensitive)"
	}
	return Visible(v)
}

// pieces cuts two long texts down to where they differ, with some words around it.
func pieces(from, to string) (string, string) {
	const around, long = 3, 60
	if utf8.RuneCountInString(from) <= long || utf8.RuneCountInString(to) <= long {
		return from, to
	}
	a, b := strings.Fields(from), strings.Fields(to)
	head, tail := 0, 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	cut := func(words []string) string {
		first, last := max(0, head-around), min(len(words), len(words)-tail+around)
		out := strings.Join(words[first:last], " ")
		if first > 0 {
			out = "… " + out
		}
		if last < len(words) {
			out += " …"
		}
		return out
	}
	return cut(a), cut(b)
}
