package plan

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden texts")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func state(pairs ...string) *State {
	s := &State{}
	for i := 0; i < len(pairs); i += 2 {
		s.Set(Attr{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}

// fake is a resource of the tests.
type fake struct {
	address    string
	want, live *State
}

func (f *fake) Address() string { return f.address }
func (f *fake) Where() string   { return "pipeline.hcl:41" }
func (f *fake) Observe(context.Context) (Observation, error) {
	return Observation{Live: f.live, Want: f.want, Assess: func(context.Context, *Change) error { return nil }}, nil
}

func assessed(f *fake, last *State, managed bool) Change {
	o, _ := f.Observe(context.Background())
	return New(f, o, last, managed)
}

// The three-way difference, attribute by attribute: what was applied last, what is live, what is wanted.
func TestCompare(t *testing.T) {
	t.Parallel()
	inherited := Attr{Name: "a", Value: "1", Origin: "broker default"}
	for name, c := range map[string]struct {
		last, live, want *State
		cause            Cause // "" : no difference
		old, new         string
		applied          string
		extra            int
	}{
		"agrees":                            {state("a", "1"), state("a", "1"), state("a", "1"), "", "", "", "", 0},
		"the file moved":                    {state("a", "1"), state("a", "1"), state("a", "2"), Intent, "1", "2", "", 0},
		"changed outside":                   {state("a", "2"), state("a", "1"), state("a", "2"), Drift, "1", "2", "", 0},
		"both moved":                        {state("a", "3"), state("a", "1"), state("a", "2"), Both, "1", "2", "3", 0},
		"both moved to the same":            {state("a", "1"), state("a", "2"), state("a", "2"), "", "", "", "", 0},
		"never applied":                     {nil, state("a", "1"), state("a", "2"), Intent, "1", "2", "", 0},
		"taken off outside":                 {state("a", "1"), state(), state("a", "1"), Drift, "", "1", "", 0},
		"new in the file":                   {state(), state(), state("a", "1"), Intent, "", "1", "", 0},
		"left the file":                     {state("a", "1"), state("a", "1"), state(), Reset, "1", "", "", 0},
		"left the file and changed outside": {state("a", "2"), state("a", "1"), state(), Reset, "1", "", "2", 0},
		"left the file and the object":      {state("a", "1"), state(), state(), "", "", "", "", 0},
		"left the file, default again":      {state("a", "1"), &State{Attrs: []Attr{inherited}}, state(), "", "", "", "", 0},
		"default agrees: pinned":            {nil, &State{Attrs: []Attr{inherited}}, state("a", "1"), "", "", "", "", 0},
		"default differs":                   {nil, &State{Attrs: []Attr{inherited}}, state("a", "2"), Intent, "1", "2", "", 0},
		"somebody else's":                   {nil, state("a", "1"), state(), "", "", "", "", 1},
	} {
		diffs, extra := Compare(c.last, c.live, c.want)
		if len(extra) != c.extra {
			t.Errorf("%s: extra %v", name, extra)
		}
		if c.cause == "" {
			if len(diffs) > 0 {
				t.Errorf("%s: %+v", name, diffs)
			}
			continue
		}
		if len(diffs) != 1 || diffs[0].Cause != c.cause || diffs[0].Old != c.old || diffs[0].New != c.new || diffs[0].Applied != c.applied {
			t.Errorf("%s: %+v", name, diffs)
		}
	}
}

func TestNewChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last, live, want *State
		ours             bool
		action           Action
		adopt, marks     bool
	}{
		"missing":                     {nil, nil, state("a", "1"), false, Create, false, false},
		"agrees and ours":             {state("a", "1"), state("a", "1"), state("a", "1"), true, None, false, false},
		"agrees and not ours":         {nil, state("a", "1"), state("a", "1"), false, None, true, true},
		"differs and not ours":        {nil, state("a", "2"), state("a", "1"), false, Update, true, false},
		"declared now as it is":       {state(), state("a", "1"), state("a", "1"), true, None, false, true},
		"to be deleted":               {state("a", "1"), state("a", "1"), nil, true, Delete, false, false},
		"to be deleted, gone already": {state("a", "1"), nil, nil, true, None, false, true},
	} {
		got := assessed(&fake{"topic.x", c.want, c.live}, c.last, c.ours)
		if got.Action != c.action || got.Adopt != c.adopt || got.Marks() != c.marks {
			t.Errorf("%s: %s, adopt %v, marks %v", name, got.Action, got.Adopt, got.Marks())
		}
	}
}

func TestFingerprintIgnoresDefaults(t *testing.T) {
	t.Parallel()
	a := &State{Attrs: []Attr{{Name: "a", Value: "1"}, {Name: "b", Value: "2", Origin: "broker default"}}}
	b := &State{Attrs: []Attr{{Name: "b", Value: "3", Origin: "broker default"}, {Name: "a", Value: "1"}}}
	if a.Fingerprint() != b.Fingerprint() || a.Fingerprint() == state("a", "2").Fingerprint() || (*State)(nil).Fingerprint() != "none" {
		t.Error(a.Fingerprint(), b.Fingerprint())
	}
}

// codes are some as the systems have them.
var codes = []Code{
	{ID: "CV-K01", Class: Impossible},
	{ID: "CV-T07", Class: Destroys},
	{ID: "CV-K07", Class: Destroys},
	{ID: "CV-K08", Class: Destroys},
	{ID: "CV-K11", Class: Destroys},
	{ID: "CV-K13", Class: Future},
	{ID: "CV-T28", Class: Impossible},
	{ID: "CV-Q02", Class: Risky},
}

// many holds one of each thing that a plan can show.
func many() Plan {
	find := func(c Change, code Code, attr, text string, loss *Loss) Change {
		c.Find(code, attr, "%s", text).Loss = loss
		return c
	}
	update := func(address string, last, live, want *State) Change {
		return assessed(&fake{address, want, live}, last, last != nil)
	}
	created := assessed(&fake{"topic.kraken", state("partitions", "1", "replication", "1", "retention", "7d"), nil}, nil, false)
	shorter := find(update("table.raw", state("retention", "7d"), state("retention", "7d"), state("retention", "2d")),
		codes[1], "retention", "the policy drops what is older than 2d", &Loss{Unit: Rows, Count: 118_000_000, Known: true, Chunks: 5, Bytes: 44_023_414_784, From: "2026-01-03T00:00:00Z", To: "2026-01-08T00:00:00Z", When: "when the policy job runs: 2026-01-09 03:00 UTC"})
	fewer := find(update("topic.okx", state("partitions", "12"), state("partitions", "12"), state("partitions", "6")), codes[0], "partitions", "Kafka cannot remove partitions", nil)
	drifted := update("topic.coinbase", state("retention", "7d"), state("retention", "1h"), state("retention", "7d"))
	was := &State{Attrs: []Attr{{Name: "password", Value: "h0", Secret: true}}}
	secret := assessed(&fake{"datasource.main", &State{Attrs: []Attr{{Name: "password", Value: "h1", Secret: true}}}, was}, was, true)
	hostile := update("dashboard.market", nil, state("title", "a\x1b[2Jb\u202e"), state("title", "Market"))
	adopted := update("topic.legacy", nil, state("partitions", "3"), state("partitions", "3"))
	gone := assessed(&fake{"table.old", nil, state("column a", "text")}, nil, true)
	return Plan{
		Reads:     []Read{{System: "Kafka", Text: "127.0.0.1:9092: 14 topics", Requests: 2, Seconds: 0.2}, {System: "PostgreSQL", Text: "crypto@db1: 6 tables", Requests: 6, Seconds: 0.31}},
		Changes:   []Change{created, shorter, fewer, drifted, adopted, gone, secret, hostile},
		Unmanaged: []string{"topic.legacy_ticks"}, Orphans: []string{"view.last"},
		Errors: []ReadError{{Address: "folder.crypto", Text: "Grafana at http://g.example does not answer: connection refused"}, {Address: "alert.stale", Text: "Grafana at http://g.example does not answer: connection refused"}},
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plan  Plan
		style Style
	}{
		"many":         {many(), Style{}},
		"many_verbose": {many(), Style{Verbose: true, Hints: true}},
		"many_narrow":  {many(), Style{Width: 72}},
		"nothing":      {Plan{Changes: []Change{assessed(&fake{"topic.a", state("x", "1"), state("x", "1")}, state("x", "1"), true)}}, Style{}},
	} {
		var out bytes.Buffer
		if err := c.plan.Print(&out, c.style); err != nil {
			t.Fatal(err)
		}
		width := c.style.Width
		if width == 0 {
			width = 80
		}
		for line := range strings.SplitSeq(out.String(), "\n") {
			if len([]rune(line)) > width && !strings.Contains(line, "cryptoviz explain") {
				t.Errorf("%s: %d columns: %s", name, len([]rune(line)), line)
			}
		}
		for _, bad := range []string{"\x1b", "\u202e", "h0", "h1"} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%s prints %q", name, bad)
			}
		}
		golden(t, name, out.String())
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	all := many()
	for want, p := range map[int]Plan{
		0: {Changes: []Change{{Address: "topic.a", Action: None}}},
		1: all,
		2: {Changes: all.Changes[:1]},
		3: {Changes: all.Changes[:2]},
	} {
		if got := p.ExitCode(); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	p := Plan{Changes: []Change{{Address: "folder.a"}, {Address: "datasource.b"}, {Address: "dashboard.c", Depends: []string{"folder.a"}}}}
	got, err := p.Target([]string{"dashboard.c"})
	if err != nil || len(got.Changes) != 2 || got.Changes[0].Address != "folder.a" {
		t.Errorf("%+v, %v", got.Changes, err)
	}
	if _, err := p.Target([]string{"dashboard.x"}); err == nil || !strings.Contains(err.Error(), "dashboard.x") {
		t.Error(err)
	}
}

func TestSavedPlan(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	a := Agree(many())
	a.Tool, a.Made, a.Pipeline = "0.1.0", time.Unix(1_700_000_000, 0).UTC(), "pipeline.hcl"
	if err := a.Write(&file); err != nil {
		t.Fatal(err)
	}
	text := file.String()
	got, err := ReadAgreement(strings.NewReader(text))
	i := slices.IndexFunc(got.Changes, func(x Agreed) bool { return x.Address == "table.raw" })
	if err != nil || i < 0 || got.Changes[i].Findings[0].Loss.Count != 118_000_000 {
		t.Fatalf("%v, %+v", err, got)
	}
	for _, executable := range []string{"steps", "ALTER", "CREATE", "{\"api\""} {
		if strings.Contains(text, executable) {
			t.Errorf("the file holds %s", executable)
		}
	}
	for want, bad := range map[string]string{
		"cut short":              text[:len(text)/2],
		"edited or damaged":      strings.Replace(text, `"new": "2d"`, `"new": "1d"`, 1),
		"is of format 99":        strings.Replace(text, `"format": 2`, `"format": 99`, 1),
		"older cryptoviz":        strings.Replace(text, `"format": 2`, `"format": 1`, 1),
		"it is not a plan":       "hello",
		"not a plan: make one w": "{}",
	} {
		if _, err := ReadAgreement(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestAmounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1_440_000: "1,440,000", -12345: "-12,345"} {
		if got := Amount(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 44_023_414_784: "41 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
