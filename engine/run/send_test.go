package run

import (
	"context"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// sender is a topic that takes what was sent even if the slot ends meanwhile, as a queue does.
type sender struct {
	topic
	_ context.Context
}

func (s sender) Send(ctx context.Context, src *spec.Source, slot time.Time, records []record.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return s.topic.Send(ctx, src, slot, records)
}
