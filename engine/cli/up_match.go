package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// match applies the pipeline to the fresh or kept services. What would destroy data, or cannot be done to an object
// that is there already, is told and left alone.
func (u *up) match(ctx context.Context) error {
	w, err := u.env.stackOf(ctx, u.p, u.clock.Now)
	if err != nil {
		return err
	}
	defer w.close()
	found, err := w.stack.Plan(ctx)
	if err != nil {
		return err
	}
	if len(found.Errors) > 0 {
		return fmt.Errorf("%s: %s", found.Errors[0].Address, found.Errors[0].Text)
	}
	for _, c := range found.Changes {
		for _, n := range c.Notes {
			u.env.note("        %s", n)
		}
	}
	results, err := w.stack.Apply(ctx, found, provision.Options{
		Moved: []string{"Kafka", "Grafana"}, // the services of up are its own
		By:    u.env.user(), Version: u.env.Version, Progress: u.changed,
	})
	if err != nil && !errors.Is(err, provision.ErrIncomplete) {
		return err
	}
	for _, r := range results {
		switch r.Outcome {
		case provision.Done, provision.Left:
		case provision.Skipped:
			c := changeOf(found, r.Address)
			if c.Action == plan.Create {
				return fmt.Errorf("%s: %s", r.Address, r.Reason)
			}
			u.env.note("        %s is left as it is: %s", r.Address, plan.Visible(r.Reason))
			u.env.note("        while up runs: %s", u.settle(c))
		default:
			return fmt.Errorf("%s: %s", r.Address, r.Reason)
		}
	}
	return nil
}

// changed tells a change that was made, and what of the object.
func (u *up) changed(e provision.Event) {
	c := e.Change
	if e.Outcome != provision.Done || c.Action == plan.None && !c.Adopt {
		return // what failed is told later; only the ledger was brought up to date
	}
	var what []string
	if c.Action != plan.Create {
		for _, d := range c.Diffs {
			what = append(what, d.Name)
		}
	}
	text := verbs[c.Action]
	if len(what) > 0 {
		text += ": " + strings.Join(what, ", ")
	}
	u.env.note("        %s %s", c.Address, plan.Visible(text))
}

// settle is the command that makes a change which up leaves out, or shows why it cannot be made.
func (u *up) settle(c plan.Change) string {
	var allow []string
	for _, k := range c.Needs() {
		allow = append(allow, "--allow", k.String())
	}
	if len(allow) == 0 || c.Impossible() {
		return u.env.commandLine("plan")
	}
	return u.env.commandLine(append([]string{"apply"}, allow...)...)
}

// changeOf returns the planned change of an object: without one that is created the pipeline cannot run.
func changeOf(p plan.Plan, address string) plan.Change {
	i := slices.IndexFunc(p.Changes, func(c plan.Change) bool { return c.Address == address })
	if i < 0 {
		return plan.Change{Address: address}
	}
	return p.Changes[i]
}
