package schedule

import (
	"context"
	"errors"
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

// ClockError is the ledger's answer to an instance that is in a slot which has not begun by the ledger's clock.
type ClockError struct{ Slot, Ledger time.Time }

// Error names both times.
func (e *ClockError) Error() string {
	return fmt.Sprintf("the slot %s has not begun: the database's clock shows %s", e.Slot.Format(time.RFC3339), e.Ledger.Format(time.RFC3339))
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

// Leases and the patience with the ledger are in real time: a fast clock must not make them too short to be of use.
const (
	lease    = 15 * time.Second
	patience = 10 * time.Second // for one answer of the ledger
	sayAgain = 5 * time.Minute  // while it does not answer
)

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
	first   time.Time // the slot under way when this line began
	settled time.Time // every slot up to this one is in the ledger, this one too: it was claimed
	why     string    // reason of the slots since then that are not, where it is known
	downAt  time.Time // the ledger does not answer, and that was said then
}

func (l *line) run(ctx context.Context) {
	l.first = SlotAt(l.job.Interval, l.job.Offset, l.clock.Now())
	var last time.Time
	for ctx.Err() == nil {
		slot := SlotAt(l.job.Interval, l.job.Offset, l.clock.Now())
		if last.Sub(slot) > l.job.Interval {
			l.goBack(slot, last)
			last = time.Time{}
		}
		if !slot.After(last) { // done already, or the machine's clock went back a little: wait for the next one
			slot = last.Add(l.job.Interval)
		}
		if l.clock.SleepUntil(ctx, slot.Add(l.jitter()), l.job.Interval) != nil {
			return
		}
		now := l.clock.Now()
		if now.Before(slot) {
			continue // the clock went back meanwhile
		}
		if !now.Before(slot.Add(l.job.Interval)) {
			if l.why == "" {
				l.why = "the machine was suspended or overloaded"
			}
			continue // settled with the slot that is under way now
		}
		l.slot(ctx, Slot{l.job.Source, slot})
		last = slot
	}
}

// goBack begins again at a slot, after a clock that was ahead was set right: without it the line would stand still until the
// time that the clock showed.
func (l *line) goBack(slot, last time.Time) {
	l.log.Warn("this machine's clock was set back: the slots go on from there", "from", last.Format(time.RFC3339), "to", slot.Format(time.RFC3339))
	if l.first.After(slot) {
		l.first = slot
	}
	if l.settled.After(slot) {
		l.settled = time.Time{}
	}
	if l.why == "" {
		l.why = "this machine's clock was ahead"
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

// slot claims a slot and runs it. While another instance works on it, it stands by in case that one dies.
func (l *line) slot(ctx context.Context, slot Slot) {
	end := slot.At.Add(l.job.Interval)
	for first := true; ctx.Err() == nil && (first || l.within(slot, end)); first = false {
		answer, err := l.claim(ctx, slot)
		wait := lease / 3
		switch {
		case err != nil:
			l.noteDown(ctx, err)
			wait = time.Second
		case answer == Mine:
			l.do(ctx, slot, end)
			return
		case answer == Done:
			return
		}
		wait = time.Duration(float64(wait) * l.clock.Speed())
		if l.clock.Sleep(ctx, max(time.Millisecond, min(wait, end.Sub(l.clock.Now())))) != nil {
			return
		}
	}
}

// within is false when a slot is over, and when the clock was set back so far that it is yet to come.
func (l *line) within(slot Slot, end time.Time) bool {
	now := l.clock.Now()
	return now.Before(end) && !now.Before(slot.At.Add(-l.job.Interval))
}

// claim enters what was missed, then asks for the slot: in this order, so that a crash between them hides nothing.
func (l *line) claim(ctx context.Context, slot Slot) (Claim, error) {
	if err := l.settle(ctx, slot.At); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := l.ledger.Claim(ctx, slot, lease)
	if err != nil {
		return 0, err
	}
	l.settled, l.why = slot.At, ""
	if !l.downAt.IsZero() {
		l.downAt = time.Time{}
		l.log.Info("slot ledger answers again")
	}
	return answer, nil
}

func (l *line) noteDown(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	clockErr, wrong := errors.AsType[*ClockError](err)
	l.why = "the slot ledger could not be reached"
	if wrong {
		l.why = "this machine's clock was ahead"
	}
	now := l.clock.Now()
	if since := now.Sub(l.downAt); !l.downAt.IsZero() && since >= 0 && since < time.Duration(float64(sayAgain)*l.clock.Speed()) {
		return
	}
	l.downAt = now
	if wrong {
		l.log.Warn("this machine's clock is ahead of the database's: nothing is fetched until one of them is set right (is NTP on?)",
			"here", now.Format(time.RFC3339), "database", clockErr.Ledger.Format(time.RFC3339))
		return
	}
	l.log.Warn("slot ledger does not answer: nothing is fetched until it does", "error", err.Error())
}

// settle enters what was missed before a slot: before this process began, and since.
func (l *line) settle(ctx context.Context, at time.Time) error {
	if !l.settled.Before(at) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if l.settled.IsZero() {
		last, err := l.ledger.Last(ctx, l.job.Source)
		if err != nil {
			return err
		}
		before := l.first.Add(-l.job.Interval)
		if !last.IsZero() {
			last = SlotAt(l.job.Interval, l.job.Offset, last)
			if err := l.enter(ctx, last, l.first, "no instance was running"); err != nil {
				return err
			}
			if last.After(before) { // by another instance
				before = last
			}
		}
		l.settled = before
	}
	reason := l.why
	if reason == "" {
		reason = "the slot before took too long"
	}
	return l.enter(ctx, l.settled, at, reason)
}

// enter settles the slots in (after, before), the newest maxSettle of them.
func (l *line) enter(ctx context.Context, after, before time.Time, reason string) error {
	earliest := before.Add(-maxSettle * l.job.Interval)
	if after.After(earliest) {
		earliest = after
	}
	n, err := l.ledger.Settle(ctx, l.job.Source, earliest, before, l.job.Interval, reason)
	if err == nil && earliest.After(after) {
		l.log.Warn("a long stretch was missed: its older slots are not entered one by one", "from", after.Format(time.RFC3339), "to", earliest.Format(time.RFC3339))
	}
	if n > 0 {
		l.log.Warn("slots missed", "count", n, "reason", reason)
	}
	return err
}

// do runs a claimed slot, keeps the claim alive, and enters how it ended.
func (l *line) do(ctx context.Context, slot Slot, end time.Time) {
	left := time.Duration(float64(end.Sub(l.clock.Now())) / l.clock.Speed())
	if left <= 0 {
		l.finish(ctx, Outcome{Slot: slot, Kind: Skipped, Reason: "the slot was over when its claim came"})
		return
	}
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
	if (out.Kind == Failed || out.Kind == Skipped) && ctx.Err() != nil {
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
		if mine, err := l.renewOnce(ctx, slot); err == nil && !mine {
			l.log.Warn("slot was taken over by another instance", "slot", slot.At)
			lost()
			return
		}
	}
}

func (l *line) renewOnce(ctx context.Context, slot Slot) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lease/3)
	defer cancel()
	return l.ledger.Renew(ctx, slot, lease)
}

// release gives a slot back that this instance was stopped in: another one, or its own next start, takes it over at once.
func (l *line) release(ctx context.Context, slot Slot) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease/3)
	defer cancel()
	_, _ = l.ledger.Renew(ctx, slot, 0) // if this fails, the lease runs out by itself
}

// finish enters the outcome. A ledger that is down is waited for, since nothing can be claimed meanwhile; a shutdown is
// outlived for a moment, so that no slot stays open.
func (l *line) finish(ctx context.Context, out Outcome) {
	if (out.Kind == Failed || out.Kind == Skipped) && ctx.Err() == nil {
		l.log.Warn("slot without data", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "reason", out.Reason)
	} else {
		l.log.Debug("slot ended", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "records", out.Records, "took", out.Took)
	}
	err := l.enterOutcome(ctx, out)
	if err != nil { // ctx ended
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease/3)
		defer cancel()
		err = l.enterOutcome(ctx, out)
	}
	if err != nil {
		l.log.Warn("outcome not entered: the slot will end as failed", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "error", err.Error())
	}
}

// enterOutcome tries until the ledger answers or ctx ends.
func (l *line) enterOutcome(ctx context.Context, out Outcome) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return struct{}{}, l.ledger.Finish(ctx, out)
	},
		backoff.WithBackOff(&backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, Multiplier: 2, MaxInterval: 2 * time.Second, RandomizationFactor: 0.3}),
		backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			l.noteDown(ctx, fmt.Errorf("enter slot %s: %w", out.At.Format(time.RFC3339), err))
		}))
	return err
}
