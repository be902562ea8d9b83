package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

func (e *env) newRollup() *cobra.Command {
	var day string
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "rollup [NAME]",
		Short: "Roll finished days up by hand",
		Long: `Aggregate finished days into the hourly table and drop their raw rows, as the schedule does at 00:05 UTC: one
transaction a day. Without --day: every day that is due, oldest first. A day may be rolled up again at any time: rows
that came late are merged, and an hour never shrinks; rows that were in the day before it was dropped are removed. With
late = "reject" in the rollup block, rows that come after their day was dropped are counted and stay raw. A day that
another session holds is waited for, and the session named; Ctrl-C ends the wait.`,
		Example: "  cryptoviz rollup --dry-run\n  cryptoviz rollup hourly --day 2026-11-22",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			p, running, err := e.pipeline()
			if err != nil {
				return err
			}
			r, err := chooseRollup(p, args)
			if err != nil {
				return err
			}
			var days []time.Time
			if day != "" {
				at, err := time.ParseInLocation(time.DateOnly, day, time.UTC)
				if err != nil || at.Year() < 1 {
					return fmt.Errorf("--day %s is not a day: write 2026-11-22", units.Clip(day))
				}
				days = []time.Time{at}
			}
			return e.rollup(ctx, p, running, r, days, dry, asJSON)
		},
	}
	c.Flags().StringVar(&day, "day", "", "the `DAY` to roll up, UTC: 2026-11-22")
	c.Flags().BoolVar(&dry, "dry-run", false, "compute and show, and change nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print the results for programs")
	return c
}

func chooseRollup(p *spec.Pipeline, args []string) (*spec.Rollup, error) {
	var names []string
	for _, r := range p.Rollups {
		if len(args) == 1 && r.Name == args[0] || len(args) == 0 && len(p.Rollups) == 1 {
			return r, nil
		}
		names = append(names, r.Name)
	}
	if len(names) == 0 {
		return nil, errors.New("the pipeline has no rollup block")
	}
	if len(args) == 1 {
		return nil, fmt.Errorf("the pipeline has no rollup %q: it has %v", units.Clip(args[0]), names)
	}
	return nil, fmt.Errorf("name one of the rollups %v", names)
}

func (e *env) rollup(ctx context.Context, p *spec.Pipeline, running *embedded.Running, r *spec.Rollup, days []time.Time,
	dry, asJSON bool,
) error {
	log, err := e.logger(e.Stderr)
	if err != nil {
		return err
	}
	db, err := e.database(ctx, p)
	if err != nil {
		return err
	}
	db.Close()
	clk := clock.Real()
	if running != nil && !running.Data.Virtual.IsZero() {
		clk = clock.Fast(running.Data.Virtual, 1)
	}
	engine, err := run.Open(ctx, p, run.Stages{}, run.Options{Clock: clk, Log: log, Version: e.Version})
	if err != nil {
		return err
	}
	defer engine.Close()
	job, err := engine.Rollup(r)
	if err != nil {
		return err
	}
	if len(days) == 0 {
		if days, err = job.Due(ctx); err != nil {
			return err
		}
	}
	if len(days) == 0 && !asJSON {
		e.print("No day is due.\n")
	}
	results := []rolledDay{}
	var failed error // a day that cannot be rolled up holds no other
	for _, day := range days {
		res, err := job.DayWhenFree(ctx, day, dry)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		results = append(results, rolledDay{
			Rollup: r.Name, Day: res.Day.Format(time.DateOnly), RawRows: res.RawRows, HourlyRows: res.HourlyRows,
			LateRows: res.LateRows, Repeats: res.Repeats,
			Rejected: res.Rejected, Dropped: res.Dropped, DryRun: res.DryRun, Took: res.Took.Seconds(),
		})
		if !asJSON {
			e.print("%s (%s)\n", sayRolled(res), res.Took.Round(time.Millisecond))
		}
	}
	if asJSON {
		return errors.Join(failed, writeJSON(e.Stdout, results))
	}
	return failed
}

// rolledDay is one day of rollup --json.
type rolledDay struct {
	Rollup     string  `json:"rollup"`
	Day        string  `json:"day"` // 2026-11-22
	RawRows    int64   `json:"raw_rows"`
	HourlyRows int64   `json:"hourly_rows"`
	LateRows   int64   `json:"late_rows"`
	Repeats    int64   `json:"repeats"`  // raw rows that were counted before, removed
	Rejected   bool    `json:"rejected"` // the late rows stay raw
	Dropped    bool    `json:"dropped"`
	DryRun     bool    `json:"dry_run"`
	Took       float64 `json:"took_seconds"`
}

func sayRolled(res rollup.Result) string {
	day := res.Day.Format(time.DateOnly)
	switch {
	case res.RawRows == 0 && res.Repeats > 0:
		return fmt.Sprintf("%s: %s raw rows had been counted before; they are removed", day,
			humanize.Comma(res.Repeats))
	case res.RawRows == 0 && !res.Dropped:
		return day + ": no raw rows on that day"
	case res.Rejected:
		return fmt.Sprintf("%s: %s late rows rejected: they stay raw (late = \"reject\")", day,
			humanize.Comma(res.LateRows))
	}
	said := fmt.Sprintf("%s: %s raw rows -> %s hours", day, humanize.Comma(res.RawRows), humanize.Comma(res.HourlyRows))
	if res.LateRows > 0 {
		said += fmt.Sprintf(", %s late rows merged", humanize.Comma(res.LateRows))
	}
	switch {
	case res.DryRun:
		return said + "; nothing was changed (--dry-run)"
	case res.Dropped:
		return said + "; the raw rows are dropped"
	}
	return said + "; the raw rows are kept"
}
