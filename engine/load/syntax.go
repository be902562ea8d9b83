package load

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

var unitAfterNumber = regexp.MustCompile(`^[A-Za-z]+`)

// syntax makes the parser's complaints of one file readable: in plain words, and each mistake once. What the parser
// says after the first complaint of a line, and after a quote that is not closed, comes of that mistake.
func syntax(src []byte, diags hcl.Diagnostics) hcl.Diagnostics {
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return start(a).Byte - start(b).Byte })
	var out hcl.Diagnostics
	line := 0
	for _, given := range diags {
		d := *given
		if at := start(&d).Line; d.Subject != nil && (at == line || d.Summary == oneLine && len(out) > 0 &&
			at == line+1) {
			continue
		}
		line = start(&d).Line
		d.Context = nil
		plainSyntax(&d, src)
		out = append(out, &d)
		if d.Summary == quoteMissing {
			break
		}
	}
	return out
}

func start(d *hcl.Diagnostic) hcl.Pos {
	if d.Subject == nil {
		return hcl.Pos{}
	}
	return d.Subject.Start
}

const (
	quoteMissing = "Quote missing"
	oneLine      = "Invalid single-argument block definition"
)

func plainSyntax(d *hcl.Diagnostic, src []byte) {
	if d.Subject == nil {
		return
	}
	at := min(d.Subject.Start.Byte, len(src))
	switch d.Summary {
	case "Invalid multi-line string", "Unterminated template string":
		d.Summary, d.Detail = quoteMissing,
			"A text ends on its line: close it with a quote. A text of several lines stands between <<EOT and EOT."
	case "Attribute redefined":
		if m := setTwice.FindStringSubmatch(d.Detail); m != nil {
			d.Summary, d.Detail = "Set twice", fmt.Sprintf("%q has a value already, at line %s. Keep one.", m[1], m[2])
		}
	case "Missing newline after argument":
		d.Detail = "The value ends before this. Write one attribute a line, and texts in quotes."
		number := at
		for number > 0 && (src[number-1] >= '0' && src[number-1] <= '9' || src[number-1] == '.') {
			number--
		}
		if unit := unitAfterNumber.Find(src[at:]); unit != nil && number < at {
			d.Subject = &hcl.Range{Filename: d.Subject.Filename, Start: d.Subject.Start, End: d.Subject.Start}
			d.Subject.Start.Byte, d.Subject.Start.Column = number, d.Subject.Start.Column-(at-number)
			d.Subject.End.Byte, d.Subject.End.Column = at+len(unit), d.Subject.End.Column+len(unit)
			d.Summary, d.Detail = "Quotes missing", fmt.Sprintf("A duration or a size is written in quotes: \"%s%s\".",
				src[number:at], units.Clip(string(unit)))
		}
	case "Invalid character":
		if r, _ := utf8.DecodeRune(src[at:]); strings.HasPrefix(d.Detail, "This character") {
			d.Detail = fmt.Sprintf("The character %U has no meaning here; it may be invisible. Delete it.", r)
		}
	case "Argument or block definition required":
		d.Detail = "A line is NAME = VALUE, or begins a block: NAME { … }."
	case oneLine:
		d.Detail = "A block on one line has one attribute. Write each on a line of its own."
	}
}
