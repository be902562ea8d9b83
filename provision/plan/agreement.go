package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Agreement is what a user was shown and agreed to: a plan in a file, or the one that apply just printed. It says what
// may happen and holds nothing to execute. What happens comes from pipeline.hcl and from the servers, read again under
// the lock.
type Agreement struct {
	Format   int       `json:"format"`
	Tool     string    `json:"tool"` // version of cryptoviz
	Made     time.Time `json:"made"`
	Pipeline string    `json:"pipeline"` // path of pipeline.hcl
	Targets  []string  `json:"targets,omitempty"`
	Summary  string    `json:"summary"`
	Servers  Servers   `json:"servers"`
	Changes  []Agreed  `json:"changes"`
	Consents Consents  `json:"consents,omitempty"`
	Sum      string    `json:"sum"` // SHA-256 over all of the above: finds damage, and is no signature
}

// Agreed is one change that was agreed to. Secrets are salted hashes.
type Agreed struct {
	Address  string    `json:"address"`
	Where    string    `json:"where,omitempty"`
	Action   Action    `json:"action"`
	Adopt    bool      `json:"adopt,omitempty"`
	Ours     bool      `json:"ours,omitempty"`    // it was in the ledger
	LiveID   string    `json:"live_id,omitempty"` // tells the object from a later one of its name
	Live     string    `json:"live"`              // fingerprints
	Want     string    `json:"want"`
	Diffs    []Diff    `json:"diffs,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
	WaitsFor string    `json:"waits_for,omitempty"`
}

// Agree makes the agreement to a plan. What needs nothing is left out.
func Agree(p Plan) Agreement {
	a := Agreement{Format: AgreementFormat, Targets: p.Targets, Summary: p.Summary(), Servers: p.Servers}
	for _, c := range p.Changes {
		if !c.Changes() && !c.Marks() && len(c.Findings) == 0 {
			continue
		}
		agreed := Agreed{
			Address: c.Address, Where: c.Where, Action: c.Action, Adopt: c.Adopt, Ours: c.Ours,
			Live: c.Live.Fingerprint(), Want: c.Want.Fingerprint(),
			Diffs: c.Diffs, Findings: c.Findings, WaitsFor: c.Waits,
		}
		if c.Live != nil {
			agreed.LiveID = c.Live.ID
		}
		a.Changes = append(a.Changes, agreed)
	}
	return a
}

// Plan is the agreement as a plan, to be printed.
func (a Agreement) Plan() Plan {
	p := Plan{Targets: a.Targets, Servers: a.Servers}
	for _, c := range a.Changes {
		p.Changes = append(p.Changes, c.change())
	}
	return p
}

// Of is what a plan says of the objects that were agreed to.
func (a Agreement) Of(p Plan) Plan {
	known := func(address string) bool {
		return slices.ContainsFunc(a.Changes, func(x Agreed) bool { return x.Address == address })
	}
	p.Changes = slices.DeleteFunc(slices.Clone(p.Changes), func(c Change) bool { return !known(c.Address) })
	p.Errors = slices.DeleteFunc(slices.Clone(p.Errors), func(e ReadError) bool { return !known(e.Address) })
	p.Unmanaged, p.Orphans = nil, nil
	return p
}

// Covers tells whether a change may be made.
func (a Agreement) Covers(c Change, consents Consents) bool {
	i := slices.IndexFunc(a.Changes, func(x Agreed) bool { return x.Address == c.Address })
	return i >= 0 && len(Covers(a.Changes[i], c, consents)) == 0
}

// Pending tells whether something was agreed to.
func (a Agreement) Pending() bool {
	return slices.ContainsFunc(a.Changes, func(x Agreed) bool { return x.Action != None })
}

func (a Agreed) change() Change {
	return Change{
		Address: a.Address, Where: a.Where, Action: a.Action, Adopt: a.Adopt, Diffs: a.Diffs, Findings: a.Findings,
		Waits: a.WaitsFor,
		Ours:  a.Ours,
	}
}

// Since is one thing that is not as it was agreed to.
type Since struct {
	What     string // an attribute, a code, "object", "pipeline.hcl"
	Old, New string // for people
}

// Covers compares what was agreed to with the change that would be made now. Nothing returned means that it is the same
// or milder, and may be made.
func Covers(a Agreed, c Change, consents Consents) (since []Since) {
	if c.Want.Fingerprint() != a.Want {
		return []Since{{"pipeline.hcl", "as planned", "says something else now"}}
	}
	if c.Live != nil && c.Live.ID != "" && a.LiveID != "" && c.Live.ID != a.LiveID {
		since = append(since, Since{"object", "there", "deleted, and another made of the same name"})
	}
	if c.Action == None {
		return since
	}
	switch {
	case c.Action == a.Action:
	case c.Live == nil:
		return append(since, Since{"object", "there", "gone"})
	case a.Action == Create:
		return append(since, Since{"object", "missing", "there"})
	default:
		since = append(since, Since{"object", "to " + string(a.Action), "to " + string(c.Action)})
	}
	if c.Adopt && !a.Adopt && a.Action != Create {
		since = append(since, Since{"object", "set by the last apply", "no longer in the ledger"})
	}
	if c.Action == Delete && c.Live.Fingerprint() != a.Live {
		since = append(since, Since{"object", "as planned", "changed"})
	}
	for _, d := range c.Diffs {
		i := slices.IndexFunc(a.Diffs, func(x Diff) bool { return x.Name == d.Name })
		switch {
		case i < 0:
			old := d
			old.Old, old.OldRaw = d.New, d.NewRaw
			since = append(since, moved(d.Name, old, d))
		case a.Diffs[i].Old != d.Old || a.Diffs[i].New != d.New:
			since = append(since, moved(d.Name, a.Diffs[i], d))
		}
	}
	return append(since, a.worse(c, consents)...)
}

// moved is an attribute whose live value is another one than in the plan.
func moved(name string, then, now Diff) Since {
	old := Attr{Value: then.Old, Raw: then.OldRaw, Secret: then.Secret}.Text()
	text := Attr{Value: now.Old, Raw: now.OldRaw, Secret: now.Secret}.Text()
	if old == text {
		return Since{What: name, New: "changed"}
	}
	return Since{name, orNone(old), orNone(text)}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// worse lists the findings that are new, and the losses that grew past what was agreed to.
func (a Agreed) worse(c Change, consents Consents) (since []Since) {
	then := a.change()
	var told []string
	for _, f := range c.Findings {
		if f.Class == Safe || f.Class == Future || f.Class == Impossible {
			continue // an impossible one keeps the change from being made anyway
		}
		if !slices.ContainsFunc(a.Findings, func(x Finding) bool { return x.Code == f.Code && x.Attr == f.Attr }) {
			since = append(since, Since{What: f.Code, New: strings.TrimPrefix(f.Attr+": ", ": ") + f.told()})
			continue
		}
		limit, given := consents.Limit(f.Code, c.Address)
		was, _ := then.Lost(f.Code)
		is, lost := c.Lost(f.Code)
		if !lost || !given || limit == All || slices.Contains(told, f.Code) {
			continue
		}
		// What was too much when the plan was made lacks consent, and is no news.
		if grew := is.Known && is.Count > limit && was.Count <= limit; grew || was.Known && !is.Known {
			since = append(since, More{Code: f.Code, Agreed: limit, Found: is}.since())
			told = append(told, f.Code)
		}
	}
	return since
}

// told is a finding with its loss.
func (f Finding) told() string {
	if amount, when := f.Loss.beside(f.Text); amount != "" {
		return f.Text + ": " + amount + when
	}
	return f.Text
}

// More is the error of a change that would lose more than was agreed to when its turn came: nothing of it was made.
type More struct {
	Code   string
	Agreed int64 // how much was agreed to
	Found  Loss
}

func (m More) since() Since {
	found := m.Found.Counted(m.Found.Count)
	if !m.Found.Known {
		found = "not known how many " + m.Found.Unit + "s"
	}
	return Since{m.Code, m.Found.Counted(m.Agreed) + " agreed to", found}
}

// Since says both numbers.
func (m More) Since() Since { return m.since() }

func (m More) Error() string {
	s := m.since()
	return fmt.Sprintf("%s: %s, and now it is %s", m.Code, s.Old, s.New)
}

// Limit is how much may be lost of a code when the turn comes: what was consented to, else what the findings say.
func (c Change) Limit(code string) int64 {
	if limit, given := c.Consents.Limit(code, c.Address); given {
		return limit
	}
	loss, found := c.Lost(code)
	switch {
	case !found:
		return 0
	case !loss.Known:
		return All
	}
	return loss.Count
}

// Recount is a query that counts what a change loses once more, in the transaction that makes the change: rows may have
// come since the plan. A change of which nothing was to be lost has one, too.
type Recount struct {
	Address   string // of the object, which the change of a whole group has, too
	Code      string
	Table     string // quoted: it is locked meanwhile; "": it is not, since nothing of it goes at once
	Size      string // an expression: how many bytes the table has
	Query     string // how many rows or values are lost
	Otherwise string // instead, where the types know no equality
}

// Check compares what a change would lose now of an object with what it may. The error is a More.
func (c Change) Check(address, code string, now Loss) error {
	c.Address = address
	limit := c.Limit(code)
	if limit == All || now.Known && now.Count <= limit {
		return nil
	}
	return More{Code: code, Agreed: limit, Found: now}
}

// Without is a change without some of its attributes, to be assessed again: the others can be made alone. They stay as
// they are.
func (c Change) Without(attrs []string) Change {
	out := c
	out.Findings, out.Notes, out.Steps, out.Recounts, out.Do, out.Waits = nil, nil, nil, nil, nil, ""
	out.Action = None
	out.Diffs = slices.DeleteFunc(slices.Clone(c.Diffs), func(d Diff) bool { return slices.Contains(attrs, d.Name) })
	if len(out.Diffs) > 0 {
		out.Action = Update
	}
	want := *c.Want
	for _, name := range attrs {
		want = c.Live.put(want, name)
	}
	out.Want, out.Held = &want, attrs
	return out
}

// put gives another state the attribute as it is in this one, or takes it off when there is none.
func (s *State) put(to State, name string) State {
	to.Attrs = slices.Clone(to.Attrs)
	if a, there := s.Get(name); there {
		to.Set(a)
		return to
	}
	to.Attrs = slices.DeleteFunc(to.Attrs, func(a Attr) bool { return a.Name == name })
	return to
}
