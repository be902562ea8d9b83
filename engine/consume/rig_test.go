package consume_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// rig is a broker, a database and a source of the shipped pipeline between them.
type rig struct {
	t       testing.TB
	src     *spec.Source
	brokers []string
	kafka   *kgo.Client
	store   *store.Store
}

// realBroker, when set, takes the embedded broker's place.
var realBroker string

// newRig uses the embedded broker, or the one at address; partitions 0 makes no topic. The table has no key, so that a
// doubled row shows, unless keyed is set.
func newRig(t testing.TB, source string, partitions int32, address string, keyed bool) *rig {
	t.Helper()
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	r := &rig{t: t, brokers: []string{address}}
	for _, src := range p.Sources {
		if src.Name == source {
			r.src = src
		}
	}
	if address == "" && realBroker != "" {
		r.brokers = []string{realBroker}
		r.src.Topic.Name = strings.ToLower(rand.Text())
	} else if address == "" {
		r.brokers = testkit.EmbeddedKafka(t).ListenAddrs()
	}
	var err error
	if r.kafka, err = kgo.NewClient(append(r.clients(), produce.ClientOptions()...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kafka.Close)
	if partitions > 0 {
		r.createTopic(partitions)
	}
	cfg, err := pgxpool.ParseConfig(testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg.Copy())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	sql := append([]string{schema.SQL}, ddl.CreateSQL(r.src.Table, catalog.Capabilities{}, time.Now())...)
	if !keyed {
		sql = append(sql, "ALTER TABLE "+r.src.Table.Name+" DROP CONSTRAINT "+r.src.Table.Name+"_pkey")
	}
	for _, sql := range sql {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if r.store, err = store.Open(t.Context(), cfg, store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Close)
	return r
}

func (r *rig) clients() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(r.brokers...)} }

func (r *rig) createTopic(partitions int32) {
	r.t.Helper()
	if _, err := kadm.NewClient(r.kafka).CreateTopic(r.t.Context(), partitions, 1, nil, r.src.Topic.Name); err != nil {
		r.t.Fatal(err)
	}
}

// runs starts a worker; stop ends it and waits for it.
func (r *rig) runs(opt consume.Options) (w *consume.Worker, stop func()) {
	r.t.Helper()
	w, err := consume.New(r.src, r.store, r.clients(), opt)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := testkit.Receive(r.t, done, "end of the worker"); err != nil {
			r.t.Error(err)
		}
	}
	r.t.Cleanup(stop)
	return w, stop
}

// ticker is a Binance record; the time is its identity.
func ticker(at time.Time) []byte {
	return fmt.Appendf(nil, `{"symbol":"BTCUSDT","priceChange":"100.5","priceChangePercent":"0.157","lastPrice":"64123.10","lastQty":"0.1","bidPrice":"64123.10","askPrice":"64123.20","openPrice":"64022.60","highPrice":"65000.00","lowPrice":"63000.00","volume":"12345.678","quoteVolume":"790000000.1","openTime":%d,"closeTime":%d,"count":1234567}`, at.Add(-24*time.Hour).UnixMilli(), at.UnixMilli())
}

// send puts records numbered from to to on the topic, a millisecond apart, by the engine's own producer.
func (r *rig) send(start time.Time, from, to int) {
	r.t.Helper()
	var records []record.Record
	for i := from; i < to; i++ {
		records = append(records, record.Record{Key: fmt.Sprint("M", i%17), Value: ticker(start.Add(time.Duration(i) * time.Millisecond)), Received: start})
	}
	if err := r.kafka.ProduceSync(r.t.Context(), produce.Records(r.src, start.Truncate(time.Minute), records)...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// raw puts one record on partition 0 with exactly these headers.
func (r *rig) raw(key, value []byte, headers ...kgo.RecordHeader) {
	r.t.Helper()
	if err := r.kafka.ProduceSync(r.t.Context(), &kgo.Record{Topic: r.src.Topic.Name, Key: key, Value: value, Headers: headers}).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) exec(sql string) {
	r.t.Helper()
	if _, err := r.store.Pool().Exec(r.t.Context(), sql); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) text(sql string) string {
	var out string
	if err := r.store.Pool().QueryRow(context.Background(), "SELECT coalesce(("+sql+")::text, '')").Scan(&out); err != nil {
		return err.Error()
	}
	return out
}

// until waits for a condition.
func (r *rig) until(what string, yes func() bool) {
	r.t.Helper()
	testkit.Eventually(r.t, func() error {
		if !yes() {
			return errors.New(what)
		}
		return nil
	})
}

// becomes waits until a query gives a text.
func (r *rig) becomes(sql, want string) {
	r.t.Helper()
	testkit.Eventually(r.t, func() error {
		if got := r.text(sql); got != want {
			return fmt.Errorf("%s = %s, want %s", sql, got, want)
		}
		return nil
	})
}

// exact checks that n records arrived once each.
func (r *rig) exact(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d records read", n), func() bool { return r.text("SELECT sum(next_offset) FROM cryptoviz.position") == fmt.Sprint(n) })
	if got, want := r.text("SELECT count(*) || ' ' || count(DISTINCT time) FROM raw_crypto_data"), fmt.Sprint(n, " ", n); got != want {
		r.t.Errorf("rows and distinct rows: %s, want %s", got, want)
	}
	if got := r.text("SELECT count(*) FROM cryptoviz.dead_letter"); got != "0" {
		r.t.Errorf("dead letters: %s", got)
	}
}
