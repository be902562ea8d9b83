package schedule

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/cryptoviz/cryptoviz/engine/clock"
)

// Claim is the ledger's answer to an instance that wants to run a slot.
type Claim int

// The answers.
const (
	Mine  Claim = iota // run it, renew the lease, and finish it
	Taken              // another instance works on it; ask again later: it may die
	Done               // it has ended
)

// Ledger is where every due slot ends, exactly once, over all instances. Leases are in real time, on the database's clock.
type Ledger interface {
	Claim(ctx context.Context, slot Slot, lease time.Duration) (Claim, error)
	// Renew prolongs a claim; false: it was lost to another instance.
	Renew(ctx context.Context, slot Slot, lease time.Duration) (bool, error)
	Finish(ctx context.Context, out Outcome) error
	// Last returns the newest slot of a source, or zero.
	Last(ctx context.Context, source string) (time.Time, error)
	// Settle enters the slots in (after, before), interval apart, that have no end yet: as skipped for the reason, or as
	// failed where an instance died with them. It returns how many it entered.
	Settle(ctx context.Context, source string, after, before time.Time, interval time.Duration, reason string) (int, error)
}

// Job is one source's work.
type Job struct {
	Source                   string
	Interval, Offset, Jitter time.Duration
	// Run does one slot. Its context ends when the slot does; the outcome says how it went and how long it took.
	Run func(ctx context.Context, slot Slot) Outcome
}

// SlotAt returns the start of the slot that holds t: a multiple of interval since the epoch, plus offset.
func SlotAt(interval, offset time.Duration, t time.Time) time.Time {
	n := t.Add(-offset).UnixNano()
	return time.Unix(0, n-((n%int64(interval))+int64(interval))%int64(interval)).Add(offset).UTC()
}

// maxSettle bounds how many missed slots of one stretch are entered one by one: a week of minutes.
const maxSettle = 7 * 24 * 60

const lease = 15 * time.Second

// Scheduler runs jobs in their slots.
type Scheduler struct {
	jobs   []Job
	ledger Ledger
	clock  clock.Clock
	log    *slog.Logger
}

// New prepares a scheduler.
func New(jobs []Job, ledger Ledger, clk clock.Clock, log *slog.Logger) *Scheduler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{jobs, ledger, clk, log}
}

// Run schedules every job until ctx ends. The slot that is under way at the start is run at once, unless it has ended.
func (s *Scheduler) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, job := range s.jobs {
		l := &line{Scheduler: s, job: job, log: s.log.With("source", job.Source)}
		all.Go(func() { l.run(ctx) })
	}
	all.Wait()
	return nil
}

// line is one source's way through time.
type line struct {
	*Scheduler
	job     Job
	log     *slog.Logger
	settled time.Time // every slot up to this one is in the ledger
	why     string    // reason of the slots since then that are not
	down    bool      // the ledger does not answer, and that was said
}

func (l *line) run(ctx context.Context) {
	l.why = "no instance was running"
	var last time.Time
	for ctx.Err() == nil {
		slot := SlotAt(l.job.Interval, l.job.Offset, l.clock.Now())
		if !slot.After(last) { // done already: wait for the next one
			slot = slot.Add(l.job.Interval)
			for !slot.After(last) {
				slot = slot.Add(l.job.Interval) // the machine's clock went back
			}
		}
		if l.sleepUntil(ctx, slot.Add(l.jitter())) != nil {
			return
		}
		l.slot(ctx, Slot{l.job.Source, slot})
		last = slot
	}
}

// jitter is fixed for a source, so that its slots stay evenly apart.
func (l *line) jitter() time.Duration {
	if l.job.Jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(l.job.Source))
	return time.Duration(h.Sum64() % uint64(l.job.Jitter)) //nolint:gosec // jitter is positive
}

// sleepUntil looks at the wall clock each second: timers stand still while a machine is suspended.
func (l *line) sleepUntil(ctx context.Context, t time.Time) error {
	for {
		left := t.Sub(l.clock.Now())
		if left <= 0 {
			return ctx.Err()
		}
		if err := l.clock.Sleep(ctx, min(left, time.Duration(float64(time.Second)*l.clock.Speed()))); err != nil {
			return err
		}
	}
}

// slot claims a slot and runs it. While another instance works on it, it stands by in case that one dies.
func (l *line) slot(ctx context.Context, slot Slot) {
	end := slot.At.Add(l.job.Interval)
	for first := true; ctx.Err() == nil && (first || l.clock.Now().Before(end)); first = false {
		answer, err := l.ledger.Claim(ctx, slot, lease)
		wait := lease / 3
		switch {
		case err != nil:
			l.noteDown(ctx, err)
			wait = time.Second
		case answer == Mine:
			l.settle(ctx, slot.At)
			l.do(ctx, slot, end)
			return
		case answer == Done:
			l.settle(ctx, slot.At)
			return
		default:
			l.settle(ctx, slot.At)
		}
		wait = time.Duration(float64(wait) * l.clock.Speed())
		if l.clock.Sleep(ctx, max(time.Millisecond, min(wait, end.Sub(l.clock.Now())))) != nil {
			return
		}
	}
}

func (l *line) noteDown(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	l.why = "the slot ledger could not be reached"
	if !l.down {
		l.down = true
		l.log.Warn("slot ledger does not answer: nothing is fetched until it does", "error", err.Error())
	}
}

// settle enters what was missed before a slot.
func (l *line) settle(ctx context.Context, at time.Time) {
	if l.down {
		l.down = false
		l.log.Info("slot ledger answers again")
	}
	if l.settled.IsZero() {
		last, err := l.ledger.Last(ctx, l.job.Source)
		if err != nil {
			l.noteDown(ctx, err)
			return
		}
		if last.IsZero() || !last.Before(at) {
			l.settled, l.why = at, ""
			return
		}
		l.settled = SlotAt(l.job.Interval, l.job.Offset, last).Add(-l.job.Interval) // the newest one may belong to an instance that died
	}
	from := l.settled
	if earliest := at.Add(-maxSettle * l.job.Interval); from.Before(earliest) {
		l.log.Warn("a long stretch was missed: its older slots are not entered one by one", "from", from.Format(time.RFC3339), "to", earliest.Format(time.RFC3339))
		from = earliest
	}
	reason := l.why
	if reason == "" {
		reason = "the slot before took too long"
	}
	n, err := l.ledger.Settle(ctx, l.job.Source, from, at, l.job.Interval, reason)
	if err != nil {
		l.noteDown(ctx, err)
		return
	}
	if n > 0 {
		l.log.Warn("slots missed", "count", n, "reason", reason)
	}
	l.settled, l.why = at, ""
}

// do runs a claimed slot, keeps the claim alive, and enters how it ended.
func (l *line) do(ctx context.Context, slot Slot, end time.Time) {
	left := max(0, time.Duration(float64(end.Sub(l.clock.Now()))/l.clock.Speed()))
	work, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	var renewing sync.WaitGroup
	stop := make(chan struct{})
	renewing.Go(func() { l.renew(work, slot, stop, cancel) })
	out := l.job.Run(work, slot)
	close(stop)
	renewing.Wait()
	out.Slot = slot
	if out.Kind == OK && l.clock.Now().After(end.Add(l.grace())) {
		out.Kind = Late
	}
	if out.Kind == Failed && ctx.Err() != nil {
		l.release(ctx, slot)
		return
	}
	l.finish(ctx, out)
}

// grace is how far over its end a slot may reach that was filled in time: a stream's slot ends with its last moment.
func (l *line) grace() time.Duration { return l.job.Interval / 10 }

func (l *line) renew(ctx context.Context, slot Slot, stop <-chan struct{}, lost context.CancelFunc) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if mine, err := l.ledger.Renew(ctx, slot, lease); err == nil && !mine {
			l.log.Warn("slot was taken over by another instance", "slot", slot.At)
			lost()
			return
		}
	}
}

// release gives a slot back that this instance was stopped in: another one, or its own next start, takes it over at once.
func (l *line) release(ctx context.Context, slot Slot) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease/3)
	defer cancel()
	_, _ = l.ledger.Renew(ctx, slot, 0) // if this fails, the lease runs out by itself
}

// finish enters the outcome; it outlives a shutdown for a moment, so that no slot stays open.
func (l *line) finish(ctx context.Context, out Outcome) {
	if (out.Kind == Failed || out.Kind == Skipped) && ctx.Err() == nil {
		l.log.Warn("slot without data", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "reason", out.Reason)
	} else {
		l.log.Debug("slot ended", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "records", out.Records, "took", out.Took)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease)
	defer cancel()
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, l.ledger.Finish(ctx, out) },
		backoff.WithBackOff(&backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, Multiplier: 2, MaxInterval: 2 * time.Second, RandomizationFactor: 0.3}))
	if err != nil {
		l.noteDown(ctx, fmt.Errorf("enter slot %s: %w", out.At.Format(time.RFC3339), err))
	}
}
