package run

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/status"
)

var (
	slotsDesc    = describe("slots_total", "Slots whose end this process entered in the ledger, by how they ended.", "source", "state")
	recordsDesc  = describe("records_total", "Records that Kafka acknowledged.", "source")
	tookDesc     = describe("slot_seconds_total", "Time spent on slots.", "source")
	lastOKDesc   = describe("last_ok_slot_timestamp_seconds", "Newest slot that brought data.", "source")
	rowsDesc     = describe("rows_total", "Rows stored in the source's table.", "source")
	batchesDesc  = describe("batches_total", "Transactions that stored rows.", "source")
	deadDesc     = describe("dead_letters_total", "Records that could not become rows.", "source")
	fencedDesc   = describe("fenced_total", "Batches given up because another worker owns the partition.", "source")
	gapsDesc     = describe("gaps_total", "Stretches of the topic that were gone before they could be stored.", "source")
	gapRecsDesc  = describe("gap_records_total", "Records in those stretches.", "source")
	lagDesc      = describe("lag_records", "Records on this worker's partitions that are not stored yet.", "source")
	blockedDesc  = describe("worker_blocked", "1 while the worker waits for Kafka or the database.", "source")
	modeDesc     = describe("mode_info", "live, simulated or recorded data.", "mode")
	lastDayDesc  = describe("rollup_last_day_timestamp_seconds", "Newest day that is rolled up, its midnight.", "rollup")
	dueDesc      = describe("rollup_days_due", "Days with raw rows that should be rolled up by now, and are not.", "rollup")
	lateRowsDesc = describe("rollup_late_rows_total", "Rows that came after their day was rolled up: merged, or rejected.", "rollup")
	diskFreeDesc = describe("disk_free_bytes", "Free space beside the local state.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cryptoviz_"+name, help, labels, nil)
}

// tally counts what the slots brought, per source.
type tally struct {
	mu      sync.Mutex
	sources map[string]*slotCount
}

type slotCount struct {
	states  map[schedule.Kind]int64 // ends that this process entered in the ledger; every kind is there from the start
	records int64
	took    time.Duration
	lastOK  time.Time
}

func newTally(p *spec.Pipeline) *tally {
	t := &tally{sources: map[string]*slotCount{}}
	for _, src := range p.Sources {
		if !src.Enabled {
			continue
		}
		c := &slotCount{states: map[schedule.Kind]int64{}}
		for _, kind := range []schedule.Kind{schedule.OK, schedule.NotModified, schedule.Late, schedule.Skipped, schedule.Failed} {
			c.states[kind] = 0
		}
		t.sources[src.Name] = c
	}
	return t
}

// ended counts slots whose end is in the ledger.
func (t *tally) ended(source string, kind schedule.Kind, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.sources[source]; c != nil {
		c.states[kind] += int64(n)
	}
}

// ran counts what the run of a slot brought, before the ledger knows.
func (t *tally) ran(o schedule.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.sources[o.Source]
	if c == nil {
		return
	}
	c.records += int64(o.Records)
	c.took += o.Took
	if o.Kind == schedule.OK || o.Kind == schedule.NotModified || o.Kind == schedule.Late {
		c.lastOK = o.At
	}
}

// Describe is prometheus.Collector's.
func (e *Engine) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(e, out) }

// Collect reads the counters of the stages.
func (e *Engine) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(modeDesc, 1, e.opt.Mode)
	e.tally.mu.Lock()
	for name, c := range e.tally.sources {
		for kind, n := range c.states {
			counter(slotsDesc, float64(n), name, string(kind))
		}
		counter(recordsDesc, float64(c.records), name)
		counter(tookDesc, c.took.Seconds(), name)
		if !c.lastOK.IsZero() {
			gauge(lastOKDesc, float64(c.lastOK.Unix()), name)
		}
	}
	e.tally.mu.Unlock()
	for _, w := range e.workers {
		s := w.Stats()
		name := w.Source()
		counter(rowsDesc, float64(s.Rows), name)
		counter(batchesDesc, float64(s.Batches), name)
		counter(deadDesc, float64(s.Dead), name)
		counter(fencedDesc, float64(s.Fenced), name)
		counter(gapsDesc, float64(s.Gaps), name)
		counter(gapRecsDesc, float64(s.GapRecords), name)
		gauge(lagDesc, float64(s.Lag), name)
		blocked := 0.0
		if s.Blocked != "" {
			blocked = 1
		}
		gauge(blockedDesc, blocked, name)
	}
	for _, r := range e.rollupState() {
		if day, err := time.Parse(time.DateOnly, r.Day); err == nil {
			gauge(lastDayDesc, float64(day.Unix()), r.Name)
		}
		if r.Due >= 0 {
			gauge(dueDesc, float64(r.Due), r.Name)
		}
		gauge(lateRowsDesc, float64(r.LateRows), r.Name)
	}
	if free := e.free.Load(); free > 0 {
		gauge(diskFreeDesc, float64(free))
	}
}

// rollupState reads the ledger, where this process runs the rollups. While the database does not answer there is nothing.
func (e *Engine) rollupState() []status.Rollup {
	if !e.rollsUp {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := status.Rollups(ctx, e.p, e.store.Pool(), e.opt.Clock.Now())
	if err != nil {
		e.log.Debug("no metrics of the rollups", "error", err.Error())
	}
	return out
}

// Rows is the number of rows that this process has stored.
func (e *Engine) Rows() int64 {
	total := int64(0)
	for _, w := range e.workers {
		total += w.Stats().Rows
	}
	return total
}
