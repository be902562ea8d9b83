package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// book is what a loop has for the ledger: how slots ended, and which ones are under way. It enters them while the loop
// goes on, in order, and again until the ledger has it.
type book struct {
	loop    *sourceLoop
	wake    chan struct{}
	waiting sync.WaitGroup // slots whose records wait for Kafka

	mu     sync.Mutex
	ends   []Outcome
	claims map[time.Time]context.CancelFunc // slots that this instance is at, under a claim
	down   bool                             // the ledger does not answer
	saidAt time.Time                        // when that was said last, zero while it answers
}

func newBook(l *sourceLoop) *book {
	return &book{loop: l, wake: make(chan struct{}, 1), claims: map[time.Time]context.CancelFunc{}}
}

// mostEnds is how many ends are entered at once.
const mostEnds = 500

// open begins to enter. The returned function waits for the slots whose records wait for Kafka, and for the ledger to
// take everything; if that does not answer, not for long.
func (b *book) open(ctx context.Context) (closed func()) {
	var all sync.WaitGroup
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	all.Go(func() { b.tell(stop) })
	all.Go(func() { b.renew(stop) })
	return func() {
		b.waiting.Wait()
		cancel()
		all.Wait()
		b.last(context.WithoutCancel(ctx))
	}
}

// enter adds an end.
func (b *book) enter(out Outcome) {
	b.mu.Lock()
	delete(b.claims, out.At)
	out.Pending = nil
	b.ends = append(b.ends, out)
	b.mu.Unlock()
	b.nudge()
}

func (b *book) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// keep renews the claim of a slot until its end is entered; lost is called if another instance has it.
func (b *book) keep(at time.Time, lost context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claims[at] = lost
}

// away tells whether the ledger does not answer, as far as is known.
func (b *book) away() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

// next returns the oldest ends.
func (b *book) next() (ends []Outcome, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ends[:min(len(b.ends), mostEnds)], b.down
}

// tell enters ends until ctx ends. While the ledger does not answer it asks it again and again, also when there is
// nothing to enter: the loop waits for that.
func (b *book) tell(ctx context.Context) {
	pause := &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, Multiplier: 2,
		MaxInterval: time.Second, RandomizationFactor: 0.3,
	}
	pause.Reset()
	for ctx.Err() == nil {
		ends, away := b.next()
		if len(ends) == 0 && !away {
			pause.Reset()
			select {
			case <-b.wake:
			case <-ctx.Done():
			}
			continue
		}
		err := b.enterOnce(ctx, ends)
		if err == nil {
			b.entered(len(ends))
			continue
		}
		b.noteDown(ctx, err)
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
		}
	}
}

func (b *book) enterOnce(ctx context.Context, ends []Outcome) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if len(ends) == 0 {
		_, err := b.loop.ledger.Last(ctx, b.loop.job.Source)
		return err
	}
	if err := b.loop.ledger.Enter(ctx, ends); err != nil {
		return fmt.Errorf("enter slot %s: %w", ends[0].At.Format(time.RFC3339), err)
	}
	return nil
}

// entered drops the oldest ends. When nothing is left of them, the ledger is up to date.
func (b *book) entered(n int) {
	b.mu.Lock()
	b.ends = slices.Delete(b.ends, 0, n)
	done := len(b.ends) == 0
	b.mu.Unlock()
	if done {
		b.noteUp()
	}
}

// last is the last try, after the loop has ended.
func (b *book) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lease/3)
	defer cancel()
	for {
		ends, _ := b.next()
		if len(ends) == 0 {
			return
		}
		if err := b.enterOnce(ctx, ends); err != nil {
			b.loop.log.Warn("ends of slots are not entered: they will show as failed, until the next start finds "+
				"their records", "count", len(b.ends), "error", err.Error())
			return
		}
		b.entered(len(ends))
	}
}

// noteDown says that the ledger does not answer, once in a while, and tells whether it is because of a clock.
func (b *book) noteDown(ctx context.Context, err error) (wrongClock bool) {
	clockErr, wrongClock := errors.AsType[*ClockError](err)
	if ctx.Err() != nil {
		return wrongClock
	}
	l := b.loop
	now := l.clock.Now()
	b.mu.Lock()
	b.down = !wrongClock
	since, first := now.Sub(b.saidAt), b.saidAt.IsZero()
	silent := !first && since >= 0 && since < time.Duration(float64(sayAgain)*l.clock.Speed())
	if !silent {
		b.saidAt = now
	}
	b.mu.Unlock()
	b.nudge()
	switch {
	case silent:
	case wrongClock:
		l.log.Warn("this machine's clock is ahead of the database's: nothing is fetched until one of them is set "+
			"right (is NTP on?)",
			"here", now.Format(time.RFC3339), "database", clockErr.Ledger.Format(time.RFC3339))
	default:
		l.log.Warn("slot ledger does not answer: who ran the source goes on, and enters its slots later; others wait",
			"error", err.Error())
	}
	return wrongClock
}

func (b *book) noteUp() {
	b.mu.Lock()
	was := !b.saidAt.IsZero()
	b.down, b.saidAt = false, time.Time{}
	b.mu.Unlock()
	if was {
		b.loop.log.Info("slot ledger answers again")
	}
}

// renew keeps the claims alive until ctx ends.
func (b *book) renew(ctx context.Context) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		var slots []time.Time
		for at := range b.claims {
			slots = append(slots, at)
		}
		b.mu.Unlock()
		if len(slots) == 0 {
			continue
		}
		lost, err := b.renewOnce(ctx, slots, lease)
		if err != nil {
			continue
		}
		b.mu.Lock()
		for _, at := range lost {
			if cancel := b.claims[at]; cancel != nil {
				b.loop.log.Warn("slot was taken over by another instance", "slot", at)
				cancel()
				delete(b.claims, at)
			}
		}
		b.mu.Unlock()
	}
}

func (b *book) renewOnce(ctx context.Context, slots []time.Time, lease time.Duration) ([]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout/2)
	defer cancel()
	return b.loop.ledger.Renew(ctx, b.loop.job.Source, slots, lease)
}

// release gives a claim back.
func (b *book) release(ctx context.Context, at time.Time) {
	b.mu.Lock()
	_, claimed := b.claims[at]
	delete(b.claims, at)
	b.mu.Unlock()
	if claimed {
		// if this fails, the lease runs out by itself
		_, _ = b.renewOnce(context.WithoutCancel(ctx), []time.Time{at}, 0)
	}
}
