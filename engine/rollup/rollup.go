package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// Gate tells whether every record of a day has been stored.
type Gate interface {
	PassedMidnight(ctx context.Context, day time.Time) (bool, error)
}

// Result is what a run did with one day.
type Result = store.RolledDay

// ErrUnfinished means that the day is not over yet, UTC.
var ErrUnfinished = store.ErrUnfinished

// Runner runs one rollup: by its schedule, or a day by hand. Any number of instances may run the same one.
type Runner struct {
	r        *spec.Rollup
	store    *store.Store
	gate     Gate
	clock    clock.Clock
	log      *slog.Logger
	schedule cron.Schedule
}

const oneDay = 24 * time.Hour

// Pauses are in real time: a fast clock must not make them too short to be of use.
const (
	gateEvery = 5 * time.Second        // engine time, but …
	gateLeast = 250 * time.Millisecond // … at least this
	waitLeast = 2 * time.Second        // least wait for the workers when any is asked for
	tryFirst  = 500 * time.Millisecond
	tryLast   = 30 * time.Second
	sayAgain  = 5 * time.Minute // while the database is waited for
)

// dayTries is how often a day is tried whose error may or may not pass: a statement_timeout, a lock that somebody holds.
const dayTries = 4

// New prepares a rollup. The schedule is read as UTC.
func New(r *spec.Rollup, st *store.Store, gate Gate, clk clock.Clock, log *slog.Logger) (*Runner, error) {
	schedule, err := cron.ParseStandard("TZ=UTC " + r.Schedule)
	if err != nil {
		return nil, fmt.Errorf("read the schedule of rollup %s: %w", r.Name, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runner{r: r, store: st, gate: gate, clock: clk, log: log.With("rollup", r.Name), schedule: schedule}, nil
}

// Due lists the finished days that there is work with, oldest first.
func (r *Runner) Due(ctx context.Context) ([]time.Time, error) {
	return r.store.RollupDue(ctx, r.r, r.clock.Now())
}

// Day rolls up one UTC day now, without waiting for the workers. Errors: ErrUnfinished, *store.RollupError, the database's.
func (r *Runner) Day(ctx context.Context, day time.Time, dryRun bool) (Result, error) {
	return r.store.RollupDay(ctx, r.r, day, r.clock.Now(), dryRun)
}

// Run rolls up what was missed, then each day at its time, until ctx ends. It waits for a database that is down and leaves
// a day that cannot be rolled up to the next time, so that it holds no other day; it never ends by itself.
func (r *Runner) Run(ctx context.Context) error {
	for {
		began := r.clock.Now()
		r.pass(ctx)
		// From the pass's start: what came due meanwhile is done at once.
		next := r.schedule.Next(began)
		if next.IsZero() { // a date that does not exist, like 30 February
			r.log.WarnContext(ctx, "rollup is never due", "schedule", r.r.Schedule)
			<-ctx.Done()
			return nil
		}
		if r.clock.SleepUntil(ctx, next, time.Hour) != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}

// pass rolls up every day that is due, oldest first.
func (r *Runner) pass(ctx context.Context) {
	var due []time.Time
	if r.keepTrying(ctx, math.MaxInt, func() (err error) {
		due, err = r.Due(ctx)
		return err
	}) != nil {
		return
	}
	wait := r.r.Wait
	if wait > 0 {
		wait = max(wait, r.engine(waitLeast))
	}
	until := r.clock.Now().Add(wait)
	failed := 0
	for _, day := range due {
		if at := r.schedule.Next(day.Add(oneDay - time.Nanosecond)); at.IsZero() || at.After(r.clock.Now()) {
			continue // over, but its time has not come
		}
		if r.await(ctx, day, until) != nil {
			return
		}
		var res Result
		err := r.keepTrying(ctx, dayTries, func() (err error) {
			res, err = r.Day(ctx, day, false)
			return err
		})
		switch {
		case err == nil:
			r.tell(ctx, res)
		case ctx.Err() != nil:
			return
		default:
			failed++
			r.log.ErrorContext(ctx, "day not rolled up", "day", day.Format(time.DateOnly), "error", err.Error())
		}
	}
	if failed > 0 {
		r.log.WarnContext(ctx, "days left to the next time; their raw rows stay", "days", failed)
	}
}

func (r *Runner) tell(ctx context.Context, res Result) {
	day := res.Day.Format(time.DateOnly)
	switch {
	case res.Rejected:
		r.log.WarnContext(ctx, "late rows rejected: they stay raw", "day", day, "late_rows", res.LateRows)
	case res.RawRows > 0 || res.Dropped:
		r.log.InfoContext(ctx, "day rolled up", "day", day, "raw_rows", res.RawRows, "hourly_rows", res.HourlyRows, "late_rows", res.LateRows,
			"dropped", res.Dropped, "took", res.Took.Round(time.Millisecond))
	}
}

// await waits until every record of the day is stored, at most until a time. Only the end of ctx is an error.
func (r *Runner) await(ctx context.Context, day, until time.Time) error {
	said := false
	for {
		passed, err := r.gate.PassedMidnight(ctx, day)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if passed && err == nil {
			return nil
		}
		attrs := []any{"day", day.Format(time.DateOnly)}
		if err != nil {
			attrs = append(attrs, "error", err.Error())
		}
		now := r.clock.Now()
		if !now.Before(until) {
			r.log.WarnContext(ctx, "rollup goes on without workers that have not passed midnight; what they bring is late", attrs...)
			return nil
		}
		if !said {
			r.log.InfoContext(ctx, "rollup waits for workers to pass midnight", append(attrs, "longest", until.Sub(now).Round(time.Second))...)
			said = true
		}
		if err := r.clock.Sleep(ctx, min(max(gateEvery, r.engine(gateLeast)), until.Sub(now))); err != nil {
			return err
		}
	}
}

// keepTrying calls f until it succeeds, ctx ends or another try would give the same. A database that is away is waited for,
// whatever else fails is tried so many times.
func (r *Runner) keepTrying(ctx context.Context, tries int, f func() error) error {
	pause := tryFirst
	var said time.Time // real time
	for {
		err := f()
		if err == nil {
			if !said.IsZero() {
				r.log.InfoContext(ctx, "rollup goes on")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, final := errors.AsType[*store.RollupError](err); final || errors.Is(err, ErrUnfinished) {
			return err
		}
		if !store.Away(err) {
			if tries--; tries <= 0 {
				return err
			}
		}
		if said.IsZero() || time.Since(said) >= sayAgain {
			r.log.WarnContext(ctx, "rollup waits for the database", "error", err.Error())
			said = time.Now()
		}
		if err := r.pause(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, tryLast)
	}
}

// engine is the engine time that passes in a stretch of real time.
func (r *Runner) engine(d time.Duration) time.Duration {
	return time.Duration(float64(d) * max(1, r.clock.Speed()))
}

func (r *Runner) pause(ctx context.Context, d time.Duration) error {
	return r.clock.Sleep(ctx, time.Duration(float64(d)*r.clock.Speed()))
}
