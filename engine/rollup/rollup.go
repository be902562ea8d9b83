package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/robfig/cron/v3"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Gate tells whether every record of a day has been stored.
type Gate interface {
	DayComplete(ctx context.Context, day time.Time) (bool, error)
}

// Runner runs one rollup: by its schedule, or a day by hand. Any number of instances may run the same one.
type Runner struct {
	r        *spec.Rollup
	raw      Raw
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
	tryLast   = time.Minute
	tryFaulty = time.Hour       // a fault of the query or the data passes when somebody changes one of them
	sayAgain  = 5 * time.Minute // while the same is waited for
)

// New prepares a rollup. The schedule is read as UTC.
func New(r *spec.Rollup, pool *pgxpool.Pool, gate Gate, clk clock.Clock, log *slog.Logger) (*Runner, error) {
	schedule, err := cron.ParseStandard("TZ=UTC " + r.Schedule)
	if err != nil {
		return nil, fmt.Errorf("read the schedule of rollup %s: %w", r.Name, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runner{
		r: r, raw: Raw{Pool: pool, Log: log}, gate: gate, clock: clk, log: log.With("rollup", r.Name),
		schedule: schedule,
	}, nil
}

// Due lists the finished days that there is work with, oldest first.
func (r *Runner) Due(ctx context.Context) ([]time.Time, error) {
	return r.raw.Due(ctx, r.r, r.clock.Now())
}

// Day rolls up one UTC day now, without waiting for the workers. Errors: ErrUnfinished, *Error, the database's.
func (r *Runner) Day(ctx context.Context, day time.Time, dryRun bool) (Result, error) {
	return r.raw.Day(ctx, r.r, day, r.clock.Now(), dryRun)
}

// DayWhenFree is Day, but waits for sessions that are in the way, and names them in the log.
func (r *Runner) DayWhenFree(ctx context.Context, day time.Time, dryRun bool) (Result, error) {
	for pause := tryFirst; ; pause = min(2*pause, tryLast) {
		res, err := r.Day(ctx, day, dryRun)
		if ctx.Err() != nil || !pg.Is(err, pg.LockBusy, pg.Conflict) {
			return res, err
		}
		r.log.WarnContext(ctx, "rollup waits", "error", err.Error(), "again_in", pause)
		if err := r.pause(ctx, pause); err != nil {
			return res, err
		}
	}
}

// Run rolls up what was missed, then each day at its time, until ctx ends. A day that cannot be rolled up now is tried
// until it is, with growing pauses, and holds no other day; Run never ends by itself.
func (r *Runner) Run(ctx context.Context) error {
	open := attempts{}
	for {
		began := r.clock.Now()
		r.pass(ctx, open)
		// From the pass's start: what came due meanwhile is done at once.
		next := r.schedule.Next(began)
		if next.IsZero() { // a date that does not exist, like 30 February
			r.log.WarnContext(ctx, "rollup is never due", "schedule", r.r.Schedule)
			<-ctx.Done()
			return nil
		}
		if again, ok := open.next(); ok {
			if at := r.clock.Now().Add(r.engine(time.Until(again))); at.Before(next) {
				next = at
			}
		}
		if r.clock.SleepUntil(ctx, next, time.Hour) != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}

// pass tries every day that is due, oldest first, but those whose time to be tried again has not come.
func (r *Runner) pass(ctx context.Context, open attempts) {
	var due []time.Time
	if r.retry(ctx, func() (err error) {
		due, err = r.Due(ctx)
		return err
	}) != nil {
		return
	}
	open.keep(due)
	wait := r.r.Wait
	if wait > 0 {
		wait = max(wait, r.engine(waitLeast))
	}
	until := r.clock.Now().Add(wait)
	for _, day := range due {
		if at := r.schedule.Next(day.Add(oneDay - time.Nanosecond)); at.IsZero() || at.After(r.clock.Now()) {
			continue // over, but its time has not come
		}
		a := open.of(day, until)
		if time.Now().Before(a.next) {
			continue
		}
		if r.await(ctx, day, a) != nil {
			return
		}
		res, err := r.Day(ctx, day, false)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.tellFailed(ctx, day, a, err)
		default:
			delete(open, day)
			r.tell(ctx, res)
		}
	}
}

// tellFailed says why a day is not rolled up, and when it is tried again. The same reason is said again after a while
// only.
func (r *Runner) tellFailed(ctx context.Context, day time.Time, a *attempt, err error) {
	_, faulty := errors.AsType[*Error](err)
	a.failed(faulty)
	if time.Since(a.said) < sayAgain && a.pause < tryFaulty {
		return
	}
	a.said = time.Now()
	attrs := []any{"day", day.Format(time.DateOnly), "error", err.Error(), "again_in", a.pause, "tries", a.tries}
	if faulty {
		r.log.ErrorContext(ctx, "day not rolled up; its raw rows stay", attrs...)
	} else {
		r.log.WarnContext(ctx, "day not rolled up yet; its raw rows stay", attrs...)
	}
}

func (r *Runner) tell(ctx context.Context, res Result) {
	day := res.Day.Format(time.DateOnly)
	switch {
	case res.Rejected:
		r.log.WarnContext(ctx, "late rows rejected: they stay raw", "day", day, "late_rows", res.LateRows)
	case res.RawRows > 0 || res.Dropped:
		r.log.InfoContext(ctx, "day rolled up", "day", day, "raw_rows", res.RawRows, "hourly_rows", res.HourlyRows,
			"late_rows", res.LateRows, "repeats", res.Repeats,
			"dropped", res.Dropped, "took", res.Took.Round(time.Millisecond))
	}
}

// await waits until every record of the day is stored, at most until a time. Only the end of ctx is an error.
func (r *Runner) await(ctx context.Context, day time.Time, a *attempt) error {
	said := false
	for {
		passed, err := r.gate.DayComplete(ctx, day)
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
		if !now.Before(a.until) {
			if a.tries == 0 {
				r.log.WarnContext(ctx,
					"rollup goes on without workers that have not passed midnight; what they bring is late", attrs...)
			}
			return nil
		}
		if !said {
			r.log.InfoContext(ctx, "rollup waits for workers to pass midnight",
				append(attrs, "longest", a.until.Sub(now).Round(time.Second))...)
			said = true
		}
		if err := r.clock.Sleep(ctx, min(max(gateEvery, r.engine(gateLeast)), a.until.Sub(now))); err != nil {
			return err
		}
	}
}

// retry calls f until it succeeds or ctx ends.
func (r *Runner) retry(ctx context.Context, f func() error) error {
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
