package consume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

const (
	// gracePeriod is how long a commit that has begun may still take once its partition is given up.
	gracePeriod = 5 * time.Second
	// maxBatchBytes bounds a batch whose records are large.
	maxBatchBytes = 8 << 20
)

// partitionConsumer is one assigned partition.
type partitionConsumer struct {
	ctx        context.Context
	cancel     context.CancelFunc
	done       sync.WaitGroup
	in         chan fetched
	fence      store.Fence
	next, high atomic.Int64 // first offset not stored; end of the log
	paused     atomic.Bool  // nothing more is fetched until those before are stored
	end        context.CancelCauseFunc
}

// fetched is what one fetch brought of a partition.
type fetched struct {
	records []*kgo.Record
	start   int64 // first offset that the log still has, -1 unknown
}

func (w *Worker) start(s *session, claimed store.Claimed, high int64) {
	ctx, cancel := context.WithCancel(s.ctx)
	fence := claimed.Fence
	p := &partitionConsumer{ctx: ctx, cancel: cancel, in: make(chan fetched, 1), fence: fence, end: s.end}
	p.next.Store(claimed.Next)
	p.high.Store(high)
	w.mu.Lock()
	w.partitions[fence.Partition] = p
	w.mu.Unlock()
	batches, free := make(chan *store.Batch), make(chan *store.Batch, 2)
	free <- &store.Batch{Rows: &row.Rows{}}
	free <- &store.Batch{Rows: &row.Rows{}}
	p.done.Go(func() { w.mapBatches(p, claimed, batches, free) })
	p.done.Go(func() {
		if err := w.commitBatches(p, batches, free); err != nil {
			s.end(errRestart) // fenced: join again, and take what the group gives
		}
	})
}

// mapBatches maps records as they come, in batches as large as what waits, up to the limit.
func (w *Worker) mapBatches(p *partitionConsumer, claimed store.Claimed, out chan<- *store.Batch,
	free <-chan *store.Batch,
) {
	m := mapper{w: w, program: w.program.Clone()}
	gaps := gaps{next: claimed.Next, last: claimed.LastSlot, pending: claimed.Pending}
	var waiting fetched
	for {
		if len(waiting.records) == 0 {
			select {
			case waiting = <-p.in:
			case <-p.ctx.Done():
				return
			}
		}
		var b *store.Batch
		select {
		case b = <-free:
		case <-p.ctx.Done():
			return
		}
		b.Rows.Reset()
		b.Records, b.Offsets, b.Dead, b.Gaps, b.Stored, b.Repeats = b.Records[:0], b.Offsets[:0], nil, nil, 0, 0
		b.Position = store.Position{First: gaps.next, Next: gaps.next}
		m.now = w.opt.Clock.Now()
		size := 0
		for len(b.Records) < w.opt.BatchRows && size < maxBatchBytes {
			if len(waiting.records) == 0 {
				select {
				case waiting = <-p.in:
				default:
				}
			}
			if len(waiting.records) == 0 {
				break
			}
			r := waiting.records[0]
			if r.Offset < gaps.next { // the log is shorter than it was: Claim finds out
				p.end(errRestart)
				return
			}
			waiting.records = waiting.records[1:]
			gaps.look(b, r, waiting.start, &m.slots)
			if r.Attrs.IsControl() { // the end of a transaction
				b.Position.Next = r.Offset + 1
				continue
			}
			size += len(r.Value)
			m.add(b, r)
			if b.Position.LastSlot.After(gaps.last) {
				gaps.last = b.Position.LastSlot
			}
		}
		select {
		case out <- b:
		case <-p.ctx.Done():
			return
		}
	}
}

// mapper maps a partition's records.
type mapper struct {
	w       *Worker
	program *row.Program
	slots   record.Slots
	slot    time.Time // of the record before
	now     time.Time // of the batch
}

// add maps one record into the batch.
func (m *mapper) add(b *store.Batch, r *kgo.Record) {
	rec := row.Record{Key: string(r.Key), Value: r.Value, Slot: m.slots.Of(r)}
	if !rec.Slot.Equal(m.slot) {
		if !m.slot.IsZero() {
			m.w.slotEnded(m.program.Hints(), m.now)
		}
		m.slot = rec.Slot
	}
	class := store.DeadRow
	if rec.Key == "" {
		if rec.Fault = record.FaultOf(r); rec.Fault != "" {
			class = store.DeadKey
		}
	}
	index := int32(len(b.Records))
	b.Records, b.Offsets = append(b.Records, rec), append(b.Offsets, r.Offset)
	b.Position.Next = r.Offset + 1
	if rec.Slot.After(b.Position.LastSlot) {
		b.Position.LastSlot = rec.Slot
	}
	before := b.Rows.Len()
	var err error
	if why := record.SetAside(r); why != "" {
		err = errors.New(why)
	} else {
		err = m.program.Append(b.Rows, rec, index)
	}
	if err == nil && m.w.timed && b.Rows.Len() > before {
		at := time.UnixMicro(b.Rows.Times[before])
		switch {
		case at.After(m.now.Add(max(m.w.src.Interval, time.Minute))):
			err = errors.New("its time " + at.UTC().Format(time.RFC3339) + " lies in the future")
		case at.Before(m.now.Add(-m.w.src.MaxAge)):
			err = errors.New("its time " + at.UTC().Format(time.RFC3339) + " lies more than max_age, " +
				units.FormatDuration(m.w.src.MaxAge) + ", back")
		}
		if err != nil {
			b.Rows.Truncate(before)
			class = store.DeadTime
		}
	}
	if err != nil {
		kind := class
		if e, ok := errors.AsType[*row.Error](err); ok {
			kind = e.Kind
		}
		b.Dead = append(b.Dead, store.DeadLetter{
			Offset: r.Offset, Key: rec.Key, Value: r.Value, Kind: kind,
			Reason: err.Error(), Class: class,
		})
	}
}

// commitBatches stores batches in order. While the database cannot take one it waits and tries the same one again.
func (w *Worker) commitBatches(p *partitionConsumer, in <-chan *store.Batch, free chan<- *store.Batch) error {
	for {
		var b *store.Batch
		select {
		case b = <-in:
		case <-p.ctx.Done():
			return nil
		}
		// A commit that has begun may end; one that waits may not.
		ctx, cancel := context.WithCancel(context.WithoutCancel(p.ctx))
		stop := context.AfterFunc(p.ctx, func() {
			timer := time.NewTimer(gracePeriod)
			defer timer.Stop()
			select {
			case <-timer.C:
				cancel()
			case <-ctx.Done():
			}
		})
		wait := backoff.NewExponentialBackOff()
		wait.InitialInterval, wait.MaxInterval = 100*time.Millisecond, 5*time.Second
		_, err := backoff.Retry(p.ctx, func() (struct{}, error) {
			err := w.store.Commit(ctx, w.target, p.fence, b)
			switch {
			case errors.Is(err, store.ErrFenced), errors.Is(err, store.ErrMoved):
				return struct{}{}, backoff.Permanent(err)
			case err != nil && p.ctx.Err() == nil:
				w.setBlocker(p.fence.Partition, err.Error())
			}
			return struct{}{}, err
		}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
		stop()
		cancel()
		switch {
		case errors.Is(err, store.ErrMoved):
			w.log.Warn("partition is claimed again", "partition", p.fence.Partition, "reason", err)
			return err
		case errors.Is(err, store.ErrFenced):
			w.fenced.Add(1)
			w.log.Warn("partition has another owner", "partition", p.fence.Partition)
			return err
		case err != nil: // the partition was given up: its next owner reads the batch again
			return nil
		}
		w.setBlocker(p.fence.Partition, "")
		w.rows.Add(b.Stored)
		w.repeats.Add(b.Repeats)
		w.sampled(b)
		w.dead.add(b.Dead)
		w.batches.Add(1)
		for _, d := range b.Dead {
			w.log.Warn("dead letter", "partition", p.fence.Partition, "offset", d.Offset, "key", d.Key, "reason",
				d.Reason)
			break // one a batch is enough for a log; all are in cryptoviz.dead_letter
		}
		for _, g := range b.Gaps {
			w.lost(p.fence.Partition, g)
		}
		p.next.Store(b.Position.Next)
		free <- b
	}
}
