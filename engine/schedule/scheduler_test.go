package schedule_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
)

var errDown = errors.New("connection refused")

// start is where the clock of a synctest bubble begins: midnight of 2000-01-01.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(clock string) time.Time {
	d, err := time.Parse(time.TimeOnly, clock)
	if err != nil {
		panic(err)
	}
	return start.Add(d.Sub(d.Truncate(24 * time.Hour)))
}

// world is a scheduler in a bubble.
type world struct {
	t *testing.T
	*book
	log  logBuffer
	mu   sync.Mutex
	runs []string
	work func(ctx context.Context, slot schedule.Slot) schedule.Outcome
	off  atomic.Int64 // by how much the schedulers' clock is wrong
}

func (w *world) note(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = append(w.runs, s)
}

// job is a minute's job that notes when it ran, and is done at once unless the world has work of its own.
func (w *world) job() schedule.Job {
	return schedule.Job{Source: "a", Interval: time.Minute, Run: func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
		w.note(fmt.Sprintf("%s at %s", slot.At.Format(time.TimeOnly), time.Now().UTC().Format(time.TimeOnly)))
		if w.work != nil {
			return w.work(ctx, slot)
		}
		return schedule.Outcome{Slot: slot, Kind: schedule.OK, Records: 1}
	}}
}

func (w *world) scheduler(owner string, jobs ...schedule.Job) *schedule.Scheduler {
	return schedule.New(jobs, ledger{w.book, owner}, clock.Stepped(clock.Real(), &w.off), slog.New(slog.NewTextHandler(&w.log, nil)))
}

// begin runs a scheduler; the returned function stops it and waits.
func (w *world) begin(owner string, jobs ...schedule.Job) (stop func()) {
	return w.run(w.scheduler(owner, jobs...))
}

func (w *world) run(s *schedule.Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		w.t.Helper()
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

// sleepTo waits until the bubble's clock shows the time, and everything that is due then has happened.
func sleepTo(clock string) {
	time.Sleep(time.Until(at(clock)))
	synctest.Wait()
}

func (w *world) has(want ...string) {
	w.t.Helper()
	if got := w.text(); !slices.Equal(got, want) {
		w.t.Errorf("the ledger has\n  %s\nwant\n  %s\nlog:\n%s", strings.Join(got, "\n  "), strings.Join(want, "\n  "), w.log.String())
	}
}

func (w *world) ran(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.runs, want) {
		w.t.Errorf("ran %q, want %q", w.runs, want)
	}
}

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, &world{t: t, book: &book{slots: map[time.Time]*entry{}}})
	})
}

func TestSlotAt(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("CEST", 2*3600)
	for _, c := range []struct {
		interval, offset time.Duration
		t, want          string
	}{
		{time.Minute, 0, "2026-03-04T12:34:56.789Z", "2026-03-04T12:34:00Z"},
		{time.Minute, 0, "2026-03-04T12:34:00Z", "2026-03-04T12:34:00Z"},
		{time.Minute, 0, "2026-03-04T12:33:59.999999999Z", "2026-03-04T12:33:00Z"},
		{time.Minute, 10 * time.Second, "2026-03-04T12:34:09Z", "2026-03-04T12:33:10Z"},
		{time.Minute, 10 * time.Second, "2026-03-04T12:34:10Z", "2026-03-04T12:34:10Z"},
		{24 * time.Hour, 0, "2026-03-04T23:59:59Z", "2026-03-04T00:00:00Z"},
		{24 * time.Hour, 6 * time.Hour, "2026-03-04T05:59:59Z", "2026-03-03T06:00:00Z"},
		{time.Second, 0, "1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z"},
		{6 * time.Hour, 0, "2026-03-29T01:59:59+02:00", "2026-03-28T18:00:00Z"}, // the night that clocks change in Europe
		{6 * time.Hour, 0, "2026-03-29T02:00:00+02:00", "2026-03-29T00:00:00Z"},
	} {
		when, err := time.Parse(time.RFC3339Nano, c.t)
		if err != nil {
			t.Fatal(err)
		}
		for _, loc := range []*time.Location{time.UTC, berlin} {
			got := schedule.SlotAt(c.interval, c.offset, when.In(loc))
			if got.Format(time.RFC3339Nano) != c.want {
				t.Errorf("SlotAt(%s, %s, %s) = %s, want %s", c.interval, c.offset, c.t, got.Format(time.RFC3339Nano), c.want)
			}
		}
	}
}

func TestEverySlotRunsOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		sleepTo("00:00:30")
		stop := w.begin("one", w.job())
		sleepTo("00:03:30")
		stop()
		w.ran("00:00:00 at 00:00:30", "00:01:00 at 00:01:00", "00:02:00 at 00:02:00", "00:03:00 at 00:03:00")
		w.has("00:00:00 ok", "00:01:00 ok", "00:02:00 ok", "00:03:00 ok")
	})
}

func TestOffsetAndJitter(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		job := w.job()
		job.Offset, job.Jitter = 10*time.Second, 20*time.Second
		stop := w.begin("one", job)
		sleepTo("00:59:59")
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		var delay time.Duration
		for i, run := range w.runs[1:] { // the first one was under way already
			var slot, ran string
			if _, err := fmt.Sscanf(run, "%s at %s", &slot, &ran); err != nil {
				t.Fatal(err)
			}
			d := at(ran).Sub(at(slot))
			if at(slot).Second() != 10 || d < 0 || d >= 20*time.Second || i > 0 && d != delay {
				t.Errorf("run %d: %s, the one before waited %s", i, run, delay)
			}
			delay = d
		}
		if len(w.runs) != 61 {
			t.Errorf("%d runs", len(w.runs))
		}
	})
}

// TestSlowRun: its context ends with the slot; when it does not heed that, the slots it runs over are skipped, not doubled.
func TestSlowRun(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.work = func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
			switch slot.At {
			case at("00:01:00"):
				<-ctx.Done()
				if !time.Now().Equal(at("00:02:00")) {
					t.Errorf("the context ended at %s", time.Now())
				}
				return schedule.Outcome{Kind: schedule.Failed, Reason: "timeout"}
			case at("00:02:00"):
				time.Sleep(150 * time.Second)
			case at("00:06:00"):
				time.Sleep(63 * time.Second) // within the grace
			}
			return schedule.Outcome{Kind: schedule.OK}
		}
		stop := w.begin("one", w.job())
		sleepTo("00:08:30")
		stop()
		w.has("00:00:00 ok", "00:01:00 failed timeout", "00:02:00 late", "00:03:00 skipped the slot before took too long",
			"00:04:00 ok", "00:05:00 ok", "00:06:00 ok", "00:07:00 ok", "00:08:00 ok")
		w.mu.Lock()
		defer w.mu.Unlock()
		if want := "00:04:00 at 00:04:30"; w.runs[3] != want {
			t.Errorf("ran %q, want %q", w.runs, want)
		}
	})
}

func TestOutcomesAreKept(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		ends := []schedule.Outcome{{Kind: schedule.NotModified}, {Kind: schedule.Failed, Reason: "HTTP 500"}, {Kind: schedule.Skipped, Reason: "budget"}}
		w.work = func(_ context.Context, slot schedule.Slot) schedule.Outcome { return ends[slot.At.Minute()] }
		stop := w.begin("one", w.job())
		sleepTo("00:02:30")
		stop()
		w.has("00:00:00 not_modified", "00:01:00 failed HTTP 500", "00:02:00 skipped budget")
	})
}

// TestMissedWhileDown: slots between two lives of the process, and one that died with the first.
func TestMissedWhileDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		w.slots[at("00:02:00")] = &entry{kind: schedule.OK}
		w.slots[at("00:03:00")] = &entry{owner: "dead", until: at("00:03:40")}
		sleepTo("00:06:30")
		stop := w.begin("one", w.job())
		sleepTo("00:07:30")
		stop()
		w.has("00:02:00 ok", "00:03:00 failed died", "00:04:00 skipped no instance was running", "00:05:00 skipped no instance was running", "00:06:00 ok", "00:07:00 ok")
	})
}

func TestLongGapIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.slots[start.AddDate(-3, 0, 0)] = &entry{kind: schedule.OK}
		stop := w.begin("one", w.job())
		sleepTo("00:00:30")
		stop()
		if n := len(w.slots); n != 7*24*60+1 {
			t.Errorf("%d slots", n)
		}
		if !strings.Contains(w.log.String(), "from=1997-01-01T00:00:00Z to=1999-12-25T00:00:00Z") {
			t.Error(w.log.String())
		}
	})
}

// TestChangedInterval: what is in the ledger by the old interval is not taken for missed.
func TestChangedInterval(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		w.slots[at("00:03:00")] = &entry{kind: schedule.OK}
		sleepTo("00:05:30")
		job := w.job()
		job.Offset = 10 * time.Second
		stop := w.begin("one", job)
		sleepTo("00:06:00")
		stop()
		w.has("00:03:00 ok", "00:03:10 skipped no instance was running", "00:04:10 skipped no instance was running", "00:05:10 ok")
	})
}

// TestLedgerDown: at the start, between slots, and while a slot runs. Who ran a slot before goes on.
func TestLedgerDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.slots[start.Add(-2*time.Minute)] = &entry{kind: schedule.OK}
		w.setDown(true)
		w.work = func(_ context.Context, slot schedule.Slot) schedule.Outcome {
			if slot.At.Equal(at("00:05:00")) {
				w.setDown(true)
			}
			return schedule.Outcome{Kind: schedule.OK}
		}
		stop := w.begin("one", w.job())
		sleepTo("00:02:20")
		w.ran()
		w.setDown(false)
		sleepTo("00:03:30")
		w.setDown(true)
		sleepTo("00:04:30")
		w.setDown(false)
		sleepTo("00:07:30")
		w.setDown(false)
		sleepTo("00:08:30")
		stop()
		const gone = " skipped the slot ledger could not be reached"
		w.has("23:58:00 ok", "23:59:00 skipped no instance was running", "00:00:00"+gone, "00:01:00"+gone, "00:02:00 ok", "00:03:00 ok", "00:04:00 ok",
			"00:05:00 ok", "00:06:00 ok", "00:07:00 ok", "00:08:00 ok")
		if n := strings.Count(w.log.String(), "does not answer"); n != 3 {
			t.Errorf("said %d times:\n%s", n, w.log.String())
		}
		if n := strings.Count(w.log.String(), "answers again"); n != 3 {
			t.Errorf("said %d times:\n%s", n, w.log.String())
		}
	})
}

func TestLedgerDownIsSaidCalmly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.setDown(true)
		stop := w.begin("one", w.job())
		sleepTo("01:00:30")
		stop()
		if n := strings.Count(w.log.String(), "does not answer"); n < 10 || n > 13 {
			t.Errorf("said %d times in an hour", n)
		}
		if w.calls > 3700 {
			t.Errorf("asked %d times in an hour", w.calls)
		}
	})
}

func TestTwoSchedulers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.work = func(context.Context, schedule.Slot) schedule.Outcome {
			time.Sleep(20 * time.Second) // longer than a lease: it must be renewed
			return schedule.Outcome{Kind: schedule.OK}
		}
		one, two := w.begin("one", w.job()), w.begin("two", w.job())
		sleepTo("02:00:00")
		sleepTo("02:00:30")
		one()
		two()
		if len(w.runs) != 121 || len(w.slots) != 121 {
			t.Errorf("%d runs of %d slots", len(w.runs), len(w.slots))
		}
		for _, line := range w.text() {
			if !strings.HasSuffix(line, " ok") {
				t.Error(line)
			}
		}
	})
}

// TestTakeover: the instance that claimed the slot is gone; another one runs it as soon as the lease is over.
func TestTakeover(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		w.slots[start] = &entry{owner: "dead", until: at("00:00:13")}
		stop := w.begin("one", w.job())
		sleepTo("00:01:30")
		stop()
		w.ran("00:00:00 at 00:00:15", "00:01:00 at 00:01:00")
		w.has("00:00:00 ok", "00:01:00 ok")
	})
}

// TestLostClaim: a run whose slot another instance took over ends, and changes nothing.
func TestLostClaim(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.work = func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
			<-ctx.Done()
			if slot.At.Equal(start) && !time.Now().Equal(at("00:00:10")) {
				t.Errorf("it ended at %s", time.Now())
			}
			return schedule.Outcome{Kind: schedule.Failed, Reason: "lost"}
		}
		stop := w.begin("one", w.job())
		sleepTo("00:00:07")
		w.book.mu.Lock()
		w.slots[start] = &entry{kind: schedule.OK, owner: "two"}
		w.book.mu.Unlock()
		sleepTo("00:00:50")
		stop()
		w.has("00:00:00 ok")
	})
}

// TestStop: the slot under way is given back, and the next start runs it at once; also one that waited for its budget.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, interrupted := range []schedule.Outcome{{Kind: schedule.Failed, Reason: "context canceled"}, {Kind: schedule.Skipped, Reason: "budget"}} {
		bubble(t, func(_ *testing.T, w *world) {
			w.work = func(ctx context.Context, _ schedule.Slot) schedule.Outcome {
				<-ctx.Done()
				return interrupted
			}
			stop := w.begin("one", w.job())
			sleepTo("00:00:10")
			stop()
			w.has("00:00:00")
			w.work = nil
			stop = w.begin("two", w.job())
			sleepTo("00:00:11")
			stop()
			w.ran("00:00:00 at 00:00:00", "00:00:00 at 00:00:10")
			w.has("00:00:00 ok")
		})
	}
}

// TestClaimAloneFails: a slot that cannot be claimed is run all the same by who holds the source.
func TestClaimAloneFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *testing.T, w *world) {
		stop := w.begin("one", w.job())
		sleepTo("00:01:30")
		w.setStuck(true)
		sleepTo("00:02:30")
		w.setDown(true)
		w.setStuck(false)
		sleepTo("00:03:30")
		w.setDown(false)
		sleepTo("00:04:30")
		stop()
		w.has("00:00:00 ok", "00:01:00 ok", "00:02:00 ok", "00:03:00 ok", "00:04:00 ok")
	})
}

// TestClockAhead: an instance whose clock is wrong enters nothing; from where its clock is set right it works.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	for name, forward := range map[string]time.Duration{"from the start": 0, "on the way": 150 * time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				time.Sleep(forward + time.Second)
				want := []string{"00:05:00 ok", "00:06:00 ok", "00:07:00 ok"}
				if forward == 0 {
					w.off.Store(int64(time.Hour))
				}
				stop := w.begin("one", w.job())
				if forward > 0 {
					sleepTo("00:03:20")
					w.off.Store(int64(90 * 24 * time.Hour))
					want = append([]string{"00:02:00 ok", "00:03:00 ok", "00:04:00 skipped this machine's clock was ahead"}, want...)
				}
				sleepTo("00:05:20")
				before := len(w.text())
				w.off.Store(0)
				sleepTo("00:07:30")
				stop()
				w.has(want...)
				if before != len(want)-3 && before != len(want)-4 {
					t.Errorf("%d slots while the clock was wrong", before)
				}
				for _, said := range []string{"this machine's clock is ahead of the database's", "this machine's clock was set back"} {
					if n := strings.Count(w.log.String(), said); n != 1 && n != 2 { // again after five minutes
						t.Errorf("said %q %d times:\n%s", said, n, w.log.String())
					}
				}
			})
		})
	}
}

// TestStopWhileTheLedgerIsDown ends in a moment.
func TestStopWhileTheLedgerIsDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.work = func(context.Context, schedule.Slot) schedule.Outcome {
			w.setDown(true)
			return schedule.Outcome{Kind: schedule.OK}
		}
		stop := w.begin("one", w.job())
		sleepTo("00:00:10")
		stop()
		if d := time.Since(at("00:00:10")); d > 5*time.Second {
			t.Errorf("it took %s", d)
		}
		w.has("00:00:00")
		if !strings.Contains(w.log.String(), "ends of slots are not entered") {
			t.Error(w.log.String())
		}
	})
}

// TestFastClock: the same with a clock of 600 times the machine's, and sources beside each other.
func TestFastClock(t *testing.T) { synctest.Test(t, testFastClock) }

func testFastClock(t *testing.T) {
	books := map[string]*book{"a": {slots: map[time.Time]*entry{}}, "b": {slots: map[time.Time]*entry{}}}
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	clk := clock.Fast(at("23:55:00").AddDate(0, 0, -2), 600) // the ledger refuses what is ahead of its own time
	for name, b := range books {
		job := schedule.Job{Source: name, Interval: time.Minute, Run: func(_ context.Context, slot schedule.Slot) schedule.Outcome {
			if off := clk.Now().Sub(slot.At); off < 0 || off > time.Minute {
				t.Errorf("slot %s ran %s after it", slot.At, off)
			}
			return schedule.Outcome{Slot: slot, Kind: schedule.OK}
		}}
		all.Go(func() { _ = schedule.New([]schedule.Job{job}, ledger{b, "one"}, clk, nil).Run(ctx) })
	}
	all.Wait()
	for name, b := range books {
		text := b.text()
		if len(text) < 14 || len(text) > 17 || !strings.HasPrefix(text[0], "23:55:00") || !strings.HasPrefix(text[5], "00:00:00") {
			t.Errorf("%s: %q", name, text)
		}
		n := 0
		for _, line := range text {
			if strings.HasSuffix(line, " ok") {
				n++
			}
		}
		if n < 14 {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// logBuffer is the log of all instances of a world.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
