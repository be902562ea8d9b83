package produce

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// The headers of every record. Times are RFC 3339, UTC.
const (
	HeaderSlot       = "slot"       // planned time of the slot
	HeaderReceived   = "received"   // when the reply came
	HeaderDefinition = "definition" // spec.Definition.Hash
	HeaderFault      = "fault"      // why the record has no key, or no value: it is to be a dead letter; absent where it has one
)

// Records are a slot's records as they go to the source's topic.
func Records(src *spec.Source, slot time.Time, records []fetch.Record) []*kgo.Record {
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
	return out
}

// overhead is more than what a record costs beside key and value: its headers, lengths and the frame of a batch of its own.
const overhead = 512

func sizeOf(r *kgo.Record) int { return len(r.Key) + len(r.Value) + overhead }

// longestKey bounds the key of a record that is set aside, and what is remembered of keys.
const longestKey = 1 << 10

// SetAside returns why a record has no value, or "": it was larger than the topic takes.
func SetAside(r *kgo.Record) string {
	if len(r.Value) > 0 {
		return ""
	}
	return FaultOf(r)
}

// setAside is what takes the place of a record that is larger than the topic takes: the worker makes a dead letter of it.
func setAside(r *kgo.Record, limit int) *kgo.Record {
	reason := fmt.Sprintf("it has %s: topic %s takes messages of at most %s (max.message.bytes)",
		humanize.IBytes(uint64(len(r.Value))), r.Topic, humanize.IBytes(uint64(limit))) //nolint:gosec // sizes
	return &kgo.Record{
		Topic: r.Topic, Key: []byte(nameOf(r)), Value: []byte{},
		Headers: append(slices.Clone(r.Headers[:3]), kgo.RecordHeader{Key: HeaderFault, Value: []byte(reason)}),
	}
}

// FaultOf returns why a record is to be a dead letter, or "".
func FaultOf(r *kgo.Record) string {
	for _, h := range r.Headers {
		if h.Key == HeaderFault {
			return string(h.Value)
		}
	}
	return ""
}

// nameOf is what there is once in a slot: a key, or what has none.
func nameOf(r *kgo.Record) string {
	switch {
	case len(r.Key) > longestKey:
		return string(r.Key[:longestKey-16]) + hash(r.Key)
	case len(r.Key) > 0 || FaultOf(r) == "":
		return string(r.Key)
	}
	return "\x00" + hash(r.Value)
}

func hash(b []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return fmt.Sprintf("%016x", h.Sum64())
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
