package run

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// sendStopped is how long Kafka may still take what was fetched once the process is to end: less than the ten seconds
// in which containers have to.
const sendStopped = 5 * time.Second

func closeProducer(p *produce.Producer) {
	ctx, cancel := context.WithTimeout(context.Background(), sendStopped)
	defer cancel()
	p.Close(ctx)
}

// slotTopic takes the records of one slot, and does not wait for Kafka.
type slotTopic struct {
	producer *produce.Producer
	parts    []*produce.Delivery
	sent     int
}

// Send queues records. An error says why they are not taken; otherwise outcome tells what became of them.
func (s *slotTopic) Send(_ context.Context, src *spec.Source, slot time.Time, records []record.Record) error {
	d, err := s.producer.Queue(src, slot, records)
	if err == nil {
		s.parts, s.sent = append(s.parts, d), s.sent+len(records)
	}
	return err
}

// Paused returns why the producer takes nothing now, or "".
func (s *slotTopic) Paused() string { return s.producer.Paused() }

// outcome makes the end of a slot wait for the records that were queued: how many are stored decides.
func (s *slotTopic) outcome(out schedule.Outcome) schedule.Outcome {
	if len(s.parts) == 0 {
		return out
	}
	pending := out
	pending.Pending = func() schedule.Outcome { return s.wait(out) }
	return pending
}

func (s *slotTopic) wait(out schedule.Outcome) schedule.Outcome {
	var failed error
	stored, aside, why := 0, 0, ""
	for _, d := range s.parts {
		r := d.Result()
		stored, aside = stored+r.Stored, aside+r.Aside
		if r.Err != nil {
			failed = r.Err
		}
		if why == "" {
			why = r.Reason
		}
	}
	out.Records = stored
	var notes []string
	if out.Reason != "" {
		notes = append(notes, out.Reason)
	}
	if aside == 1 {
		notes = append(notes, why)
	} else if aside > 1 {
		notes = append(notes, fmt.Sprintf("%s records are too large, the first: %s", humanize.Comma(int64(aside)), why))
	}
	if failed != nil && stored > 0 {
		notes = append(notes, fmt.Sprintf("%s of %s records were not written: %v",
			humanize.Comma(int64(s.sent-stored-aside)), humanize.Comma(int64(s.sent)), failed))
	} else if failed != nil {
		notes = append(notes, failed.Error())
	}
	if stored == 0 && (failed != nil || aside > 0) {
		out.Kind = schedule.Failed
	}
	out.Reason = strings.Join(notes, "; ")
	return out
}

// whenDone changes the end of a slot, now or when it is known.
func whenDone(out schedule.Outcome, change func(schedule.Outcome) schedule.Outcome) schedule.Outcome {
	if out.Pending == nil {
		return change(out)
	}
	pending := out.Pending
	out.Pending = func() schedule.Outcome { return change(pending()) }
	return out
}

// slowKafka is how long records may wait before that is told.
const slowKafka = 3 * time.Second

// unsent says why records are not fetched, or do not reach Kafka; "" while they do.
func (e *Engine) unsent() string {
	if e.producer == nil {
		return ""
	}
	if reason := e.producer.Paused(); reason != "" {
		return reason
	}
	s := e.producer.Stats()
	if s.Slots == 0 || time.Since(s.Since) < slowKafka {
		return ""
	}
	return fmt.Sprintf("records wait for kafka since %s (%d slots, %s): %s", s.Since.UTC().Format(time.TimeOnly), s.Slots, humanize.IBytes(uint64(s.Bytes)), cmp.Or(s.Reason, "it has not answered")) //nolint:gosec // positive
}
