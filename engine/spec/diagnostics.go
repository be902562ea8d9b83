package spec

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// Diagnostics is everything that is wrong with a pipeline, with the files for the snippets.
type Diagnostics struct {
	Diags hcl.Diagnostics
	Files map[string]*hcl.File
}

// HasErrors tells whether the pipeline cannot be used.
func (d *Diagnostics) HasErrors() bool { return d.Diags.HasErrors() }

// Errors returns the number of errors.
func (d *Diagnostics) Errors() int { return len(d.Diags.Errs()) }

// Write prints every diagnostic with its snippet. Control characters from the files are made visible, and values of
// variables are never shown: the diagnostics carry no evaluation context.
func (d *Diagnostics) Write(w io.Writer, color bool, width uint) error {
	var text strings.Builder
	out := hcl.NewDiagnosticTextWriter(&text, d.Files, width, color)
	for _, diag := range d.sorted() {
		if err := out.WriteDiagnostic(diag); err != nil {
			return fmt.Errorf("write diagnostics: %w", err)
		}
	}
	_, err := io.WriteString(w, visible(text.String(), color))
	return err
}

// JSON prints the diagnostics for programs: {"valid", "errors", "diagnostics": [{severity, summary, detail, file, line, column}]}.
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
	for _, diag := range d.sorted() {
		o := one{Severity: "error", Summary: diag.Summary, Detail: diag.Detail}
		if diag.Severity == hcl.DiagWarning {
			o.Severity = "warning"
		}
		if r := diag.Subject; r != nil {
			o.File, o.Line, o.Column = r.Filename, r.Start.Line, r.Start.Column
		}
		out.Diagnostics = append(out.Diagnostics, o)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// sorted orders by file and line, and drops evaluation contexts, which could show a secret.
func (d *Diagnostics) sorted() []*hcl.Diagnostic {
	out := make([]*hcl.Diagnostic, 0, len(d.Diags))
	for _, diag := range d.Diags {
		c := *diag
		c.EvalContext, c.Expression = nil, nil
		out = append(out, &c)
	}
	slices.SortStableFunc(out, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return 0
		}
		if c := strings.Compare(a.Subject.Filename, b.Subject.Filename); c != 0 {
			return c
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return slices.CompactFunc(out, func(a, b *hcl.Diagnostic) bool {
		return a.Summary == b.Summary && a.Detail == b.Detail && a.Subject != nil && b.Subject != nil && *a.Subject == *b.Subject
	})
}

// visible replaces control characters; with color, the escape sequences of the writer itself stay.
func visible(s string, color bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || (color && r == 0x1b):
			return r
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return '�'
		}
		return r
	}, s)
}

// suggest returns ` Did you mean "x"?`, or a list of what there is.
func suggest(name string, known []string) string {
	best, dist := "", 1+max(2, len(name)/3)
	for _, k := range known {
		if d := levenshtein.Distance(name, k, nil); d < dist {
			best, dist = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf(" Did you mean %q?", best)
	}
	if len(known) == 0 {
		return ""
	}
	known = slices.Sorted(slices.Values(known))
	if len(known) > 12 {
		known = append(known[:12:12], "…")
	}
	return " Known: " + strings.Join(known, ", ") + "."
}

func problem(r hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &r}
}
