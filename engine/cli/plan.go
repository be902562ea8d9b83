package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/terminal"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newPlan() *cobra.Command {
	var asJSON, detailed, verbose bool
	var out string
	var allow, targets []string
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change, and what it would cost; nothing is changed",
		Long: `Read Kafka, PostgreSQL and Grafana as they are, and show what differs from pipeline.hcl:

  +  will be created       ~  will be changed       -/+  will be deleted and created again       -  will be deleted
  ≠  was changed outside since the last apply; apply sets it back
  =  already exists and matches; apply will start managing it and changes nothing
  !  destroys data: how much is said, and apply wants --allow CODE@ADDRESS=NUMBER
  ✗  cannot be done; the rest can

The servers check it too: Kafka validates topics without making them, statements run in a transaction that is rolled
back, and the SQL of dashboards, alerts and rollups is explained against the planned tables. A code such as CV-K07 is
explained by: cryptoviz explain CV-K07.`,
		Example: `  cryptoviz plan
  cryptoviz plan --target topic.binance
  cryptoviz plan --out today.plan && cryptoviz apply today.plan
  cryptoviz plan --detailed-exitcode    0 nothing, 1 error, 2 changes, 3 data is destroyed or it cannot be done`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			consents, err := parseAllow(allow)
			if err != nil {
				return err
			}
			if len(consents) > 0 && out == "" {
				return errors.New("--allow belongs to apply, or to plan --out FILE, which keeps it in the file")
			}
			w, err := e.stack(cmd.Context())
			if err != nil {
				return err
			}
			defer w.close()
			found, err := w.plan(cmd.Context(), targets)
			if err != nil {
				return err
			}
			if out != "" {
				if err := w.save(out, consents, found); err != nil {
					return err
				}
			}
			if asJSON {
				err = plan.JSON{Tool: e.Version, Made: time.Now().UTC(), Pipeline: e.file, Plan: found}.Write(e.Stdout)
			} else {
				err = found.Print(terminal.Draw(e.Stdout), e.style(verbose))
			}
			if err != nil {
				return err
			}
			if out != "" && !asJSON {
				where := ""
				if e.file != "pipeline.hcl" {
					where = " --file " + e.file
				}
				e.print("Saved to %s. Apply this and nothing more: cryptoviz apply%s %s\n", out, where, out)
			}
			code := found.ExitCode()
			if detailed && code != 0 || code == 1 {
				return exit(code)
			}
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print the plan for programs")
	f.BoolVar(&detailed, "detailed-exitcode", false,
		"exit with 2 when there are changes, 3 when some destroy data or cannot be done")
	f.BoolVarP(&verbose, "verbose", "v", false, "also what is left alone, one by one")
	f.StringVarP(&out, "out", "o", "", "save the plan to `FILE`, for apply FILE")
	f.StringArrayVar(&allow, "allow", nil,
		"with --out: agree to lose data, `CODE@ADDRESS=NUMBER`, when the file is applied; may be repeated")
	f.StringArrayVar(&targets, "target", nil, "plan this `ADDRESS` alone, with what it depends on; may be repeated")
	return c
}

func (e *env) style(verbose bool) plan.Style {
	terminal := isTerminal(e.Stdout)
	return plan.Style{Width: int(e.width(e.Stdout)), Color: e.color(e.Stdout), Verbose: verbose, Hints: terminal}
}

// openStack is a pipeline and the open systems that it lives in.
type openStack struct {
	env   *env
	stack *provision.Stack
	p     *spec.Pipeline
	done  func()
}

func (w *openStack) close() { w.done() }

// stack loads the pipeline and opens its systems.
func (e *env) stack(ctx context.Context) (*openStack, error) {
	p, _, err := e.pipeline()
	if err != nil {
		return nil, err
	}
	return e.stackOf(ctx, p, time.Now)
}

func (e *env) stackOf(ctx context.Context, p *spec.Pipeline, now func() time.Time) (*openStack, error) {
	db, err := e.database(ctx, p)
	if err != nil {
		return nil, err
	}
	kafka, err := kafkaClient(p)
	if err != nil {
		db.Close()
		return nil, err
	}
	roles, err := e.roles(ctx)
	closing := func() {
		if roles != nil {
			roles.Close()
		}
		kafka.Close()
		db.Close()
	}
	if err != nil {
		closing()
		return nil, err
	}
	w, err := provision.NewStack(p, provision.Clients{Kafka: kafka, DB: db, Roles: roles, Now: now})
	if err != nil {
		closing()
		return nil, err
	}
	return &openStack{env: e, stack: w, p: p, done: func() { w.Close(); closing() }}, nil
}

func (w *openStack) plan(ctx context.Context, targets []string) (plan.Plan, error) {
	defer w.env.waiting("reading Kafka, PostgreSQL and Grafana")()
	found, err := w.stack.Plan(ctx)
	if err != nil {
		return found, err
	}
	if len(targets) > 0 {
		return found.Target(targets)
	}
	return found, nil
}

// noteLeftOut says what a command that prints no plan did not look at; false for nothing.
func (e *env) noteLeftOut(found plan.Plan) (some bool) {
	for _, r := range found.Reads {
		if r.LeftOut {
			some = true
			e.note("Note: %s is %s.", r.System, r.Text)
		}
	}
	return some
}

// save writes the agreement to a plan beside its place and renames it, so that a file is whole or absent.
func (w *openStack) save(name string, consents plan.Consents, found plan.Plan) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".plan-*")
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	a := plan.Agree(found)
	a.Tool, a.Made, a.Pipeline, a.Consents = w.env.Version, time.Now().UTC(), w.env.file,
		consents.AsShown(found.Changes)
	err = a.Write(tmp)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	return nil
}

// waiting says what takes long, after two seconds; the returned function ends it.
func (e *env) waiting(what string) func() {
	timer := time.AfterFunc(2*time.Second, func() { e.note("Still %s …", what) })
	return func() { timer.Stop() }
}

func writeJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}
