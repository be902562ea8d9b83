package produce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Options of a producer. The zero value works.
type Options struct {
	Clock  clock.Clock
	Log    *slog.Logger
	Prefix string // of the transactional ids, which are it and the source's name; default "cryptoviz."
	Buffer int64  // bytes of records that may wait for Kafka, of all sources; default 64 MiB
	// Found hears of the slots that a source's topic holds when this process takes the source over: earlier ones than
	// it sends itself, with the number of their records. nil: nobody asks.
	Found func(source string, slot time.Time, records int)
}

// Producer puts each source's records on its topic: every key of a slot once, whatever dies in between, and in the
// order of the slots. What Kafka does not take waits here.
//
// A source has one writer over all instances: a transactional id, whose newest holder the brokers let write. Who
// becomes that reads first what the topic has already.
type Producer struct {
	clients []kgo.Opt
	opt     Options
	paused  atomic.Pointer[string]
	ctx     context.Context // of the senders
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	senders map[string]*sender
	held    int64 // bytes that wait
	ending  bool
}

// New prepares a producer; clients are the options that reach the brokers.
func New(clients []kgo.Opt, opt Options) *Producer {
	if opt.Prefix == "" {
		opt.Prefix = "cryptoviz."
	}
	if opt.Buffer == 0 {
		opt.Buffer = 64 << 20
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	p := &Producer{clients: clients, opt: opt, senders: map[string]*sender{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Pause refuses all sending with a reason, until it is called with "". A full disk does it.
func (p *Producer) Pause(reason string) { p.paused.Store(&reason) }

// Paused returns the reason of Pause, or "".
func (p *Producer) Paused() string {
	if reason := p.paused.Load(); reason != nil {
		return *reason
	}
	return ""
}

// Delivery is a part of a slot on its way to the topic.
type Delivery struct {
	slot    time.Time
	records []*kgo.Record
	bytes   int64
	since   time.Time
	done    chan struct{}
	result  Result
}

// Result is how a delivery ended.
type Result struct {
	Stored int    // records that are on the topic
	Aside  int    // records that the topic cannot take: they become dead letters
	Reason string // of those
	Err    error  // why none of the records is on the topic, as far as is known
}

// Done is closed when the delivery has ended.
func (d *Delivery) Done() <-chan struct{} { return d.done }

// Result waits for the end.
func (d *Delivery) Result() Result {
	<-d.done
	return d.result
}

// Queue takes records of a slot, and does not wait for Kafka. An error says why they are not taken.
func (p *Producer) Queue(src *spec.Source, slot time.Time, records []record.Record) (*Delivery, error) {
	if reason := p.Paused(); reason != "" {
		return nil, errors.New(reason)
	}
	d := &Delivery{slot: slot.UTC(), records: Records(src, slot, records), since: time.Now(), done: make(chan struct{})}
	for _, r := range d.records {
		r.Value = bytes.Clone(r.Value) // it is part of a reply, which must not wait as a whole
		d.bytes += int64(sizeOf(r))
	}
	if len(records) == 0 {
		d.end(nil)
		return d, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return nil, errors.New("this process ends")
	}
	s := p.sender(src)
	if p.held > 0 && p.held+d.bytes > p.opt.Buffer {
		return nil, fmt.Errorf("kafka did not acknowledge what is waiting for it%s: the buffer of %s is full", s.because(), humanize.IBytes(uint64(p.opt.Buffer))) //nolint:gosec // positive
	}
	p.held += d.bytes
	s.queue = append(s.queue, d)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return d, nil
}

// Send queues records of a slot and waits until they are on the topic. Those that ctx does not wait for may still
// arrive.
func (p *Producer) Send(ctx context.Context, src *spec.Source, slot time.Time, records []record.Record) error {
	d, err := p.Queue(src, slot, records)
	if err != nil {
		return err
	}
	select {
	case <-d.Done():
		return d.Result().Err
	case <-ctx.Done():
		return fmt.Errorf("write topic %s: kafka did not acknowledge %d records in %s; they may still arrive",
			src.Topic.Name, len(records), time.Since(d.since).Round(time.Second))
	}
}

// sender returns a source's sender and starts it. p.mu is held.
func (p *Producer) sender(src *spec.Source) *sender {
	s := p.senders[src.Name]
	if s == nil {
		s = &sender{p: p, src: src, wake: make(chan struct{}, 1), log: p.opt.Log.With("source", src.Name)}
		p.senders[src.Name] = s
		p.running.Go(func() { s.run(p.ctx) })
	}
	return s
}

// Fenced tells whether another instance has taken a source over since it was asked the last time: it stored what this
// one was to store. Who is only thrown out for a moment, by one that had an earlier slot left, goes on.
func (p *Producer) Fenced(source string) bool {
	p.mu.Lock()
	s := p.senders[source]
	p.mu.Unlock()
	return s != nil && s.fenced.Swap(false)
}

// Stats are what waits for Kafka.
type Stats struct {
	Bytes  int64
	Slots  int
	Since  time.Time // when the oldest of it came, zero for none
	Reason string    // what the brokers, or the way to them, said last
}

// Stats returns what waits now.
func (p *Producer) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := Stats{Bytes: p.held}
	for _, s := range p.senders {
		out.Slots += len(s.queue)
		if len(s.queue) > 0 && (out.Since.IsZero() || s.queue[0].since.Before(out.Since)) {
			out.Since, out.Reason = s.queue[0].since, s.why
		}
	}
	return out
}

// Close takes no more, waits until Kafka has what waits or ctx ends, and fails what is left.
func (p *Producer) Close(ctx context.Context) {
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	for tick := time.NewTicker(20 * time.Millisecond); p.waits() && ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
		}
	}
	p.cancel()
	p.running.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.senders {
		for _, d := range s.queue {
			d.end(fmt.Errorf("the process ended while Kafka had not acknowledged the records%s", s.because()))
		}
		s.queue = nil
	}
	p.held = 0
}

func (p *Producer) waits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held > 0
}

// end ends a delivery; its counts are set by the session that stored it.
func (d *Delivery) end(err error) {
	if err != nil {
		d.result = Result{Err: err}
	}
	d.records = nil
	close(d.done)
}
