package schedule

import (
	"context"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
)

// sourceLoop is one source's way through time.
type sourceLoop struct {
	job    Job
	ledger Ledger
	clock  clock.Clock
	log    *slog.Logger
	book   *book

	first    time.Time // the slot under way when this loop began
	recorded time.Time // every slot up to this one is in the ledger, or in the book; this one too
	why      string    // reason of the slots since then that are not, where it is known
	holds    bool      // this instance ran the newest slot that it knows of
	standby  bool      // another instance did
	late     bool      // the ledger was away, and this instance had nothing to enter
}

const ledgerAway = "the slot ledger could not be reached"

func (l *sourceLoop) run(ctx context.Context) {
	defer l.book.open(ctx)()
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
			continue // recorded with the slot that is under way now
		}
		l.slot(ctx, Slot{l.job.Source, slot})
		last = slot
	}
}

// goBack begins again at a slot, after a clock that was ahead was set right: without it the loop would stand still
// until the time that the clock showed.
func (l *sourceLoop) goBack(slot, last time.Time) {
	l.log.Warn("this machine's clock was set back: the slots go on from there", "from", last.Format(time.RFC3339), "to",
		slot.Format(time.RFC3339))
	if l.first.After(slot) {
		l.first = slot
	}
	if l.recorded.After(slot) {
		l.recorded = time.Time{}
	}
	if l.why == "" {
		l.why = "this machine's clock was ahead"
	}
}

// jitter is fixed for a source, so that its slots stay evenly apart.
func (l *sourceLoop) jitter() time.Duration {
	if l.job.Jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(l.job.Source))
	return time.Duration(h.Sum64() % uint64(l.job.Jitter)) //nolint:gosec // jitter is positive
}

// held tells whether the next slots are this instance's, whatever the ledger says, or does not say.
func (l *sourceLoop) held() bool {
	if l.job.Fenced != nil && l.job.Fenced() {
		l.holds = false
	}
	return l.holds
}

// stagger is how long an instance waits that did not run the slot before: who did has the next one, as long as it
// lives.
func (l *sourceLoop) stagger() time.Duration {
	return min(l.job.Interval/4, time.Duration(float64(time.Second)*l.clock.Speed()))
}

// slot claims a slot and runs it. While another instance works on it, it stands by in case that one dies.
func (l *sourceLoop) slot(ctx context.Context, slot Slot) {
	end := slot.At.Add(l.job.Interval)
	if l.standby && l.clock.Sleep(ctx, l.stagger()) != nil {
		return
	}
	for first := true; ctx.Err() == nil && (first || l.within(slot, end)); first = false {
		held := l.held()
		switch away := l.book.away(); {
		case away && held:
			l.doUnclaimed(ctx, slot, end)
			return
		case away: // the book asks, and hears when it answers again
			l.why, l.late = ledgerAway, true
			if l.clock.Sleep(ctx, l.pause(time.Second, end)) != nil {
				return
			}
			continue
		case l.late: // who held the source has slots to enter first
			l.late = false
			if l.clock.Sleep(ctx, l.pause(lease/3, end)) != nil {
				return
			}
			continue
		}
		answer, err := l.acquire(ctx, slot, held)
		wait := lease / 3
		switch {
		case err != nil:
			wrongClock := l.book.noteDown(ctx, err)
			if held && !wrongClock && ctx.Err() == nil {
				l.doUnclaimed(ctx, slot, end)
				return
			}
			l.why = ledgerAway
			if wrongClock {
				l.why = "this machine's clock was ahead"
			}
			wait = time.Second
		case answer == Acquired:
			l.holds, l.standby = true, false
			l.do(ctx, slot, end, true)
			return
		default:
			l.holds, l.standby = false, true
			if answer == Finished {
				return
			}
		}
		if l.clock.Sleep(ctx, l.pause(wait, end)) != nil {
			return
		}
	}
}

// pause is a real pause in engine time, that ends with the slot at the latest.
func (l *sourceLoop) pause(d time.Duration, end time.Time) time.Duration {
	return max(time.Millisecond, min(time.Duration(float64(d)*l.clock.Speed()), end.Sub(l.clock.Now())))
}

// within is false when a slot is over, and when the clock was set back so far that it is yet to come.
func (l *sourceLoop) within(slot Slot, end time.Time) bool {
	now := l.clock.Now()
	return now.Before(end) && !now.Before(slot.At.Add(-l.job.Interval))
}

// acquire enters what was missed, then asks for the slot: in this order, so that a crash between them hides nothing.
// Who holds the source has no time to wait for an answer.
func (l *sourceLoop) acquire(ctx context.Context, slot Slot, held bool) (Lease, error) {
	if held {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx,
			min(lease/5, max(time.Duration(float64(l.job.Interval)/l.clock.Speed())/2, 250*time.Millisecond)))
		defer cancel()
	}
	if err := l.recordMissed(ctx, slot.At); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := l.ledger.Acquire(ctx, slot, lease)
	if err != nil {
		return 0, err
	}
	l.recorded, l.why = slot.At, ""
	l.book.noteUp()
	return answer, nil
}

// recordMissed enters what was missed before a slot: before this process began, and since.
func (l *sourceLoop) recordMissed(ctx context.Context, at time.Time) error {
	if !l.recorded.Before(at) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if l.recorded.IsZero() {
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
		l.recorded = before
	}
	return l.enter(ctx, l.recorded, at, l.missed())
}

// missed is why there are slots that were not run.
func (l *sourceLoop) missed() string {
	if l.why != "" {
		return l.why
	}
	return "the slot before took too long"
}

// enter records the missed slots in (after, before), the newest maxMissed of them.
func (l *sourceLoop) enter(ctx context.Context, after, before time.Time, reason string) error {
	earliest := before.Add(-maxMissed * l.job.Interval)
	if after.After(earliest) {
		earliest = after
	}
	n, err := l.ledger.RecordMissed(ctx, l.job.Source, earliest, before, l.job.Interval, reason)
	if err == nil && earliest.After(after) {
		l.log.Warn("a long stretch was missed: its older slots are not entered one by one", "from",
			after.Format(time.RFC3339), "to", earliest.Format(time.RFC3339))
	}
	if n > 0 {
		l.log.Warn("slots missed", "count", n, "reason", reason)
	}
	return err
}

// doUnclaimed runs a slot while the ledger does not answer; what was missed before it goes into the book.
func (l *sourceLoop) doUnclaimed(ctx context.Context, slot Slot, end time.Time) {
	for at := l.recorded.Add(l.job.Interval); at.Before(slot.At); at = at.Add(l.job.Interval) {
		l.book.enter(Outcome{Slot: Slot{l.job.Source, at}, Kind: Skipped, Reason: l.missed()})
	}
	if l.recorded.Before(slot.At) {
		l.recorded = slot.At
	}
	l.why = ""
	l.do(ctx, slot, end, false)
}

// do runs a slot, and hands its end to the book.
func (l *sourceLoop) do(ctx context.Context, slot Slot, end time.Time, claimed bool) {
	left := time.Duration(float64(end.Sub(l.clock.Now()))/l.clock.Speed()) + l.job.Overtime
	if left <= 0 {
		l.book.enter(Outcome{Slot: slot, Kind: Skipped, Reason: "the slot was over when its claim came"})
		return
	}
	work, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if claimed {
		l.book.keep(slot.At, cancel)
	}
	out := l.job.Run(work, slot)
	out.Slot = slot
	if out.Pending == nil {
		l.end(ctx, out, end)
		return
	}
	l.book.waiting.Go(func() {
		pending := out.Pending
		out = pending()
		out.Slot = slot
		l.end(ctx, out, end)
	})
}

// end says how a slot ended. One that was stopped while it was under way is given back: another instance, or the next
// start of this one, takes it over at once.
func (l *sourceLoop) end(ctx context.Context, out Outcome, end time.Time) {
	now := l.clock.Now()
	if out.Kind == OK && now.After(end.Add(l.gracePeriod())) {
		out.Kind = Late
	}
	if (out.Kind == Failed || out.Kind == Skipped) && ctx.Err() != nil && now.Before(end) {
		l.book.release(ctx, out.At)
		return
	}
	if (out.Kind == Failed || out.Kind == Skipped) && ctx.Err() == nil {
		l.log.Warn("slot without data", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "reason",
			out.Reason)
	} else {
		l.log.Debug("slot ended", "slot", out.At.Format(time.RFC3339), "state", string(out.Kind), "records",
			out.Records, "took", out.Took)
	}
	l.book.enter(out)
}

// gracePeriod is how far over its end a slot may reach that was filled in time: a stream's slot ends with its last
// moment.
func (l *sourceLoop) gracePeriod() time.Duration {
	return max(l.job.Interval/10, min(l.job.Interval/2, time.Second/2))
}
