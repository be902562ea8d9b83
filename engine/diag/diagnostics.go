package diag

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// Max ends the reading of a file that is no pipeline at all.
const Max = 200

// Diagnostics is everything that is wrong with a pipeline, in the order of the files and lines, with the files for the
// snippets.
type Diagnostics struct {
	Diags hcl.Diagnostics
	Files map[string]*hcl.File
}

// HasErrors tells whether the pipeline cannot be used.
func (d *Diagnostics) HasErrors() bool { return d.Diags.HasErrors() }

// Errors returns the number of errors.
func (d *Diagnostics) Errors() int { return len(d.Diags.Errs()) }

// JSON prints the diagnostics for programs: {"valid", "errors", "diagnostics": [{severity, summary, detail, file, line,
// column}]}.
func (d *Diagnostics) JSON(w io.Writer) error {
	type one struct {
		Severity string `json:"severity"`
		Summary  string `json:"summary"`
		Detail   string `json:"detail,omitempty"`
		File     string `json:"file,omitempty"`
		Line     int    `json:"line,omitempty"`
		Column   int    `json:"column,omitempty"`
	}
	out := struct {
		Valid       bool  `json:"valid"`
		Errors      int   `json:"errors"`
		Diagnostics []one `json:"diagnostics"`
	}{!d.HasErrors(), d.Errors(), []one{}}
	for _, diag := range d.Diags {
		o := one{Severity: severity(diag), Summary: Visible(diag.Summary), Detail: Visible(diag.Detail)}
		if r := diag.Subject; r != nil {
			o.File, o.Line, o.Column = Visible(r.Filename), r.Start.Line, r.Start.Column
		}
		out.Diagnostics = append(out.Diagnostics, o)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func severity(d *hcl.Diagnostic) string {
	if d.Severity == hcl.DiagWarning {
		return "warning"
	}
	return "error"
}

// Sorted orders by file and line, the pipeline first.
func Sorted(diags hcl.Diagnostics, first string) hcl.Diagnostics {
	position := func(d *hcl.Diagnostic) (rank int, file string, at int) {
		switch {
		case d.Subject == nil:
			return 0, "", 0
		case d.Subject.Filename == first:
			return 1, first, d.Subject.Start.Byte
		}
		return 2, d.Subject.Filename, d.Subject.Start.Byte
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		ar, af, ab := position(a)
		br, bf, bb := position(b)
		return cmp.Or(cmp.Compare(ar, br), strings.Compare(af, bf), cmp.Compare(ab, bb))
	})
	return diags
}

// Suggest returns ` Did you mean "x"?`, or a list of what there is.
func Suggest(name string, known []string) string {
	if best := Nearest(name, known); best != "" {
		return fmt.Sprintf(" Did you mean %q?", best)
	}
	if len(known) == 0 {
		return ""
	}
	known = slices.Sorted(slices.Values(known))
	if len(known) > 20 {
		known = append(known[:20:20], "…")
	}
	return " Known: " + strings.Join(known, ", ") + "."
}

// longestName bounds the cost of comparing names, in bytes.
const longestName = 256

// Nearest returns the known name that differs least, in at most a third of the letters; "" for none.
func Nearest(name string, known []string) string {
	best, dist := "", 1+max(1, (len(name)+1)/3)
	if name == "" || len(name) > longestName {
		return ""
	}
	for _, k := range known {
		if max(len(k)-len(name), len(name)-len(k)) > dist {
			continue
		}
		if d := levenshtein.Distance(strings.ToLower(name), k, nil); d < dist || d == dist && best != "" && k < best {
			best, dist = k, d
		}
	}
	return best
}

// Problem is an error at a place; the text says what to do about it.
func Problem(r hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &r}
}
