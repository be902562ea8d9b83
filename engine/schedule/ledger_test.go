package schedule_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
)

// ledger keeps the slots in memory by the rules of the real one, for one owner a value.
type ledger struct {
	*book
	owner string
}

type book struct {
	mu    sync.Mutex
	slots map[time.Time]*entry
	down  bool
	stuck bool // Acquire alone does not answer
	calls int
}

type entry struct {
	kind   schedule.Kind // "" while it runs
	reason string
	owner  string
	until  time.Time
}

func (l ledger) open() (func(), error) {
	l.mu.Lock()
	l.calls++
	if l.down {
		l.mu.Unlock()
		return nil, errDown
	}
	return l.mu.Unlock, nil
}

func (l ledger) Acquire(_ context.Context, slot schedule.Slot, lease time.Duration) (schedule.Lease, error) {
	done, err := l.open()
	if err != nil {
		return 0, err
	}
	defer done()
	if l.stuck {
		return 0, errDown
	}
	if err := due(slot.At); err != nil {
		return 0, err
	}
	e := l.slots[slot.At]
	switch {
	case e == nil, e.kind == "" && !e.until.After(time.Now()):
		l.slots[slot.At] = &entry{owner: l.owner, until: time.Now().Add(lease)}
		return schedule.Acquired, nil
	case e.kind == "":
		return schedule.Held, nil
	}
	return schedule.Finished, nil
}

func (l ledger) Renew(_ context.Context, _ string, slots []time.Time, lease time.Duration) (lost []time.Time, err error) {
	done, err := l.open()
	if err != nil {
		return nil, err
	}
	defer done()
	for _, at := range slots {
		if e := l.slots[at]; e == nil || e.kind != "" || e.owner != l.owner {
			lost = append(lost, at)
		} else {
			e.until = time.Now().Add(lease)
		}
	}
	return lost, nil
}

func (l ledger) Enter(_ context.Context, ends []schedule.Outcome) error {
	done, err := l.open()
	if err != nil {
		return err
	}
	defer done()
	rank := map[schedule.Kind]int{"": 0, schedule.Skipped: 1, schedule.Failed: 2, schedule.NotModified: 3, schedule.Late: 3, schedule.OK: 3}
	for _, out := range ends {
		e := l.slots[out.At]
		if e == nil {
			e = &entry{owner: l.owner}
			l.slots[out.At] = e
		}
		if e.kind == "" && e.owner == l.owner || e.kind != "" && rank[out.Kind] > rank[e.kind] {
			e.kind, e.reason = out.Kind, out.Reason
		}
	}
	return nil
}

func (l ledger) Last(context.Context, string) (last time.Time, err error) {
	done, err := l.open()
	if err != nil {
		return last, err
	}
	defer done()
	for at := range l.slots {
		if at.After(last) {
			last = at
		}
	}
	return last, nil
}

func (l ledger) RecordMissed(_ context.Context, _ string, after, before time.Time, interval time.Duration, reason string) (n int, err error) {
	done, err := l.open()
	if err != nil {
		return 0, err
	}
	defer done()
	if err := due(before); err != nil {
		return 0, err
	}
	for at := after.Add(interval); at.Before(before); at = at.Add(interval) {
		if l.slots[at] == nil {
			l.slots[at] = &entry{kind: schedule.Skipped, reason: reason}
			n++
		}
	}
	for at, e := range l.slots {
		if at.Before(before) && e.kind == "" && e.until.Before(time.Now()) {
			e.kind, e.reason = schedule.Failed, "died"
			n++
		}
	}
	return n, nil
}

// due refuses what has not begun, by the bubble's clock.
func due(slot time.Time) error {
	if now := time.Now().UTC(); slot.After(now.Add(30 * time.Second)) {
		return &schedule.ClockError{Slot: slot, Ledger: now}
	}
	return nil
}

func (b *book) setStuck(stuck bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = stuck
}

func (b *book) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// text lists the slots in order: time, state, reason.
func (b *book) text() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, at := range slices.SortedFunc(maps.Keys(b.slots), time.Time.Compare) {
		e := b.slots[at]
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", at.Format(time.TimeOnly), e.kind, e.reason)))
	}
	return out
}
