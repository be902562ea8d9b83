package produce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// session is a source's writer from its start until an error. It has a client of its own: what one has learned of
// topics, brokers and itself ends with it, and a topic that was made again is a new one to the next.
type session struct {
	client *kgo.Client
	from   time.Time // the topic's slots since then are known
	known  known
	limit  int // bytes of a batch that the topic takes
}

const (
	usualLimit = 1000012  // max.message.bytes of a topic that does not say
	mostLimit  = 31 << 20 // workers do not unpack larger batches
)

// ClientOptions are the settings of a producing client: idempotent and acknowledged by all replicas, which is kgo's
// default.
func ClientOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.UnknownTopicRetries(3),
	}
}

// open makes this process the source's writer: every other one is fenced, and what it had not committed is gone. What
// it had committed since the slot is read.
func (s *sender) open(ctx context.Context, from time.Time) (*session, error) {
	var limit atomic.Int32
	limit.Store(usualLimit)
	client, err := kgo.NewClient(slices.Concat(s.p.clients, ClientOptions(), []kgo.Opt{
		kgo.TransactionalID(s.id()), kgo.TransactionTimeout(timeout), kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(1 << 20), kgo.MetadataMinAge(time.Second),
		kgo.ProducerBatchMaxBytesFn(func(string) int32 { return limit.Load() }),
	})...)
	if err != nil {
		return nil, fmt.Errorf("open a Kafka client: %w", err)
	}
	x := &session{client: client, from: from}
	if err := s.prepare(ctx, x); err != nil {
		client.Close()
		return nil, err
	}
	limit.Store(int32(x.limit)) //nolint:gosec // at most mostLimit
	return x, nil
}

func (s *sender) prepare(ctx context.Context, x *session) error {
	id, epoch, err := x.client.ProducerID(ctx)
	if err != nil {
		return err
	}
	admin := kadm.NewClient(x.client)
	x.limit = s.maxMessage(ctx, admin)
	t, err := s.tail(ctx, admin, x.from)
	if err != nil {
		return err
	}
	if err := s.closeTorn(ctx, admin, t.torn[id], id, epoch); err != nil {
		return err
	}
	x.known = t.known
	for slot, keys := range x.known {
		if slot.Before(x.from) {
			if s.p.opt.Found != nil && !slot.IsZero() {
				s.p.opt.Found(s.src.Name, slot, keys.stored())
			}
			delete(x.known, slot)
		}
	}
	return nil
}

// closeTorn ends what is left of a transaction of this source that has no end in the log. The embedded broker leaves
// that after a crash, and readers would take the next transaction for a part of it.
func (s *sender) closeTorn(ctx context.Context, admin *kadm.Client, partitions []int32, id int64, epoch int16) error {
	if len(partitions) == 0 {
		return nil
	}
	topics := kadm.TopicsSet{}
	topics.Add(s.src.Topic.Name, partitions...)
	answers, err := admin.WriteTxnMarkers(ctx, kadm.TxnMarkers{ProducerID: id, ProducerEpoch: epoch, Topics: topics})
	if err == nil {
		answers.EachPartition(func(p kadm.TxnMarkersPartitionResponse) { err = errors.Join(err, p.Err) })
	}
	if err != nil {
		return fmt.Errorf("end a transaction that a crash tore: %w", err)
	}
	return nil
}

// maxMessage is the topic's max.message.bytes: as the broker says, as the pipeline declares it, or Kafka's own.
func (s *sender) maxMessage(ctx context.Context, admin *kadm.Client) int {
	text := s.src.Topic.Config["max.message.bytes"]
	if configs, err := admin.DescribeTopicConfigs(ctx, s.src.Topic.Name); err == nil && len(configs) == 1 &&
		configs[0].Err == nil {
		for _, c := range configs[0].Configs {
			if c.Key == "max.message.bytes" {
				text = c.MaybeValue()
			}
		}
	}
	limit, err := strconv.Atoi(text)
	if err != nil {
		limit = usualLimit
	}
	if s.ceiling > 0 && limit >= s.ceiling { // the broker refuses less than it says
		limit = s.ceiling / 2
	}
	return min(max(limit, 1<<10), mostLimit)
}

// commit stores deliveries in one transaction, but for the keys of a slot that the topic has.
func (x *session) commit(ctx context.Context, batch []*Delivery) error {
	for slot := range x.known {
		if slot.Before(batch[0].slot) {
			delete(x.known, slot)
		}
	}
	x.from = batch[0].slot
	var out []*kgo.Record
	for _, d := range batch {
		there := x.known[d.slot]
		d.result = Result{}
		for _, r := range d.records {
			aside, is := there[nameOf(r)]
			switch {
			case is:
			case sizeOf(r) > x.limit:
				aside = true
				out = append(out, setAside(r, x.limit))
			default:
				// a client writes into it
				out = append(out, &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers})
			}
			d.count(r, aside)
		}
		x.known.add(d, x.limit)
	}
	if len(out) == 0 {
		return nil
	}
	if err := x.client.BeginTransaction(); err != nil {
		return err
	}
	answers := make(chan error, len(out)) // nobody who answers late has to wait
	for _, r := range out {
		x.client.Produce(ctx, r, func(_ *kgo.Record, err error) { answers <- err })
	}
	for range out {
		select {
		case err := <-answers:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return x.client.EndTransaction(ctx, kgo.TryCommit)
}

// count notes where a record is.
func (d *Delivery) count(r *kgo.Record, aside bool) {
	if !aside {
		d.result.Stored++
		return
	}
	if d.result.Aside++; d.result.Aside == 1 {
		d.result.Reason = fmt.Sprintf("record %q has %d bytes, more than one message of topic %s takes: see the "+
			"dead letters", units.Clip(string(r.Key)), len(r.Value), r.Topic)
	}
}
