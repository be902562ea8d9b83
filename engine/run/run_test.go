package run_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/serve"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A stage that ends because something of its own was canceled is a failure: only the caller's end is an orderly one.
func TestRunEndsInOrderOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	canceled := fmt.Errorf("claim: %w", context.Canceled)
	asked, stop := context.WithCancel(t.Context())
	stage := func(context.Context) error { return canceled }
	if err := run.Of(stage).Run(asked); !errors.Is(err, canceled) {
		t.Errorf("without being asked, Run ends with %v", err)
	}
	stop()
	if err := run.Of(stage).Run(asked); err != nil {
		t.Errorf("asked to end, Run says %v", err)
	}
}

// world is a broker, a database and a player of the exchanges around the shipped pipeline, at a clock of its own.
type world struct {
	t      *testing.T
	p      *spec.Pipeline
	broker *kfake.Cluster
	db     *pgxpool.Pool
	kafka  *kgo.Client
	clock  clock.Clock
	off    atomic.Int64 // a step of the clock
	player *simulate.Server
}

func newWorld(t *testing.T, start time.Time, speed float64) *world {
	t.Helper()
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	p.Kafka.Brokers = cluster.ListenAddrs()
	p.Database.URL = spec.NewSecret(testkit.Postgres(t))
	w := &world{t: t, p: p, broker: cluster}
	w.clock = clock.Stepped(clock.Fast(start, speed), &w.off)
	cfg, err := connect.Postgres(p.Database)
	if err != nil {
		t.Fatal(err)
	}
	if w.db, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if w.kafka, err = kgo.NewClient(kgo.SeedBrokers(p.Kafka.Brokers...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.kafka.Close)
	maker, err := kgo.NewClient(kgo.SeedBrokers(p.Kafka.Brokers...)) // it remembers that the topics were missing
	if err != nil {
		t.Fatal(err)
	}
	defer maker.Close()
	declared, err := provision.NewStack(p, provision.Clients{Kafka: maker, DB: w.db, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	found, err := declared.Plan(t.Context())
	if err == nil {
		_, err = declared.Apply(t.Context(), found, provision.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if w.player, err = simulate.New(p, simulate.Options{Clock: w.clock}); err != nil {
		t.Fatal(err)
	}
	if err := w.player.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.player.Close() })
	return w
}

func (w *world) open(owner string, stages run.Stages) *run.Engine {
	w.t.Helper()
	e, err := run.Open(w.t.Context(), w.p, stages, run.Options{Clock: w.clock, Mode: "simulated", Mark: true, Owner: owner, Endpoint: w.player.Endpoint})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(e.Close)
	return e
}

// runs starts an engine; stop ends it and waits for it.
func (w *world) runs(e *run.Engine) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := testkit.Receive(w.t, done, "end of the engine"); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) text(sql string) string {
	var out string
	if err := w.db.QueryRow(w.t.Context(), "SELECT coalesce(("+sql+")::text, '')").Scan(&out); err != nil {
		return err.Error()
	}
	return out
}

func (w *world) becomes(sql, want string) {
	w.t.Helper()
	testkit.Eventually(w.t, func() error {
		if got := w.text(sql); got != want {
			return fmt.Errorf("%s is %q, want %q", sql, got, want)
		}
		return nil
	})
}

// lag is what the workers have not stored yet.
func (w *world) lag(e *run.Engine) (total int64) {
	w.t.Helper()
	s, err := e.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, src := range s.Sources {
		if src.Enabled {
			total += src.Lag
		}
	}
	return total
}

// Two instances with all stages share the work over a midnight, while every connection to the database is cut now and then.
func TestInstancesSideBySide(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs a pipeline for some seconds")
	}
	w := newWorld(t, time.Date(2026, 3, 4, 21, 0, 0, 0, time.UTC), 300)
	w.p.Rollups[0].KeepRaw = 7 * 24 * time.Hour // the raw rows stay, to be compared
	a, b := w.open("a", run.All), w.open("b", run.All)
	stopA, stopB := w.runs(a), w.runs(b)
	for _, slots := range []int{5, 10, 15} {
		w.becomes(fmt.Sprintf("SELECT count(*) >= %d FROM cryptoviz.slot WHERE source = 'kraken' AND state = 'ok'", slots), "true")
		if _, err := w.db.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Fatal(err)
		}
	}
	w.becomes("SELECT count(DISTINCT (source, base)) FROM raw_crypto_data WHERE time < '2026-03-05 00:00Z'", "9")
	if left := time.Date(2026, 3, 4, 23, 59, 0, 0, time.UTC).Sub(w.clock.Now()); left > 0 {
		w.off.Store(int64(left))
	}
	w.becomes("SELECT count(*) FROM cryptoviz.rollup_day WHERE day = '2026-03-04'", "1")
	stopA()
	stopB()

	worker := w.open("c", run.Stages{Work: true})
	stop := w.runs(worker)
	testkit.Eventually(t, func() error {
		if n := w.lag(worker); n != 0 {
			return fmt.Errorf("%d records are not stored", n)
		}
		return nil
	})
	stop()
	for what, sql := range map[string]string{
		"slots of kraken that ended ok without a row for each market": `SELECT count(*) FROM cryptoviz.slot s CROSS JOIN unnest('{BTC,ETH,SOL}'::text[]) AS base
			WHERE source = 'kraken' AND state = 'ok' AND NOT EXISTS (SELECT FROM raw_crypto_data r WHERE (r.source, r.base, r.time) = (s.source, base, slot))`,
		"rows of kraken without a slot": `SELECT count(*) FROM raw_crypto_data r WHERE source = 'kraken' AND NOT EXISTS (SELECT FROM cryptoviz.slot s WHERE (s.source, s.slot) = (r.source, r.time))`,
		"dead letters":                  "SELECT count(*) FROM cryptoviz.dead_letter",
		"gaps":                          "SELECT count(*) FROM cryptoviz.gap",
		"instances without a slot":      "SELECT 2 - count(DISTINCT owner) FROM cryptoviz.slot WHERE owner ~ '^n[12]/[ab]$'",
		"holes in the ledger of kraken": `SELECT count(*) FROM (SELECT slot - lag(slot) OVER (ORDER BY slot) AS step FROM cryptoviz.slot WHERE source = 'kraken') AS s WHERE step <> '1 minute'`,
		"wrong hours": `SELECT count(*) FROM (SELECT source, base, quote, date_trunc('hour', time, 'UTC') AS time, count(*) AS samples, max(price) AS high, min(price) AS low
			FROM raw_crypto_data WHERE time >= '2026-03-04 00:00Z' AND time < '2026-03-05 00:00Z' GROUP BY 1, 2, 3, 4) AS w
			FULL JOIN crypto_data_hourly h USING (source, base, quote, time) WHERE (w.samples, w.high, w.low) IS DISTINCT FROM (h.samples, h.high, h.low)`,
	} {
		if got := w.text(sql); got != "0" {
			t.Errorf("%s: %s", what, got)
		}
	}
	if markets := w.text("SELECT count(DISTINCT (source, base)) FROM crypto_data_hourly"); markets != "9" {
		t.Errorf("hours of %s markets, want those of 3 sources' 3", markets)
	}
}

// A run tells how it is doing: status, metrics, readiness.
func TestTelling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), 300)
	if _, err := w.db.Exec(t.Context(), "INSERT INTO cryptoviz.rollup_day (rollup, day, raw_rows, hourly_rows, late_rows, rolled_at, dropped_at, took) VALUES ('hourly', '2026-03-02', 9, 9, 4, now(), now(), '1s')"); err != nil {
		t.Fatal(err)
	}
	e := w.open("a", run.All)
	web := httptest.NewServer(serve.Handler(e.Ready, e))
	defer web.Close()
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	stop := w.runs(e)
	w.becomes("SELECT count(DISTINCT source) FROM cryptoviz.slot s WHERE state = 'ok' AND EXISTS (SELECT FROM cryptoviz.position p WHERE p.source = s.source AND p.last_slot >= s.slot)", "4")
	s, err := e.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Mode != "simulated" || len(s.Sources) != 5 || len(s.Rollups) != 1 || s.KafkaError != "" || s.Rollups[0].Next.Format("15:04") != "00:05" {
		t.Errorf("%+v", s)
	}
	testkit.Eventually(t, func() error { // a busy machine may let a slot pass
		s, err := e.Status(t.Context())
		if err != nil {
			return err
		}
		for _, src := range s.Sources {
			if src.Enabled == (src.Name == "okx") || src.Enabled && (src.State != "ok" || src.Records == 0 || src.PerMinute <= 0 || src.Stored.IsZero() || src.Lag < 0) {
				return fmt.Errorf("%+v", src)
			}
		}
		return nil
	})
	var text strings.Builder
	if err := s.Print(&text, status.Look{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"simulated data", "kraken", "okx               1m  disabled", "rollup hourly · next 2026-03-05 00:05"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the status lacks %q:\n%s", want, text.String())
		}
	}
	if code, body := get("/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz: %d %s", code, body)
	}
	testkit.Eventually(t, func() error {
		if code, body := get("/readyz"); code != http.StatusOK {
			return fmt.Errorf("readyz: %d %s", code, body)
		}
		return nil
	})
	_, metrics := get("/metrics")
	for _, want := range []string{
		`cryptoviz_mode_info{mode="simulated"} 1`, `cryptoviz_slots_total{source="kraken",state="ok"}`, `cryptoviz_rows_total{source="kraken"}`, `cryptoviz_lag_records{source="coinbase"}`,
		`cryptoviz_rollup_last_day_timestamp_seconds{rollup="hourly"} 1.7724096e+09`, `cryptoviz_rollup_days_due{rollup="hourly"} 0`, `cryptoviz_rollup_late_rows_total{rollup="hourly"} 4`,
		`cryptoviz_slots_total{source="fear_greed",state="skipped"} 0`, "cryptoviz_ready 1", "cryptoviz_ledger_reachable 1", "cryptoviz_kafka_reachable 1",
		`cryptoviz_build_info{go="go`, `cryptoviz_newest_sample_timestamp_seconds{source="kraken"} 1.77`, "go_goroutines",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if e.Rows() == 0 {
		t.Error("no rows counted")
	}

	// The workers' way is blocked: ready says so, and it goes on by itself.
	if _, err := w.db.Exec(t.Context(), "ALTER TABLE raw_crypto_data RENAME TO away"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		code, body := get("/readyz")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "waits: ") || !strings.Contains(body, "raw_crypto_data") {
			return fmt.Errorf("readyz: %d %s", code, body)
		}
		return nil
	})
	if _, err := w.db.Exec(t.Context(), "ALTER TABLE away RENAME TO raw_crypto_data"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error { _, err := e.Ready(t.Context()); return err })
	stop()
	if n := w.text("SELECT count(*) FROM cryptoviz.dead_letter"); n != "0" {
		t.Errorf("%s dead letters after the table was away", n)
	}
}

// A broker that takes records and answers nothing does not keep an instance from its end.
func TestStopWhileKafkaIsSilent(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the end of patience")
	}
	w := newWorld(t, time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC), 1)
	e := w.open("one", run.All)
	stop := w.runs(e)
	w.becomes("SELECT count(*) >= 3 FROM raw_crypto_data", "true")
	free, hit := make(chan struct{}), make(chan struct{}, 1000)
	defer close(free)
	w.broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.broker.KeepControl()
		hit <- struct{}{}
		w.broker.SleepControl(func() { <-free })
		return nil, nil, false
	})
	<-hit
	stop()
	e.Close()
}

// Two instances of one name: the log says what the broker's refusal comes from, and what to do.
func TestTwoOfOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), 1)
	var log lines
	for _, owner := range []string{"a", "b"} {
		e, err := run.Open(t.Context(), w.p, run.Stages{Work: true}, run.Options{Clock: w.clock, Mode: "simulated", Mark: true, Owner: owner, Instance: "n1", Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		w.runs(e)
	}
	const want = "another instance runs under the same name, and takes the topics from this one: stop one of them, or give it another --instance"
	testkit.Eventually(t, func() error {
		if text := log.String(); !strings.Contains(text, want) {
			return errors.New(text)
		}
		return nil
	})
}

// lines is a log that goroutines share.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestOpenRefusesAnotherMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), 1)
	w.open("a", run.All)
	_, err := run.Open(t.Context(), w.p, run.All, run.Options{Owner: "b"})
	if err == nil || !strings.Contains(err.Error(), "holds simulated data and cannot take live data") {
		t.Error(err)
	}
	if e, err := run.Open(t.Context(), w.p, run.Stages{Rollup: true}, run.Options{Owner: "b"}); err != nil {
		t.Errorf("the rollup stores no data of its own: %v", err)
	} else {
		e.Close()
	}
}

// A rollup waits until what belongs to its day is stored, and never takes an unknown for a yes.
func TestPassedMidnight(t *testing.T) {
	w := newWorld(t, time.Date(2026, 3, 5, 0, 5, 0, 0, time.UTC), 1)
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	gate := run.NewGate(w.p, w.p.Rollups[0], w.open("a", run.Stages{}), kadm.NewClient(w.kafka))
	exec := func(sql string) {
		t.Helper()
		if _, err := w.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	passed := func(want bool) {
		t.Helper()
		if got, err := gate.DayComplete(t.Context(), day); err != nil || got != want {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	passed(true) // empty topics
	exec("INSERT INTO cryptoviz.slot (source, slot, state, lease_until) VALUES ('binance', '2026-03-04 23:59Z', 'running', clock_timestamp() + interval '1 hour')")
	passed(false) // it may still bring records
	exec("UPDATE cryptoviz.slot SET lease_until = clock_timestamp() - interval '1 second'")
	passed(true) // its instance is gone
	if err := w.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "binance", Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	passed(false) // one record that nobody has read
	const position = "INSERT INTO cryptoviz.position (source, partition, topic, topic_id, next_offset, epoch, last_slot) VALUES ('binance', 0, 'binance', gen_random_uuid(), %s) ON CONFLICT (source, partition) DO UPDATE SET next_offset = excluded.next_offset, last_slot = excluded.last_slot"
	exec(fmt.Sprintf(position, "0, 1, NULL"))
	passed(false)
	exec(fmt.Sprintf(position, "0, 1, '2026-03-04 23:59Z'"))
	passed(false) // there is more, of whatever day
	exec(fmt.Sprintf(position, "0, 1, '2026-03-05 00:00Z'"))
	passed(true) // beyond midnight
	exec(fmt.Sprintf(position, "1, 1, '2026-03-04 23:59Z'"))
	passed(true) // read to its end
	if _, err := kadm.NewClient(w.kafka).DeleteTopics(t.Context(), "binance"); err != nil {
		t.Fatal(err)
	}
	if got, err := gate.DayComplete(t.Context(), day); err == nil || got {
		t.Errorf("a topic that cannot be read: %v, %v", got, err)
	}
}
