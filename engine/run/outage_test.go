package run_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// only leaves one source of the pipeline.
func (w *world) only(name string) {
	for _, src := range w.p.Sources {
		src.Enabled = src.Name == name
	}
}

// twice counts the keys of slots that are on a topic more than once.
func (w *world) twice(topic string) (n int) {
	w.t.Helper()
	ctx := testkit.Context(w.t)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.p.Kafka.Brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(e kadm.ListedOffset) {
		if e.Offset > 0 {
			left[e.Partition] = e.Offset
		}
	})
	seen := map[string]bool{}
	for len(left) > 0 && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
			if id := record.SlotOf(r).String() + string(r.Key); !r.Attrs.IsControl() {
				if seen[id] {
					n++
				}
				seen[id] = true
			}
		})
	}
	return n
}

// While the database is not to be reached, the instance that fetched a source goes on, and enters its slots afterwards; the
// other one stands by.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), 30)
	w.only("kraken")
	u, err := url.Parse(w.p.Database.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	gate := testkit.NewGate(t, u.Host)
	u.Host = gate.Addr().String()
	w.p.Database.URL = spec.NewSecret(u.String())
	stopA := w.runs(w.open("a", run.All))
	stopB := w.runs(w.open("b", run.All))
	w.becomes("SELECT count(*) >= 3 FROM cryptoviz.slot WHERE state = 'ok'", "true")
	end := func() int64 {
		ends, err := kadm.NewClient(w.kafka).ListEndOffsets(t.Context(), "kraken")
		if err != nil {
			t.Fatal(err)
		}
		o, _ := ends.Lookup("kraken", 0)
		return o.Offset
	}
	gate.Shut(true)
	last := w.text("SELECT max(slot) FROM cryptoviz.slot")
	began := end()
	testkit.Eventually(t, func() error {
		if n := end() - began; n < 5*4 { // three markets and the end of a transaction
			return fmt.Errorf("%d records while the database is away", n)
		}
		return nil
	})
	gate.Shut(false)
	during := fmt.Sprintf("FROM (SELECT * FROM cryptoviz.slot WHERE slot > '%s' ORDER BY slot LIMIT 4) AS s", last)
	w.becomes("SELECT count(*) "+during+" WHERE state IN ('ok', 'late')", "4")
	w.becomes("SELECT count(*) >= 6 FROM cryptoviz.slot WHERE state = 'ok' AND slot > '"+last+"'", "true")
	stopA()
	stopB()
	if n := w.text("SELECT count(*) FROM cryptoviz.slot WHERE reason LIKE '%ledger%'"); n != "0" {
		t.Errorf("%s slots were not run", n)
	}
	if n := w.twice("kraken"); n > 0 {
		t.Errorf("%d keys of slots are on the topic twice", n)
	}
}

// While Kafka takes nothing (its connections break), slots go on and wait; they end as late, and it is told meanwhile.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), 30)
	w.only("kraken")
	e := w.open("a", run.All)
	stop := w.runs(e)
	w.becomes("SELECT count(*) >= 2 FROM cryptoviz.slot WHERE state = 'ok'", "true")
	var away atomic.Bool
	away.Store(true)
	w.broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.broker.KeepControl()
		if away.Load() {
			return nil, errors.New("the connection breaks"), true
		}
		return nil, nil, false
	})
	w.becomes("SELECT count(*) >= 3 FROM cryptoviz.slot WHERE state = 'running'", "true")
	testkit.Eventually(t, func() error {
		if _, err := e.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "records wait for kafka since ") {
			return fmt.Errorf("ready says %w", err)
		}
		return nil
	})
	away.Store(false)
	w.becomes("SELECT count(*) > 0 FROM cryptoviz.slot WHERE state = 'late'", "true") // the oldest of three that run is over
	stop()
	for what, sql := range map[string]string{
		"slots that failed":  "SELECT count(*) FROM cryptoviz.slot WHERE state = 'failed'",
		"late slots without": "SELECT count(*) FROM cryptoviz.slot WHERE state = 'late' AND records <> 3",
	} {
		if n := w.text(sql); n != "0" {
			t.Errorf("%s: %s", what, n)
		}
	}
	if n := w.twice("kraken"); n > 0 {
		t.Errorf("%d keys of slots are on the topic twice", n)
	}
}
