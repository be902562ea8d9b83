package plan

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func printed(t *testing.T, style Style, changes ...Change) string {
	t.Helper()
	var out bytes.Buffer
	if err := (Plan{Changes: changes}).Print(&out, style); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func lacks(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// A new object with many attributes is cut short, but never by what has a finding.
func TestPrintKeepsWhatHasAFinding(t *testing.T) {
	t.Parallel()
	want := &State{}
	for i := range 40 {
		want.Set(Attr{Name: fmt.Sprintf("column c%02d", i), Value: "text"})
	}
	c := assessed(&fake{"table.wide", want, nil}, nil, false)
	c.Find(codes[6], "column c30", "the server refuses it")
	text := printed(t, Style{}, c)
	lacks(t, text, "cannot be created", "column c30  text", "CV-T28 impossible: the server refuses it", "and 24 more attributes")
	if strings.Contains(text, "c20") || strings.Contains(text, "c39") {
		t.Errorf("too long:\n%s", text)
	}
	lacks(t, printed(t, Style{Verbose: true}, c), "c20", "c39")
}

// Of long texts only the place that differs is shown.
func TestPrintShowsWhereTextsDiffer(t *testing.T) {
	t.Parallel()
	query := func(columns string) *State {
		return state("query", "SELECT time_bucket('1 hour', time) AS time, market, "+columns+" FROM prices WHERE market IS NOT NULL GROUP BY 1, 2")
	}
	c := assessed(&fake{"view.hourly", query("max(price) AS high, min(price) AS low"), query("max(price) AS high")}, query("max(price) AS high"), true)
	text := strings.Join(strings.Fields(printed(t, Style{}, c)), " ")
	lacks(t, text, "… market, max(price) AS high FROM prices WHERE … -> … market, max(price) AS high, min(price) AS low FROM prices WHERE …")
	if strings.Contains(text, "time_bucket") {
		t.Errorf("all of it:\n%s", text)
	}
	lacks(t, printed(t, Style{Verbose: true}, c), "time_bucket")
	for _, pair := range [][2]string{{"a b", "a c"}, {strings.Repeat("x ", 80), strings.Repeat("x ", 79)}, {strings.Repeat("x ", 80), strings.Repeat("y ", 80)}} {
		if from, to := pieces(pair[0], pair[1]); from == to {
			t.Errorf("%q and %q look the same", from, to)
		}
	}
}

// A digest stands for a content: people see neither it nor a difference between two of them.
func TestPrintHidesDigests(t *testing.T) {
	t.Parallel()
	panel := func(digest string) *State {
		return &State{Attrs: []Attr{{Name: "panel Price (id 1)", Value: "timeseries " + digest, Raw: "{…}"}}}
	}
	c := assessed(&fake{"dashboard.market", panel("59381182d656"), panel("2dee3cfe381f")}, panel("2dee3cfe381f"), true)
	text := printed(t, Style{}, c)
	lacks(t, text, "panel Price (id 1)  timeseries, changed")
	c.Note("panel Price (id 1): title %q -> %q", "a", "b")
	c.Note("another remark")
	text += printed(t, Style{}, c)
	lacks(t, text, `panel Price (id 1)  title "a" -> "b"`, "note: another remark")
	if strings.Contains(text, "59381182d656") || strings.Contains(text, "note: panel") {
		t.Errorf("digests, or a remark twice:\n%s", text)
	}
	if got := (Attr{Name: "x", Value: "59381182d656", Raw: "59381182d656"}).Text(); got != "59381182d656" {
		t.Errorf("a value that looks like a digest: %q", got)
	}
}

// A finding's text is not repeated by the amounts beside it.
func TestLossBesideText(t *testing.T) {
	t.Parallel()
	l := &Loss{Unit: Rows, Count: 1440, Known: true, Chunks: 2, Bytes: 2048, From: "2026-01-03T00:00:00Z", To: "2026-01-05T00:00:00Z", When: "at once"}
	for text, want := range map[string]string{
		"chunks go":                    "1,440 rows, 2 chunks, 2.0 KiB, 2026-01-03 to 2026-01-05|, at once",
		"2 chunks go, with 1,440 rows": "2.0 KiB, 2026-01-03 to 2026-01-05|, at once",
		"11,440 rows go":               "1,440 rows, 2 chunks, 2.0 KiB, 2026-01-03 to 2026-01-05|, at once",
		"all goes at once":             "1,440 rows, 2 chunks, 2.0 KiB, 2026-01-03 to 2026-01-05|",
		"2026-01-03T00:00:00Z .. 2026-01-05T00:00:00Z": "1,440 rows, 2 chunks, 2.0 KiB|, at once",
	} {
		amount, when := l.beside(text)
		if got := amount + "|" + when; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if amount, when := (*Loss)(nil).beside("x"); amount+when != "" {
		t.Errorf("%q %q", amount, when)
	}
}

// Each object's line says what it is found to be, and what becomes of it.
func TestHeadlines(t *testing.T) {
	t.Parallel()
	a, b, c := state("x", "1"), state("x", "2"), state("x", "3")
	impossible := func(x Change) Change { x.Find(codes[0], "x", "no"); return x }
	affected := assessed(&fake{"rollup.r", a, a}, a, true)
	affected.Find(codes[7], "", "no")
	for want, x := range map[string]Change{
		"+ topic.t will be created":                               assessed(&fake{"topic.t", a, nil}, nil, false),
		"~ topic.t will be changed":                               assessed(&fake{"topic.t", b, a}, a, true),
		"- topic.t will be deleted":                               assessed(&fake{"topic.t", nil, a}, a, true),
		"≠ topic.t changed outside cryptoviz; will be reverted":   assessed(&fake{"topic.t", b, a}, b, true),
		"≠ topic.t changed outside cryptoviz; will be changed":    assessed(&fake{"topic.t", b, a}, c, true),
		"= topic.t exists already, will be adopted":               assessed(&fake{"topic.t", a, a}, nil, false),
		"~ topic.t exists already, will be adopted and changed":   assessed(&fake{"topic.t", b, a}, nil, false),
		"✗ topic.t cannot be changed":                             impossible(assessed(&fake{"topic.t", b, a}, a, true)),
		"✗ topic.t changed outside cryptoviz; cannot be reverted": impossible(assessed(&fake{"topic.t", b, a}, b, true)),
		"  rollup.r is affected":                                  affected,
	} {
		lacks(t, printed(t, Style{}, x), "  "+want+" ")
	}
}
