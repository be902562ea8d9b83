package diag

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// The marks lie under what they mean, in terminal columns, and no line is wider than the terminal.
func TestSnippet(t *testing.T) {
	long := strings.Repeat("x", 60)
	for _, c := range []struct{ before, what, after, line string }{
		{"a = ", "b", "", "a = b"},
		{"\ta = ", "bcd", " # x", "  a = bcd # x"},
		{"日本 = ", "b", "", "日本 = b"},
		{"e\u0301 = ", "b", "", "e\u0301 = b"},
		{"a = ", "🟢🟢", "", "a = 🟢🟢"},
		{"a = ", "b", "\r", "a = b"},
		{"a\x1b[31m = ", "b", "", "a�[31m = b"},
		{"a\u202e = ", "b", "", "a� = b"},
		{long, "here", long, ""},
		{"", "here", long, ""},
		{long, "here", "", ""},
		{strings.Repeat("日", 60), "here", strings.Repeat("本", 60), ""},
		{"a = ", strings.Repeat("b", 100), "", ""},
		{long, strings.Repeat("b", 100), long, ""},
		{strings.Repeat("x", 5000), "here", strings.Repeat("x", 5000), ""},
	} {
		const width = 40
		src := "first\n" + c.before + c.what + c.after + "\nlast\n"
		at := len("first\n" + c.before)
		line, mark := snippet([]byte(src), hcl.Range{Start: hcl.Pos{Byte: at}, End: hcl.Pos{Byte: at + len(c.what)}}, width)
		if c.line != "" && line != c.line {
			t.Errorf("%q, want %q", line, c.line)
		}
		if got := under(line, mark); !strings.HasPrefix(c.what, strings.TrimSuffix(got, "…")) || got == "" {
			t.Errorf("the marks are under %q:\n%s\n%s", got, line, mark)
		}
		if cells.StringWidth(line) > width || cells.StringWidth(mark) > width {
			t.Errorf("too wide:\n%s\n%s", line, mark)
		}
	}
}

// under returns what stands over the marks.
func under(line, mark string) string {
	var out strings.Builder
	column := 0
	for _, r := range line {
		if column < len(mark) && mark[column] == '^' {
			out.WriteRune(r)
		}
		column += cells.RuneWidth(r)
	}
	return out.String()
}

func TestSnippetEnds(t *testing.T) {
	src := []byte("a\nb\n")
	for _, r := range []hcl.Range{
		{Start: hcl.Pos{Byte: 4}, End: hcl.Pos{Byte: 4}}, {Start: hcl.Pos{Byte: 99}, End: hcl.Pos{Byte: 100}}, {Start: hcl.Pos{Byte: 1}, End: hcl.Pos{Byte: 3}}, {Start: hcl.Pos{Byte: 2}, End: hcl.Pos{Byte: 0}},
	} {
		if _, mark := snippet(src, r, 40); !strings.Contains(mark, "^") {
			t.Errorf("%v has no mark", r)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"binance", "kraken", "coinbase", "okx", "r", "key"}
	for name, want := range map[string]string{
		"binanc": "binance", "BINANCE": "binance", "krakne": "kraken", "coinbse": "coinbase", "ok": "okx", "rec": "", "zzz": "", "": "", "kraken2": "kraken", "binance_us": "binance", strings.Repeat("k", 300): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
