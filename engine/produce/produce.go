package produce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// The headers of every record. Times are RFC 3339, UTC.
const (
	HeaderSlot       = "slot"       // planned time of the slot
	HeaderReceived   = "received"   // when the reply came
	HeaderDefinition = "definition" // spec.Definition.Hash
	HeaderFault      = "fault"      // why the record has no key: it is to be a dead letter; absent where it has one
)

// Producer sends records and waits for all replicas.
type Producer struct {
	client *kgo.Client
	paused atomic.Pointer[string]
}

// Options are the settings of a producing client: idempotent and acknowledged by all replicas, which is kgo's default.
func Options() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.MaxBufferedBytes(64 << 20),
		kgo.UnknownTopicRetries(3),
	}
}

// New uses a client that was opened with Options.
func New(client *kgo.Client) *Producer { return &Producer{client: client} }

// Pause refuses all sending with a reason, until it is called with "". A full disk does it.
func (p *Producer) Pause(reason string) { p.paused.Store(&reason) }

// Paused returns the reason of Pause, or "".
func (p *Producer) Paused() string {
	if reason := p.paused.Load(); reason != nil {
		return *reason
	}
	return ""
}

// Send puts one slot's records on the source's topic, and returns when every one is acknowledged, or the first error.
// After an error some records may be on the topic: the table's key makes the repetition harmless.
func (p *Producer) Send(ctx context.Context, src *spec.Source, slot time.Time, records []fetch.Record) error {
	if reason := p.Paused(); reason != "" {
		return errors.New(reason)
	}
	out := make([]*kgo.Record, len(records))
	at := []byte(slot.UTC().Format(time.RFC3339Nano))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: src.Topic.Name, Key: []byte(r.Key), Value: r.Value, Headers: []kgo.RecordHeader{
			{Key: HeaderSlot, Value: at},
			{Key: HeaderReceived, Value: []byte(r.Received.UTC().Format(time.RFC3339Nano))},
			{Key: HeaderDefinition, Value: []byte(src.Definition.Hash)},
		}}
		if r.Fault != "" {
			out[i].Headers = append(out[i].Headers, kgo.RecordHeader{Key: HeaderFault, Value: []byte(r.Fault)})
		}
	}
	for _, res := range p.sync(ctx, out) {
		switch {
		case res.Err == nil:
		case errors.Is(res.Err, kerr.UnknownTopicOrPartition):
			return fmt.Errorf("topic %s does not exist: run cryptoviz apply", src.Topic.Name)
		case errors.Is(res.Err, kerr.MessageTooLarge):
			return fmt.Errorf("record %q has %d bytes, more than one message of topic %s takes", spec.Clip(string(res.Record.Key)), len(res.Record.Value), src.Topic.Name)
		default:
			return fmt.Errorf("write topic %s: %w", src.Topic.Name, res.Err)
		}
	}
	return nil
}

// sync is the client's ProduceSync, but for the end of ctx, which it heeds always: the client does not once a batch was sent,
// until the broker answers, for it cannot know whether the broker has it. What is left ends with the client.
func (p *Producer) sync(ctx context.Context, records []*kgo.Record) kgo.ProduceResults {
	began := time.Now()
	answers := make(chan kgo.ProduceResult, len(records)) // nobody who answers late has to wait
	for _, r := range records {
		p.client.Produce(ctx, r, func(r *kgo.Record, err error) { answers <- kgo.ProduceResult{Record: r, Err: err} })
	}
	var out kgo.ProduceResults
	for range records {
		select {
		case res := <-answers:
			if ctx.Err() == nil || res.Err == nil {
				out = append(out, res)
				continue
			}
		case <-ctx.Done():
		}
		err := fmt.Errorf("kafka did not acknowledge %d of %d records in %s; they may still arrive", len(records)-len(out), len(records), time.Since(began).Round(time.Second))
		return append(out, kgo.ProduceResult{Record: records[0], Err: err})
	}
	return out
}

// FaultOf returns why a record has no key, or "".
func FaultOf(r *kgo.Record) string {
	for _, h := range r.Headers {
		if h.Key == HeaderFault {
			return string(h.Value)
		}
	}
	return ""
}

// SlotOf returns the slot in a record's header, or zero.
func SlotOf(r *kgo.Record) time.Time { return new(Slots).Of(r) }

// Slots reads slot headers. All records of a slot have the same text, so it is read once. For one goroutine.
type Slots struct {
	text []byte
	at   time.Time
}

// Of returns the slot in a record's header, or zero.
func (s *Slots) Of(r *kgo.Record) time.Time {
	for _, h := range r.Headers {
		if h.Key != HeaderSlot {
			continue
		}
		if len(h.Value) > 0 && bytes.Equal(h.Value, s.text) {
			return s.at
		}
		t, err := time.Parse(time.RFC3339Nano, string(h.Value))
		if err == nil {
			s.text, s.at = append(s.text[:0], h.Value...), t.UTC()
			return s.at
		}
	}
	return time.Time{}
}
