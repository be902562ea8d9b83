package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// resend is how long a record waits that could not be sent.
const resend = time.Second

// namedStream is a stream for the metrics.
type namedStream struct {
	source string
	conn   *fetch.Stream
	box    *inbox
}

// stream samples a connection: the first record of each market in each slot goes to the topic, at once. Every instance
// holds the connection; the one that claimed the slot sends.
func (e *Engine) stream(src *spec.Source, producer *produce.Producer, opt fetch.Options) (func(context.Context,
	schedule.Slot) schedule.Outcome, error,
) {
	s, err := fetch.NewStream(src, opt)
	if err != nil {
		return nil, err
	}
	box := newInbox(src)
	e.streams = append(e.streams, namedStream{src.Name, s, box})
	e.jobs = append(e.jobs, func(ctx context.Context) error {
		s.Run(ctx, box.put)
		return nil
	})
	return func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
		to := &slotTopic{producer: producer}
		return to.outcome(sample(ctx, slot, src, s, to, box))
	}, nil
}

// topic is the producer's part that a sample needs.
type topic interface {
	Paused() string
	Send(ctx context.Context, src *spec.Source, slot time.Time, records []record.Record) error
}

// connection says how a stream stands, for a slot that began then.
type connection interface {
	Down(since time.Time) error  // why no record came
	Said(since time.Time) string // what the source reports beside its records
}

// sample fills one slot from a connection that gives records.
func sample(ctx context.Context, slot schedule.Slot, src *spec.Source, conn connection, producer topic,
	box *inbox,
) schedule.Outcome {
	if reason := producer.Paused(); reason != "" {
		return schedule.Outcome{Slot: slot, Kind: schedule.Skipped, Reason: reason}
	}
	waiting, letGo := box.claim(slot.At)
	defer letGo()
	sent, failed := 0, ""
	var again <-chan time.Time // not nil: what waits could not be sent, and is tried again then
	for ended := false; !ended; {
		more := waiting.more
		if again != nil {
			more = nil
		}
		select {
		case <-ctx.Done():
			ended = true
		case <-more:
		case <-again:
		}
		if ended && again != nil { // it was just tried
			break
		}
		again = nil
		batch := box.take(waiting)
		if len(batch) == 0 {
			continue
		}
		if err := producer.Send(ctx, src, slot.At, batch); err != nil {
			failed = err.Error()
			box.giveBack(waiting, batch)
			again = time.After(resend)
			continue
		}
		sent += len(batch)
	}
	unsent, dropped := box.left(waiting)
	if sent == 0 {
		return unfilled(slot, failed, conn)
	}
	var notes []string
	if unsent > 0 {
		notes = append(notes, fmt.Sprintf("%s of %s records were not written: %s", humanize.Comma(int64(unsent)),
			humanize.Comma(int64(sent+unsent)), failed))
	}
	if dropped > 0 {
		notes = append(notes,
			fmt.Sprintf("%s records were dropped: a slot takes %s markets, %s, and %s records without a market",
				humanize.Comma(int64(dropped)), humanize.Comma(int64(box.markets)), humanize.IBytes(uint64(box.bytes)), humanize.Comma(maxFaults))) //nolint:gosec // positive
	}
	if said := conn.Said(slot.At); said != "" {
		notes = append(notes, said)
	}
	return schedule.Outcome{Slot: slot, Kind: schedule.OK, Records: sent, Reason: strings.Join(notes, "; ")}
}

// unfilled is the end of a slot that got no record.
func unfilled(slot schedule.Slot, failed string, conn connection) schedule.Outcome {
	out := schedule.Outcome{Slot: slot, Kind: schedule.Failed, Reason: "no record came"}
	if failed != "" {
		out.Reason = failed
	} else if err := conn.Down(slot.At); err != nil { // asked once: a connection comes and goes meanwhile
		out.Reason = err.Error()
		if e, ok := errors.AsType[*fetch.Error](err); ok && e.NotTried {
			out.Kind = schedule.Skipped
		}
	}
	return out
}
