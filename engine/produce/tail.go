package produce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/record"
)

// keys are those of one slot on the topic; true: the record was set aside.
type keys map[string]bool

func (k keys) stored() (n int) {
	for _, aside := range k {
		if !aside {
			n++
		}
	}
	return n
}

// known is what a topic holds, by slot.
type known map[time.Time]keys

func (k known) put(slot time.Time, key string, aside bool) {
	if k[slot] == nil {
		k[slot] = keys{}
	}
	k[slot][key] = aside
}

func (k known) add(d *Delivery, limit int) {
	for _, r := range d.records {
		if _, is := k[d.slot][nameOf(r)]; !is {
			k.put(d.slot, nameOf(r), sizeOf(r) > limit)
		}
	}
}

// holdAll tells whether every record of the deliveries is on the topic, and counts them.
func (k known) holdAll(batch []*Delivery) bool {
	for _, d := range batch {
		d.result = Result{}
		for _, r := range d.records {
			aside, is := k[d.slot][nameOf(r)]
			if !is {
				return false
			}
			d.count(r, aside)
		}
	}
	return true
}

// tail is the end of a topic's log.
type tail struct {
	known known
	torn  map[int64][]int32 // partitions whose log ends with a transaction of the producer that has no end
}

const (
	tailRecords = 2000        // of each partition at least, for what a process that died left
	margin      = time.Minute // by which the clocks of those who write may differ
)

// look reads the tail without taking the source over.
func (s *sender) look(ctx context.Context, from time.Time) (known, error) {
	client, err := kgo.NewClient(s.p.clients...)
	if err != nil {
		return nil, fmt.Errorf("open a Kafka client: %w", err)
	}
	defer client.Close()
	t, err := s.tail(ctx, kadm.NewClient(client), from)
	return t.known, err
}

// tail reads what is committed on the topic since a slot, and a little more.
func (s *sender) tail(ctx context.Context, admin *kadm.Client, from time.Time) (tail, error) {
	out := tail{known: known{}, torn: map[int64][]int32{}}
	topic := s.src.Topic.Name
	now := s.p.opt.Clock.Now()
	since := time.Now().Add(-time.Duration(float64(now.Sub(from))/s.p.opt.Clock.Speed()) - margin)
	begins, ends, err := s.bounds(ctx, admin, since)
	if err != nil {
		return out, err
	}
	if len(begins) == 0 {
		return out, nil
	}
	offsets := map[int32]kgo.Offset{}
	for n, at := range begins {
		offsets[n] = kgo.NewOffset().At(at)
	}
	reader, err := kgo.NewClient(slices.Concat(s.p.clients, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(250 * time.Millisecond), kgo.FetchMaxBytes(4 << 20), kgo.MaxConcurrentFetches(1),
	})...)
	if err != nil {
		return out, fmt.Errorf("open a Kafka client: %w", err)
	}
	defer reader.Close()
	open := map[int32]map[int64]known{} // by partition and producer
	for n := range begins {
		open[n] = map[int64]known{}
	}
	var slots record.Slots
	for len(begins) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return out, fmt.Errorf("read topic %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if _, wanted := begins[r.Partition]; !wanted || r.Offset >= ends[r.Partition] {
				return
			}
			out.take(open[r.Partition], r, &slots)
			if r.Offset == ends[r.Partition]-1 {
				delete(begins, r.Partition)
			}
		})
	}
	for n, producers := range open {
		for id := range producers {
			out.torn[id] = append(out.torn[id], n)
		}
	}
	return out, nil
}

// take sorts a record in: what belongs to a transaction counts once that is committed.
func (t *tail) take(open map[int64]known, r *kgo.Record, slots *record.Slots) {
	switch {
	case r.Attrs.IsControl():
		if len(r.Key) >= 4 && binary.BigEndian.Uint16(r.Key[2:]) == 1 {
			for slot, keys := range open[r.ProducerID] {
				for key, aside := range keys {
					t.known.put(slot, key, aside)
				}
			}
		}
		delete(open, r.ProducerID)
	case r.Attrs.IsTransactional():
		if open[r.ProducerID] == nil {
			open[r.ProducerID] = known{}
		}
		open[r.ProducerID].put(slots.Of(r), nameOf(r), record.SetAside(r) != "")
	default:
		t.known.put(slots.Of(r), nameOf(r), record.SetAside(r) != "")
	}
}

// bounds returns where to read each partition from, and to. Partitions with nothing to read are left out. A topic that
// is just being made, or whose broker has just started, may be unknown for a moment.
func (s *sender) bounds(
	ctx context.Context, admin *kadm.Client, since time.Time,
) (begins, ends map[int32]int64, err error) {
	topic := s.src.Topic.Name
	for try := 0; ; try++ {
		begins, ends, err = s.tryBounds(ctx, admin, since)
		if err == nil || try == 3 || !errors.Is(err, kerr.UnknownTopicOrPartition) {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	if err != nil {
		err = fmt.Errorf("list offsets of topic %s: %w", topic, err)
	}
	return begins, ends, err
}

func (s *sender) tryBounds(
	ctx context.Context, admin *kadm.Client, since time.Time,
) (begins, ends map[int32]int64, err error) {
	topic := s.src.Topic.Name
	var listed [3]kadm.ListedOffsets
	for i, list := range []func() (kadm.ListedOffsets, error){
		func() (kadm.ListedOffsets, error) { return admin.ListStartOffsets(ctx, topic) },
		func() (kadm.ListedOffsets, error) { return admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topic) },
		func() (kadm.ListedOffsets, error) { return admin.ListEndOffsets(ctx, topic) },
	} {
		if listed[i], err = list(); err == nil {
			err = listed[i].Error()
		}
		if err != nil {
			return nil, nil, err
		}
	}
	begins, ends = map[int32]int64{}, map[int32]int64{}
	for n, end := range listed[2][topic] {
		start, _ := listed[0].Lookup(topic, n)
		after, _ := listed[1].Lookup(topic, n)
		begin := max(start.Offset, min(after.Offset, end.Offset-tailRecords))
		if begin < end.Offset {
			begins[n], ends[n] = begin, end.Offset
		}
	}
	return begins, ends, nil
}
