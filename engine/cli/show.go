package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/terminal"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newShow() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show [FILE|ADDRESS]",
		Short: "Show a saved plan, or an object as it is, as it was applied and as pipeline.hcl wants it",
		Long: `With a FILE that plan --out saved: show what it agrees to, and on which servers.
With an ADDRESS of an object of pipeline.hcl: show each attribute as it is now, and what the last apply had set and what
pipeline.hcl wants, where that differs.
Without either: list the objects of pipeline.hcl, and how each stands:

  agrees                     it is as pipeline.hcl wants it
  matches, not yet managed   the next apply starts managing it
  differs                    pipeline.hcl says something else: the next apply changes it
  changed outside            somebody changed it since the last apply
  missing                    the next apply creates it
  cannot be made as …        see cryptoviz plan for the reason`,
		Example: `  cryptoviz show today.plan
  cryptoviz show topic.binance
  cryptoviz show                 every object, a line each`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if _, err := os.Stat(args[0]); err == nil {
					return e.showFile(args[0], asJSON)
				} else if !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("read the plan: %w", err)
				}
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
			e.noteLeftOut(found)
			if len(args) == 0 {
				return e.showAll(found, asJSON)
			}
			for _, c := range found.Changes {
				if c.Address == args[0] {
					return e.showObject(c, asJSON)
				}
			}
			for _, failed := range found.Errors {
				if failed.Address == args[0] {
					return fmt.Errorf("%s: %s", failed.Address, failed.Text)
				}
			}
			return fmt.Errorf("there is no file and no object %s: cryptoviz show lists the objects of pipeline.hcl",
				units.Clip(args[0]))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	return c
}

func (e *env) showFile(name string, asJSON bool) error {
	agreed, err := readPlan(name)
	if err != nil {
		return err
	}
	if asJSON {
		return agreed.Write(e.Stdout)
	}
	e.print("Plan of %s by cryptoviz %s, for %s\n", agreed.Made.Format("2006-01-02 15:04:05 MST"), agreed.Tool,
		agreed.Pipeline)
	for _, s := range agreed.Servers.Lines() {
		e.print("on %s\n", s)
	}
	for _, k := range agreed.Consents {
		e.print("agrees to %s\n", k)
	}
	return agreed.Plan().Print(terminal.Draw(e.Stdout), e.style(true))
}

func (e *env) showAll(found plan.Plan, asJSON bool) error {
	if asJSON {
		return writeJSON(e.Stdout, found.Changes)
	}
	width := 0
	for _, c := range found.Changes {
		width = max(width, len(c.Address))
	}
	for _, c := range found.Changes {
		e.print("%-*s  %s\n", width, c.Address, standing(c))
	}
	return unread(found)
}

func standing(c plan.Change) string {
	switch {
	case c.Impossible():
		return "cannot be made as pipeline.hcl wants it"
	case c.Live == nil:
		return "missing"
	case c.Drifted():
		return "changed outside"
	case c.Action != plan.None:
		return "differs"
	case c.Adopt:
		return "matches, not yet managed"
	}
	return "agrees"
}

// showObject prints an object as it is, and where the last apply or pipeline.hcl says otherwise.
func (e *env) showObject(c plan.Change, asJSON bool) error {
	if asJSON {
		return writeJSON(e.Stdout, c)
	}
	e.print("%s   %s   %s\n\n", c.Address, c.Where, standing(c))
	var names []string
	width := 0
	for _, s := range []*plan.State{c.Want, c.Live, c.Last} {
		if s == nil {
			continue
		}
		for _, a := range s.Attrs {
			if !slices.Contains(names, a.Name) {
				names = append(names, a.Name)
				width = max(width, len(a.Name))
			}
		}
	}
	line := func(name, text string) {
		text = fold(text, max(20, int(e.width(e.Stdout))-width-4))
		e.print("  %-*s  %s\n", width, name, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", width+4)))
	}
	say := func(who string, a, live plan.Attr) {
		text := orNone(a.Text())
		if a.Text() == live.Text() {
			text = "another"
		}
		line("", who+" "+text)
	}
	for _, name := range names {
		live, there := c.Live.Get(name)
		text := orNone(live.Text())
		if live.Origin != "" {
			text += " (" + live.Origin + ")"
		}
		line(name, text)
		last, applied := c.Last.Get(name)
		want, wanted := c.Want.Get(name)
		if _, differs := c.Diff(name); !differs && (live.Secret || want.Secret) {
			continue // what nobody can read is compared by the plan alone
		}
		if c.Ours && applied && last.Value != live.Value {
			say("the last apply had set", last, live)
		}
		switch {
		case !wanted && there && live.Origin == "":
			line("", "pipeline.hcl does not say")
		case wanted && want.Value != live.Value:
			say("pipeline.hcl wants", want, live)
		}
	}
	return nil
}
