package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// bench is a database prepared for the shipped binance source.
type bench struct {
	t   testing.TB
	url string
	src *spec.Source
	*store.Store
	target  *store.Target
	program *row.Program
}

var topicID = [16]byte{1, 2, 3}

func newBench(t testing.TB, opt store.Options) *bench {
	t.Helper()
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	b := &bench{t: t, src: p.Sources[0], url: testkit.Postgres(t)}
	b.program, _ = row.Compile(b.src)
	b.target = store.NewTarget(b.src.Topic.Name, b.src.Table, b.program.Columns())
	pool, err := pgxpool.New(t.Context(), b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, sql := range append([]string{schema.SQL}, ddl.CreateSQL(b.src.Table, catalog.Capabilities{}, time.Now())...) {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	b.Store = b.open(opt)
	return b
}

func (b *bench) open(opt store.Options) *store.Store {
	b.t.Helper()
	cfg, err := pgxpool.ParseConfig(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := store.Open(b.t.Context(), cfg, opt)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Close)
	return s
}

func (b *bench) exec(sql string) {
	b.t.Helper()
	if _, err := b.Pool().Exec(b.t.Context(), sql); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) text(sql string) string {
	b.t.Helper()
	var out string
	if err := b.Pool().QueryRow(b.t.Context(), "SELECT coalesce(("+sql+")::text, '')").Scan(&out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// has fails unless the queries give these texts.
func (b *bench) has(want map[string]string) {
	b.t.Helper()
	for sql, text := range want {
		if got := b.text(sql); got != text {
			b.t.Errorf("%s: %q, want %q", sql, got, text)
		}
	}
}

const (
	rows     = "SELECT count(*) FROM raw_crypto_data"
	dead     = "SELECT count(*) FROM cryptoviz.dead_letter"
	position = "SELECT next_offset FROM cryptoviz.position"
)

func record(market string, at time.Time, price string) row.Record {
	return row.Record{Key: market, Slot: at.Truncate(time.Minute), Value: fmt.Appendf(nil, `{"symbol":%q,"closeTime":%d,"lastPrice":%q,"bidPrice":"1","askPrice":"2","highPrice":"3","lowPrice":"0.5","volume":"10","quoteVolume":"20","priceChangePercent":"0.1","count":3}`, market, at.UnixMilli(), price)}
}

// batch holds these records at offsets from first on.
func (b *bench) batch(first int64, records ...row.Record) *store.Batch {
	b.t.Helper()
	out := &store.Batch{Rows: &row.Rows{}, Position: store.Position{First: first, Next: first + int64(len(records))}}
	for i, r := range records {
		if err := b.program.Append(out.Rows, r, int32(i)); err != nil {
			b.t.Fatal(err)
		}
		out.Records, out.Offsets = append(out.Records, r), append(out.Offsets, first+int64(i))
		out.Position.LastSlot = r.Slot
	}
	return out
}

// many are n records at times of their own.
func many(n int, from time.Time) (out []row.Record) {
	for i := range n {
		out = append(out, record("BTCUSDT", from.Add(time.Duration(i)*time.Millisecond), "1"))
	}
	return out
}

func (b *bench) claim(start, end int64) store.Fence {
	b.t.Helper()
	claimed, err := b.Claim(b.t.Context(), store.Log{Source: "binance", Topic: "binance", TopicID: topicID, Start: start, End: end})
	if err != nil {
		b.t.Fatal(err)
	}
	return claimed.Fence
}

func (b *bench) commit(fence store.Fence, batch *store.Batch) {
	b.t.Helper()
	if err := b.Commit(b.t.Context(), b.target, fence, batch); err != nil {
		b.t.Fatal(err)
	}
}

func TestOpenNeedsTheEngineTables(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	cfg, _ := pgxpool.ParseConfig(b.url)
	for _, c := range []struct{ sql, want string }{
		{"UPDATE cryptoviz.meta SET value = '0' WHERE key = 'schema_version'", "its schema_version is 0, this program needs"},
		{"DELETE FROM cryptoviz.meta WHERE key = 'schema_version'", "run cryptoviz apply"},
		{"DROP SCHEMA cryptoviz CASCADE", "run cryptoviz apply"},
	} {
		b.exec(c.sql)
		if _, err := store.Open(t.Context(), cfg.Copy(), store.Options{}); !errors.Is(err, store.ErrNotApplied) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.sql, err)
		}
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	cfg, _ := pgxpool.ParseConfig("postgres://u:topsecret@127.0.0.1:1/x?connect_timeout=2")
	_, err := store.Open(t.Context(), cfg, store.Options{})
	if err == nil || errors.Is(err, store.ErrNotApplied) || strings.Contains(err.Error(), "topsecret") {
		t.Error(err)
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	ended := b.open(store.Options{})
	_, cut := ended.Pool().Exec(t.Context(), "SELECT pg_terminate_backend(pg_backend_pid())")
	ended.Close()
	_, closed := store.Mode(t.Context(), ended.Pool())
	cfg, err := pgxpool.ParseConfig("postgres://u:p@127.0.0.1:1/x?connect_timeout=2")
	if err != nil {
		t.Fatal(err)
	}
	_, nobody := store.Open(t.Context(), cfg, store.Options{})
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond) //nolint:forbidigo // it must end
	defer cancel()
	_, silent := b.Pool().Exec(short, "SELECT pg_sleep(5)")
	for name, err := range map[string]error{"cut": cut, "nobody": nobody, "silent": silent, "disk full": &pgconn.PgError{Code: "53100"}, "starts": &pgconn.PgError{Code: "57P03"}, "standby": &pgconn.PgError{Code: "25006"}} {
		if !pg.Is(fmt.Errorf("roll up: %w", err), pg.Unavailable, pg.ReadOnly) {
			t.Errorf("%s: %v is not away", name, err)
		}
	}
	_, timeout := b.Pool().Exec(t.Context(), "SET statement_timeout = 1; SELECT pg_sleep(5)")
	_, missing := b.Pool().Exec(t.Context(), "SELECT FROM nothing")
	for name, err := range map[string]error{"timeout": timeout, "missing": missing, "lock": &pgconn.PgError{Code: "55P03"}, "temp_file_limit": &pgconn.PgError{Code: "53400"}, "closed": closed, "other": errors.New("x")} {
		if pg.Is(fmt.Errorf("roll up: %w", err), pg.Unavailable, pg.ReadOnly) {
			t.Errorf("%s: %v is away", name, err)
		}
	}
}

func reasons(batch *store.Batch) (out []string) {
	for _, d := range batch.Dead {
		out = append(out, fmt.Sprintf("%d %s", d.Offset, d.Reason))
	}
	slices.Sort(out)
	return out
}

var background = context.Background()
