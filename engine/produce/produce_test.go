package produce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestSendPutsRecordsAsReceived(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	slot := time.Date(2026, 10, 1, 12, 0, 0, 0, time.FixedZone("", 7200))
	var records []record.Record
	for i := range 50 {
		records = append(records, record.Record{Key: fmt.Sprint("M", i%5), Value: fmt.Appendf(nil, `{ "n" :%d}`, i), Received: slot.Add(1500 * time.Millisecond)})
	}
	records = append(records, record.Record{Key: "", Value: nil}, record.Record{Key: "bytes", Value: []byte{0, 0xff}})
	if err := producer(t, addrs, produce.Options{}).Send(t.Context(), source("s"), slot, records); err != nil {
		t.Fatal(err)
	}
	got := committed(t, addrs)
	if len(got) != len(records) {
		t.Fatalf("%d records, want %d", len(got), len(records))
	}
	partition := map[string]int32{}
	for _, r := range got {
		if !record.SlotOf(r).Equal(slot) {
			t.Errorf("slot %s", record.SlotOf(r))
		}
		if p, seen := partition[string(r.Key)]; seen && p != r.Partition {
			t.Errorf("key %s on two partitions", r.Key)
		}
		partition[string(r.Key)] = r.Partition
		headers := map[string]string{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers[record.HeaderSlot] != "2026-10-01T10:00:00Z" || headers[record.HeaderDefinition] != "0123456789abcdef" || len(headers) != 3 {
			t.Errorf("headers: %v", headers)
		}
		if strings.HasPrefix(string(r.Key), "M") && (headers[record.HeaderReceived] != "2026-10-01T10:00:01.5Z" || !bytes.HasPrefix(r.Value, []byte(`{ "n" :`))) {
			t.Errorf("%s %q %v", r.Key, r.Value, headers)
		}
	}
}

func TestSendNothing(t *testing.T) {
	t.Parallel()
	if err := producer(t, broker(t).ListenAddrs(), produce.Options{}).Send(t.Context(), source("s"), time.Now(), nil); err != nil {
		t.Error(err)
	}
}

// TestTooLarge: one record that the topic cannot take is set aside, the others are stored; the limit is the topic's own.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	large := record.Record{Key: "BTC\x1b[31m", Value: bytes.Repeat([]byte("0123456789abcdef"), 150_000)} // 2.4 MB, and compressible
	huge := record.Record{Key: "ETH", Value: make([]byte, 6<<20)}
	small := record.Record{Key: "SOL", Value: []byte("{}")}
	p := producer(t, addrs, produce.Options{})
	wantResult(t, queue(t, p, at(0), large, small), produce.Result{Stored: 1, Aside: 1, Reason: `record "BTC\x1b[31m" has 2400000 bytes, more than one message of topic s takes: see the dead letters`})
	shut(p)
	if _, err := admin(t, addrs).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: new("4194304")}}, "s"); err != nil {
		t.Fatal(err)
	}
	p = producer(t, addrs, produce.Options{})
	got := result(t, queue(t, p, at(1), large, huge, small))
	if got.Stored != 2 || got.Aside != 1 || !strings.Contains(got.Reason, `"ETH" has 6291456 bytes`) || got.Err != nil {
		t.Errorf("%+v", got)
	}
	var refused []string
	for _, r := range committed(t, addrs) {
		if why := record.FaultOf(r); why != "" {
			if len(r.Value) > 0 || record.SlotOf(r).IsZero() {
				t.Errorf("a record set aside has %d bytes and slot %s", len(r.Value), record.SlotOf(r))
			}
			refused = append(refused, string(r.Key[:3])+": "+why)
		}
	}
	slices.Sort(refused)
	if want := []string{"BTC: it has 2.3 MiB: topic s takes messages of at most 1.0 MiB (max.message.bytes)", "ETH: it has 6.0 MiB: topic s takes messages of at most 4.0 MiB (max.message.bytes)"}; !slices.Equal(refused, want) {
		t.Errorf("%q, want %q", refused, want)
	}
}

// TestLimitIsLowered: what the broker refuses is found out by trying, also where it does not say how much it takes.
func TestLimitIsLowered(t *testing.T) {
	t.Parallel()
	cluster := broker(t)
	addrs := cluster.ListenAddrs()
	p := producer(t, addrs, produce.Options{})
	wantResult(t, queue(t, p, at(0), markets(1)...), produce.Result{Stored: 1})
	cluster.ControlKey(int16(kmsg.DescribeConfigs), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("no"), true
	})
	if _, err := admin(t, addrs).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: new("100000")}}, "s"); err != nil {
		t.Fatal(err)
	}
	d := queue(t, p, at(1), record.Record{Key: "large", Value: []byte(randomText(300_000))}, record.Record{Key: "small", Value: []byte("{}")})
	if got := result(t, d); got.Stored != 1 || got.Aside != 1 || got.Err != nil {
		t.Errorf("%+v", got)
	}
}

func TestSendSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	p := producer(t, addrs, produce.Options{})
	other := source("nosuch")
	other.Name = "other"
	err := p.Send(t.Context(), other, time.Now(), markets(1))
	if err == nil || err.Error() != "topic nosuch does not exist: run cryptoviz apply" {
		t.Error(err)
	}
	if err := p.Send(t.Context(), source("s"), time.Now(), markets(1)); err != nil {
		t.Errorf("after the error: %v", err)
	}
}

// TestRights: what the broker does not allow is said at once, with what to allow.
func TestRights(t *testing.T) {
	t.Parallel()
	allow := func(kind kmsg.ACLResourceType, name string, ops ...kmsg.ACLOperation) (out []kfake.ACL) {
		for _, op := range ops {
			out = append(out, kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true})
		}
		return out
	}
	topic := allow(kmsg.ACLResourceTypeTopic, "s", kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
	id := allow(kmsg.ACLResourceTypeTransactionalId, "cryptoviz.s", kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
	for want, acls := range map[string][]kfake.ACL{
		"": slices.Concat(topic, id),
		"write topic s: the user of the kafka block may not use the transactional id cryptoviz.s: allow it Write and Describe on transactional ids that begin with cryptoviz.": topic,
		"write topic s: the user of the kafka block may not: allow it Write, Read and Describe on the topic":                                                                   id,
	} {
		cluster := broker(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "root", "x"), kfake.User("PLAIN", "u", "p", acls...))
		p := producer(t, cluster.ListenAddrs(), produce.Options{}, kgo.SASL(plain.Auth{User: "u", Pass: "p"}.AsMechanism()))
		err := p.Send(testkit.Context(t), source("s"), time.Now(), markets(1))
		if err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	p := producer(t, addrs, produce.Options{})
	p.Pause("the disk is full")
	if err := p.Send(t.Context(), source("s"), time.Now(), markets(1)); err == nil || err.Error() != "the disk is full" || p.Paused() != "the disk is full" {
		t.Error(err)
	}
	p.Pause("")
	if err := p.Send(t.Context(), source("s"), time.Now(), markets(1)); err != nil || p.Paused() != "" {
		t.Error(err)
	}
	if n := len(committed(t, addrs)); n != 1 {
		t.Errorf("%d records on the topic", n)
	}
}

// TestAllOrNothing: a partition that refuses makes an error, and nobody sees what the other one took.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	cluster := broker(t)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp, refused := req.ResponseKind().(*kmsg.ProduceResponse), false
		for _, in := range req.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = in.Topic, in.TopicID
			for _, p := range in.Partitions {
				part := kmsg.NewProduceResponseTopicPartition()
				part.Partition = p.Partition
				if p.Partition == 1 {
					part.ErrorCode, refused = kerr.InvalidRecord.Code, true
				}
				topic.Partitions = append(topic.Partitions, part)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, refused
	})
	p := producer(t, cluster.ListenAddrs(), produce.Options{})
	if err := p.Send(t.Context(), source("s"), time.Now(), markets(20)); !errors.Is(err, kerr.InvalidRecord) || !strings.HasPrefix(err.Error(), "write topic s: ") {
		t.Error(err)
	}
	if n := len(committed(t, cluster.ListenAddrs())); n != 0 {
		t.Errorf("%d records are to be seen", n)
	}
}

// TestSendEndsWithItsContext: a broker that takes a batch and does not answer holds up nobody; the producer closes, too.
func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cluster := broker(t)
	p := producer(t, cluster.ListenAddrs(), produce.Options{})
	if err := p.Send(t.Context(), source("s"), at(0), markets(1)); err != nil {
		t.Fatal(err)
	}
	free := make(chan struct{})
	defer close(free)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		cluster.SleepControl(func() { <-free })
		return nil, nil, false
	})
	for n := range 2 { // the second slot waits behind the first
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) //nolint:forbidigo // it ends with its context
		err := p.Send(ctx, source("s"), at(n+1), markets(1))
		cancel()
		if err == nil || !strings.HasPrefix(err.Error(), "write topic s: kafka did not acknowledge 1 records in ") {
			t.Errorf("%v", err)
		}
	}
	if s := p.Stats(); s.Slots != 2 || s.Bytes == 0 || s.Since.IsZero() {
		t.Errorf("%+v", s)
	}
	began := time.Now()
	shut(p)
	if took := time.Since(began); took > testkit.Patience {
		t.Errorf("closing took %s", took)
	}
}

func TestSlotOf(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 10, 1, 10, 0, 0, 5000, time.UTC)
	header := func(text string) kgo.RecordHeader { return kgo.RecordHeader{Key: "slot", Value: []byte(text)} }
	var slots record.Slots // remembers, and must not confuse
	for _, c := range []struct {
		headers []kgo.RecordHeader
		want    time.Time
	}{
		{[]kgo.RecordHeader{header("2025-01-01T00:00:00Z")}, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)},
		{nil, time.Time{}},
		{[]kgo.RecordHeader{{Key: "slot"}}, time.Time{}},
		{[]kgo.RecordHeader{header("soon")}, time.Time{}},
		{[]kgo.RecordHeader{header(strings.Repeat("2", 1<<16))}, time.Time{}},
		{[]kgo.RecordHeader{{Key: "other", Value: []byte("2020-01-01T00:00:00Z")}, header("2026-10-01T10:00:00.000005Z")}, at},
		{[]kgo.RecordHeader{header("2026-10-01T12:00:00.000005+02:00")}, at},
	} {
		for range 2 {
			if got := slots.Of(&kgo.Record{Headers: c.headers}); !got.Equal(c.want) {
				t.Errorf("%.60v remembered: %s, want %s", c.headers, got, c.want)
			}
		}
		if got := record.SlotOf(&kgo.Record{Headers: c.headers}); !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("%.60v: %s, want %s", c.headers, got, c.want)
		}
	}
}
