package store_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

var (
	sampleRuns = flag.Int("samples", 12, "runs of TestOneSampleCountsOnce for each layout")
	sampleSeed = flag.Uint64("samples-seed", uint64(time.Now().UnixNano()), "seed of TestOneSampleCountsOnce")
)

// TestOneSampleCountsOnce delivers samples, in any order, again, with other values, from a topic that is read again under a new
// identity, before, between, after and while days are rolled up. After each step the hours and the raw rows together hold each
// sample once, with its first value; and the batch tells which of its rows were new.
func TestOneSampleCountsOnce(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) { samplesCountOnce(t, newHours(t, layout), *sampleRuns) })
	}
}

func TestOneSampleCountsOnceOnTimescale(t *testing.T) {
	for _, layout := range []string{"days", "sixths"} {
		t.Run(layout, func(t *testing.T) {
			samplesCountOnce(t, newHoursAt(t, testkit.Timescale(t), layout), min(*sampleRuns, 20))
		})
	}
}

func samplesCountOnce(t *testing.T, h *hours, runs int) {
	h.program, _ = row.Compile(h.src)
	h.target = store.NewTarget(h.src.Topic.Name, h.src.Table, h.program.Columns())
	first := h.now
	for run := range runs {
		w := &samplesRun{hours: h, rand: rand.New(rand.NewPCG(*sampleSeed, uint64(run))), seen: map[sample]float64{}}
		h.exec("DELETE FROM raw_crypto_data; DELETE FROM crypto_data_hourly; DELETE FROM cryptoviz.rolled_sample; DELETE FROM cryptoviz.rolled_table; DELETE FROM cryptoviz.rollup_day; DELETE FROM cryptoviz.position")
		h.now, h.r.Late, h.r.KeepRaw = first, "merge", time.Duration(w.rand.IntN(2)*w.rand.IntN(3))*24*time.Hour
		if w.rand.IntN(5) == 0 {
			h.r.Late = "reject"
		}
		w.claim()
		steps := 4 + w.rand.IntN(8)
		for step := 0; step < steps && !t.Failed(); step++ {
			w.step()
			w.check()
		}
		h.now = h.now.Add(10 * 24 * time.Hour) // past every keep_raw
		w.roll(false)
		w.check()
		if left := h.text("SELECT count(*) FROM raw_crypto_data"); h.r.Late == "merge" && left != "0" {
			t.Errorf("%s raw rows are left", left)
		}
		if run%250 == 249 {
			t.Logf("%d runs", run+1)
		}
		if t.Failed() {
			t.Fatalf("run %d, seed %d, keep_raw %s, late %q:\n%s", run, *sampleSeed, h.r.KeepRaw, h.r.Late, strings.Join(w.did, "\n"))
		}
	}
}

// sample is what makes two records the same one.
type sample struct {
	market string
	at     time.Time
}

type delivery struct {
	sample
	price float64
}

type samplesRun struct {
	*hours
	rand  *rand.Rand
	topic []delivery         // as it lies in Kafka
	next  int                // what is stored of it
	id    byte               // the topic's identity
	seen  map[sample]float64 // the model: each sample once
	fence store.Fence
	did   []string
}

func (w *samplesRun) note(format string, args ...any) {
	w.did = append(w.did, fmt.Sprintf(format, args...))
}

func (w *samplesRun) step() {
	switch w.rand.IntN(10) {
	case 0, 1, 2, 3:
		w.produce()
		w.store()
	case 4, 5:
		w.roll(w.rand.IntN(4) == 0)
	case 6: // mirrored or restored, and read from its start again
		w.claim()
		w.store()
	case 7:
		w.now = w.now.Add(time.Duration(w.rand.IntN(48)) * time.Hour)
		w.note("it is %s", w.now.Format(time.DateTime))
	default:
		w.produce()
		var both sync.WaitGroup
		both.Go(func() { w.roll(false) })
		both.Go(w.store)
		both.Wait()
	}
}

// produce puts records on the topic: new ones, repeats, and other values for a sample that there is.
func (w *samplesRun) produce() {
	for range 1 + w.rand.IntN(6) {
		d := delivery{sample{[]string{"BTCUSDT", "ETHUSDT"}[w.rand.IntN(2)], w.day.AddDate(0, 0, -w.rand.IntN(3)).Add(time.Duration(w.rand.IntN(12)) * 9 * time.Minute).Add(time.Duration(w.rand.IntN(2)) * time.Millisecond)}, float64(1 + w.rand.IntN(99))}
		if len(w.topic) > 0 && w.rand.IntN(3) == 0 {
			d = w.topic[w.rand.IntN(len(w.topic))]
		}
		w.topic = append(w.topic, d)
		w.note("produced %s %s %v", d.market, d.at.Format(time.DateTime+".000"), d.price)
	}
}

func (w *samplesRun) claim() {
	w.id++
	w.note("topic %d", w.id)
	claimed, err := w.Claim(w.t.Context(), store.Log{Source: "binance", Topic: "binance", TopicID: [16]byte{w.id}, End: int64(len(w.topic))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.fence, w.next = claimed.Fence, int(claimed.Next)
}

// store is the worker: it stores the topic to its end.
func (w *samplesRun) store() {
	for w.next < len(w.topic) {
		n := min(1+w.rand.IntN(9), len(w.topic)-w.next)
		var records []row.Record
		fresh := 0
		for _, d := range w.topic[w.next : w.next+n] {
			records = append(records, record(d.market, d.at, fmt.Sprint(d.price)))
			if _, again := w.seen[d.sample]; !again {
				w.seen[d.sample] = d.price
				fresh++
			}
		}
		b := w.batch(int64(w.next), records...)
		if err := w.Commit(w.t.Context(), w.target, w.fence, b); err != nil {
			w.t.Errorf("commit: %v", err)
			return
		}
		if b.Stored != int64(fresh) || b.Repeats != int64(n-fresh) || len(b.Dead) > 0 {
			w.t.Errorf("of %d records %d were new: stored %d, repeats %d, dead letters %q", n, fresh, b.Stored, b.Repeats, reasons(b))
		}
		w.next += n
	}
}

func (w *samplesRun) roll(dry bool) {
	days, err := rawOf(w).Due(w.t.Context(), w.r, w.now)
	if err != nil {
		w.t.Errorf("due: %v", err)
	}
	for _, day := range days {
		out, err := rawOf(w).Day(w.t.Context(), w.r, day, w.now, dry)
		if err != nil {
			w.t.Errorf("roll up %s: %v", day.Format(time.DateOnly), err)
		}
		w.note("%+v", out)
	}
}

// hour is what is known of one market's hour.
type hour struct {
	n                            int64
	sum, min, max, open, closing float64
	first, last                  time.Time
}

func (h hour) String() string {
	return fmt.Sprintf("%d samples, sum %.6f, %v to %v, %v at %s, %v at %s", h.n, h.sum, h.min, h.max, h.open, h.first.UTC().Format(time.TimeOnly+".000"), h.closing, h.last.UTC().Format(time.TimeOnly+".000"))
}

func (h hour) join(o hour) hour {
	if h.n == 0 {
		return o
	}
	if o.first.Before(h.first) {
		h.first, h.open = o.first, o.open
	}
	if o.last.After(h.last) {
		h.last, h.closing = o.last, o.closing
	}
	return hour{h.n + o.n, h.sum + o.sum, math.Min(h.min, o.min), math.Max(h.max, o.max), h.open, h.closing, h.first, h.last}
}

// check compares the hours of dropped days, joined with the raw rows, with the model.
func (w *samplesRun) check() {
	w.t.Helper()
	want, have := map[sample]hour{}, map[sample]hour{}
	put := func(to map[sample]hour, market string, at time.Time, h hour) {
		key := sample{market, at.UTC().Truncate(time.Hour)}
		to[key] = to[key].join(h)
	}
	one := func(at time.Time, price float64) hour { return hour{1, price, price, price, price, price, at, at} }
	for s, price := range w.seen {
		put(want, s.market, s.at, one(s.at, price))
	}
	rows, err := w.Pool().Query(w.t.Context(), `SELECT base || quote, time, 1::bigint, price, price, price, price, price, time, time FROM raw_crypto_data
		UNION ALL SELECT base || quote, time, samples, mean * samples, low, high, open, close, first_time, last_time FROM crypto_data_hourly
		WHERE (time AT TIME ZONE 'UTC')::date IN (SELECT day FROM cryptoviz.rollup_day WHERE dropped_at IS NOT NULL)`)
	if err != nil {
		w.t.Fatal(err)
	}
	for rows.Next() {
		var market string
		var at time.Time
		var h hour
		if err := rows.Scan(&market, &at, &h.n, &h.sum, &h.min, &h.max, &h.open, &h.closing, &h.first, &h.last); err != nil {
			w.t.Fatal(err)
		}
		put(have, market, at, h)
	}
	for key := range want {
		if a, b := want[key].String(), have[key].String(); a != b {
			w.t.Errorf("%s %s:\n  want %s\n  have %s", key.market, key.at.Format(time.DateTime), a, b)
		}
	}
	if len(have) != len(want) {
		w.t.Errorf("%d hours, want %d: %v", len(have), len(want), slices.Collect(maps.Keys(have)))
	}
}
