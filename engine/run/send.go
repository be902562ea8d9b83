package run

import (
	"context"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// How long Kafka may take to acknowledge what was fetched. After a stop that is less than the ten seconds in which containers
// have to end.
const (
	sendFor     = 30 * time.Second
	sendStopped = 5 * time.Second
)

// sender is a topic that takes what was fetched even if the slot ends meanwhile.
type sender struct {
	topic
	stopping context.Context // ends when Run is to end
}

func (e *Engine) send(to topic) sender { return sender{to, e.stopping} }

// Send heeds its own limits instead of the end of ctx.
func (s sender) Send(ctx context.Context, src *spec.Source, slot time.Time, records []fetch.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendFor)
	defer cancel()
	defer context.AfterFunc(s.stopping, func() { time.AfterFunc(sendStopped, cancel) })()
	return s.topic.Send(ctx, src, slot, records)
}
