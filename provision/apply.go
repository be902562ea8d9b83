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

	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// parallel is how many objects are read, assessed or applied at once.
const parallel = 8

// ledgerTime is how long one write into the ledger may take.
const ledgerTime = 10 * time.Second

// Options of Apply.
type Options struct {
	Allow    plan.Consents // what the user agreed to lose
	Moved    []string      // systems that are another server on purpose: "Kafka", "Grafana"
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
	Refused Outcome = "refused" // the object, or pipeline.hcl, changed since the plan
	Skipped Outcome = "skipped" // impossible, not consented to, interrupted, or what it depends on did not succeed
	Left    Outcome = "left"    // a change that was not in the plan
)

// Result is one line of the report. A change that was made in part has two: what was made, and what was not.
type Result struct {
	Address  string
	Outcome  Outcome
	Reason   string       // for all but Done, and for what was not recorded
	Since    []plan.Since // refused: what changed since the plan
	Recorded bool         // done: the ledger has it, too
	Took     time.Duration
}

// made tells whether the change is there now.
func (r Result) made() bool { return r.Outcome == Done }

// complete tells whether nothing is left to be done or said.
func (r Result) complete() bool { return r.Outcome == Left || r.Outcome == Done && r.Recorded }

// ErrIncomplete means that some changes were not made; the report says which and why.
var ErrIncomplete = errors.New("not everything was applied")

// Apply makes what a plan that was just shown says. It is the agreement that was never written down.
func (s *Stack) Apply(ctx context.Context, p plan.Plan, opt Options) ([]Result, error) {
	return s.ApplyAgreed(ctx, plan.Agree(p), opt)
}

// ApplyAgreed does what was agreed to, under the advisory lock. It plans again from pipeline.hcl and the servers, and
// makes the changes that this second plan finds, each only if the agreement covers it: one that changed since is
// refused, and so is what depends on it; the others go on. Nothing that the agreement says is ever executed.
// Interrupted at any point, the next apply continues.
func (s *Stack) ApplyAgreed(ctx context.Context, a plan.Agreement, opt Options) ([]Result, error) {
	ctx, release, err := s.lock(ctx)
	if err != nil {
		return nil, wrapConnError(err)
	}
	defer release()
	results, err := s.applyLocked(ctx, a, opt)
	if cause := context.Cause(ctx); cause != nil && err != nil && !errors.Is(err, ErrIncomplete) {
		return results, cause // interrupted, or the lock is lost: whatever failed by it says only "context canceled"
	}
	return results, wrapConnError(err)
}

// applyLocked is ApplyAgreed once the lock is held.
func (s *Stack) applyLocked(ctx context.Context, a plan.Agreement, opt Options) ([]Result, error) {
	b, fresh, err := s.plan(ctx)
	if err != nil {
		return nil, err
	}
	if b.refused != nil {
		return nil, b.refused // the ledger takes nothing either
	}
	if err := CheckServers(a, fresh, opt.Moved); err != nil {
		return nil, err
	}
	run := &applying{
		stack: s, opt: opt, outcome: map[string]Outcome{}, changes: map[string]plan.Change{},
		kept: map[string]Result{}, servers: fresh.Servers,
	}
	todo := run.compare(ctx, a, fresh)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, c := range todo {
		run.changes[c.Address] = c
	}
	for _, level := range levels(todo) {
		group := errgroup.Group{}
		group.SetLimit(parallel)
		for _, c := range level {
			group.Go(func() error { run.one(ctx, c); return nil })
		}
		_ = group.Wait()
	}
	if err := run.finish(ctx, b, fresh); err != nil {
		return run.results, err
	}
	if slices.ContainsFunc(run.results, func(r Result) bool { return !r.complete() }) {
		return run.results, ErrIncomplete
	}
	return run.results, nil
}

// finish brings the ledger up to date after the changes; also after an interruption, unless another apply may have
// begun.
func (run *applying) finish(ctx context.Context, b *baseline, before plan.Plan) error {
	interrupted := ctx.Err()
	if interrupted != nil {
		if errors.Is(context.Cause(ctx), ledger.ErrLockLost) {
			return interrupted
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), ledgerTime)
		defer cancel()
	}
	if err := run.consequences(ctx, b, before); err != nil {
		return cmp.Or(interrupted, err)
	}
	return cmp.Or(interrupted, run.stack.Ledger.FillIn(ctx, before.Servers, run.stack.pipeline.Name))
}

// CheckServers refuses an agreement of other servers, and servers that are not those of the last apply, unless they
// moved on purpose.
func CheckServers(a plan.Agreement, fresh plan.Plan, moved []string) error {
	var list []string
	for _, m := range a.Servers.Moved(fresh.Servers) {
		list = append(list, m.String())
	}
	if len(list) > 0 {
		return fmt.Errorf("the plan was made on other servers: %s. Nothing was changed; plan again on these",
			strings.Join(list, "; "))
	}
	var systems []string
	for _, m := range fresh.Moved {
		if !slices.Contains(moved, m.System) {
			list, systems = append(list, m.String()), append(systems, "--moved "+strings.ToLower(m.System))
		}
	}
	if len(list) > 0 {
		return fmt.Errorf("this is not where the last apply was: %s. Nothing was changed. If it moved on purpose: "+
			"cryptoviz apply %s",
			strings.Join(list, "; "), strings.Join(systems, " "))
	}
	return nil
}

type applying struct {
	stack   *Stack
	opt     Options
	servers plan.Servers
	changes map[string]plan.Change
	kept    map[string]Result // of a change that is made in part: what is left as it is

	mu      sync.Mutex
	outcome map[string]Outcome
	results []Result
}

// compare takes from the fresh plan what the agreement covers. What it does not is refused; what was not agreed to is
// left alone.
func (run *applying) compare(ctx context.Context, a plan.Agreement, fresh plan.Plan) (todo []plan.Change) {
	consents := slices.Concat(a.Consents, run.opt.Allow).AsShown(a.Plan().Changes)
	agreed := map[string]plan.Agreed{}
	for _, x := range a.Changes {
		agreed[x.Address] = x
	}
	scope := func(string) bool { return true }
	if len(a.Targets) > 0 {
		scoped, err := fresh.Target(a.Targets)
		scope = func(address string) bool {
			return err == nil && slices.ContainsFunc(scoped.Changes, func(c plan.Change) bool {
				return c.Address == address
			})
		}
	}
	found := map[string]bool{}
	for _, c := range fresh.Changes {
		x, known := agreed[c.Address]
		found[c.Address] = true
		if c.Changes() {
			run.changes[c.Address] = c // also one that is refused or left: what is made together with it is not made
		}
		switch since := plan.Covers(x, c, consents); {
		case !known && c.Changes() && scope(c.Address):
			run.end(Event{Change: c}, Result{Address: c.Address, Outcome: Left, Reason: "it was not in the plan"})
		case !known, x.Action == plan.None && !c.Changes() && !c.Marks():
		case len(since) > 0:
			run.refuse(c, since)
		case !c.Changes() && !c.Marks():
			run.end(Event{Change: c}, Result{Address: c.Address, Outcome: Done, Reason: "already so", Recorded: true})
		default:
			c.Consents = consents
			todo = append(todo, run.split(ctx, x, c))
		}
	}
	for _, e := range fresh.Errors {
		if x, known := agreed[e.Address]; known {
			found[e.Address] = true
			run.end(Event{Change: plan.Change{Address: e.Address, Action: x.Action}}, Result{
				Address: e.Address, Outcome: Failed, Reason: "read it again before changing it: " + e.Text,
			})
		}
	}
	for _, x := range a.Changes {
		if !found[x.Address] && x.Action != plan.None {
			gone := plan.Since{What: "block", Old: "declared when the plan was made", New: "gone"}
			run.refuse(plan.Change{Address: x.Address, Action: x.Action}, []plan.Since{gone})
		}
	}
	return todo
}

func (run *applying) refuse(c plan.Change, since []plan.Since) {
	what := "changed"
	if since[0].What == "pipeline.hcl" || since[0].What == "block" {
		what = "pipeline.hcl changed"
	}
	run.end(Event{Change: c}, Result{
		Address: c.Address, Outcome: Refused, Reason: what + " since the plan was made; run plan again", Since: since,
	})
}

// split takes out of a change what lacks consent, so that it holds back only itself. What is left is assessed again. A
// change that cannot be made without it stays as it is, and is skipped as a whole.
func (run *applying) split(ctx context.Context, x plan.Agreed, c plan.Change) plan.Change {
	missing := c.Consents.Missing(c)
	if len(missing) == 0 || c.Group != "" || c.Impossible() || c.Action != plan.Update && c.Action != plan.Replace {
		return c
	}
	var attrs []string
	for _, f := range missing {
		if _, differs := c.Diff(f.Attr); !differs {
			return c // it is about the whole object
		}
		if !slices.Contains(attrs, f.Attr) {
			attrs = append(attrs, f.Attr)
		}
	}
	part := c.Without(attrs)
	if !part.Changes() {
		return c
	}
	reason := fmt.Sprintf("%s left as it is: %s", strings.Join(attrs, ", "), c.Consents.Lacking(c))
	if err := part.Assess(ctx, &part); err != nil || part.Impossible() || len(part.Consents.Missing(part)) > 0 {
		return c
	}
	whole := part
	whole.Want = c.Want
	if len(plan.Covers(x, whole, c.Consents)) > 0 {
		return c
	}
	run.kept[c.Address] = Result{Address: c.Address, Outcome: Skipped, Reason: reason}
	return part
}

// levels orders changes: the engine's schema first, since it holds the ledger; then each after what it depends on;
// deletions last, each before what it depends on.
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
		if address == plan.EngineAddress {
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

// one makes one change, unless something forbids it.
func (run *applying) one(ctx context.Context, c plan.Change) {
	if reason := run.forbidden(ctx, c); reason != "" {
		run.end(Event{Change: c}, Result{Address: c.Address, Outcome: Skipped, Reason: reason})
		return
	}
	run.tell(Event{Change: c})
	started := time.Now()
	r := Result{Address: c.Address, Outcome: Done}
	err := run.do(ctx, c)
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
		err = cause
	}
	switch more, grew := errors.AsType[plan.More](err); {
	case grew:
		run.refuse(c, []plan.Since{more.Since()})
		return
	case err != nil:
		r.Outcome, r.Reason = Failed, err.Error()
	default:
		if r.Recorded, err = true, run.record(ctx, c); err != nil {
			r.Recorded, r.Reason = false, fmt.Sprintf("done, not recorded: %v; the next plan adopts it", err)
		}
	}
	r.Took = time.Since(started)
	run.end(Event{Change: c, Took: r.Took, Err: err}, r)
	if kept, split := run.kept[c.Address]; split && r.made() {
		run.mu.Lock()
		run.results = append(run.results, kept)
		run.mu.Unlock()
	}
}

// do makes the change.
func (run *applying) do(ctx context.Context, c plan.Change) error {
	if !c.Changes() {
		return nil
	}
	return wrapConnErrorOf(c.Address, c.Make(ctx))
}

// record writes the ledger row at once, so that an interruption leaves nothing unrecorded.
func (run *applying) record(ctx context.Context, c plan.Change) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTime)
	defer cancel()
	if c.Want == nil {
		return wrapConnError(run.stack.Ledger.Forget(ctx, c.Address))
	}
	e := ledger.Entry{
		State: c.Recorded(), Server: run.servers.Place(c.Address), Pipeline: run.stack.pipeline.Name,
	}
	return wrapConnError(run.stack.Ledger.Put(ctx, c.Address, e, run.opt.By, run.opt.Version))
}

func (run *applying) forbidden(ctx context.Context, c plan.Change) string {
	switch {
	case errors.Is(context.Cause(ctx), ledger.ErrLockLost):
		return ledger.ErrLockLost.Error()
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
	for _, one := range run.together(c) {
		if lacking := one.Consents.Lacking(one); lacking != "" {
			return lacking
		}
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	for _, one := range run.together(c) {
		o, known := run.outcome[one.Address]
		if leads := c.Address == c.Group; one.Address != c.Address && (leads && known || leads && one.Impossible() ||
			one.Address == c.Group && o != Done) {
			return fmt.Sprintf("it is done together with %s, which was not applied", one.Address)
		}
	}
	if c.Action != plan.Delete {
		for _, d := range append([]string{plan.EngineAddress}, c.Depends...) {
			if o, known := run.outcome[d]; known && o != Done {
				return fmt.Sprintf("it depends on %s, which was not applied", d)
			}
		}
		return ""
	}
	for other, o := range run.outcome {
		x := run.changes[other]
		needs := slices.Contains(x.Depends, c.Address) && x.Kind() != "role" // privileges go with what they are on
		needs = needs || c.Address == plan.EngineAddress && x.Want == nil    // it holds the ledger of what is left
		if o != Done && needs {
			return fmt.Sprintf("%s still needs it", other)
		}
	}
	return ""
}

// together lists the change, and those that are made in the same transaction.
func (run *applying) together(c plan.Change) []plan.Change {
	out := []plan.Change{c}
	for _, m := range run.changes {
		if c.Group != "" && m.Group == c.Group && m.Address != c.Address {
			out = append(out, m)
		}
	}
	return out
}

func (run *applying) tell(e Event) {
	if run.opt.Progress == nil {
		return
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	run.opt.Progress(e)
}

func (run *applying) end(e Event, r Result) {
	run.mu.Lock()
	if r.Outcome != Left || e.Change.Group != "" {
		run.outcome[r.Address] = r.Outcome
	}
	run.results = append(run.results, r)
	run.mu.Unlock()
	e.Outcome = r.Outcome
	if e.Err == nil && r.Reason != "" {
		e.Err = errors.New(r.Reason)
	}
	run.tell(e)
}
