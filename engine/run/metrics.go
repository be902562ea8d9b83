package run

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

var (
	slotsDesc = describe("slots_total", "Slots whose end this process entered in the ledger, by how they ended.",
		"source", "state")
	recordsDesc = describe("records_total", "Records that Kafka acknowledged.", "source")
	tookDesc    = describe("slot_seconds_total", "Time spent on slots.", "source")
	lastOKDesc  = describe("last_ok_slot_timestamp_seconds", "Newest slot that brought data.", "source")
	rowsDesc    = describe("rows_total", "Rows stored in the source's table.", "source")
	batchesDesc = describe("batches_total", "Transactions that stored rows.", "source")
	deadDesc    = describe("dead_letters_total",
		"Records that could not become rows, by what failed: key, row, time or table.", "source", "class")
	repeatsDesc = describe("stale_repeats_total",
		"Records of samples that were stored already, now or before their day was rolled up.", "source")
	fencedDesc = describe("fenced_total", "Batches given up because another worker owns the partition.", "source")
	gapsDesc   = describe("gaps_total", "Stretches of the topic that were gone before they could be stored.",
		"source")
	gapRecsDesc = describe("gap_records_total", "Records in those stretches.", "source")
	newestDesc  = describe("newest_sample_timestamp_seconds", "Time of the newest sample that this process stored.",
		"source")
	hintsDesc = describe("definition_hints",
		"What looks like a mistake of the definition in the newest slots: see cryptoviz.hint.", "source")
	lagDesc      = describe("lag_records", "Records on this worker's partitions that are not stored yet.", "source")
	blockedDesc  = describe("worker_blocked", "1 while the worker waits for Kafka or the database.", "source")
	modeDesc     = describe("mode_info", "live, simulated or recorded data.", "mode")
	diskFreeDesc = describe("disk_free_bytes", "Free space beside the local state.")
	bufBytesDesc = describe("buffered_bytes", "Records that wait for Kafka to take them, of all sources.")
	bufSlotsDesc = describe("buffered_slots", "Parts of slots whose records wait for Kafka to take them.")
)

// descs is every metric of the engine. README.md of engine/ has a line for each.
var descs []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("cryptoviz_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
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
		for _, kind := range []schedule.Kind{
			schedule.OK, schedule.NotModified, schedule.Late, schedule.Skipped,
			schedule.Failed,
		} {
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
func (e *Engine) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descs {
		out <- d
	}
}

// Collect reads the counters of the stages, and asks the servers: it takes three seconds at most.
func (e *Engine) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(modeDesc, 1, e.opt.Mode)
	e.collectHealth(gauge)
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
	e.collectStreams(counter)
	for _, w := range e.workers {
		s := w.Stats()
		name := w.Source()
		counter(rowsDesc, float64(s.Rows), name)
		counter(batchesDesc, float64(s.Batches), name)
		for class, n := range s.DeadBy {
			counter(deadDesc, float64(n), name, class)
		}
		counter(repeatsDesc, float64(s.Repeats), name)
		counter(fencedDesc, float64(s.Fenced), name)
		counter(gapsDesc, float64(s.Gaps), name)
		counter(gapRecsDesc, float64(s.GapRecords), name)
		gauge(lagDesc, float64(s.Lag), name)
		gauge(hintsDesc, float64(s.Hints), name)
		gauge(blockedDesc, truth(s.Blocked != ""), name)
		if !s.Newest.IsZero() {
			gauge(newestDesc, float64(s.Newest.UnixMicro())/1e6, name)
		}
	}
	if free := e.free.Load(); free > 0 {
		gauge(diskFreeDesc, float64(free))
	}
	if e.producer != nil {
		s := e.producer.Stats()
		gauge(bufBytesDesc, float64(s.Bytes))
		gauge(bufSlotsDesc, float64(s.Slots))
	}
}

// Rows is the number of rows that this process has stored.
func (e *Engine) Rows() int64 {
	total := int64(0)
	for _, w := range e.workers {
		total += w.Stats().Rows
	}
	return total
}
