package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale"
)

// parallel is how many objects are read, judged or applied at once.
const parallel = 8

// ledgerTime is how long one write of our mark may take.
const ledgerTime = 10 * time.Second

// Options of Apply.
type Options struct {
	Allow    plan.Consents // destroying findings that the user agreed to
	By       string        // who applies: goes into the ledger
	Version  string        // of cryptoviz
	Progress func(Event)   // one at a time; nil: none
}

// Event tells of one change while it is applied: first without Outcome, then with it.
type Event struct {
	Change  plan.Change
	Outcome Outcome // "" while it begins
	Took    time.Duration
	Err     error
}

// Outcome is how one change ended.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Failed  Outcome = "failed"
	Refused Outcome = "refused" // the object, or pipeline.hcl, moved since the plan
	Skipped Outcome = "skipped" // impossible, not consented to, interrupted, or what it depends on did not succeed
)

// Result is one line of the report.
type Result struct {
	Address string
	Outcome Outcome
	Reason  string      // for all but Done
	Since   []plan.Diff // refused: what moved since the plan
	Took    time.Duration
}

// ErrIncomplete means that some changes were not made; the report says which and why.
var ErrIncomplete = errors.New("not everything was applied")

// Apply carries out a plan under the advisory lock. Every object is read again before: one that moved since the plan is
// refused, and so is what depends on it; the rest goes on. Interrupted at any point, the next Apply does the rest.
func (w *World) Apply(ctx context.Context, p plan.Plan, opt Options) ([]Result, error) {
	ctx, release, err := w.lock(ctx)
	if err != nil {
		return nil, lost(err)
	}
	defer release()
	run := &applying{World: w, opt: opt, outcome: map[string]Outcome{}, byAddress: map[string]plan.Resource{}, changes: map[string]plan.Change{}}
	for _, r := range w.Resources {
		run.byAddress[r.Address()] = r
	}
	todo := slices.DeleteFunc(slices.Clone(p.Changes), func(c plan.Change) bool { return !c.Changes() && !c.Marks() })
	for _, c := range todo {
		run.changes[c.Address] = c
	}
	if todo, err = run.recheck(ctx, todo); err != nil {
		return run.results, err
	}
	before, err := w.states(ctx, dependent)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	for _, level := range levels(todo) {
		group := errgroup.Group{}
		group.SetLimit(parallel)
		for _, c := range level {
			group.Go(func() error { run.one(ctx, c); return nil })
		}
		_ = group.Wait()
	}
	for _, s := range w.Systems {
		s.Reset()
	}
	if ctx.Err() != nil {
		return run.results, context.Cause(ctx)
	}
	if err := run.consequences(ctx, before); err != nil {
		return run.results, cmp.Or(context.Cause(ctx), lost(err))
	}
	if slices.ContainsFunc(run.results, func(r Result) bool { return r.Outcome != Done }) {
		return run.results, ErrIncomplete
	}
	return run.results, nil
}

type applying struct {
	*World
	opt       Options
	byAddress map[string]plan.Resource
	changes   map[string]plan.Change

	mu      sync.Mutex
	outcome map[string]Outcome
	results []Result
}

// recheck reads what the plan touches again, refuses what moved, and leaves out what cannot be read.
func (a *applying) recheck(ctx context.Context, todo []plan.Change) ([]plan.Change, error) {
	for _, s := range a.Systems {
		s.Reset()
	}
	if err := a.prepare(ctx); err != nil {
		return nil, cmp.Or(context.Cause(ctx), lost(err))
	}
	results := make([]Result, len(todo))
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for i, c := range todo {
		results[i].Address = c.Address
		r := a.byAddress[c.Address]
		if r == nil {
			results[i].Since = []plan.Diff{{Name: "block", Old: "declared when the plan was made", New: "gone"}}
			continue
		}
		group.Go(func() error {
			live, err := r.Read(ctx)
			if err != nil {
				results[i].Outcome, results[i].Reason = Failed, fmt.Sprintf("read it again before changing it: %v", lostBy(c.Address, err))
				return nil
			}
			results[i].Since = since(c, live, r.Want())
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var out []plan.Change
	for i, c := range todo {
		switch r := results[i]; {
		case r.Outcome == Failed:
			a.end(Event{Change: c}, r)
		case len(r.Since) > 0:
			r.Outcome, r.Reason = Refused, "it moved since the plan: plan again"
			a.end(Event{Change: c}, r)
		default:
			out = append(out, c)
		}
	}
	return out, nil
}

// since lists what moved since the plan: of the live object, or of pipeline.hcl.
func since(c plan.Change, live, want *plan.State) (out []plan.Diff) {
	if c.Live != nil && live != nil && c.Live.ID != live.ID && c.Live.ID != "" && live.ID != "" { // what the plan counted is gone
		out = append(out, plan.Diff{Name: "object", Old: "there", New: "deleted, and another made of the same name"})
	}
	if c.Live.Fingerprint() != live.Fingerprint() {
		switch {
		case live == nil:
			out = append(out, plan.Diff{Name: "object", Old: "there", New: "gone"})
		case c.Live == nil:
			out = append(out, plan.Diff{Name: "object", Old: "missing", New: "there"})
		default:
			diffs, extra := plan.Compare(nil, c.Live, live)
			for _, d := range diffs {
				if d.Origin == "" {
					out = append(out, d)
				}
			}
			for _, e := range extra {
				out = append(out, plan.Diff{Name: e.Name, Old: e.Value, Secret: e.Secret})
			}
		}
	}
	if c.Want.Fingerprint() != want.Fingerprint() {
		out = append(out, plan.Diff{Name: "pipeline.hcl", Old: "as planned", New: "says something else now"})
	}
	return out
}

// levels orders changes: the engine's schema first, since it holds the ledger; then each after what it depends on; deletions
// last, each before what it depends on.
func levels(todo []plan.Change) [][]plan.Change {
	byAddress := map[string]plan.Change{}
	for _, c := range todo {
		byAddress[c.Address] = c
	}
	depth := map[string]int{}
	var of func(string) int
	of = func(address string) int {
		if n, known := depth[address]; known {
			return n
		}
		depth[address] = 1 // a circle ends here
		n := 1
		for _, d := range byAddress[address].Depends {
			if _, pending := byAddress[d]; pending {
				n = max(n, of(d)+1)
			}
		}
		if address == timescale.EngineAddress {
			n = 0
		}
		depth[address] = n
		return n
	}
	var makes, deletes [][]plan.Change
	put := func(list [][]plan.Change, n int, c plan.Change) [][]plan.Change {
		for len(list) <= n {
			list = append(list, nil)
		}
		list[n] = append(list[n], c)
		return list
	}
	for _, c := range todo {
		if c.Action == plan.Delete {
			deletes = put(deletes, of(c.Address), c)
		} else {
			makes = put(makes, of(c.Address), c)
		}
	}
	slices.Reverse(deletes)
	return append(makes, deletes...)
}

// one carries out one change, unless something forbids it.
func (a *applying) one(ctx context.Context, c plan.Change) {
	if reason := a.forbidden(ctx, c); reason != "" {
		a.end(Event{Change: c}, Result{Address: c.Address, Outcome: Skipped, Reason: reason})
		return
	}
	a.tell(Event{Change: c})
	started := time.Now()
	err := a.do(ctx, c)
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
		err = cause
	}
	took := time.Since(started)
	r := Result{Address: c.Address, Outcome: Done, Took: took}
	if err != nil {
		r.Outcome, r.Reason = Failed, err.Error()
	}
	a.end(Event{Change: c, Took: took, Err: err}, r)
}

// do applies the change, and sets our mark at once, so that an interruption leaves nothing unmarked.
func (a *applying) do(ctx context.Context, c plan.Change) error {
	if c.Changes() {
		if err := a.byAddress[c.Address].Apply(ctx, c); err != nil {
			return lostBy(c.Address, err)
		}
	}
	mark := context.WithoutCancel(ctx)
	mark, cancel := context.WithTimeout(mark, ledgerTime)
	defer cancel()
	if c.Action == plan.Delete {
		return lost(a.Ledger.Forget(mark, c.Address))
	}
	return lost(a.Ledger.Put(mark, c.Address, c.Recorded(), a.opt.By, a.opt.Version))
}

func (a *applying) forbidden(ctx context.Context, c plan.Change) string {
	switch {
	case errors.Is(context.Cause(ctx), timescale.ErrLockLost):
		return timescale.ErrLockLost.Error()
	case ctx.Err() != nil:
		return "interrupted"
	}
	if c.Impossible() {
		for _, f := range c.Findings {
			if f.Class == plan.Impossible {
				return f.Code + " impossible: " + f.Text
			}
		}
	}
	if missing := a.opt.Allow.Missing(c); len(missing) > 0 {
		return fmt.Sprintf("it destroys data: --allow %s@%s agrees to it", missing[0].Code, c.Address)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.Action != plan.Delete {
		for _, d := range append([]string{timescale.EngineAddress}, c.Depends...) {
			if o, known := a.outcome[d]; known && o != Done && (!a.changes[d].Impossible() || a.changes[d].Holds()) {
				return fmt.Sprintf("it depends on %s, which was not applied", d)
			}
		}
		return ""
	}
	for other, r := range a.byAddress {
		needs := slices.Contains(r.DependsOn(), c.Address) && !strings.HasPrefix(other, "role.") // privileges go with what they are on
		needs = needs || c.Address == timescale.EngineAddress && r.Want() == nil                 // it holds the marks of what is left
		if o, known := a.outcome[other]; known && o != Done && needs {
			return fmt.Sprintf("%s still needs it", other)
		}
	}
	return ""
}

func (a *applying) tell(e Event) {
	if a.opt.Progress == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opt.Progress(e)
}

func (a *applying) end(e Event, r Result) {
	a.mu.Lock()
	a.outcome[r.Address] = r.Outcome
	a.results = append(a.results, r)
	a.mu.Unlock()
	e.Outcome = r.Outcome
	if e.Err == nil && r.Reason != "" {
		e.Err = errors.New(r.Reason)
	}
	a.tell(e)
}
