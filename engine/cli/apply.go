package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/terminal"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newApply() *cobra.Command {
	var approved bool
	var allow, targets, moved []string
	c := &cobra.Command{
		Use:   "apply [FILE]",
		Short: "Make Kafka, PostgreSQL and Grafana match pipeline.hcl",
		Long: `Show the plan, ask, and make the changes. With FILE: only what the plan that plan --out saved agrees to.

A plan says what was agreed to, never what to execute. Under its lock, which one apply at a time holds, apply plans
again from pipeline.hcl and the servers, and makes a change only where this is the same as what was agreed to, or
milder. What changed since the plan is refused, with what changed; the others go on. Data that is lost is counted
again just before, and more than was agreed to means that nothing of that object is done. A failure stops what depends
on it and nothing else. It may be interrupted at any point: run apply again to continue.

Changes that destroy data are left out, whatever --auto-approve says, until each is allowed by its code, its address
and how much may go, as the plan shows them: --allow CV-K07@topic.binance=110. Without =110 it is what this plan shows
and 10 % more; =all sets no limit, and is the only consent to a loss that could not be counted. One change that lacks
consent holds back only itself: the others of its table are made. Where nobody can answer, as in CI, --auto-approve is
needed for the others.

The ledger knows which Kafka cluster and which Grafana the last apply was on. On other ones apply refuses, unless
--moved says that they moved on purpose: then what exists there is adopted, and what is missing created.`,
		Example: `  cryptoviz apply                                           asks
  cryptoviz apply --auto-approve                            does not ask
  cryptoviz apply --allow CV-K07@topic.binance=110          agrees to lose up to 110 records
  cryptoviz plan --out today.plan && cryptoviz apply today.plan
  cryptoviz apply --target table.raw_crypto_data            one object, with what it depends on
  cryptoviz apply --moved kafka                             the topics live on another cluster now`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			consents, err := parseAllow(allow)
			if err != nil {
				return err
			}
			opt := provision.Options{Allow: consents}
			if opt.Moved, err = parseMoved(moved); err != nil {
				return err
			}
			var agreed *plan.Agreement
			if len(args) == 1 {
				if len(targets) > 0 {
					return errors.New("--target belongs to plan: the file holds its own")
				}
				if agreed, err = readPlan(args[0]); err != nil {
					return err
				}
				if err := e.samePipeline(args[0], agreed.Pipeline); err != nil {
					return err
				}
				targets = agreed.Targets
			}
			w, err := e.stack(cmd.Context())
			if err != nil {
				return err
			}
			defer w.close()
			found, err := w.plan(cmd.Context(), nil)
			if err != nil {
				return err
			}
			all := found
			if agreed == nil && len(targets) > 0 {
				if found, err = found.Target(targets); err != nil {
					return err
				}
			}
			if agreed == nil {
				a := plan.Agree(found)
				agreed = &a
			} else {
				if err := provision.CheckServers(*agreed, all, opt.Moved); err != nil {
					return err
				}
				found = agreed.Of(found)
			}
			if err := found.Print(terminal.Draw(e.Stdout), e.style(false)); err != nil {
				return err
			}
			if err := provision.CheckServers(*agreed, all, opt.Moved); err != nil {
				return err
			}
			return w.carryOut(cmd.Context(), found, *agreed, opt, approved)
		},
	}
	f := c.Flags()
	f.BoolVar(&approved, "auto-approve", false, "do not ask; never covers what destroys data")
	f.StringArrayVar(&allow, "allow", nil, "agree to lose data, `CODE@ADDRESS=NUMBER`; may be repeated")
	f.StringArrayVar(&targets, "target", nil, "apply this `ADDRESS` alone, with what it depends on; may be repeated")
	f.StringArrayVar(&moved, "moved", nil,
		"the `SYSTEM`, kafka or grafana, is another one than that of the last apply, on purpose; may be repeated")
	return c
}

func readPlan(name string) (*plan.Agreement, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	defer func() { _ = f.Close() }()
	agreed, err := plan.ReadAgreement(f)
	if err != nil {
		return nil, fmt.Errorf("read the plan %s: %w", name, err)
	}
	return &agreed, nil
}

// samePipeline refuses a saved plan of another pipeline. One that was made on another machine may have another path.
func (e *env) samePipeline(file, made string) error {
	then, err := os.Stat(made)
	if err != nil {
		return nil
	}
	if now, err := os.Stat(e.file); err != nil || os.SameFile(then, now) {
		return nil
	}
	return fmt.Errorf("%s is a plan of %s, and this is %s: add --file %s", file, made, e.file, made)
}

func parseAllow(list []string) (plan.Consents, error) {
	var out plan.Consents
	for _, text := range list {
		k, err := plan.ParseConsent(text, provision.Codes())
		if err != nil {
			return nil, fmt.Errorf("--allow %s: %w", units.Clip(text), err)
		}
		out = append(out, k)
	}
	return out, nil
}

// parseMoved reads names of systems.
func parseMoved(list []string) (out []string, err error) {
	for _, text := range list {
		switch strings.ToLower(text) {
		case "kafka":
			out = append(out, "Kafka")
		case "grafana":
			out = append(out, "Grafana")
		default:
			return nil, fmt.Errorf("--moved %s: write kafka or grafana. The ledger moves with its database",
				units.Clip(text))
		}
	}
	return out, nil
}

// carryOut asks and applies. What cannot be done, or is not consented to, is left out and said.
func (w *openStack) carryOut(ctx context.Context, found plan.Plan, agreed plan.Agreement, opt provision.Options,
	approved bool,
) error {
	consents := slices.Concat(agreed.Consents, opt.Allow).AsShown(agreed.Plan().Changes)
	saved := !agreed.Made.IsZero() // then what changed since is refused, and said
	doable, only := 0, 0
	needed := map[string]bool{}
	for _, c := range found.Changes {
		for _, k := range c.Needs() {
			needed[k.Code+"@"+c.Address] = true
		}
		switch {
		case !agreed.Covers(c, consents):
		case c.Marks():
			only++
		case c.Changes() && !c.Impossible() && (len(consents.Missing(c)) == 0 || consents.Some(c)):
			doable++
		}
	}
	for _, k := range opt.Allow {
		if !needed[k.Code+"@"+k.Address] {
			w.env.note("Note: --allow %s: nothing in this plan needs it.", k)
		}
	}
	left := found.Pending() - doable
	switch {
	case doable == 0 && only == 0 && left > 0 && !saved:
		return fmt.Errorf("nothing was applied: %s", strings.Join(leftOut(found, consents), ", "))
	case doable == 0 && only == 0 && !agreed.Pending():
		return unread(found)
	}
	if doable > 0 && !approved {
		question := "\nApply these changes?"
		if left > 0 {
			question = fmt.Sprintf("\nApply the %s that can be made, and leave %d out?", count(doable, "change"), left)
		}
		yes, err := w.env.confirm(question, "yes")
		if err != nil {
			return err
		}
		if !yes {
			return errors.New("apply was not confirmed: nothing was touched. Without a terminal use --auto-approve")
		}
	}
	return w.apply(ctx, "apply", found, agreed, opt)
}

// leftOut says why changes are not made.
func leftOut(found plan.Plan, allow plan.Consents) (out []string) {
	impossible, destroys := 0, 0
	for _, c := range found.Changes {
		switch {
		case !c.Changes():
		case c.Impossible():
			impossible++
		case len(allow.Missing(c)) > 0:
			destroys++
		}
	}
	if impossible > 0 {
		out = append(out, count(impossible, "change")+" cannot be done")
	}
	if destroys > 0 {
		out = append(out, count(destroys, "change")+" would destroy data, and --allow does not name "+
			map[bool]string{true: "it", false: "them"}[destroys == 1])
	}
	return out
}

func unread(p plan.Plan) error {
	if len(p.Errors) > 0 {
		return fmt.Errorf("%s could not be read", count(len(p.Errors), "object"))
	}
	return nil
}

// apply makes the changes for a command, tells each one, and reports what was not done.
func (w *openStack) apply(ctx context.Context, command string, found plan.Plan, agreed plan.Agreement,
	opt provision.Options,
) error {
	started := time.Now()
	p := &applyProgress{env: w.env, since: map[string]time.Time{}}
	stop := p.watch()
	opt.By, opt.Version, opt.Progress = w.env.user(), w.env.Version, p.event
	results, err := w.stack.ApplyAgreed(ctx, agreed, opt)
	stop()
	done, left := 0, 0
	for _, r := range results {
		switch r.Outcome {
		case provision.Done:
			done++
		case provision.Left:
			left++
			if command == "apply" {
				w.env.note("Note: %s is left as it is: %s.", r.Address, r.Reason)
			}
		default: // not made
		}
	}
	undone := len(results) - done - left
	took := time.Since(started).Round(10 * time.Millisecond)
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted after %s; run %s again to continue", count(done, "change"), command)
	case errors.Is(err, provision.ErrIncomplete):
		w.report(found, results)
		remedy := "Fix the problems above, then run " + command + " again to finish"
		if slices.ContainsFunc(results, func(r provision.Result) bool { return r.Outcome == provision.Refused }) {
			remedy = "Run plan again"
		}
		return fmt.Errorf("%s made in %s, %d not. %s", count(done, "change"), took, undone, remedy)
	case err != nil && len(results) > 0:
		w.report(found, results)
		return fmt.Errorf("%s made in %s, %d not: %w", count(done, "change"), took, undone, err)
	case err != nil:
		return err
	}
	if p.said > 0 {
		if err := w.stack.Annotate(ctx, fmt.Sprintf("cryptoviz %s: %s by %s", command, count(p.said, "change"),
			w.env.user())); err != nil {
			w.env.note("Note: no annotation in Grafana: %v", err)
		}
		w.env.print("\n%s complete: %s in %s.\n", strings.ToUpper(command[:1])+command[1:], count(p.said, "change"),
			took)
	}
	return unread(found)
}

// report says, object by object in the plan's order, what was not done and why.
func (w *openStack) report(found plan.Plan, results []provision.Result) {
	place := map[string]int{}
	for i, c := range found.Changes {
		place[c.Address] = i
	}
	slices.SortStableFunc(results, func(a, b provision.Result) int {
		return cmp.Compare(place[a.Address], place[b.Address])
	})
	w.env.print("\nNot done:\n")
	for _, r := range results {
		var text string
		switch {
		case r.Outcome == provision.Left, r.Outcome == provision.Done && r.Recorded:
			continue
		case r.Outcome == provision.Done:
			text = r.Address + ": " + r.Reason
		default:
			text = fmt.Sprintf("%s %s: %s", r.Address, r.Outcome, r.Reason)
		}
		w.env.print("  %s\n", strings.ReplaceAll(fold(plan.Visible(text), int(w.env.width(w.env.Stdout))-4), "\n",
			"\n    "))
		for _, s := range r.Since {
			text := "since your plan: " + s.What + "  "
			if s.Old != "" {
				text += s.Old + " -> "
			}
			if text = plan.Visible(text + s.New); len(text) > int(w.env.width(w.env.Stdout))-6 {
				text = strings.ReplaceAll(fold(text, int(w.env.width(w.env.Stdout))-8), "\n", "\n        ")
			}
			w.env.print("      %s\n", text)
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// user names who applies, for the ledger.
func (e *env) user() string {
	who, _ := e.Getenv("USER")
	host, _ := os.Hostname()
	return strings.Trim(who+"@"+host, "@")
}

// applyProgress tells each change as it ends, and what takes more than two seconds while it does.
type applyProgress struct {
	env   *env
	mu    sync.Mutex
	since map[string]time.Time
	said  int
}

var verbs = map[plan.Action]string{
	plan.None: "adopted", plan.Create: "created", plan.Update: "changed",
	plan.Replace: "replaced", plan.Delete: "deleted",
}

func (p *applyProgress) event(ev provision.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ev.Outcome == "" {
		p.since[ev.Change.Address] = time.Now()
		return
	}
	delete(p.since, ev.Change.Address)
	if ev.Outcome == provision.Skipped || ev.Outcome == provision.Refused || ev.Outcome == provision.Left {
		return // the report tells why
	}
	if ev.Outcome == provision.Done && ev.Change.Action == plan.None && ev.Err != nil {
		p.env.print("%s: %v\n", ev.Change.Address, ev.Err)
		return
	}
	if ev.Change.Action == plan.None && !ev.Change.Adopt && ev.Err == nil {
		return // only the ledger was brought up to date
	}
	if ev.Outcome == provision.Done {
		p.said++
		p.env.print("%s: %s in %s\n", ev.Change.Address, verbs[ev.Change.Action], ev.Took.Round(time.Millisecond))
		return
	}
	p.env.print("%s: %s\n", ev.Change.Address, ev.Outcome)
}

func (p *applyProgress) watch() (stop func()) {
	quit := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			p.mu.Lock()
			for address, at := range p.since {
				if d := time.Since(at); d > 2*time.Second {
					p.env.note("%s: still running (%s)", address, d.Round(time.Second))
				}
			}
			p.mu.Unlock()
		}
	})
	return func() { close(quit); running.Wait() }
}
