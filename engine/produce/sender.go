package produce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

const (
	attempt       = 30 * time.Second // for one transaction, with all that comes before the first
	slowAfter     = 3 * time.Second  // until it is said that one takes long
	timeout       = time.Minute      // after which the brokers abort what a dead process left open
	lookAgain     = 2 * time.Second  // before a source is taken back from an instance that took it over
	maxRejections = 3                // refusals in a row, each by a session of its own, until a delivery is given up
	mostSlots     = 500              // deliveries in one transaction
	mostBytes     = 8 << 20          // of records in one transaction, unless it is one delivery
)

// sender is one source's way to its topic.
type sender struct {
	p       *Producer
	src     *spec.Source
	log     *slog.Logger
	wake    chan struct{}
	queue   []*Delivery // guarded by Producer.mu
	why     string      // what keeps the queue waiting, guarded by Producer.mu
	fenced  atomic.Bool
	session *session
	ceiling int // what the brokers refused as too large, 0 for nothing
}

// because is the reason as part of a sentence. Producer.mu is held.
func (s *sender) because() string {
	if s.why == "" {
		return ""
	}
	return " (" + s.why + ")"
}

// run delivers until ctx ends.
func (s *sender) run(ctx context.Context) {
	defer s.leave()
	pause := &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, Multiplier: 2,
		MaxInterval: 2 * time.Second, RandomizationFactor: 0.5,
	}
	pause.Reset()
	refusals := 0
	for {
		batch := s.next(ctx)
		if batch == nil {
			return
		}
		err := s.deliver(ctx, batch)
		if ctx.Err() != nil && err != nil {
			return // Close ends what is left
		}
		switch {
		case err == nil:
			if s.note("") {
				s.log.Info("Kafka takes records again")
			}
			refusals = 0
			pause.Reset()
			s.finish(batch, nil)
			continue
		case refused(err) && (!errors.Is(err, kerr.MessageTooLarge) || s.ceiling < 4<<10):
			// smaller ones are tried first
			refusals++
		default:
			refusals = 0
		}
		if hopeless, is := errors.AsType[*hopelessError](err); is || refusals >= maxRejections {
			refusals = 0
			if is {
				err = hopeless
			}
			s.finish(batch, err)
			continue
		}
		s.waits(err.Error())
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
			return
		}
	}
}

// note keeps why the queue waits, "" for nothing, and tells whether it began or ceased to.
func (s *sender) note(why string) bool {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	turns := (s.why == "") != (why == "")
	s.why = why
	return turns
}

// waits notes that the queue has to wait.
func (s *sender) waits(why string) {
	if s.note(why) {
		s.log.Warn("Kafka does not take records: they wait", "reason", why)
	}
}

// next waits for deliveries: as many as fit into one transaction.
func (s *sender) next(ctx context.Context) []*Delivery {
	for {
		s.p.mu.Lock()
		n, bytes := 0, int64(0)
		for _, d := range s.queue {
			if bytes += d.bytes; n == mostSlots || n > 0 && bytes > mostBytes {
				break
			}
			n++
		}
		batch := s.queue[:n:n]
		s.p.mu.Unlock()
		if n > 0 {
			return batch
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// finish ends the first deliveries of the queue.
func (s *sender) finish(batch []*Delivery, err error) {
	s.p.mu.Lock()
	s.queue = s.queue[len(batch):]
	for _, d := range batch {
		s.p.held -= d.bytes
	}
	s.p.mu.Unlock()
	for _, d := range batch {
		d.end(err)
	}
}

// hopelessError is one that another try does not help against, before a person has done something.
type hopelessError struct{ error }

// refused tells whether the brokers answered, and with no.
func refused(err error) bool {
	e, ok := errors.AsType[*kerr.Error](err)
	return ok && !e.Retriable && !wasFenced(err)
}

func wasFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// deliver puts the deliveries on the topic, in one transaction. After an error it is not known whether they are there:
// the next session finds out.
func (s *sender) deliver(ctx context.Context, batch []*Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	silent := time.AfterFunc(slowAfter, func() { s.waits("kafka does not answer") })
	defer silent.Stop()
	err := s.tryDeliver(ctx, batch)
	switch {
	case err == nil:
		return nil
	case wasFenced(err):
		s.leave()
		// Another instance may be about to store the same slots: to take the source back at once would only end its
		// transaction. Or it had an earlier slot left, and is done.
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return err
		}
		known, lookErr := s.look(ctx, batch[0].slot)
		if lookErr == nil && known.holdAll(batch) {
			if !s.fenced.Swap(true) {
				s.log.Info("another instance has taken the source over")
			}
			return nil
		}
	case errors.Is(err, kerr.MessageTooLarge) && s.session != nil:
		s.ceiling = s.session.limit
	case ctx.Err() != nil:
		err = fmt.Errorf("kafka did not acknowledge it in %s", attempt)
	}
	s.leave()
	return s.plain(err)
}

func (s *sender) tryDeliver(ctx context.Context, batch []*Delivery) error {
	if s.session != nil && batch[0].slot.Before(s.session.from) {
		s.leave()
	}
	if s.session == nil {
		var err error
		if s.session, err = s.open(ctx, batch[0].slot); err != nil {
			return err
		}
	}
	return s.session.commit(ctx, batch)
}

// leave ends the session. What it may have left open the next one ends, or the brokers after a while.
func (s *sender) leave() {
	if s.session != nil {
		s.session.client.Close()
		s.session = nil
	}
}

// plain says what can be done about an error.
func (s *sender) plain(err error) error {
	topic := s.src.Topic.Name
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return &hopelessError{fmt.Errorf("topic %s does not exist: run cryptoviz apply", topic)}
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return &hopelessError{fmt.Errorf("write topic %s: the user of the kafka block may not use the transactional "+
			"id %s: allow it Write and Describe on transactional ids that begin with %s", topic, s.id(),
			s.p.opt.Prefix)}
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return &hopelessError{fmt.Errorf("write topic %s: the user of the kafka block may not: allow it Write, Read "+
			"and Describe on the topic", topic)}
	}
	return fmt.Errorf("write topic %s: %w", topic, err)
}

// id is the transactional id.
func (s *sender) id() string { return s.p.opt.Prefix + s.src.Name }
