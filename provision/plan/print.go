package plan

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

var symbols = map[Action]string{Create: "+", Update: "~", Report: "!", Block: "✗"}

// Print writes the plan in Terraform's manner: what changes, then one summary line. It is quiet about what does not.
func (p Plan) Print(w io.Writer) error {
	var out strings.Builder
	for _, c := range p.Changes {
		for _, n := range c.Notes {
			fmt.Fprintf(&out, "Note: %s: %s\n", c.Address, visible(n))
		}
	}
	for _, c := range p.Changes {
		if c.Action == None {
			continue
		}
		fmt.Fprintf(&out, "\n  %s %s%s\n", symbols[c.Action], c.Address, map[Action]string{
			Create: "", Update: "", Report: " differs", Block: " cannot be done",
		}[c.Action])
		if c.Reason != "" {
			fmt.Fprintf(&out, "      # %s\n", visible(c.Reason))
		}
		width := 0
		for _, a := range c.Attrs {
			width = max(width, len(a.Name))
		}
		for _, a := range c.Attrs {
			value := visible(a.New)
			if a.Old != "" {
				value = visible(a.Old) + " -> " + value
			}
			fmt.Fprintf(&out, "      %-*s = %s\n", width, visible(a.Name), value)
		}
	}
	fmt.Fprintf(&out, "\n%s\n", p.Summary())
	_, err := io.WriteString(w, out.String())
	return err
}

// Summary is the last line of a plan.
func (p Plan) Summary() string {
	create, update, report, block := p.Count(Create), p.Count(Update), p.Count(Report), p.Count(Block)
	if create+update+report+block == 0 {
		return "No changes. Kafka and the database match pipeline.hcl."
	}
	out := fmt.Sprintf("Plan: %d to create, %d to change.", create, update)
	if report > 0 {
		out += fmt.Sprintf(" %d differ and are left alone.", report)
	}
	if block > 0 {
		out += fmt.Sprintf(" %d cannot be done.", block)
	}
	return out
}

// visible replaces control characters that come from outside.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '�'
		}
		return r
	}, s)
}
