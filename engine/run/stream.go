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
		return sample(ctx, slot, src, s, producer, records)
	}, nil
}

func sample(ctx context.Context, slot schedule.Slot, src *spec.Source, s *fetch.Stream, producer *produce.Producer, records <-chan fetch.Record) schedule.Outcome {
	out := schedule.Outcome{Slot: slot, Kind: schedule.OK}
	if reason := producer.Paused(); reason != "" {
		out.Kind, out.Reason = schedule.Skipped, reason
		return out
	}
	for len(records) > 0 { // what came before this slot
		<-records
	}
	seen := map[string]bool{}
	failed := ""
	for {
		var batch []fetch.Record
		select {
		case <-ctx.Done():
			out.Records = len(seen)
			switch {
			case len(seen) > 0:
			case failed != "":
				out.Kind, out.Reason = schedule.Failed, failed
			case s.Down() != nil:
				out.Kind, out.Reason = schedule.Failed, s.Down().Error()
			default:
				out.Kind, out.Reason = schedule.Failed, "no record came"
			}
			return out
		case r := <-records:
			batch = append(batch, r)
		}
		for n := len(records); n > 0; n-- {
			batch = append(batch, <-records)
		}
		batch = fresh(batch, seen)
		if len(batch) == 0 {
			continue
		}
		send, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		err := producer.Send(send, src, slot.At, batch)
		cancel()
		if err != nil {
			failed = err.Error()
			for _, r := range batch {
				delete(seen, r.Key) // its next message may still fill the slot
			}
		}
	}
}

// fresh keeps the first record of each market that this slot has not seen, and marks it as seen.
func fresh(batch []fetch.Record, seen map[string]bool) []fetch.Record {
	kept := batch[:0]
	for _, r := range batch {
		if !seen[r.Key] {
			seen[r.Key] = true
			kept = append(kept, r)
		}
	}
	return kept
}
