package store_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// TestEveryEndIsCounted: whatever two instances do with slots, what they were told of the ends is what the ledger holds.
func TestEveryEndIsCounted(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	counted := map[schedule.Kind]int{}
	count := func(source string, kind schedule.Kind, n int) {
		mu.Lock()
		defer mu.Unlock()
		if source != "binance" || n < 0 {
			t.Errorf("%d of %q", n, source)
		}
		counted[kind] += n
	}
	b := newBench(t, store.Options{Owner: "one", Ended: count})
	instances := []store.Ledger{{Store: b.Store}, {Store: b.open(store.Options{Owner: "two", Ended: count})}}
	kinds := []schedule.Kind{schedule.OK, schedule.NotModified, schedule.Late, schedule.Skipped, schedule.Failed}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test
	at := noon
	for range 150 {
		one, two := instances[random.IntN(2)], instances[random.IntN(2)]
		at = at.Add(time.Duration(1+random.IntN(3)) * time.Minute)
		if _, err := one.RecordMissed(t.Context(), "binance", at.Add(-5*time.Minute), at, time.Minute, "missed"); err != nil {
			t.Fatal(err)
		}
		lease := time.Hour
		if random.IntN(4) == 0 {
			lease = 0 // it dies, and the other one takes over or nobody does
		}
		slot := schedule.Slot{Source: "binance", At: at}
		for _, l := range []store.Ledger{one, two} {
			if got, err := l.Acquire(t.Context(), slot, lease); err != nil {
				t.Fatal(err)
			} else if got != schedule.Acquired || lease == 0 && random.IntN(2) == 0 {
				continue
			}
			out := schedule.Outcome{Slot: slot, Kind: kinds[random.IntN(len(kinds))]}
			for range 1 + random.IntN(2) { // its answer may be lost, and it is entered again
				if err := l.Enter(t.Context(), []schedule.Outcome{out}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, err := instances[0].RecordMissed(t.Context(), "binance", at, at.Add(3*time.Minute), time.Minute, "missed"); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, kind := range kinds {
		if counted[kind] == 0 {
			t.Errorf("no slot was %s: the test shows nothing of it", kind)
		}
		want = append(want, fmt.Sprint(kind, " ", counted[kind]))
	}
	b.has(map[string]string{
		"SELECT string_agg(k || ' ' || (SELECT count(*) FROM cryptoviz.slot WHERE state = k), ',' ORDER BY n) FROM unnest('{ok,not_modified,late,skipped,failed}'::text[]) WITH ORDINALITY AS u(k, n)": strings.Join(want, ","),
	})
}
