package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// ledgers are two instances on one database.
func ledgers(t *testing.T) (b *bench, one, two store.Ledger) {
	t.Helper()
	b = newBench(t, store.Options{Owner: "one"})
	return b, store.Ledger{Store: b.Store}, store.Ledger{Store: b.open(store.Options{Owner: "two"})}
}

const slots = "SELECT string_agg(concat_ws(' ', to_char(slot AT TIME ZONE 'UTC', 'HH24:MI:SS'), state, nullif(reason, ''), owner, attempt), ', ' ORDER BY slot) FROM cryptoviz.slot"

var noon = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

func claim(t *testing.T, l store.Ledger, at time.Time, lease time.Duration, want schedule.Lease) {
	t.Helper()
	got, err := l.Acquire(t.Context(), schedule.Slot{Source: "binance", At: at}, lease)
	if err != nil || got != want {
		t.Fatalf("Claim = %d, %v; want %d", got, err, want)
	}
}

func renew(t *testing.T, l store.Ledger, want bool) {
	t.Helper()
	lost, err := l.Renew(t.Context(), "binance", []time.Time{noon}, time.Hour)
	if got := len(lost) == 0; err != nil || got != want {
		t.Fatalf("Renew = %v, %v; want %t", lost, err, want)
	}
}

func finish(t *testing.T, l store.Ledger, kind schedule.Kind, reason string) {
	t.Helper()
	out := schedule.Outcome{Slot: schedule.Slot{Source: "binance", At: noon}, Kind: kind, Reason: reason, Records: 7, Took: 1500 * time.Millisecond}
	if err := l.Enter(t.Context(), []schedule.Outcome{out}); err != nil {
		t.Fatal(err)
	}
}

func TestSlotIsClaimedOnce(t *testing.T) {
	t.Parallel()
	b, one, two := ledgers(t)
	claim(t, one, noon, time.Hour, schedule.Acquired)
	claim(t, two, noon, time.Hour, schedule.Held)
	claim(t, one, noon, time.Hour, schedule.Held) // its own, too: a claim is for one run
	finish(t, two, schedule.OK, "")               // not its own
	renew(t, two, false)
	renew(t, one, true)
	b.has(map[string]string{slots: "12:00:00 running one 1"})
	finish(t, one, schedule.Failed, "bad\x00bytes\xff")
	b.has(map[string]string{slots: "12:00:00 failed bad�bytes� one 1", "SELECT records || ' ' || took FROM cryptoviz.slot": "7 00:00:01.5"})
	claim(t, two, noon, time.Hour, schedule.Finished)
	renew(t, one, false)
	finish(t, two, schedule.Skipped, "another view")
	b.has(map[string]string{slots: "12:00:00 failed bad�bytes� one 1"})
	finish(t, two, schedule.Late, "") // its records are there
	b.has(map[string]string{slots: "12:00:00 late two 1"})
	finish(t, one, schedule.Failed, "x")
	finish(t, one, schedule.OK, "")
	b.has(map[string]string{slots: "12:00:00 late two 1"})
}

// TestEnterAfterAnOutage: an instance enters what it ran without a claim. Another one, which knew less, may have been first.
func TestEnterAfterAnOutage(t *testing.T) {
	b, one, two := ledgers(t)
	claim(t, two, noon.Add(4*time.Minute), time.Hour, schedule.Acquired) // it is at it
	claim(t, two, noon.Add(5*time.Minute), 0, schedule.Acquired)         // it died with it
	if n, err := two.RecordMissed(t.Context(), "binance", noon.Add(-time.Minute), noon.Add(4*time.Minute), time.Minute, "the slot ledger could not be reached"); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	var ends []schedule.Outcome
	for i, kind := range []schedule.Kind{schedule.OK, schedule.Failed, schedule.Skipped, schedule.NotModified, schedule.OK, schedule.Late, schedule.Failed, schedule.OK, schedule.Skipped} {
		ends = append(ends, schedule.Outcome{Slot: schedule.Slot{Source: "binance", At: noon.Add(time.Duration(i) * time.Minute)}, Kind: kind, Reason: "of one", Records: 3, Took: time.Second})
	}
	for range 2 { // the answer may be lost
		if err := one.Enter(t.Context(), ends); err != nil {
			t.Fatal(err)
		}
	}
	b.has(map[string]string{
		slots: "12:00:00 ok of one one 1, 12:01:00 failed of one one 1, 12:02:00 skipped the slot ledger could not be reached two 1, 12:03:00 not_modified of one one 1, 12:04:00 running two 1, " +
			"12:05:00 late of one one 1, 12:06:00 failed of one one 1, 12:07:00 ok of one one 1, 12:08:00 skipped of one one 1",
		"SELECT records || ' ' || took FROM cryptoviz.slot WHERE slot = '2026-03-29 12:07Z'": "3 00:00:01",
	})
}

func TestSlotClaimedByManyAtOnce(t *testing.T) {
	t.Parallel()
	_, one, two := ledgers(t)
	for round := range 20 {
		at := noon.Add(time.Duration(round) * time.Minute)
		if round%2 == 1 { // somebody died with it
			claim(t, one, at, 0, schedule.Acquired)
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		mine := 0
		for i := range 8 {
			all.Go(func() {
				l := []store.Ledger{one, two}[i%2]
				got, err := l.Acquire(t.Context(), schedule.Slot{Source: "binance", At: at}, time.Hour)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if got == schedule.Acquired {
					mine++
				}
			})
		}
		all.Wait()
		if mine != 1 {
			t.Errorf("round %d: %d claims", round, mine)
		}
	}
}

func TestSlotIsTakenOverAfterACrash(t *testing.T) {
	t.Parallel()
	b, one, two := ledgers(t)
	claim(t, one, noon, time.Hour, schedule.Acquired)
	claim(t, two, noon, time.Hour, schedule.Held)
	b.exec("UPDATE cryptoviz.slot SET lease_until = clock_timestamp()")
	claim(t, two, noon, time.Hour, schedule.Acquired)
	renew(t, one, false) // it wakes up
	finish(t, one, schedule.OK, "")
	b.has(map[string]string{slots: "12:00:00 running two 2"})
	finish(t, two, schedule.OK, "")
	b.has(map[string]string{slots: "12:00:00 ok two 2"})
}

func TestSettle(t *testing.T) {
	t.Parallel()
	b, one, two := ledgers(t)
	last := func(want time.Time) {
		t.Helper()
		if got, err := one.Last(t.Context(), "binance"); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("Last = %s, %v; want %s", got, err, want)
		}
	}
	settle := func(source string, after, before time.Time, want int) {
		t.Helper()
		n, err := two.RecordMissed(t.Context(), source, after, before, time.Minute, "down")
		if err != nil || n != want {
			t.Errorf("Settle = %d, %v; want %d", n, err, want)
		}
	}
	last(time.Time{})
	claim(t, one, noon, 0, schedule.Acquired)                            // died
	claim(t, one, noon.Add(2*time.Minute), 0, schedule.Acquired)         // died
	claim(t, one, noon.Add(3*time.Minute), time.Hour, schedule.Acquired) // alive
	last(noon.Add(3 * time.Minute))
	settle("kraken", noon.Add(-2*time.Minute), noon, 1)
	last(noon.Add(3 * time.Minute))
	settle("binance", noon, noon, 0)
	settle("binance", noon, noon.Add(-time.Hour), 0)
	settle("binance", noon, noon.Add(time.Minute), 1) // only the one that died is before
	settle("binance", noon, noon.Add(5*time.Minute), 3)
	settle("binance", noon, noon.Add(5*time.Minute), 0)
	finish(t, one, schedule.OK, "") // it was cut off only
	b.exec("DELETE FROM cryptoviz.slot WHERE source = 'kraken'")
	b.has(map[string]string{slots: "12:00:00 ok one 1, 12:01:00 skipped down two 1, 12:02:00 failed the instance that ran it ended one 1, 12:03:00 running one 1, 12:04:00 skipped down two 1"})
	// A session in another time zone, over the night that clocks change: minutes are minutes.
	night := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	b.exec("DELETE FROM cryptoviz.slot; ALTER ROLE CURRENT_USER IN DATABASE " + b.text("SELECT quote_ident(current_database())") + " SET TimeZone = 'Europe/Berlin'")
	other := store.Ledger{Store: b.open(store.Options{})}
	if n, err := other.RecordMissed(t.Context(), "binance", night, night.Add(3*24*time.Hour), 24*time.Hour, "down"); err != nil || n != 2 {
		t.Errorf("Settle = %d, %v", n, err)
	}
	if n, err := other.RecordMissed(t.Context(), "binance", night, night.Add(time.Hour), time.Minute, "down"); err != nil || n != 59 {
		t.Errorf("Settle = %d, %v", n, err)
	}
	b.has(map[string]string{"SELECT count(*) FROM cryptoviz.slot WHERE slot IN ('2026-03-30 00:30+00', '2026-03-31 00:30+00')": "2"})
}

func TestLedgerWithoutTheTable(t *testing.T) {
	t.Parallel()
	b, one, _ := ledgers(t)
	b.exec("DROP TABLE cryptoviz.slot")
	slot := schedule.Slot{Source: "binance", At: noon}
	_, claimed := one.Acquire(t.Context(), slot, time.Hour)
	_, renewed := one.Renew(t.Context(), "binance", []time.Time{noon}, time.Hour)
	_, last := one.Last(t.Context(), "binance")
	_, settled := one.RecordMissed(t.Context(), "binance", noon, noon.Add(time.Hour), time.Minute, "")
	for name, err := range map[string]error{"claim": claimed, "renew": renewed, "last": last, "settle": settled, "finish": one.Enter(t.Context(), []schedule.Outcome{{Slot: slot}})} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestClockAhead: an instance whose clock is ahead enters nothing that is yet to come, and takes no slot from a healthy one. A
// little ahead, or in simulated time, it may.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	b, one, two := ledgers(t)
	run := func(l store.Ledger, clk clock.Clock, d time.Duration, most int) (n int) {
		ctx, cancel := context.WithTimeout(t.Context(), d) //nolint:forbidigo // the test says how long
		defer cancel()
		job := schedule.Job{Source: "binance", Interval: time.Second, Run: func(_ context.Context, s schedule.Slot) schedule.Outcome {
			if n++; n == most {
				cancel()
			}
			return schedule.Outcome{Slot: s, Kind: schedule.OK}
		}}
		_ = schedule.New([]schedule.Job{job}, l, clk, nil).Run(ctx)
		return n
	}
	run(one, clock.Real(), testkit.Patience, 1)
	if n := run(two, clock.Fast(time.Now().Add(time.Hour), 1), 1500*time.Millisecond, 1); n != 0 {
		t.Errorf("an hour ahead it ran %d slots", n)
	}
	if n := run(one, clock.Real(), testkit.Patience, 2); n < 2 {
		t.Errorf("the healthy one then ran %d slots", n)
	}
	b.has(map[string]string{"SELECT count(*) FROM cryptoviz.slot WHERE slot > clock_timestamp()": "0"})
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	_, claimed := one.Acquire(t.Context(), schedule.Slot{Source: "binance", At: at}, time.Hour)
	_, settled := one.RecordMissed(t.Context(), "binance", noon, at, time.Hour, "")
	for _, err := range []error{claimed, settled} {
		if clock, ok := errors.AsType[*schedule.ClockError](err); !ok || !clock.Slot.Equal(at) || time.Since(clock.Ledger) > time.Minute {
			t.Errorf("%v", err)
		}
	}
	claim(t, one, time.Now().Add(20*time.Second), time.Hour, schedule.Acquired)
	b.exec("INSERT INTO cryptoviz.meta (key, value) VALUES ('mode', 'simulated')")
	claim(t, one, at, time.Hour, schedule.Acquired)
}

// TestSlotOfAWrongClock: what was entered while a clock was ahead is not lost when it is right again.
func TestSlotOfAWrongClock(t *testing.T) {
	t.Parallel()
	b, one, _ := ledgers(t)
	for i, entered := range []string{"'2026-03-29 11:00Z'", "clock_timestamp() + interval '1 hour'", "'2026-03-29 12:30Z'"} {
		at := noon.Add(time.Duration(i) * time.Minute)
		b.exec(fmt.Sprintf("INSERT INTO cryptoviz.slot (source, slot, state, reason, owner, started_at, lease_until) VALUES ('binance', '%s', 'skipped', 'x', 'two', %s, now())", at.Format(time.RFC3339), entered))
	}
	claim(t, one, noon, time.Hour, schedule.Acquired)
	claim(t, one, noon.Add(2*time.Minute), time.Hour, schedule.Finished) // at the right time
	b.has(map[string]string{slots: "12:00:00 running one 2, 12:01:00 skipped x two 1, 12:02:00 skipped x two 1"})
	b.exec("INSERT INTO cryptoviz.meta (key, value) VALUES ('mode', 'simulated')")
	claim(t, one, noon.Add(time.Minute), time.Hour, schedule.Finished) // simulated time may be any
	b.exec("DELETE FROM cryptoviz.meta WHERE key = 'mode'")
	claim(t, one, noon.Add(time.Minute), time.Hour, schedule.Acquired)
}

// answering is a ledger that answers, however long it takes: who holds a source goes on without a claim else.
type answering struct{ store.Ledger }

func (l answering) Acquire(ctx context.Context, slot schedule.Slot, lease time.Duration) (schedule.Lease, error) {
	return l.Ledger.Acquire(context.WithoutCancel(ctx), slot, lease)
}

func (l answering) Last(ctx context.Context, source string) (time.Time, error) {
	return l.Ledger.Last(context.WithoutCancel(ctx), source)
}

func (l answering) RecordMissed(ctx context.Context, source string, after, before time.Time, interval time.Duration, reason string) (int, error) {
	return l.Ledger.RecordMissed(context.WithoutCancel(ctx), source, after, before, interval, reason)
}

func (l answering) Enter(ctx context.Context, ends []schedule.Outcome) error {
	return l.Ledger.Enter(context.WithoutCancel(ctx), ends)
}

func (l answering) Renew(ctx context.Context, source string, slots []time.Time, lease time.Duration) ([]time.Time, error) {
	return l.Ledger.Renew(context.WithoutCancel(ctx), source, slots, lease)
}

// TestSchedulersOnOneDatabase: two instances, two sources, a clock of 240 times the machine's, midnight under way, and an
// instance that is stopped and started again: every slot of each source is in the ledger once, and no run is doubled.
func TestSchedulersOnOneDatabase(t *testing.T) {
	t.Parallel()
	b, one, two := ledgers(t)
	clk := clock.Fast(time.Date(2026, 3, 28, 23, 55, 0, 0, time.UTC), 240)
	var mu sync.Mutex
	runs := map[schedule.Slot]int{}
	begin := func(l store.Ledger) (stop func()) {
		var jobs []schedule.Job
		for _, source := range []string{"binance", "kraken"} {
			jobs = append(jobs, schedule.Job{Source: source, Interval: time.Minute, Jitter: 5 * time.Second, Run: func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
				mu.Lock()
				runs[slot]++
				mu.Unlock()
				_ = clk.Sleep(ctx, 5*time.Second)
				return schedule.Outcome{Slot: slot, Kind: schedule.OK, Records: 1}
			}})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = schedule.New(jobs, answering{l}, clk, slog.New(slog.DiscardHandler)).Run(ctx)
		}()
		return func() { cancel(); <-done }
	}
	more := func(n int) { // waits for so many more slots of each source
		t.Helper()
		for _, source := range []string{"binance", "kraken"} {
			ok := "SELECT count(*) FROM cryptoviz.slot WHERE state = 'ok' AND source = '" + source + "'"
			before, _ := strconv.Atoi(b.text(ok))
			testkit.Eventually(t, func() error {
				if now, _ := strconv.Atoi(b.text(ok)); now < before+n {
					return fmt.Errorf("%d slots of %s, were %d", now, source, before)
				}
				return nil
			})
		}
	}
	stopOne, stopTwo := begin(one), begin(two)
	more(6) // over midnight
	stopOne()
	more(2)
	stopOne = begin(one)
	more(2)
	stopOne()
	stopTwo()
	time.Sleep(1200 * time.Millisecond) //nolint:forbidigo // slots pass, and no instance is there
	stopOne = begin(one)
	more(1)
	stopOne()
	for slot, n := range runs {
		if n != 1 {
			t.Errorf("%v ran %d times", slot, n)
		}
	}
	for _, source := range []string{"binance", "kraken"} {
		of := fmt.Sprintf(" FROM cryptoviz.slot WHERE source = '%s'", source)
		b.has(map[string]string{
			"SELECT count(*) = 1 + extract(epoch FROM max(slot) - min(slot)) / 60" + of:                   "true",
			"SELECT count(*)" + of + " AND state = 'running'":                                             "0",
			"SELECT count(*) >= 3" + of + " AND state = 'skipped' AND reason = 'no instance was running'": "true",
			"SELECT count(*) >= 9" + of + " AND state = 'ok'":                                             "true",
			"SELECT count(*)" + of + " AND slot = '2026-03-29 00:00+00'":                                  "1",
			"SELECT count(*)" + of + " AND state NOT IN ('ok', 'skipped', 'late')":                        "0",
			"SELECT count(*)" + of + " AND extract(second FROM slot) <> 0":                                "0",
		})
	}
}
