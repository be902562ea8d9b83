// Package plan is the difference between the live objects and pipeline.hcl, as a value: read, compare, then print or
// apply.
//
// There is no state file. Three things are compared: what the last apply set (the ledger cryptoviz.managed), what is
// live, and what pipeline.hcl wants. So a change made outside is distinguished from one in the file, and an unmanaged
// object is adopted after its differences were shown, never overwritten silently.
package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Action is what a change does to its object.
type Action string

// The actions.
const (
	None    Action = "none"    // live and wanted agree
	Create  Action = "create"  // the object is missing
	Update  Action = "update"  // it differs and is changed in place
	Replace Action = "replace" // it differs and is created again
	Delete  Action = "delete"  // a removed block, or destroy, wants it gone
)

// Resource is what pipeline.hcl says of one object: that it is there, and how; or that it is to be deleted.
type Resource interface {
	// Address names it as the user does: "topic.binance".
	Address() string
	// Where is the place in pipeline.hcl: "pipeline.hcl:41".
	Where() string
	// Observe reads the object. It may answer from a snapshot that all resources of a system share.
	Observe(ctx context.Context) (Observation, error)
}

// Observation is one object as it was read, beside what is wanted of it.
type Observation struct {
	Live      *State   // nil: there is no such object
	Want      *State   // in the words in which the server would tell it; nil: it is to be deleted
	DependsOn []string // the addresses that must be applied before it
	// Assess completes a change: its findings, each with a code and what it costs, its steps as text, and what makes
	// it. It asks the servers and changes nothing. It may turn an Update into a Replace.
	Assess func(ctx context.Context, c *Change) error
}

// Object is an object that is found out about step by step: each observation has its own.
type Object interface {
	DependsOn() []string
	Want() *State
	Read(ctx context.Context) (*State, error)
	Assess(ctx context.Context, c *Change) error
	Make(ctx context.Context, c Change) error
}

// Observed reads an object that nothing has read yet.
func Observed(ctx context.Context, o Object) (Observation, error) {
	live, err := o.Read(ctx)
	assess := func(ctx context.Context, c *Change) error {
		c.Do = o.Make
		return o.Assess(ctx, c)
	}
	return Observation{Live: live, Want: o.Want(), DependsOn: o.DependsOn(), Assess: assess}, err
}

// EngineAddress names the engine's own tables. They hold the marks, so every other object depends on them.
const EngineAddress = "engine.schema"

// Change is what planning found about one resource.
type Change struct {
	Address  string    `json:"address"`
	Where    string    `json:"where,omitempty"`
	Action   Action    `json:"action"`
	Adopt    bool      `json:"adopt,omitempty"` // it exists without our mark: apply sets it
	Diffs    []Diff    `json:"diffs,omitempty"`
	Extra    []Attr    `json:"extra,omitempty"` // live attributes that nobody declares; left alone
	Findings []Finding `json:"findings,omitempty"`
	Steps    []string  `json:"steps,omitempty"` // the exact statements or requests, in order
	Notes    []string  `json:"notes,omitempty"`
	Live     *State    `json:"live,omitempty"`
	Want     *State    `json:"want,omitempty"`
	Last     *State    `json:"last,omitempty"`
	Ours     bool      `json:"ours,omitempty"` // our mark is in the ledger
	Depends  []string  `json:"depends,omitempty"`
	Waits    string    `json:"waits_for,omitempty"` // apply leaves it out, because this other change cannot be done
	// the change in whose transaction it is made, together with all of the same group
	Group string `json:"group,omitempty"`

	Assess func(ctx context.Context, c *Change) error `json:"-"` // of its observation
	// makes the change; nil: there is nothing to do, or another one of its group does it
	Do func(ctx context.Context, c Change) error `json:"-"`
	// what counts again, at the change's turn, what it loses
	Recounts []Recount `json:"-"`
	Consents Consents  `json:"-"` // apply: what the change may lose
	Held     []string  `json:"-"` // apply: attributes that stay as they are
}

// Assess observes a resource and compares: what the last apply set, if it did (managed), what is there, and what is
// wanted.
func Assess(ctx context.Context, r Resource, last *State, managed bool) (Change, error) {
	o, err := r.Observe(ctx)
	if err != nil {
		return Change{}, err
	}
	c := New(r, o, last, managed)
	if err := o.Assess(ctx, &c); err != nil {
		return c, fmt.Errorf("check %s: %w", r.Address(), err)
	}
	return c, nil
}

// Make carries the change out.
func (c Change) Make(ctx context.Context) error {
	if c.Do == nil {
		return nil
	}
	return c.Do(ctx, c)
}

// New compares one resource; Assess of its observation completes the change.
func New(r interface {
	Address() string
	Where() string
}, o Observation, last *State, managed bool,
) Change {
	live := o.Live
	c := Change{
		Address: r.Address(), Where: r.Where(), Action: None, Live: live, Want: o.Want, Last: last, Ours: managed,
		Depends: o.DependsOn, Assess: o.Assess,
	}
	switch {
	case c.Want == nil && live != nil:
		c.Action = Delete
		switch {
		case !managed:
			c.Find(CodeForeign, "", "cryptoviz did not create it: the ledger of this database has no entry for it")
		case recreated(last, live):
			c.Find(CodeForeign, "",
				"cryptoviz did not create it: the one that the last apply set is gone, and this is another one of its name")
		}
	case c.Want == nil:
	case live == nil:
		c.Action = Create
		for _, w := range c.Want.Attrs {
			if !w.Secret || w.Value != "" {
				c.Diffs = append(c.Diffs, Diff{
					Name: w.Name, New: w.Value, NewRaw: w.Raw, Cause: Intent,
					Secret: w.Secret,
				})
			}
		}
	default:
		c.Adopt = !managed || another(last, live)
		if c.Diffs, c.Extra = Compare(c.Base(), live, c.Want); len(c.Diffs) > 0 {
			c.Action = Update
		}
	}
	c.noteSecrets()
	return c
}

// noteSecrets says which secrets apply leaves as they are because pipeline.hcl has no value for them.
func (c *Change) noteSecrets() {
	if c.Want == nil {
		return
	}
	for _, w := range c.Want.Attrs {
		_, live := c.Live.Get(w.Name)
		_, last := c.Base().Get(w.Name)
		switch {
		case w.Unset == "":
		case c.Action == Create:
			c.Note("created without %s: %s", w.Name, w.Unset)
		case live || last:
			c.Note("%s stays as it is: %s", w.Name, w.Unset)
		}
	}
	if c.Base() == nil || c.Live == nil {
		return
	}
	for _, a := range c.Last.Attrs {
		if _, wanted := c.Want.Get(a.Name); !wanted && a.Secret && a.Value != "" {
			c.Note("%s stays as it is: it is no longer in pipeline.hcl; %s = null removes it", a.Name, a.Name)
		}
	}
}

// Recorded is what goes into the ledger: the wanted state, and of what stays as it is, such as a secret that is unset,
// what the last apply had set. The object of a change that may make another one has no ID yet.
func (c *Change) Recorded() State {
	out := State{}
	if c.Live != nil && (c.Action == None || c.Action == Update) {
		out.ID = c.Live.ID
	}
	for _, name := range c.Held {
		if last, known := c.Base().Get(name); known {
			out.Attrs = append(out.Attrs, last)
		}
	}
	for _, w := range c.Want.Attrs {
		if slices.Contains(c.Held, w.Name) {
			continue
		}
		if w.Unset != "" {
			last, known := c.Base().Get(w.Name)
			if w = last; !known {
				continue
			}
		}
		out.Attrs = append(out.Attrs, w)
	}
	return out
}

// another tells whether an object of Grafana is not the one that the last apply set: the file names another uid now.
func another(last, is *State) bool {
	was, known := last.Get("uid")
	uid, _ := is.Get("uid")
	return known && was.Value != uid.Value
}

// recreated tells whether the object of the last apply was deleted since, and another one of its name was made.
func recreated(last, live *State) bool {
	return last != nil && live != nil && last.ID != "" && live.ID != "" && last.ID != live.ID
}

// DeletedOutside tells whether an object is to be created that the last apply had set.
func (c Change) DeletedOutside() bool {
	return c.Action == Create && c.Ours && !another(c.Last, c.Want)
}

// Base is what the last apply set on the live object: nil when that is to be adopted.
func (c *Change) Base() *State {
	if c.Adopt {
		return nil
	}
	return c.Last
}

// Diff returns the difference of an attribute.
func (c *Change) Diff(name string) (Diff, bool) {
	i := slices.IndexFunc(c.Diffs, func(d Diff) bool { return d.Name == name })
	if i < 0 {
		return Diff{}, false
	}
	return c.Diffs[i], true
}

// Find adds a finding about an attribute, or about the whole object when attr is "".
func (c *Change) Find(code Code, attr, format string, args ...any) *Finding {
	c.Findings = append(c.Findings, Finding{
		Code: code.ID, Class: code.Class, Attr: attr,
		Text: fmt.Sprintf(format, args...),
	})
	return &c.Findings[len(c.Findings)-1]
}

// Note adds a remark.
func (c *Change) Note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// Class is the worst class of the findings.
func (c Change) Class() Class {
	worst := Safe
	for _, f := range c.Findings {
		if severity[f.Class] > severity[worst] {
			worst = f.Class
		}
	}
	return worst
}

// Impossible tells whether the change cannot be done.
func (c Change) Impossible() bool { return c.Class() == Impossible }

// Wait marks what apply will leave out because of another change: what depends on one that cannot be done, and the
// deletion of what is still needed by one that cannot be deleted. All depends on the engine's tables, which hold the
// marks.
func (p Plan) Wait() {
	next := map[string][]int{} // by address: the changes that wait when that one is left out
	for i, c := range p.Changes {
		for _, d := range append([]string{EngineAddress}, c.Depends...) {
			next[d] = append(next[d], i)
		}
	}
	members := map[string][]int{}
	for i, c := range p.Changes {
		if c.Group != "" {
			members[c.Group] = append(members[c.Group], i)
		}
	}
	byAddress := map[string]int{}
	for i, c := range p.Changes {
		byAddress[c.Address] = i
	}
	var hold func(i int)
	mark := func(i int, by string) {
		if c := &p.Changes[i]; c.Changes() && c.Waits == "" && !c.Impossible() && c.Address != by {
			c.Waits = by
			hold(i)
		}
	}
	hold = func(i int) {
		c := p.Changes[i]
		for _, j := range members[c.Group] {
			mark(j, c.Address)
		}
		if c.Action != Delete {
			for _, j := range next[c.Address] {
				if p.Changes[j].Action != Delete {
					mark(j, c.Address)
				}
			}
			return
		}
		for _, d := range append([]string{EngineAddress}, c.Depends...) {
			if j, known := byAddress[d]; known && p.Changes[j].Action == Delete {
				mark(j, c.Address)
			}
		}
	}
	for i, c := range p.Changes {
		if c.Impossible() {
			hold(i)
		}
	}
}

// Drifted tells whether somebody changed the object outside.
func (c Change) Drifted() bool {
	return slices.ContainsFunc(c.Diffs, func(d Diff) bool { return d.Cause == Drift || d.Cause == Both })
}

// Changes tells whether apply has something to do with it.
func (c Change) Changes() bool { return c.Action != None }

// Marks tells whether apply has only the ledger to bring up to date: an object to adopt that agrees already, or a
// setting that pipeline.hcl now declares as it is.
func (c Change) Marks() bool {
	if c.Action != None || c.Want == nil {
		return c.Action == None && c.Live == nil && c.Ours // it is gone already
	}
	record := c.Recorded()
	return !c.Ours || recreated(c.Last, c.Live) || record.Fingerprint() != c.Last.Fingerprint()
}

// Kind is the first part of the address.
func (c Change) Kind() string {
	kind, _, _ := strings.Cut(c.Address, ".")
	return kind
}

// Read is what was read of one system.
type Read struct {
	System   string  `json:"system"` // "Kafka", "PostgreSQL", "Grafana"
	Text     string  `json:"text"`   // where and how much: "127.0.0.1:9092: 14 topics"
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
	LeftOut  bool    `json:"left_out,omitempty"` // it was not read: Text says why
}

// ReadError is a resource that could not be read: the rest of the plan stands without it.
type ReadError struct {
	Address string `json:"address"`
	Text    string `json:"text"`
}

// Plan is all changes, in the order in which they would be applied.
type Plan struct {
	Targets []string `json:"-"` // none: all of pipeline.hcl
	Servers Servers  `json:"servers"`
	Moved   []Moved  `json:"moved,omitempty"` // servers that are not those of the last apply
	Notes   []string `json:"notes,omitempty"`
	Reads   []Read   `json:"reads,omitempty"`
	Changes []Change `json:"changes"`
	// addresses of objects that exist, that pipeline.hcl does not declare
	Unmanaged []string    `json:"unmanaged,omitempty"`
	Orphans   []string    `json:"orphans,omitempty"` // ours once, no block any more: left alone
	Errors    []ReadError `json:"errors,omitempty"`
}

// Count returns the number of changes with one of these actions.
func (p Plan) Count(actions ...Action) int {
	n := 0
	for _, c := range p.Changes {
		if slices.Contains(actions, c.Action) {
			n++
		}
	}
	return n
}

// Pending returns the number of changes that apply would make, impossible ones included.
func (p Plan) Pending() int { return p.Count(Create, Update, Replace, Delete) }

// ExitCode is plan's with --detailed-exitcode: 0 nothing, 1 error, 2 changes, 3 changes that destroy data or cannot be
// done.
func (p Plan) ExitCode() int {
	code := 0
	for _, c := range p.Changes {
		switch class := c.Class(); {
		case class == Destroys || class == Impossible:
			code = 3
		case c.Changes():
			code = max(code, 2)
		}
	}
	if len(p.Errors) > 0 {
		return 1
	}
	return code
}

// Target keeps the changes of these addresses and of what they depend on. An address that the plan lacks is an error.
func (p Plan) Target(addresses []string) (Plan, error) {
	byAddress := map[string]Change{}
	for _, c := range p.Changes {
		byAddress[c.Address] = c
	}
	keep := map[string]bool{}
	var add func(string)
	add = func(a string) {
		if keep[a] {
			return
		}
		keep[a] = true
		for _, d := range byAddress[a].Depends {
			add(d)
		}
		for _, c := range p.Changes { // one transaction
			if c.Group != "" && c.Group == byAddress[a].Group {
				add(c.Address)
			}
		}
	}
	for _, a := range addresses {
		if i := slices.IndexFunc(p.Errors, func(e ReadError) bool { return e.Address == a }); i >= 0 {
			return p, fmt.Errorf("--target %s: it could not be read: %s", a, p.Errors[i].Text)
		}
		if _, known := byAddress[a]; !known {
			return p, fmt.Errorf("--target %s: pipeline.hcl declares no such object", a)
		}
		add(a)
	}
	if byAddress[EngineAddress].Action == Create {
		add(EngineAddress)
	}
	p.Changes = slices.DeleteFunc(slices.Clone(p.Changes), func(c Change) bool { return !keep[c.Address] })
	p.Unmanaged, p.Orphans, p.Targets = nil, nil, addresses
	return p, nil
}
