package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/terminal"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newDestroy() *cobra.Command {
	var confirmed string
	var targets []string
	c := &cobra.Command{
		Use:   "destroy",
		Short: "Delete everything that pipeline.hcl declares and that apply manages",
		Long: `Show what would be deleted and how much data is in it, ask for the amount to be typed, and delete it: dashboards, data
sources, views, tables, topics, and last the engine's own schema. What apply does not manage is left alone.

There is no way back. In scripts: --confirm "TEXT", with the text that destroy asks for.`,
		Example: "  cryptoviz destroy --target topic.okx\n  cryptoviz destroy",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			w, err := e.stack(ctx)
			if err != nil {
				return err
			}
			defer w.close()
			for _, address := range targets {
				if w.stack.Declared(address) != address {
					return fmt.Errorf("--target %s: pipeline.hcl declares no such object", units.Clip(address))
				}
			}
			w.stack = w.stack.Destroying(targets)
			found, err := w.plan(ctx, nil)
			if err != nil {
				return err
			}
			if len(targets) > 0 {
				found.Unmanaged, found.Orphans = nil, nil
			}
			if found.Count(plan.Delete)+len(found.Errors) == 0 {
				e.noteLeftOut(found)
				e.print("Nothing to delete: nothing of it is managed.\n")
				return nil
			}
			style := e.style(false)
			style.Whole = true
			if err := found.Print(terminal.Draw(e.Stdout), style); err != nil {
				return err
			}
			if len(found.Errors) > 0 {
				return errors.Join(errors.New("nothing was deleted"), unread(found))
			}
			if len(deletable(found)) == 0 {
				return errors.New("nothing can be deleted; fix the problems above and run destroy again")
			}
			amount := amountOf(found)
			ok := confirmed == amount
			if confirmed == "" {
				if ok, err = e.confirm("\nThis cannot be undone.", amount); err != nil {
					return err
				}
			}
			if !ok {
				return fmt.Errorf("destroy was not confirmed: nothing was deleted. Without a terminal use --confirm %q",
					amount)
			}
			agreed := plan.Agree(found)
			for _, c := range found.Changes {
				agreed.Consents = append(agreed.Consents, c.Needs()...)
			}
			return w.apply(ctx, "destroy", found, agreed, provision.Options{})
		},
	}
	c.Flags().StringVar(&confirmed, "confirm", "", "the `TEXT` that destroy asks for, for scripts")
	c.Flags().StringArrayVar(&targets, "target", nil, "delete this `ADDRESS` alone; may be repeated")
	return c
}

// deletable are the changes that destroy makes: not those that cannot be made, nor what is still needed then.
func deletable(p plan.Plan) (out []plan.Change) {
	for _, c := range p.Changes {
		if c.Action == plan.Delete && !c.Impossible() && c.Waits == "" {
			out = append(out, c)
		}
	}
	return out
}

// amountOf is what a user types to agree: "delete 9 objects, 1,440,000 rows, 120 MiB".
func amountOf(p plan.Plan) string {
	var amounts []string
	var bytes int64
	changes := deletable(p)
	for _, unit := range []string{plan.Records, plan.Rows} {
		all := plan.Loss{Unit: unit}
		for _, c := range changes {
			for _, f := range c.Findings {
				if f.Loss != nil && f.Loss.Unit == unit {
					all.Count += f.Loss.Count
					bytes += f.Loss.Bytes
				}
			}
		}
		if text := all.String(); text != "" {
			amounts = append(amounts, text)
		}
	}
	if bytes > 0 {
		amounts = append(amounts, plan.Bytes(bytes))
	}
	return strings.Join(append([]string{"delete " + count(len(changes), "object")}, amounts...), ", ")
}
