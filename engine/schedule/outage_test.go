package schedule_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
)

// TestOutageIsBridged: three instances, and the ledger away for ten minutes: the one that ran the slot before runs the next
// ones, the others none, and all are entered.
func TestOutageIsBridged(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		runs := map[time.Time][]string{}
		job := func(name string) schedule.Job {
			return schedule.Job{Source: "a", Interval: time.Minute, Run: func(_ context.Context, slot schedule.Slot) schedule.Outcome {
				mu.Lock()
				defer mu.Unlock()
				runs[slot.At] = append(runs[slot.At], name)
				return schedule.Outcome{Kind: schedule.OK}
			}}
		}
		one := w.begin("one", job("one"))
		sleepTo("00:00:10")
		two, three := w.begin("two", job("two")), w.begin("three", job("three"))
		sleepTo("00:03:30")
		w.setDown(true)
		sleepTo("00:13:30")
		w.setDown(false)
		sleepTo("00:16:30")
		two()
		three()
		one()
		if len(runs) != 17 {
			t.Errorf("%d slots ran", len(runs))
		}
		for slot, by := range runs {
			if strings.Join(by, "") != "one" {
				t.Errorf("%s was run by %q", slot.Format(time.TimeOnly), by)
			}
		}
		for _, line := range w.text() {
			if !strings.HasSuffix(line, " ok") {
				t.Error(line)
			}
		}
		if strings.Contains(w.log.String(), "slots missed") {
			t.Error(w.log.String())
		}
	})
}

// TestFencedStandsBy: who was thrown out by another instance does not go on without a claim.
func TestFencedStandsBy(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		job := w.job()
		job.Fenced = func() bool { return time.Now().Equal(at("00:03:00")) }
		stop := w.begin("one", job)
		sleepTo("00:01:30")
		w.setDown(true)
		sleepTo("00:05:30")
		w.setDown(false)
		sleepTo("00:06:30")
		stop()
		const gone = " skipped the slot ledger could not be reached"
		w.has("00:00:00 ok", "00:01:00 ok", "00:02:00 ok", "00:03:00"+gone, "00:04:00"+gone, "00:05:00 ok", "00:06:00 ok")
	})
}

// TestTheHolderIsTheFirst: who ran a slot has the next one, though another instance asks at the same time; when it is gone the
// other one has the slot under way.
func TestTheHolderIsTheFirst(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		owners := map[time.Time]string{}
		var mu sync.Mutex
		job := func(name string) schedule.Job {
			return schedule.Job{Source: "a", Interval: time.Minute, Run: func(_ context.Context, slot schedule.Slot) schedule.Outcome {
				mu.Lock()
				defer mu.Unlock()
				owners[slot.At] = name
				return schedule.Outcome{Kind: schedule.OK}
			}}
		}
		one := w.begin("one", job("one"))
		sleepTo("00:00:10")
		two := w.begin("two", job("two"))
		sleepTo("01:00:30")
		mu.Lock()
		for slot, name := range owners {
			if name != "one" {
				t.Errorf("%s was run by %s", slot.Format(time.TimeOnly), name)
			}
		}
		mu.Unlock()
		one()
		sleepTo("01:02:30")
		two()
		if owners[at("01:01:00")] != "two" || owners[at("01:02:00")] != "two" {
			t.Error(owners)
		}
	})
}

// TestPending: a slot whose records wait for Kafka keeps its lease and holds up no other; it ends when they are acknowledged,
// or when it is said that they are not.
func TestPending(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		free := make(chan struct{})
		w.work = func(_ context.Context, slot schedule.Slot) schedule.Outcome {
			out := schedule.Outcome{Kind: schedule.OK}
			switch slot.At.Minute() {
			case 1, 2, 3:
				out.Pending = func() schedule.Outcome { <-free; return out }
			case 4:
				out.Pending = func() schedule.Outcome {
					return schedule.Outcome{Kind: schedule.Failed, Reason: "the buffer is full"}
				}
			}
			return out
		}
		one := w.begin("one", w.job())
		sleepTo("00:00:10")
		two := w.begin("two", w.job())
		sleepTo("00:05:30")
		w.has("00:00:00 ok", "00:01:00", "00:02:00", "00:03:00", "00:04:00 failed the buffer is full", "00:05:00 ok")
		close(free)
		sleepTo("00:06:30")
		w.has("00:00:00 ok", "00:01:00 late", "00:02:00 late", "00:03:00 late", "00:04:00 failed the buffer is full", "00:05:00 ok", "00:06:00 ok")
		one()
		two()
		if len(w.runs) != 7 {
			t.Errorf("ran %q", w.runs)
		}
	})
}

// TestPendingAtTheEnd: what Kafka has not taken when the process ends fails with that reason; the slot under way is free for
// the next start.
func TestPendingAtTheEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		ended := make(chan struct{})
		w.work = func(context.Context, schedule.Slot) schedule.Outcome {
			return schedule.Outcome{Pending: func() schedule.Outcome {
				<-ended
				return schedule.Outcome{Kind: schedule.Failed, Reason: "the process ended"}
			}}
		}
		stop := w.begin("one", w.job())
		sleepTo("00:02:30")
		time.AfterFunc(2*time.Second, func() { close(ended) })
		stop()
		w.has("00:00:00 failed the process ended", "00:01:00 failed the process ended", "00:02:00")
		w.work = nil
		stop = w.begin("two", w.job())
		sleepTo("00:02:50")
		stop()
		w.has("00:00:00 failed the process ended", "00:01:00 failed the process ended", "00:02:00 ok")
	})
}

// TestOvertime: a run that may go on after its slot's end is stored as late; one without overtime ends with its slot.
func TestOvertime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		job := w.job()
		job.Overtime = 40 * time.Second
		w.work = func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
			wait := map[int]time.Duration{1: 90 * time.Second, 4: 2 * time.Minute}[slot.At.Minute()]
			select {
			case <-time.After(wait):
				return schedule.Outcome{Kind: schedule.OK}
			case <-ctx.Done():
				return schedule.Outcome{Kind: schedule.Failed, Reason: "timeout"}
			}
		}
		stop := w.begin("one", job)
		sleepTo("00:06:30")
		stop()
		w.has("00:00:00 ok", "00:01:00 late", "00:02:00 ok", "00:03:00 ok", "00:04:00 failed timeout", "00:05:00 ok", "00:06:00 ok")
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.runs[2] != "00:02:00 at 00:02:30" {
			t.Errorf("ran %q", w.runs)
		}
	})
}

// TestRightedEnd: an end that becomes known later replaces what was said before.
func TestRightedEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		w.slots[at("00:00:00")] = &entry{kind: schedule.Failed, reason: "died"}
		sleepTo("00:01:30")
		s := w.scheduler("one", w.job())
		stop := w.run(s)
		s.Enter(schedule.Outcome{Slot: schedule.Slot{Source: "a", At: at("00:00:00")}, Kind: schedule.Late, Records: 3})
		s.Enter(schedule.Outcome{Slot: schedule.Slot{Source: "unknown", At: at("00:00:00")}, Kind: schedule.Late})
		sleepTo("00:01:40")
		stop()
		w.has("00:00:00 late", "00:01:00 ok")
	})
}

// slowLedger takes its time for the claim of one slot.
type slowLedger struct {
	ledger
	slot time.Time
}

func (l slowLedger) Acquire(ctx context.Context, slot schedule.Slot, lease time.Duration) (schedule.Lease, error) {
	if slot.At.Equal(l.slot) {
		time.Sleep(70 * time.Second)
	}
	return l.ledger.Acquire(ctx, slot, lease)
}

// TestLateClaim: a slot that is over when its claim comes is run as late, if its overtime is not over.
func TestLateClaim(t *testing.T) {
	for overtime, want := range map[time.Duration]string{0: "00:01:00 skipped the slot was over when its claim came", 20 * time.Second: "00:01:00 late"} {
		bubble(t, func(_ *testing.T, w *world) {
			job := w.job()
			job.Overtime = overtime
			stop := w.run(schedule.New([]schedule.Job{job}, slowLedger{ledger{w.book, "one"}, at("00:01:00")}, clock.Real(), nil))
			sleepTo("00:03:30")
			stop()
			w.has("00:00:00 ok", want, "00:02:00 ok", "00:03:00 ok")
		})
	}
}
