package run

import (
	"context"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// stream samples a connection: the first record of each market in each slot goes to the topic, at once. Every instance
// holds the connection; the one that claimed the slot sends.
func (e *Engine) stream(src *spec.Source, producer *produce.Producer, opt fetch.Options) (func(context.Context, schedule.Slot) schedule.Outcome, error) {
	s, err := fetch.NewStream(src, opt)
	if err != nil {
		return nil, err
	}
	// A slot that is being sampled takes records from here; while there is none, they pass by.
	records := make(chan fetch.Record, 256)
	e.jobs = append(e.jobs, func(ctx context.Context) error {
		s.Run(ctx, func(r fetch.Record) {
			select {
			case records <- r:
			default: // the sampler is behind: the next message of this market is as good
			}
		})
		return nil
	})
	return func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
		return sample(ctx, slot, src, s.Down, e.send(producer), records)
	}, nil
}

// topic is the producer's part that a sample needs.
type topic interface {
	Paused() string
	Send(ctx context.Context, src *spec.Source, slot time.Time, records []fetch.Record) error
}

// sample fills one slot from a connection that gives records; down says why it does not.
func sample(ctx context.Context, slot schedule.Slot, src *spec.Source, down func() error, producer topic, records <-chan fetch.Record) schedule.Outcome {
	out := schedule.Outcome{Slot: slot, Kind: schedule.OK}
	if reason := producer.Paused(); reason != "" {
		out.Kind, out.Reason = schedule.Skipped, reason
		return out
	}
	seen := map[string]bool{}
	failed := ""
	for {
		var batch []fetch.Record
		select {
		case <-ctx.Done():
			if out.Records = len(seen); out.Records > 0 {
				return out
			}
			out.Kind, out.Reason = schedule.Failed, "no record came"
			if failed != "" {
				out.Reason = failed
			} else if err := down(); err != nil { // asked once: a connection comes and goes meanwhile
				out.Reason = err.Error()
			}
			return out
		case r := <-records:
			batch = append(batch, r)
		}
		for n := len(records); n > 0; n-- {
			batch = append(batch, <-records)
		}
		batch = fresh(batch, slot.At, seen)
		if len(batch) == 0 {
			continue
		}
		if err := producer.Send(ctx, src, slot.At, batch); err != nil {
			failed = err.Error()
			for _, r := range batch {
				delete(seen, r.Identity()) // its next message may still fill the slot
			}
		}
	}
}

// fresh keeps the first record of each market that this slot has not seen, and marks it as seen. What came before the slot
// has waited here, and belongs to none.
func fresh(batch []fetch.Record, begin time.Time, seen map[string]bool) []fetch.Record {
	kept := batch[:0]
	for _, r := range batch {
		id := r.Identity()
		if !seen[id] && !r.Received.Before(begin) {
			seen[id] = true
			kept = append(kept, r)
		}
	}
	return kept
}
