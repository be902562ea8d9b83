package record

import (
	"bytes"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The headers of every record. Times are RFC 3339, UTC.
const (
	HeaderSlot       = "slot"       // planned time of the slot
	HeaderReceived   = "received"   // when the reply came
	HeaderDefinition = "definition" // spec.Definition.Hash
	// why the record has no key, or no value: it is to be a dead letter; absent where it has one
	HeaderFault = "fault"
)

// SetAside returns why a record has no value, or "": it was larger than the topic takes.
func SetAside(r *kgo.Record) string {
	if len(r.Value) > 0 {
		return ""
	}
	return FaultOf(r)
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
