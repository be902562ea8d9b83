package diag

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/mattn/go-runewidth"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// WithoutLine marks a diagnostic that is printed without its line: the line may hold a secret, or there is none.
type WithoutLine struct{}

// Write prints every diagnostic with its place, its line and a remedy:
//
//	Error: Unknown topic
//	  pipeline.hcl:14:16, in source "binance":
//	    14 |   topic      = topic.binnance
//	       |                ^^^^^^^^^^^^^^
//	  There is no topic block named "binnance". Did you mean "binance"?
//
// Control characters from the files are made visible. Values of variables are never shown.
func (d *Diagnostics) Write(w io.Writer, color bool, width uint) error {
	var out strings.Builder
	for _, diag := range d.Diags {
		d.write(&out, diag, color, max(int(width), 40))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (d *Diagnostics) write(out *strings.Builder, diag *hcl.Diagnostic, color bool, width int) {
	paint := func(s string) string {
		switch {
		case !color:
			return s
		case diag.Severity == hcl.DiagWarning:
			return "\x1b[33m" + s + "\x1b[0m"
		}
		return "\x1b[31m" + s + "\x1b[0m"
	}
	head := severity(diag)
	fmt.Fprintf(out, "%s %s\n", paint(strings.ToUpper(head[:1])+head[1:]+":"), Visible(diag.Summary))
	if r := diag.Subject; r != nil {
		file := d.Files[r.Filename]
		place := Visible(fmt.Sprintf("  %s:%d:%d%s", r.Filename, r.Start.Line, r.Start.Column, enclosing(file, *r)))
		fmt.Fprint(out, cells.Truncate(place, width-1, "…"))
		if _, hidden := diag.Extra.(WithoutLine); file == nil || hidden {
			out.WriteString("\n")
		} else {
			line, mark := snippet(file.Bytes, *r, width-9)
			fmt.Fprintf(out, ":\n%6d | %s\n       | %s\n", r.Start.Line, line, paint(mark))
		}
	}
	for _, line := range wrap(Visible(diag.Detail), width-2) {
		fmt.Fprintf(out, "  %s\n", line)
	}
	out.WriteString("\n")
}

// enclosing names the blocks around a position: `, in table "raw" > column "price"`.
func enclosing(file *hcl.File, at hcl.Range) string {
	if file == nil || file.Body == nil || at.Empty() && at.Start.Byte == 0 {
		return ""
	}
	var path []string
	body, _ := file.Body.(*hclsyntax.Body)
	for body != nil {
		i := slices.IndexFunc(body.Blocks, func(b *hclsyntax.Block) bool {
			r := b.Range()
			return r.Start.Byte <= at.Start.Byte && at.Start.Byte < r.End.Byte
		})
		if i < 0 {
			break
		}
		b := body.Blocks[i]
		name := b.Type
		if len(b.Labels) > 0 {
			name += " " + strconv.Quote(units.Clip(b.Labels[0]))
		}
		path = append(path, name)
		body = b.Body
	}
	if len(path) == 0 {
		return ""
	}
	return ", in " + strings.Join(path[:min(len(path), 3)], " > ")
}

// snippet returns the first line of a range, at most width columns of it, and the marks under it.
func snippet(src []byte, r hcl.Range, width int) (line, mark string) {
	const near = 2000 // bytes to either side: a hostile line has a million
	from := min(r.Start.Byte, len(src))
	start := max(0, from-near)
	start += bytes.LastIndexByte(src[start:from], '\n') + 1
	end := min(len(src), from+near)
	if i := bytes.IndexByte(src[from:end], '\n'); i >= 0 {
		end = from + i
	}
	to := max(from, min(r.End.Byte, end))
	before, at, after := show(src[start:from]), show(src[from:to]), show(src[to:end])
	if cells.StringWidth(before+at+after) > width {
		if w, half := cells.StringWidth(before), width/2; w > half {
			before = cells.TruncateLeft(before, w-half+1, "…")
		}
		room := width - cells.StringWidth(before)
		if cells.StringWidth(at) > room {
			at = cells.Truncate(at, room-1, "") + "…"
			after = ""
		}
		after = cells.Truncate(after, room-cells.StringWidth(at), "…")
	}
	return strings.TrimRight(before+at+after, " "), strings.Repeat(" ", cells.StringWidth(before)) + strings.Repeat("^",
		max(1, cells.StringWidth(at)))
}

// cells counts terminal columns, the same in every locale.
var cells = &runewidth.Condition{}

// show makes a piece of a line printable; a tab takes two columns.
func show(b []byte) string {
	return Visible(strings.ReplaceAll(strings.TrimSuffix(string(b), "\r"), "\t", "  "))
}

// Visible replaces every character that is not seen, or changes how others are seen.
func Visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return utf8.RuneError
		}
		return r
	}, s)
}

// wrap breaks a text into lines at blanks; its own line breaks stay.
func wrap(text string, width int) []string {
	var out []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for word := range strings.FieldsSeq(paragraph) {
			if line != "" && cells.StringWidth(line)+1+cells.StringWidth(word) > width {
				out = append(out, line)
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += word
		}
		out = append(out, line)
	}
	return out
}

// Sentence makes a sentence of an error's text.
func Sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}
