package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newPlan() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change; nothing is changed",
		Long: `Read Kafka and PostgreSQL as they are, and show what differs from pipeline.hcl: + is created, ! differs and is left
alone, ✗ cannot be done. Nothing is changed. The exit status is 1 only when something could not be read.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, _, err := e.pipeline()
			if err != nil {
				return err
			}
			resources, done, err := e.resources(cmd.Context(), p)
			if err != nil {
				return err
			}
			defer done()
			found, err := provision.Plan(cmd.Context(), resources)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(e.Stdout, found)
			}
			return found.Print(e.Stdout)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the plan for programs")
	return c
}

func (e *env) newApply() *cobra.Command {
	var approved bool
	c := &cobra.Command{
		Use:   "apply",
		Short: "Create what pipeline.hcl declares and is missing",
		Long: `Show the plan, ask, and carry it out: topics, tables with their hypertables or partitions, and the engine's own
tables. What exists and differs is reported and left alone. It may be interrupted and run again at any time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, _, err := e.pipeline()
			if err != nil {
				return err
			}
			resources, done, err := e.resources(cmd.Context(), p)
			if err != nil {
				return err
			}
			defer done()
			found, err := provision.Plan(cmd.Context(), resources)
			if err != nil {
				return err
			}
			if err := found.Print(e.Stdout); err != nil {
				return err
			}
			if found.Count(plan.Block) > 0 {
				return errors.New("the plan holds a change that cannot be done: nothing was touched")
			}
			if found.Count(plan.Create, plan.Update) == 0 {
				return nil
			}
			if !approved {
				yes, err := e.confirm("\nApply these changes?", "yes")
				if err != nil {
					return err
				}
				if !yes {
					return errors.New("apply was not confirmed: nothing was touched. Without a terminal use --auto-approve")
				}
			}
			e.print("\n")
			return e.apply(cmd.Context(), resources, found, e.Stdout)
		},
	}
	c.Flags().BoolVar(&approved, "auto-approve", false, "do not ask")
	return c
}

// resources opens the services and lists what the pipeline declares in them.
func (e *env) resources(ctx context.Context, p *spec.Pipeline) ([]plan.Resource, func(), error) {
	db, err := e.database(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	kafka, err := e.brokers(ctx, p)
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return provision.Resources(p, provision.Clients{Kafka: kafka, DB: db}), func() { kafka.Close(); db.Close() }, nil
}

// apply carries a plan out and tells each step.
func (e *env) apply(ctx context.Context, resources []plan.Resource, p plan.Plan, w io.Writer) error {
	started, done := time.Now(), 0
	err := provision.Apply(ctx, resources, p, func(ev provision.Event) {
		switch {
		case !ev.Done:
		case ev.Err != nil:
			_, _ = fmt.Fprintf(w, "%s: failed\n", ev.Change.Address)
		default:
			done++
			verb := "created"
			if ev.Change.Action == plan.Update {
				verb = "changed"
			}
			_, _ = fmt.Fprintf(w, "%s: %s in %s\n", ev.Change.Address, verb, ev.Took.Round(time.Millisecond))
		}
	})
	if err != nil {
		return fmt.Errorf("%w\n%s done before; the next apply does the rest", err, count(done, "change"))
	}
	_, _ = fmt.Fprintf(w, "\nApply complete: %s in %s.\n", count(done, "change"), time.Since(started).Round(10*time.Millisecond))
	return nil
}

func writeJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}
