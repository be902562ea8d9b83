package row

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/rawjson"
)

// Hint is what looks like a mistake of the definition and makes no record wrong by itself.
type Hint struct {
	Kind   string // "skip", or "column bid"
	Detail string
}

// tried is what a program has seen since Hints was called last.
type tried struct {
	records, skipped int
	led              []bool // by column: some path of it led to something, or it has none
}

// note remembers of a column that has no value whether its paths lead anywhere.
func (p *Program) note(i int) {
	for _, slot := range p.columns[i].reads {
		if p.frame.Values[slot].Kind != rawjson.Missing {
			p.tried.led[i] = true
			return
		}
	}
}

// Hints tells what was odd in every record since the call before: skip was true, or the paths of a column that may be
// null led nowhere. It is asked once a slot.
func (p *Program) Hints() []Hint {
	var out []Hint
	quote := func(expr hcl.Expression) string {
		text, at := p.src.Definition.Quote(expr)
		return fmt.Sprintf("%s (%s)", text, at)
	}
	t := &p.tried
	switch {
	case t.records > 0 && t.skipped == t.records:
		out = append(out, Hint{"skip", "skip is true for every record: " + quote(p.src.Definition.Row.Skip)})
	case t.records > t.skipped:
		for i, c := range p.columns {
			if !c.notNull && len(c.reads) > 0 && !t.led[i] {
				out = append(out, Hint{"column " + c.name, c.name +
					" is null in every record, for what it reads is in none: " + quote(c.expr)})
			}
		}
	}
	t.records, t.skipped = 0, 0
	clear(t.led)
	return out
}
