package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
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
	var allow, targets []string
	c := &cobra.Command{
		Use:   "apply [FILE]",
		Short: "Make Kafka, PostgreSQL and Grafana match pipeline.hcl",
		Long: `Show the plan, ask, and carry it out. With FILE: exactly the plan that plan --out saved.

One apply works at a time. Every object is read again just before: one that moved since the plan is refused, with what
moved; the rest goes on. A failure stops what depends on it and nothing else. It may be interrupted at any point: the
next apply does the rest.

Changes that destroy data are left out, whatever --auto-approve says, until each is allowed by its code and address, as
the plan shows them. Where nobody can answer, as in CI, --auto-approve is needed for the others.`,
		Example: `  cryptoviz apply                                           asks
  cryptoviz apply --auto-approve                            does not ask
  cryptoviz apply --allow CV-K07@topic.binance              agrees to this loss of data
  cryptoviz plan --out today.plan && cryptoviz apply today.plan
  cryptoviz apply --target table.raw_crypto_data            one object, with what it depends on`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			consents, err := parseAllow(allow)
			if err != nil {
				return err
			}
			var saved *plan.Saved
			if len(args) == 1 {
				if len(targets) > 0 {
					return errors.New("--target belongs to plan: the file holds its own")
				}
				if saved, err = readPlan(args[0]); err != nil {
					return err
				}
				if err := e.samePipeline(args[0], saved.Pipeline); err != nil {
					return err
				}
			}
			e.saved = saved != nil
			w, err := e.world(cmd.Context())
			if err != nil {
				return err
			}
			defer w.close()
			var found plan.Plan
			if saved != nil {
				found = saved.Plan
			} else if found, err = w.plan(cmd.Context(), targets); err != nil {
				return err
			}
			if err := found.Print(terminal.Draw(e.Stdout), e.style(false)); err != nil {
				return err
			}
			return w.carryOut(cmd.Context(), found, consents, approved)
		},
	}
	f := c.Flags()
	f.BoolVar(&approved, "auto-approve", false, "do not ask; never covers what destroys data")
	f.StringArrayVar(&allow, "allow", nil, "agree to a destroying change, `CODE@ADDRESS`; may be repeated")
	f.StringArrayVar(&targets, "target", nil, "apply this `ADDRESS` alone, with what it depends on; may be repeated")
	return c
}

func readPlan(name string) (*plan.Saved, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	defer func() { _ = f.Close() }()
	saved, err := plan.ReadFile(f)
	if err != nil {
		return nil, fmt.Errorf("read the plan %s: %w", name, err)
	}
	return &saved, nil
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

var consentForm = regexp.MustCompile(`^(?i)(CV-[A-Z]\d{2})@([a-z]+\.[a-z][a-z0-9_]*)$`)

func parseAllow(list []string) (plan.Consents, error) {
	var out plan.Consents
	for _, text := range list {
		m := consentForm.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("--allow %s: write CODE@ADDRESS, as the plan shows it: --allow CV-K07@topic.binance", units.Clip(text))
		}
		code, known := plan.Explain(m[1])
		switch {
		case !known:
			return nil, fmt.Errorf("--allow %s: there is no code %s", units.Clip(text), m[1])
		case code.Class != plan.Destroys:
			return nil, fmt.Errorf("--allow %s: %s is %s and needs no consent", units.Clip(text), code.ID, code.Class)
		}
		out = append(out, code.ID+"@"+m[2])
	}
	return out, nil
}

// carryOut asks and applies. What cannot be done, or is not consented to, is left out and said.
func (w *openWorld) carryOut(ctx context.Context, found plan.Plan, allow plan.Consents, approved bool) error {
	doable, marks := 0, 0
	needed := map[string]bool{}
	for _, c := range found.Changes {
		for _, f := range (plan.Consents{}).Missing(c) {
			needed[f.Code+"@"+c.Address] = true
		}
		switch {
		case c.Marks():
			marks++
		case c.Changes() && !c.Impossible() && len(allow.Missing(c)) == 0:
			doable++
		}
	}
	for _, consent := range allow {
		if !needed[consent] {
			w.note("Note: --allow %s: nothing in this plan needs it.", consent)
		}
	}
	left := found.Pending() - doable
	switch {
	case doable == 0 && marks == 0 && left > 0:
		return fmt.Errorf("nothing was applied: %s", strings.Join(leftOut(found, allow), ", "))
	case doable == 0 && marks == 0:
		return unread(found)
	}
	if doable > 0 && !approved {
		question := "\nApply these changes?"
		if left > 0 {
			question = fmt.Sprintf("\nApply the %s that can be made, and leave %d out?", count(doable, "change"), left)
		}
		yes, err := w.confirm(question, "yes")
		if err != nil {
			return err
		}
		if !yes {
			return errors.New("apply was not confirmed: nothing was touched. Without a terminal use --auto-approve")
		}
	}
	return w.apply(ctx, "apply", found, allow)
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
		out = append(out, count(destroys, "change")+" would destroy data, and --allow does not name "+map[bool]string{true: "it", false: "them"}[destroys == 1])
	}
	return out
}

func unread(p plan.Plan) error {
	if len(p.Errors) > 0 {
		return fmt.Errorf("%s could not be read", count(len(p.Errors), "object"))
	}
	return nil
}

// apply carries a plan out for a command, tells each step, and reports what was not done.
func (w *openWorld) apply(ctx context.Context, command string, found plan.Plan, allow plan.Consents) error {
	started := time.Now()
	p := &applyProgress{env: w.env, since: map[string]time.Time{}}
	stop := p.watch()
	results, err := w.Apply(ctx, found, provision.Options{Allow: allow, By: w.user(), Version: w.Version, Progress: p.event})
	stop()
	done := 0
	for _, r := range results {
		if r.Outcome == provision.Done {
			done++
		}
	}
	took := time.Since(started).Round(10 * time.Millisecond)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted after %s; the next %s does the rest", count(done, "change"), command)
	case errors.Is(err, provision.ErrIncomplete):
		w.report(found, results)
		remedy := "Mend what is said above and " + command + " again: it does the rest"
		if slices.ContainsFunc(results, func(r provision.Result) bool { return r.Outcome == provision.Refused }) {
			remedy = "Plan again"
		}
		return fmt.Errorf("%s made in %s, %d not. %s", count(done, "change"), took, len(results)-done, remedy)
	case err != nil && len(results) > 0:
		w.report(found, results)
		return fmt.Errorf("%s made in %s, %d not: %w", count(done, "change"), took, len(results)-done, err)
	case err != nil:
		return err
	}
	if p.said > 0 {
		if err := w.Annotate(ctx, fmt.Sprintf("cryptoviz %s: %s by %s", command, count(p.said, "change"), w.user())); err != nil {
			w.note("Note: no annotation in Grafana: %v", err)
		}
		w.print("\n%s complete: %s in %s.\n", strings.ToUpper(command[:1])+command[1:], count(p.said, "change"), took)
	}
	return unread(found)
}

// report says, object by object in the plan's order, what was not done and why.
func (w *openWorld) report(found plan.Plan, results []provision.Result) {
	byAddress := map[string]provision.Result{}
	for _, r := range results {
		byAddress[r.Address] = r
	}
	w.print("\nNot done:\n")
	for _, c := range found.Changes {
		r, tried := byAddress[c.Address]
		if !tried || r.Outcome == provision.Done {
			continue
		}
		text := plan.Visible(fmt.Sprintf("%s %s: %s", r.Address, r.Outcome, r.Reason))
		w.print("  %s\n", strings.ReplaceAll(fold(text, int(w.width(w.Stdout))-4), "\n", "\n    "))
		for _, d := range r.Since {
			from, to := plan.Attr{Value: d.Old, Raw: d.OldRaw, Secret: d.Secret}, plan.Attr{Value: d.New, Raw: d.NewRaw, Secret: d.Secret}
			moved := orNone(from.Text()) + " -> " + orNone(to.Text())
			if from.Text() == to.Text() {
				moved = "changed"
			}
			w.print("      since your plan: %s  %s\n", plan.Visible(d.Name), moved)
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
	*env
	mu    sync.Mutex
	since map[string]time.Time
	said  int
}

var verbs = map[plan.Action]string{plan.None: "adopted", plan.Create: "created", plan.Update: "changed", plan.Replace: "made anew", plan.Delete: "deleted"}

func (p *applyProgress) event(ev provision.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ev.Outcome == "" {
		p.since[ev.Change.Address] = time.Now()
		return
	}
	delete(p.since, ev.Change.Address)
	if ev.Outcome == provision.Skipped || ev.Outcome == provision.Refused {
		return // the report tells why
	}
	if ev.Change.Action == plan.None && !ev.Change.Adopt && ev.Err == nil {
		return // only the ledger was brought up to date
	}
	if ev.Outcome == provision.Done {
		p.said++
		p.print("%s: %s in %s\n", ev.Change.Address, verbs[ev.Change.Action], ev.Took.Round(time.Millisecond))
		return
	}
	p.print("%s: %s\n", ev.Change.Address, ev.Outcome)
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
					p.note("%s: still at it … %s", address, d.Round(time.Second))
				}
			}
			p.mu.Unlock()
		}
	})
	return func() { close(quit); running.Wait() }
}
