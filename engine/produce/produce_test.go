package produce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func source(topic string) *spec.Source {
	return &spec.Source{Name: "s", Topic: &spec.Topic{Name: topic}, Definition: &spec.Definition{Hash: "0123456789abcdef"}}
}

func broker(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(2, "s")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(append(produce.Options(), kgo.SeedBrokers(cluster.ListenAddrs()...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return cluster, client
}

func read(t *testing.T, cluster *kfake.Cluster, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("s"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var out []*kgo.Record
	for ctx := testkit.Context(t); len(out) < n && ctx.Err() == nil; {
		out = append(out, client.PollFetches(ctx).Records()...)
	}
	return out
}

func count(t *testing.T, client *kgo.Client) (n int64) {
	t.Helper()
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

func TestSendPutsRecordsAsReceived(t *testing.T) {
	cluster, client := broker(t)
	slot := time.Date(2026, 10, 1, 12, 0, 0, 0, time.FixedZone("", 7200))
	var records []fetch.Record
	for i := range 50 {
		records = append(records, fetch.Record{Key: fmt.Sprint("M", i%5), Value: fmt.Appendf(nil, `{ "n" :%d}`, i), Received: slot.Add(1500 * time.Millisecond)})
	}
	records = append(records, fetch.Record{Key: "", Value: nil}, fetch.Record{Key: "bytes", Value: []byte{0, 0xff}})
	if err := produce.New(client).Send(t.Context(), source("s"), slot, records); err != nil {
		t.Fatal(err)
	}
	got := read(t, cluster, len(records))
	if len(got) != len(records) {
		t.Fatalf("%d records, want %d", len(got), len(records))
	}
	partition := map[string]int32{}
	for _, r := range got {
		if !produce.SlotOf(r).Equal(slot) {
			t.Errorf("slot %s", produce.SlotOf(r))
		}
		if p, seen := partition[string(r.Key)]; seen && p != r.Partition {
			t.Errorf("key %s on two partitions", r.Key)
		}
		partition[string(r.Key)] = r.Partition
		headers := map[string]string{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers[produce.HeaderSlot] != "2026-10-01T10:00:00Z" || headers[produce.HeaderDefinition] != "0123456789abcdef" || len(headers) != 3 {
			t.Errorf("headers: %v", headers)
		}
		if strings.HasPrefix(string(r.Key), "M") && (headers[produce.HeaderReceived] != "2026-10-01T10:00:01.5Z" || !bytes.HasPrefix(r.Value, []byte(`{ "n" :`))) {
			t.Errorf("%s %q %v", r.Key, r.Value, headers)
		}
	}
}

func TestSendNothing(t *testing.T) {
	_, client := broker(t)
	if err := produce.New(client).Send(t.Context(), source("s"), time.Now(), nil); err != nil {
		t.Error(err)
	}
}

func TestSendSaysWhatIsWrong(t *testing.T) {
	_, client := broker(t)
	p := produce.New(client)
	one := []fetch.Record{{Key: "BTC\x1b[31m", Value: bytes.Repeat([]byte(randomText(64)), 40_000)}}
	for _, c := range []struct {
		src  *spec.Source
		recs []fetch.Record
		want string
	}{
		{source("nosuch"), []fetch.Record{{Key: "a"}}, "topic nosuch does not exist: run cryptoviz apply"},
		{source("s"), one, "bytes, more than one message of topic s takes"},
	} {
		err := p.Send(testkit.Context(t), c.src, time.Now(), c.recs)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q, want %q", err, c.want)
		}
	}
	if n := count(t, client); n != 0 {
		t.Errorf("%d records on the topic", n)
	}
	if err := p.Send(t.Context(), source("s"), time.Now(), []fetch.Record{{Key: "a"}}); err != nil {
		t.Errorf("after the errors: %v", err)
	}
}

func randomText(n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte(byte(rand.N(256)))
	}
	return b.String()
}

func TestPause(t *testing.T) {
	_, client := broker(t)
	p := produce.New(client)
	p.Pause("the disk is full")
	if err := p.Send(t.Context(), source("s"), time.Now(), []fetch.Record{{Key: "a"}}); err == nil || err.Error() != "the disk is full" || p.Paused() != "the disk is full" {
		t.Error(err)
	}
	p.Pause("")
	if err := p.Send(t.Context(), source("s"), time.Now(), []fetch.Record{{Key: "a"}}); err != nil || p.Paused() != "" {
		t.Error(err)
	}
	if n := count(t, client); n != 1 {
		t.Errorf("%d records on the topic", n)
	}
}

// TestSendWaitsForAll: a partition that refuses makes an error, though the other one took its records.
func TestSendWaitsForAll(t *testing.T) {
	cluster, client := broker(t)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, in := range req.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = in.Topic, in.TopicID
			for _, p := range in.Partitions {
				part := kmsg.NewProduceResponseTopicPartition()
				part.Partition = p.Partition
				if p.Partition == 1 {
					part.ErrorCode = kerr.InvalidRecord.Code
				}
				topic.Partitions = append(topic.Partitions, part)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	var records []fetch.Record
	for i := range 20 {
		records = append(records, fetch.Record{Key: fmt.Sprint(i)})
	}
	if err := produce.New(client).Send(t.Context(), source("s"), time.Now(), records); !errors.Is(err, kerr.InvalidRecord) || !strings.HasPrefix(err.Error(), "write topic s: ") {
		t.Error(err)
	}
}

// TestSendEndsWithItsContext: a broker that takes a batch and does not answer holds up nobody; the client closes, too.
func TestSendEndsWithItsContext(t *testing.T) {
	cluster, client := broker(t)
	p := produce.New(client)
	one := []fetch.Record{{Key: "a"}}
	if err := p.Send(t.Context(), source("s"), time.Now(), one); err != nil {
		t.Fatal(err)
	}
	free := make(chan struct{})
	defer close(free)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		cluster.SleepControl(func() { <-free })
		return nil, nil, false
	})
	for range 2 { // the second batch waits behind the first
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) //nolint:forbidigo // it ends with its context
		err := p.Send(ctx, source("s"), time.Now(), one)
		cancel()
		if err == nil || !strings.HasPrefix(err.Error(), "write topic s: kafka did not acknowledge 1 of 1 records in ") || !strings.HasSuffix(err.Error(), "s; they may still arrive") {
			t.Errorf("%v", err)
		}
	}
	closed := make(chan struct{})
	go func() { client.Close(); close(closed) }()
	testkit.Receive(t, closed, "end of Close")
}

func TestSlotOf(t *testing.T) {
	at := time.Date(2026, 10, 1, 10, 0, 0, 5000, time.UTC)
	header := func(text string) kgo.RecordHeader { return kgo.RecordHeader{Key: "slot", Value: []byte(text)} }
	var slots produce.Slots // remembers, and must not confuse
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
		if got := produce.SlotOf(&kgo.Record{Headers: c.headers}); !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("%.60v: %s, want %s", c.headers, got, c.want)
		}
	}
}
