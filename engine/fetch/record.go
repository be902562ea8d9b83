package fetch

import (
	"context"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
)

// Record is one market's piece of a reply, exactly as the source sent it.
type Record struct {
	Key      string // the market; becomes the Kafka key
	Value    []byte // JSON of one record, or the outer HTML of one element
	Received time.Time
}

// Poll fetches one slot's records: HTTP or HTML.
type Poll func(ctx context.Context, slot schedule.Slot) ([]Record, error)

// Stream holds a connection open and emits records as they come; it blocks until ctx ends.
type Stream func(ctx context.Context, emit func(Record) error) error
