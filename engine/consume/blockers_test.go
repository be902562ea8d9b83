package consume_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// router passes connections to a server, and can forget all that are open: then nothing comes through them any more, not
// even their end. New ones work.
type router struct {
	net.Listener
	to    string
	epoch atomic.Int64
	mu    sync.Mutex
	conns []net.Conn
	all   sync.WaitGroup
}

func newRouter(t *testing.T, to string) *router {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &router{Listener: l, to: to}
	r.all.Go(func() {
		for r.accept() == nil {
		}
	})
	return r
}

func (r *router) accept() error {
	near, err := r.Accept()
	if err != nil {
		return err
	}
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return near.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, near, far)
	epoch := r.epoch.Load()
	r.all.Go(func() { r.pass(near, far, epoch) })
	r.all.Go(func() { r.pass(far, near, epoch) })
	return nil
}

func (r *router) pass(to, from net.Conn, epoch int64) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if r.epoch.Load() != epoch {
			return
		}
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (r *router) close() {
	_ = r.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.all.Wait()
}

// TestDeadConnections: a router forgot the worker's connections to the database. It says that it waits, and goes on by new ones.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", true)
	cfg := r.store.Pool().Config().ConnConfig
	way := newRouter(t, net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))))
	t.Cleanup(way.close)
	url := fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&search_path=cryptoviz,public&idle_in_transaction_session_timeout=3s", cfg.User, cfg.Password, way.Addr(), cfg.Database)
	through, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)})
	if err != nil {
		t.Fatal(err)
	}
	direct := r.store
	if r.store, err = store.Open(t.Context(), through, store.Options{IdleTimeout: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Close)
	w, _ := r.runs(consume.Options{})
	r.store = direct
	now := time.Now()
	r.send(now, 0, 10)
	r.until("ten rows", func() bool { return w.Stats().Rows == 10 })
	r.exec("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'; CREATE TRIGGER slow BEFORE INSERT ON raw_crypto_data FOR EACH STATEMENT EXECUTE FUNCTION slow()")
	r.send(now, 10, 20)
	r.becomes("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' AND state = 'active'", "1")
	way.epoch.Add(1)
	r.until("the worker says that it waits", func() bool { return strings.Contains(w.Stats().Blocked, "no answer for 2s") })
	r.until("ten more rows", func() bool { return w.Stats().Rows == 20 })
	if s := w.Stats(); s.Blocked != "" {
		t.Errorf("%+v", s)
	}
	r.exact(20)
}

// noClaim is a database that answers everything but this.
type noClaim struct{ consume.Store }

func (noClaim) Claim(context.Context, store.Log) (store.Claimed, error) {
	return store.Claimed{}, errors.New("the database does not answer")
}

// TestBlockedStays while the cause does: that the broker answers means nothing to a claim that waits for the database.
func TestBlockedStays(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", true)
	w, err := consume.New(r.src, noClaim{r.store}, r.clients(), consume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r.until("it says so", func() bool { return w.Stats().Blocked != "" })
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { //nolint:forbidigo // two looks of watch
		if got := w.Stats().Blocked; got != "the database does not answer" {
			t.Fatalf("it says %q", got)
		}
	}
}

// TestBlockedByOnePartition: that the other partition's rows are stored means nothing to it.
func TestBlockedByOnePartition(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", true)
	locked := &onlyPartition{Store: r.store, n: 1}
	w, err := consume.New(r.src, locked, r.clients(), consume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	now := time.Now()
	r.send(now, 0, 17)
	r.until("it says so", func() bool { return w.Stats().Blocked != "" })
	for i := range 20 {
		r.send(now, 17*(i+1), 17*(i+2))
		for range 20 {
			time.Sleep(5 * time.Millisecond) //nolint:forbidigo // it must not change
			if got := w.Stats().Blocked; got != "partition 0 is locked" {
				t.Fatalf("it says %q", got)
			}
		}
	}
	ends, err := kadm.NewClient(r.kafka).ListEndOffsets(t.Context(), r.src.Topic.Name)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(r.src.Topic.Name, 1)
	r.becomes("SELECT next_offset FROM cryptoviz.position WHERE partition = 1", fmt.Sprint(end.Offset)) // the other one goes on
	first, _ := ends.Lookup(r.src.Topic.Name, 0)
	r.until("the lag is that of what waits", func() bool { return w.Stats().Lag == first.Offset })
	locked.open.Store(true)
	r.exact(21 * 17)
}

// onlyPartition is a database that can store one partition.
type onlyPartition struct {
	consume.Store
	n    int32
	open atomic.Bool // it can store any
}

func (o *onlyPartition) Commit(ctx context.Context, t *store.Target, fence store.Fence, b *store.Batch) error {
	if fence.Partition != o.n && !o.open.Load() {
		return fmt.Errorf("partition %d is locked", fence.Partition)
	}
	return o.Store.Commit(ctx, t, fence, b)
}

// TestRowsAreThoseStored: records that are there already, and refused ones, are no rows.
func TestRowsAreThoseStored(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", true)
	r.exec("ALTER TABLE raw_crypto_data ADD CHECK (base <> 'M3')")
	now := time.Now()
	r.send(now, 0, 10)
	r.send(now, 0, 10)
	w, _ := r.runs(consume.Options{})
	r.becomes("SELECT sum(next_offset) FROM cryptoviz.position", "20")
	r.until("the counters are those of the table", func() bool {
		s := w.Stats()
		return fmt.Sprint(s.Rows, " ", s.Dead) == r.text("SELECT count(*) || ' ' || (SELECT count(*) FROM cryptoviz.dead_letter) FROM raw_crypto_data")
	})
}

// TestStopDoesNotGoOn: a worker that waits and is stopped does not say that it goes on.
func TestStopDoesNotGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", true)
	var log lines
	w, err := consume.New(r.src, &onlyPartition{Store: r.store, n: 5}, r.clients(), consume.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	r.send(time.Now(), 0, 17)
	r.until("it waits", func() bool { return strings.Contains(log.String(), "worker waits") })
	cancel()
	<-done
	if strings.Contains(log.String(), "goes on") {
		t.Error(log.String())
	}
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
