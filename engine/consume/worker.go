package consume

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// Store is what a worker needs of the database.
type Store interface {
	Claim(ctx context.Context, l store.Log) (store.Claimed, error)
	Commit(ctx context.Context, t *store.Target, fence store.Fence, b *store.Batch) error
	Hint(ctx context.Context, source string, hints []store.Hint) error
}

// Options of a worker. The zero value works.
type Options struct {
	Clock    clock.Clock
	Log      *slog.Logger
	Group    string // prefix of the consumer group; default "cryptoviz."
	Instance string // static member name, distinct for each running instance; "" joins as a dynamic member
	// the static member's partitions wait for it over a stop, as long as Session; else others get them at once
	Stays     bool
	BatchRows int // most records in one transaction; default 10,000
	Session   time.Duration
}

// Stats is a worker's state, for status and metrics.
type Stats struct {
	Rows, Batches, Dead, Fenced int64
	Hints                       int64            // what looks like a mistake of the definition, in the newest slots
	DeadBy                      map[string]int64 // of those in Dead, for each of store.DeadClasses
	// stretches of the topic that were gone before they could be stored, and their offsets
	Gaps, GapRecords int64
	Lag              int64 // records in the topic that are not stored yet
	Blocked          string
	Newest           time.Time // of the newest sample that was stored; zero for none
	Partitions       int
	Repeats          int64 // records whose row was stored before
}

// Worker moves one source's records into its table.
type Worker struct {
	src     *spec.Source
	store   Store
	opts    []kgo.Opt
	opt     Options
	program *row.Program
	target  *store.Target
	log     *slog.Logger
	timed   bool // rows have a time, and it is checked

	rows, batches, fenced, gaps, gapRecords, repeats atomic.Int64
	dead                                             deadCount
	blockers                                         blockers
	underway                                         underway
	hints                                            hints
	// time of the newest sample that was stored, in µs since the epoch; 0 for none
	newest atomic.Int64

	mu         sync.Mutex
	partitions map[int32]*partitionConsumer
	instance   string                  // static member name; "" for none
	rejoin     context.CancelCauseFunc // ends the session
}

// New prepares a worker; clients are the options that reach the brokers.
func New(src *spec.Source, st Store, clients []kgo.Opt, opt Options) (*Worker, error) {
	program, err := row.Compile(src)
	if err != nil {
		return nil, err
	}
	if opt.BatchRows == 0 {
		opt.BatchRows = 10_000
	}
	if opt.Group == "" {
		opt.Group = "cryptoviz."
	}
	if opt.Session == 0 {
		opt.Session = 12 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	h := src.Table.Hypertable
	w := &Worker{
		timed: h != nil && slices.Contains(program.Columns(), h.Time),
		src:   src, opts: clients, opt: opt, program: program, target: store.NewTarget(src.Topic.Name, src.Table,
			program.Columns()),
		log: opt.Log.With("source", src.Name), partitions: map[int32]*partitionConsumer{}, instance: opt.Instance,
		blockers: blockers{why: map[int32]string{}},
	}
	w.store = watchedStore{st, &w.underway}
	return w, nil
}

// Source is the name of the worker's source.
func (w *Worker) Source() string { return w.src.Name }

// Rename makes the worker join its group again, under another static member name.
func (w *Worker) Rename(instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instance = instance
	if w.rejoin != nil {
		w.rejoin(errRestart)
	}
}

// Stats returns the counters since the start.
func (w *Worker) Stats() Stats {
	s := Stats{
		Rows: w.rows.Load(), Batches: w.batches.Load(), DeadBy: w.dead.counts(), Fenced: w.fenced.Load(),
		Gaps: w.gaps.Load(), GapRecords: w.gapRecords.Load(), Repeats: w.repeats.Load(),
		Blocked: cmp.Or(w.blockers.first(), w.underway.slowest()),
	}
	s.Hints = w.hints.now(w.opt.Clock.Now(), w.src.Interval)
	for _, n := range s.DeadBy {
		s.Dead += n
	}
	if at := w.newest.Load(); at != 0 {
		s.Newest = time.UnixMicro(at).UTC()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.partitions {
		s.Partitions++
		s.Lag += max(0, p.high.Load()-p.next.Load())
	}
	return s
}

var errRestart = errors.New("session ends")

// idlePoll is how long nothing may come from the topic before that counts as reading without an error.
const idlePoll = 5 * time.Second

// Run consumes until ctx ends. Whatever fails outside is waited for and tried again; nothing is dropped.
func (w *Worker) Run(ctx context.Context) error {
	w.blockers.mu.Lock()
	w.blockers.stopping = ctx //nolint:fatcontext // that of Run, which is called once
	w.blockers.mu.Unlock()
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 5*time.Second
	for ctx.Err() == nil {
		started := time.Now()
		err := w.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > time.Minute {
			wait.Reset()
		}
		if err != nil && !errors.Is(err, errRestart) {
			w.setBlocker(reading, err.Error())
		}
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}
