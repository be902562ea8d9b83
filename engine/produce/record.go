package produce

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Records are a slot's records as they go to the source's topic.
func Records(src *spec.Source, slot time.Time, records []record.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(records))
	at := []byte(slot.UTC().Format(time.RFC3339Nano))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: src.Topic.Name, Key: []byte(r.Key), Value: r.Value, Headers: []kgo.RecordHeader{
			{Key: record.HeaderSlot, Value: at},
			{Key: record.HeaderReceived, Value: []byte(r.Received.UTC().Format(time.RFC3339Nano))},
			{Key: record.HeaderDefinition, Value: []byte(src.Definition.Hash)},
		}}
		if r.Fault != "" {
			out[i].Headers = append(out[i].Headers, kgo.RecordHeader{Key: record.HeaderFault, Value: []byte(r.Fault)})
		}
	}
	return out
}

// overhead is more than what a record costs beside key and value: its headers, lengths and the frame of a batch of its
// own.
const overhead = 512

func sizeOf(r *kgo.Record) int { return len(r.Key) + len(r.Value) + overhead }

// longestKey bounds the key of a record that is set aside, and what is remembered of keys.
const longestKey = 1 << 10

// setAside is what takes the place of a record that is larger than the topic takes: the worker makes a dead letter of
// it.
func setAside(r *kgo.Record, limit int) *kgo.Record {
	reason := fmt.Sprintf("it has %s: topic %s takes messages of at most %s (max.message.bytes)",
		humanize.IBytes(uint64(len(r.Value))), r.Topic, humanize.IBytes(uint64(limit))) //nolint:gosec // sizes
	return &kgo.Record{
		Topic: r.Topic, Key: []byte(nameOf(r)), Value: []byte{},
		Headers: append(slices.Clone(r.Headers[:3]), kgo.RecordHeader{Key: record.HeaderFault, Value: []byte(reason)}),
	}
}

// nameOf is what there is once in a slot: a key, or what has none.
func nameOf(r *kgo.Record) string {
	switch {
	case len(r.Key) > longestKey:
		return string(r.Key[:longestKey-16]) + hash(r.Key)
	case len(r.Key) > 0 || record.FaultOf(r) == "":
		return string(r.Key)
	}
	return "\x00" + hash(r.Value)
}

func hash(b []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return fmt.Sprintf("%016x", h.Sum64())
}
