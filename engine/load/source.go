package load

import (
	"path"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// defaultMaxAge is a year: a time far in the past makes a partition for each of its days.
const defaultMaxAge = 366 * 24 * time.Hour

func (l *loader) source(raw *hcl.Block, seen map[string]hcl.Range, fed map[*spec.Topic]string) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"definition", "interval", "topic", "table"}, "enabled",
		"offset", "jitter", "max_age", "params")}, l.ctx)
	s := &spec.Source{Name: name, Enabled: b.flag("enabled", true), MaxAge: b.duration("max_age", defaultMaxAge,
		time.Minute, 100*366*24*time.Hour), Range: b.rng}
	l.slots(s, b)
	if t, found := refer(b, "topic", "topic", l.topics); found {
		s.Topic = t
		if other, twice := fed[t]; twice {
			l.fail(b.rangeOf("topic"), "Topic shared",
				"topic.%s belongs to source %q already: each source has a topic of its own.", t.Name, units.Clip(other))
		}
		fed[t] = name
	}
	s.Table, _ = refer(b, "table", "table", l.tables)
	params := given{value: cty.EmptyObjectVal, at: b.rangeOf("params")}
	if v, ok := b.marked("params"); ok {
		params.value, params.known = v, true
	}
	params.known = params.known || !b.has("params")
	if file := b.text("definition", ""); b.good["definition"] {
		switch {
		case path.Clean(file) == path.Clean(l.p.File):
			l.fail(b.rangeOf("definition"), "Not a definition",
				"%s is the pipeline itself. A definition is a file of its own: \"sources/NAME.hcl\".",
				b.show("definition", file))
		case b.secret["definition"]:
			l.fail(b.rangeOf("definition"), "Secret path",
				"The path of a definition cannot come from the environment or a sensitive variable: its name appears in messages.")
		default:
			s.Definition = l.definition(s, path.Clean(file), b.rangeOf("definition"), params)
			l.slowReplies(s, b)
		}
	}
	if ok {
		l.p.Sources = append(l.p.Sources, s)
	}
}

// slots reads interval, offset and jitter.
func (l *loader) slots(s *spec.Source, b *block) {
	const day = 24 * time.Hour
	s.Interval = b.duration("interval", 0, time.Second, 7*day)
	s.Offset = b.duration("offset", 0, 0, 7*day)
	s.Jitter = b.duration("jitter", 0, 0, 7*day)
	if s.Interval == 0 {
		return
	}
	if day%s.Interval != 0 && s.Interval%day != 0 {
		l.fail(b.rangeOf("interval"), "Interval does not fit the day",
			"Slots are aligned to the day: an interval divides it (\"10s\", \"1m\", \"6h\") or is whole days.")
	}
	if s.Offset+s.Jitter >= s.Interval {
		r := b.rangeOf("offset")
		if !b.has("offset") {
			r = b.rangeOf("jitter")
		}
		l.fail(r, "Offset too long", "offset and jitter together must be shorter than the interval, %s.",
			units.FormatDuration(s.Interval))
	}
}

// slowReplies tells of a source that may take longer than its interval to answer.
func (l *loader) slowReplies(s *spec.Source, b *block) {
	if s.Definition == nil || s.Definition.Poll == nil || s.Interval == 0 || s.Definition.Poll.Timeout <= s.Interval {
		return
	}
	d := diag.Problem(b.rangeOf("interval"), "Timeout longer than the interval",
		"A reply may take %s (timeout of the definition's poll block), and the interval is %s: a slot whose reply is that slow ends as late, and those that begin meanwhile are skipped.",
		units.FormatDuration(s.Definition.Poll.Timeout), units.FormatDuration(s.Interval))
	d.Severity = hcl.DiagWarning
	l.add(d)
}
