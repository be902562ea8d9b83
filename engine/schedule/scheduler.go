package schedule

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
)

// Job is one source's work.
type Job struct {
	Source                   string
	Interval, Offset, Jitter time.Duration
	// Overtime is how long a run may go on after the end of its slot, in real time.
	Overtime time.Duration
	// Run does one slot. Its context ends when the slot and its overtime do; the outcome says how it went and how long
	// it took.
	Run func(ctx context.Context, slot Slot) Outcome
	// Fenced tells whether another instance has taken the source over since it was asked the last time. nil: never.
	Fenced func() bool
}

// SlotAt returns the start of the slot that holds t: a multiple of interval since the epoch, plus offset.
func SlotAt(interval, offset time.Duration, t time.Time) time.Time {
	n := t.Add(-offset).UnixNano()
	return time.Unix(0, n-((n%int64(interval))+int64(interval))%int64(interval)).Add(offset).UTC()
}

// maxMissed bounds how many missed slots of one stretch are entered one by one: a week of minutes.
const maxMissed = 7 * 24 * 60

// Leases and the time to answer are in real time: a fast clock must not make them too short to be of use.
const (
	lease         = 15 * time.Second
	answerTimeout = 10 * time.Second // for one answer of the ledger
	sayAgain      = 5 * time.Minute  // while it does not answer
)

// Scheduler runs jobs in their slots.
type Scheduler struct {
	lines map[string]*sourceLoop
	clock clock.Clock
}

// New prepares a scheduler.
func New(jobs []Job, ledger Ledger, clk clock.Clock, log *slog.Logger) *Scheduler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{map[string]*sourceLoop{}, clk}
	for _, job := range jobs {
		l := &sourceLoop{job: job, ledger: ledger, clock: clk, log: log.With("source", job.Source)}
		l.book = newBook(l)
		s.lines[job.Source] = l
	}
	return s
}

// Run schedules every job until ctx ends, and returns when the end of each slot that was run is in the ledger, or is
// not to be had there. The slot that is under way at the start is run at once, unless it has ended.
//
// An instance that ran the newest slot of a source goes on with the next ones while the ledger does not answer, and
// enters them afterwards. The others wait: that no slot is doubled all the same is up to the job.
func (s *Scheduler) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, l := range s.lines {
		all.Go(func() { l.run(ctx) })
	}
	all.Wait()
	return nil
}

// Enter puts an end right that became known by another way than a run.
func (s *Scheduler) Enter(out Outcome) {
	if l := s.lines[out.Source]; l != nil {
		l.book.enter(out)
	}
}
