package run

import (
	"bytes"
	"sync"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// What a slot of a stream may hold. A source that sends more names each message anew, or sends more than it is asked
// for.
const (
	maxMarkets     = 200_000
	maxMarketBytes = 256 << 20
	maxFaults      = 1000 // records whose market is not known, and that are to end as dead letters
)

// inbox is what a connection gives and has not been sent yet: of each slot the first record of each market. So its
// memory is bounded by the markets, however much arrives at once, and however long Kafka takes. Of the slots it has
// that of now, and those that are being sampled.
type inbox struct {
	interval, offset time.Duration
	markets          int   // most of a slot
	bytes            int64 // … and of their records
	mu               sync.Mutex
	slots            map[int64]*sampled // by the slot's time, in nanoseconds
	dropped          int64              // records of markets beyond the limits, since the start
}

// sampled is what a slot has.
type sampled struct {
	markets map[string]bool // that have a record in it
	waiting []record.Record
	bytes   int64
	faults  int
	dropped int
	claimed bool          // this instance sends it
	more    chan struct{} // something waits
}

func newInbox(src *spec.Source) *inbox {
	return &inbox{
		interval: src.Interval, offset: src.Offset, markets: maxMarkets, bytes: maxMarketBytes,
		slots: map[int64]*sampled{},
	}
}

// put takes records as they come; it never waits.
func (b *inbox) put(records []record.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range records {
		s, id := b.slot(schedule.SlotAt(b.interval, b.offset, r.Received)), r.Identity()
		if s.markets[id] {
			continue
		}
		if len(s.markets) >= b.markets || s.bytes+int64(len(r.Value)) > b.bytes || r.Fault != "" &&
			s.faults == maxFaults {
			s.dropped++
			b.dropped++
			continue
		}
		if r.Fault != "" {
			s.faults++
		}
		r.Value = bytes.Clone(r.Value) // it lies in its frame, which may be a thousand times as long
		s.markets[id] = true
		s.bytes += int64(len(r.Value))
		s.waiting = append(s.waiting, r)
		s.wake()
	}
}

// slot returns what a slot has. With the first record of a new one those before it are over, but for those that are
// being sent. The caller holds mu.
func (b *inbox) slot(begin time.Time) *sampled {
	at := begin.UnixNano()
	s := b.slots[at]
	if s == nil {
		for other, old := range b.slots {
			if !old.claimed {
				delete(b.slots, other)
			}
		}
		s = &sampled{markets: map[string]bool{}, more: make(chan struct{}, 1)}
		b.slots[at] = s
	}
	return s
}

// claim begins to send a slot, with what came since it began. The caller lets it go.
func (b *inbox) claim(at time.Time) (s *sampled, letGo func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s = b.slot(at)
	s.claimed = true
	return s, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.slots, at.UnixNano())
	}
}

// take returns what waits.
func (b *inbox) take(s *sampled) []record.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := s.waiting
	s.waiting = nil
	return out
}

// giveBack lets records wait that could not be sent: the first of a market stays the one that counts.
func (b *inbox) giveBack(s *sampled, records []record.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.waiting = append(records, s.waiting...)
}

// left is how many records wait, and how many were dropped.
func (b *inbox) left(s *sampled) (waiting, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(s.waiting), s.dropped
}

func (b *inbox) droppedSoFar() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

func (s *sampled) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}
