package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

const week = 7 * 24 * time.Hour

var keepWeek = spec.Keep{Slots: week, DeadLetters: week, Gaps: week, DeadLettersSize: 1 << 40}

// TestMaintainSlots: slots of whole days go, added up first; the newest slot of a source stays, however old it is.
func TestMaintainSlots(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	b.exec(`INSERT INTO cryptoviz.slot (source, slot, state, records, lease_until)
		SELECT s, at, CASE extract(minute FROM at)::int % 10 WHEN 0 THEN 'failed' WHEN 1 THEN 'running' ELSE 'ok' END, 3, now()
		FROM unnest(array['a', 'b']) AS s, generate_series('2026-11-20 00:00Z'::timestamptz, '2026-11-30 11:59Z', '1 minute') AS at;
		INSERT INTO cryptoviz.slot (source, slot, state, records, lease_until) SELECT 'old', '2020-01-01 00:00Z'::timestamptz + n * interval '1 day', 'ok', 1, now() FROM generate_series(0, 2) AS n;
		INSERT INTO cryptoviz.slot_day VALUES ('a', '2026-11-20', 'ok', 1, 1)`)
	out, err := b.Maintain(t.Context(), keepWeek, now)
	if err != nil || out.Slots != 2*3*1440+2 {
		t.Errorf("%+v %v", out, err)
	}
	b.has(map[string]string{
		"SELECT string_agg(source || ' ' || first, ', ') FROM (SELECT source, (min(slot) AT TIME ZONE 'UTC')::text AS first FROM cryptoviz.slot GROUP BY 1 ORDER BY 1) AS s": "a 2026-11-23 00:00:00, b 2026-11-23 00:00:00, old 2020-01-03 00:00:00",
		"SELECT string_agg(concat_ws(' ', day, state, slots, records), ', ' ORDER BY day, state) FROM cryptoviz.slot_day WHERE source = 'a'": "2026-11-20 failed 288 864, 2026-11-20 ok 1153 3457, " +
			"2026-11-21 failed 288 864, 2026-11-21 ok 1152 3456, 2026-11-22 failed 288 864, 2026-11-22 ok 1152 3456",
	})
	if out, err := b.Maintain(t.Context(), keepWeek, now); err != nil || out != (store.Maintained{}) {
		t.Errorf("again: %+v %v", out, err)
	}
}

// TestMaintainByAge: dead letters with their counts, and gaps.
func TestMaintainByAge(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec(`INSERT INTO cryptoviz.dead_letter (source, topic, topic_id, partition, "offset", key, value, reason, at) SELECT 'a', 'a', gen_random_uuid(), 0, n, '', '', 'x', now() - n * interval '1 hour' FROM generate_series(1, 25000) AS n;
		INSERT INTO cryptoviz.dead_letter_hour SELECT 'a', 'a', gen_random_uuid(), 0, date_trunc('hour', now()) - n * interval '1 hour', 'x', 1, 1, 1, 0, 1, 'x' FROM generate_series(0, 499) AS n;
		INSERT INTO cryptoviz.gap (source, topic, partition, from_offset, to_offset, reason, at) SELECT 'a', 'a', 0, 1, 2, 'x', now() - n * interval '1 day' FROM generate_series(1, 20) AS n`)
	out, err := b.Maintain(t.Context(), keepWeek, time.Now())
	if err != nil || out.DeadLetters != 25000-167 || out.Gaps != 14 {
		t.Errorf("%+v %v", out, err)
	}
	b.has(map[string]string{dead: "167", "SELECT sum(records) BETWEEN 168 AND 170 FROM cryptoviz.dead_letter_hour": "true", "SELECT count(*) FROM cryptoviz.gap": "6"})
}

// TestMaintainBySize: of dead letters that take too much room, the repeats go first, and none while there is room.
func TestMaintainBySize(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec(`INSERT INTO cryptoviz.dead_letter (source, topic, topic_id, partition, "offset", key, value, reason, kind)
		SELECT 'a', 'a', gen_random_uuid(), 0, n, '', (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, 200) WHERE n > 0), 'x', CASE WHEN n <= 50 THEN 'first and rare' ELSE 'often' END FROM generate_series(1, 3000) AS n`)
	keep := keepWeek
	keep.DeadLettersSize = 64 << 20
	if out, err := b.Maintain(t.Context(), keep, time.Now()); err != nil || out.DeadLetters != 0 {
		t.Errorf("%+v %v", out, err)
	}
	keep.DeadLettersSize = 1 << 20
	if out, err := b.Maintain(t.Context(), keep, time.Now()); err != nil || out.DeadLetters != 2850 {
		t.Errorf("%+v %v", out, err)
	}
	b.has(map[string]string{"SELECT string_agg(kind || ' ' || n, ', ' ORDER BY kind) FROM (SELECT kind, count(*) AS n FROM cryptoviz.dead_letter GROUP BY 1) AS k": "first and rare 50, often 100"})
	keep.DeadLettersSize = 400_000 // fewer than are left
	if _, err := b.Maintain(t.Context(), keep, time.Now()); err != nil {
		t.Error(err)
	}
	b.has(map[string]string{"SELECT sum(octet_length(value)) < 400000 FROM cryptoviz.dead_letter": "true", "SELECT count(*) > 0 FROM cryptoviz.dead_letter": "true"})
}

// TestDeadLettersAreSampled: where each record is refused, the first ones are kept, then samples; the count and the offsets are
// of all. Reasons that differ in values are one kind, others are others.
func TestDeadLettersAreSampled(t *testing.T) {
	b := newBench(t, store.Options{})
	fence := b.claim(0, 100_000)
	next := int64(0)
	refused := func(n int, reason func(i int64) string) {
		batch := &store.Batch{Rows: b.batch(0).Rows, Position: store.Position{First: next, Next: next + int64(n)}}
		for range n {
			batch.Dead = append(batch.Dead, store.DeadLetter{Offset: next, Key: "k", Value: []byte("v"), Reason: reason(next)})
			next++
		}
		b.commit(fence, batch)
		if len(batch.Dead) != n {
			t.Errorf("%d of %d are told", len(batch.Dead), n)
		}
	}
	price := func(i int64) string { return fmt.Sprintf("column price: %q is no number (%d)", fmt.Sprint("x", i), i) }
	refused(700, price)
	refused(1, func(int64) string { return "column time: it is missing" })
	refused(3000, price)
	refused(3000, price)
	counts := "SELECT string_agg(concat_ws(' ', kind, records, kept, bytes, from_offset, to_offset), ', ' ORDER BY kind) FROM (SELECT kind, sum(records) AS records, sum(kept) AS kept, sum(bytes) AS bytes, min(from_offset) AS from_offset, max(to_offset) AS to_offset FROM cryptoviz.dead_letter_hour GROUP BY 1) AS h"
	b.has(map[string]string{
		counts: "column price: … is no number (…) 6700 1006 1006 0 6701, column time: it is missing 1 1 1 700 701",
		dead:   "1007",
		"SELECT string_agg(\"offset\"::text, ' ' ORDER BY \"offset\") FROM cryptoviz.dead_letter WHERE \"offset\" >= 1001": "1001 2001 3001 4001 5001 6001",
	})
	refused(300, func(i int64) string { return fmt.Sprintf("strange %c%c", 'a'+rune(i%26), 'a'+rune(i/26%26)) }) // kinds without end
	b.has(map[string]string{"SELECT count(DISTINCT kind) <= 51 AND sum(records) = 7001 FROM cryptoviz.dead_letter_hour": "true"})

	huge := make([]byte, 1<<20)
	batch := &store.Batch{Rows: b.batch(0).Rows, Position: store.Position{First: next, Next: next + 40}}
	for i := range int64(40) {
		batch.Dead = append(batch.Dead, store.DeadLetter{Offset: next + i, Value: huge, Reason: "column time: it is missing"})
	}
	b.commit(fence, batch)
	b.has(map[string]string{"SELECT records || ' ' || kept FROM cryptoviz.dead_letter_hour WHERE kind LIKE 'column time%'": "41 17"})
}
