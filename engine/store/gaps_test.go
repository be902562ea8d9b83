package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// TestGapChangesTheSlots: those whose records were gone say so, those beside the gap only where it is longer than the ledger
// explains, and those that brought nothing or ended otherwise stay.
func TestGapChangesTheSlots(t *testing.T) {
	t.Parallel()
	const ends = "SELECT string_agg(state, ' ' ORDER BY slot) FROM cryptoviz.slot WHERE source = 'binance'"
	for name, c := range map[string]struct {
		from, to   int64
		after      int // minute of the newest slot stored before it, -1 none
		partitions int
		slots      int64
		want       string
	}{
		"one slot of three records":    {3, 6, 0, 1, 1, "ok failed ok failed not_modified ok"},
		"and markers of transactions":  {3, 8, 0, 1, 1, "ok failed ok failed not_modified ok"},
		"more than the slots between":  {2, 9, 0, 1, 3, "failed failed failed failed not_modified ok"},
		"more, but of one of several":  {2, 9, 0, 2, 1, "ok failed ok failed not_modified ok"},
		"nothing was stored before it": {0, 6, -1, 1, 2, "failed failed ok failed not_modified ok"},
		"the topic begins again":       {100, 0, 0, 1, 1, "ok failed ok failed not_modified ok"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, store.Options{})
			start := time.Now().UTC().Truncate(time.Hour)
			for i, state := range []string{"ok", "ok", "ok", "failed", "not_modified", "ok"} {
				b.exec(fmt.Sprintf("INSERT INTO cryptoviz.slot (source, slot, state, records, lease_until) VALUES ('binance', '%s', '%s', 3, now())", start.Add(time.Duration(i)*time.Minute).Format(time.RFC3339), state))
			}
			b.exec("INSERT INTO cryptoviz.gap (source, topic, partition, from_offset, to_offset, reason) VALUES ('binance', 'binance', 0, 1, 2, 'of an earlier version')")
			fence := b.claim(0, 100)
			if c.partitions > 1 {
				b.exec("INSERT INTO cryptoviz.position SELECT source, 1, topic, topic_id, 0, 1 FROM cryptoviz.position")
			}
			batch := b.batch(0, record("BTCUSDT", time.Now(), "1"))
			gap := store.Gap{From: c.from, To: c.to, Reason: "gone"}
			if c.after >= 0 {
				gap.After = start.Add(time.Duration(c.after) * time.Minute)
			}
			batch.Gaps = []store.Gap{gap, {Before: start.Add(2 * time.Minute)}}
			b.commit(fence, batch)
			b.has(map[string]string{
				ends: c.want, "SELECT count(*) FROM cryptoviz.gap WHERE before_slot IS NULL": "1",
				"SELECT DISTINCT reason FROM cryptoviz.slot WHERE reason <> ''": fmt.Sprintf("gone: offsets %d to %d of partition 0", c.from, c.to-1),
			})
			if batch.Gaps[1].Slots != c.slots {
				t.Errorf("%d slots", batch.Gaps[1].Slots)
			}
		})
	}
}
