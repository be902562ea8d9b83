package plan

import (
	"slices"
	"strings"
	"testing"
)

func object(id string, pairs ...string) *State {
	s := &State{ID: id}
	for i := 0; i < len(pairs); i += 2 {
		s.Set(Attr{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}

// changed is what planning finds, with the ledger's entry last.
func changed(last, live, want *State, findings ...Finding) Change {
	c := Change{Address: "topic.t", Live: live, Want: want, Last: last, Ours: last != nil, Action: None}
	switch {
	case want == nil && live != nil:
		c.Action = Delete
	case want == nil:
	case live == nil:
		c.Action = Create
		for _, a := range want.Attrs {
			c.Diffs = append(c.Diffs, Diff{Name: a.Name, New: a.Value, Cause: Intent})
		}
	default:
		c.Adopt = last == nil
		if c.Diffs, c.Extra = Compare(last, live, want); len(c.Diffs) > 0 {
			c.Action = Update
		}
	}
	c.Findings = findings
	return c
}

func found(code string, class Class, attr string, count int64, known bool) Finding {
	f := Finding{Code: code, Class: class, Attr: attr, Text: "records go"}
	if class == Destroys {
		f.Loss = &Loss{Unit: Records, Count: count, Known: known}
	}
	return f
}

// Each row is a case of the table of plan and apply: what was agreed to, what is found under the lock, and what is refused.
func TestCovers(t *testing.T) {
	t.Parallel()
	const all = "retention"
	long, short, other := object("1", all, "7d"), object("1", all, "1d"), object("1", all, "3d")
	k07 := func(n int64) Finding { return found("CV-K07", Destroys, all, n, true) }
	unknown := found("CV-K07", Destroys, all, 0, false)
	k13, k03 := found("CV-K13", Safe, all, 0, false), found("CV-K03", Risky, "partitions", 0, false)
	limit := func(n int64) Consents { return Consents{{"CV-K07", "topic.t", n}} }
	for name, row := range map[string]struct {
		agreed, fresh Change
		consents      Consents
		want          string // what is said; "": it may be made
	}{
		"nothing changed":            {changed(long, long, short), changed(long, long, short), nil, ""},
		"another live value":         {changed(long, long, short), changed(long, other, short), nil, "retention 7d -> 3d"},
		"one more attribute differs": {changed(long, long, short), changed(long, object("1", all, "7d", "x", "1"), short.with("x", "2")), nil, "pipeline.hcl"},
		"drift that was not there":   {changed(long, object("1", all, "7d", "x", "2"), short.with("x", "2")), changed(long, object("1", all, "7d", "x", "1"), short.with("x", "2")), nil, "x 2 -> 1"},
		"another object of its name": {changed(long, long, short), changed(long, object("2", all, "7d"), short), nil, "object there -> deleted, and another made"},
		"the file says another":      {changed(long, long, short), changed(long, long, other), nil, "pipeline.hcl as planned -> says something else now"},
		"the block is removed now":   {changed(long, long, short), changed(long, long, nil), nil, "pipeline.hcl"},
		"it is gone":                 {changed(long, long, short), changed(long, nil, short), nil, "object there -> gone"},
		"it is there now":            {changed(nil, nil, short), changed(nil, long, short), nil, "object missing -> there"},
		"already so":                 {changed(long, long, short), changed(long, short, short), nil, ""},
		"created by another, the same": {
			changed(nil, nil, short), changed(nil, object("9", all, "1d"), short), nil, "",
		},
		"deleted already":       {changed(long, long, nil), changed(long, nil, nil), nil, ""},
		"to delete, and edited": {changed(long, long, nil), changed(long, other, nil), nil, "object as planned -> changed"},
		"part of it was made": {
			changed(long, object("1", all, "7d", "x", "1"), short.with("x", "2")),
			changed(long, object("1", all, "7d", "x", "2"), short.with("x", "2")), nil, "",
		},
		"nothing was to be lost":     {changed(long, long, short, k13), changed(long, long, short, k07(5)), nil, "CV-K07 retention: records go: 5 records"},
		"a new finding":              {changed(long, long, short), changed(long, long, short, k03), nil, "CV-K03 partitions: records go"},
		"nothing is lost any more":   {changed(long, long, short, k07(5)), changed(long, long, short, k13), limit(6), ""},
		"less is lost":               {changed(long, long, short, k07(5)), changed(long, long, short, k07(2)), limit(6), ""},
		"more, and within the limit": {changed(long, long, short, k07(5)), changed(long, long, short, k07(6)), limit(6), ""},
		"more than was agreed to":    {changed(long, long, short, k07(5)), changed(long, long, short, k07(7)), limit(6), "CV-K07 6 records agreed to -> 7 records"},
		"no limit":                   {changed(long, long, short, k07(5)), changed(long, long, short, k07(700)), limit(All), ""},
		"it cannot be counted any more": {
			changed(long, long, short, k07(5)), changed(long, long, short, unknown), limit(6),
			"CV-K07 6 records agreed to -> not known how many records",
		},
		"it lacked consent already": {changed(long, long, short, k07(5)), changed(long, long, short, k07(9)), nil, ""}, // Missing says so
		"the ledger row went": {
			changed(long, long, short), changed(nil, long, short), nil, "object set by the last apply -> no longer in the ledger",
		},
	} {
		agreed := Agree(Plan{Changes: []Change{row.agreed}}).Changes[0]
		var got []string
		for _, s := range Covers(agreed, row.fresh, row.consents) {
			text := s.What + " " + s.New
			if s.Old != "" {
				text = s.What + " " + s.Old + " -> " + s.New
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); row.want == "" && text != "" || !strings.HasPrefix(text, row.want) {
			t.Errorf("%s: %q, want %q", name, text, row.want)
		}
	}
}

// with is the state with one more attribute.
func (s *State) with(name, value string) *State {
	out := &State{ID: s.ID, Attrs: slices.Clone(s.Attrs)}
	out.Set(Attr{Name: name, Value: value})
	return out
}

func TestRoom(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]int64{
		0: 0, 1: 2, 7: 8, 9: 10, 10: 11, 91: 110, 100: 110, 110: 130, 1234: 1400, 118_000_000: 130_000_000, 1 << 62: 1<<63 - 1,
	} {
		if got := (Loss{Unit: Rows, Count: n, Known: true}).Room(); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
	if got := (Loss{Unit: Objects, Count: 3, Known: true}).Room(); got != 3 {
		t.Errorf("3 objects: %d", got)
	}
	if got := (Loss{Unit: Rows, Count: 3}).Room(); got != All {
		t.Errorf("what could not be counted: %d", got)
	}
}

func TestConsents(t *testing.T) {
	t.Parallel()
	known := Change{Address: "topic.t", Findings: []Finding{found("CV-K07", Destroys, "a", 60, true), found("CV-K07", Destroys, "b", 40, true)}}
	unknown := Change{Address: "topic.t", Findings: []Finding{found("CV-K07", Destroys, "a", 60, false)}}
	for text, row := range map[string]struct {
		c    Change
		lack string // of what Lacking says; "": agreed to
	}{
		"CV-K07@topic.t":       {known, ""},
		"cv-k07@topic.t=100":   {known, ""},
		"CV-K07@topic.t=all":   {known, ""},
		"CV-K07@topic.t=99":    {known, "CV-K07 destroys 100 records, and 99 are agreed to: --allow CV-K07@topic.t=110"},
		"CV-K07@topic.other":   {known, "CV-K07 destroys data: --allow CV-K07@topic.t=110"},
		"CV-K08@topic.t":       {known, "CV-K07 destroys data"},
		"CV-K07@topic.t=1000":  {unknown, "CV-K07 destroys data, and how much is not known: --allow CV-K07@topic.t=all"},
		"CV-K07@topic.t=ALL":   {unknown, ""},
		"CV-K11@topic.t=1":     {unknown, "CV-K07 destroys data: --allow CV-K07@topic.t=all"},
		"CV-K07@topic.t=00100": {known, ""},
	} {
		k, err := ParseConsent(text, codes)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := Consents{k}.AsShown([]Change{row.c}).Lacking(row.c)
		if row.lack == "" && got != "" || !strings.HasPrefix(got, row.lack) {
			t.Errorf("%s: %q, want %q", text, got, row.lack)
		}
	}
	if k, _ := ParseConsent("CV-K07@topic.t", codes); !strings.Contains((Consents{k}).AsShown([]Change{unknown}).Lacking(unknown), "=all") {
		t.Error("a consent without a number agrees to a loss that could not be counted")
	}
	if got := (Consents{{"CV-K07", "topic.t", 5}, {"CV-K07", "topic.t", 100}}).Lacking(known); got != "" {
		t.Errorf("those of the file and of --allow add up: %s", got)
	}
	for _, bad := range []string{"", "CV-K07", "CV-K07@topic.t=", "CV-K07@topic.t=-1", "CV-K07@topic.t=1e3", "CV-K99@topic.t", "CV-K13@topic.t", "CV-K07@topic.t=99999999999999999999"} {
		if _, err := ParseConsent(bad, codes); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// What is not known is not compared; what is, tells a database from its copy and from its neighbour.
func TestServersMoved(t *testing.T) {
	t.Parallel()
	a := Servers{Kafka: "k1", Database: Database{Name: "crypto", System: "7", OID: 5, Ledger: "l"}, Grafana: "https://g org 1"}
	change := func(f func(*Servers)) Servers { s := a; f(&s); return s }
	for name, row := range map[string]struct {
		then, now Servers
		want      string
	}{
		"the same":               {a, a, ""},
		"not reached":            {a, Servers{}, ""},
		"another Kafka":          {a, change(func(s *Servers) { s.Kafka = "k2" }), "Kafka was cluster k1, and is cluster k2"},
		"another Grafana":        {a, change(func(s *Servers) { s.Grafana = "https://g org 2" }), "Grafana was https://g org 1, and is https://g org 2"},
		"a neighbour":            {a, change(func(s *Servers) { s.Database.OID = 6 }), "PostgreSQL was database crypto (system 7, oid 5"},
		"a restored copy":        {a, change(func(s *Servers) { s.Database.System = "8" }), "PostgreSQL was"},
		"an empty one":           {a, change(func(s *Servers) { s.Database.Ledger = "" }), "PostgreSQL was"},
		"applied since":          {change(func(s *Servers) { s.Database.Ledger = "" }), a, ""},
		"a service hides it":     {a, change(func(s *Servers) { s.Database.System = "" }), ""},
		"and has another ledger": {a, change(func(s *Servers) { s.Database.System, s.Database.Ledger = "", "m" }), "PostgreSQL was"},
	} {
		var got string
		if m := row.then.Moved(row.now); len(m) > 0 {
			got = m[0].String()
		}
		if row.want == "" && got != "" || !strings.HasPrefix(got, row.want) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
