package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

func TestCommitMovesRowsAndPositionTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence, now := b.claim(0, 100), time.Now()
	b.commit(fence, b.batch(0, many(10, now)...))
	b.has(map[string]string{rows: "10", position: "10", dead: "0"})

	same := b.batch(0, many(10, now)...)
	b.commit(fence, same) // the answer to the first COMMIT was lost, say
	b.has(map[string]string{rows: "10", position: "10"})

	b.exec("ALTER TABLE raw_crypto_data RENAME TO away")
	err := b.Commit(t.Context(), b.target, fence, b.batch(10, many(10, now.Add(time.Second))...))
	if !errors.Is(err, store.ErrBlocked) || !strings.Contains(err.Error(), `"raw_crypto_data" does not exist`) {
		t.Error(err)
	}
	b.has(map[string]string{position: "10", dead: "0"})
	b.exec("ALTER TABLE away RENAME TO raw_crypto_data")
	b.commit(fence, b.batch(10, many(10, now.Add(time.Second))...))
	b.has(map[string]string{rows: "20", position: "20"})
}

func TestCommitIsFenced(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec("ALTER TABLE raw_crypto_data DROP CONSTRAINT raw_crypto_data_pkey")
	now := time.Now()
	old := b.claim(0, 100)
	young := b.claim(0, 100)
	fenced := func(who string, fence store.Fence, first int64) {
		t.Helper()
		err := b.Commit(t.Context(), b.target, fence, b.batch(first, many(10, now)...))
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("%s: %v", who, err)
		}
	}
	fenced("old owner, at the position", old, 0)
	b.commit(young, b.batch(0, many(10, now)...))
	fenced("old owner, before the position", old, 0)
	other := young
	other.TopicID = [16]byte{7}
	fenced("other topic", other, 10)
	b.has(map[string]string{rows: "10", position: "10"})
}

// TestCommitElsewhere: a batch that does not begin where the position stands is neither stored in part nor after a hole.
func TestCommitElsewhere(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence := b.claim(0, 100)
	b.commit(fence, b.batch(0, many(5, time.Now())...))
	for _, first := range []int64{3, 6} {
		err := b.Commit(t.Context(), b.target, fence, b.batch(first, many(5, time.Now())...))
		if !errors.Is(err, store.ErrMoved) || errors.Is(err, store.ErrBlocked) || !strings.Contains(err.Error(), fmt.Sprint("binance partition 0 is at 5, not ", first)) {
			t.Error(err)
		}
	}
	b.has(map[string]string{rows: "5", position: "5"})
	b.exec("DELETE FROM cryptoviz.position")
	if err := b.Commit(t.Context(), b.target, fence, b.batch(5, many(5, time.Now())...)); !errors.Is(err, store.ErrMoved) {
		t.Error(err)
	}
	b.has(map[string]string{rows: "5"})
}

func TestCommitLeavesRowsThatAreThere(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence, now := b.claim(0, 100), time.Now()
	b.commit(fence, b.batch(0, many(10, now)...))
	again := append(many(12, now), many(2, now)...) // ten are stored, two are new, two come twice in the batch
	b.commit(fence, b.batch(10, again...))
	b.has(map[string]string{rows: "12", position: "24", dead: "0"})
}

func TestCommitIsolatesPoison(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec("ALTER TABLE raw_crypto_data ADD CHECK (price < 1000)")
	fence, now := b.claim(0, 1000), time.Now()
	records := many(200, now)
	for _, i := range []int{0, 77, 78, 199} {
		records[i] = record("ETHUSDT", now, "5000")
	}
	records = append(records, many(5, now)...) // duplicates and poison in one batch
	batch := b.batch(0, records...)
	batch.Dead = []store.DeadLetter{{Offset: 500, Key: "not \x00 text \xff", Value: nil, Reason: "given by the worker"}}
	b.commit(fence, batch)
	b.has(map[string]string{
		rows: "197", position: "205", dead: "5",
		`SELECT string_agg("offset"::text, ' ' ORDER BY "offset") FROM cryptoviz.dead_letter`:                      "0 77 78 199 500",
		`SELECT convert_from(value, 'UTF8')::jsonb ->> 'lastPrice' FROM cryptoviz.dead_letter WHERE "offset" = 77`: "5000",
		`SELECT length(value) FROM cryptoviz.dead_letter WHERE "offset" = 500`:                                     "0",
	})
	if got := reasons(batch); !slices.ContainsFunc(got, func(s string) bool {
		return strings.Contains(s, "77 table raw_crypto_data refuses it: ") && strings.Contains(s, "SQLSTATE 23514")
	}) {
		t.Errorf("reasons: %q", got)
	}
	b.commit(fence, batch) // again: nothing doubles
	b.has(map[string]string{rows: "197", dead: "5"})
}

// TestCommitBlocks: where the table is to blame, nothing is taken for poison.
func TestCommitBlocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ change, back, want string }{
		"column gone":          {"ALTER TABLE raw_crypto_data RENAME ask TO ask2", "ALTER TABLE raw_crypto_data RENAME ask2 TO ask", "column \"ask\" of relation"},
		"column of other type": {"ALTER TABLE raw_crypto_data ALTER bid TYPE integer", "ALTER TABLE raw_crypto_data ALTER bid TYPE double precision", "does not have the columns that pipeline.hcl declares"},
		"one more column":      {"ALTER TABLE raw_crypto_data ADD extra integer NOT NULL", "ALTER TABLE raw_crypto_data DROP extra", "does not have the columns that pipeline.hcl declares"},
		"position table gone":  {"ALTER TABLE cryptoviz.position RENAME TO p2", "ALTER TABLE cryptoviz.p2 RENAME TO position", "cryptoviz.position"},
		"dead letters gone":    {"ALTER TABLE cryptoviz.dead_letter RENAME TO d2", "ALTER TABLE cryptoviz.d2 RENAME TO dead_letter", "cryptoviz.dead_letter"},
		"read only":            {"SET default_transaction_read_only = on", "SET default_transaction_read_only = off", "read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, store.Options{})
			cfg, _ := pgxpool.ParseConfig(b.url)
			cfg.MaxConns = 1 // so that SET reaches the session
			s, err := store.Open(t.Context(), cfg, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			fence := b.claim(0, 100)
			exec := func(sql string) {
				if _, err := s.Pool().Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			exec(c.change)
			batch := b.batch(0, many(20, time.Now())...)
			batch.Dead = []store.DeadLetter{{Offset: 20, Reason: "x"}}
			if err := s.Commit(t.Context(), b.target, fence, batch); !errors.Is(err, store.ErrBlocked) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			exec(c.back)
			b.has(map[string]string{rows: "0", position: "0", dead: "0"})
			if err := s.Commit(t.Context(), b.target, fence, batch); err != nil {
				t.Error(err)
			}
			b.has(map[string]string{rows: "20", dead: "1"})
		})
	}
}

func TestCommitMakesThePartitionOfALateDay(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence := b.claim(0, 100)
	old := time.Now().Add(-40 * 24 * time.Hour)
	b.commit(fence, b.batch(0, append(many(3, time.Now()), many(3, old)...)...))
	b.has(map[string]string{rows: "6", position: "6", fmt.Sprintf("SELECT count(*) FROM raw_crypto_data_p%s", old.UTC().Format("20060102")): "3"})
}

func TestCommitNotesGaps(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	batch := b.batch(0, many(3, time.Now())...)
	batch.Gaps = []store.Gap{{From: 0, To: 40, Reason: "gone"}}
	fence := b.claim(0, 100)
	b.commit(fence, batch)
	b.commit(fence, batch)
	b.has(map[string]string{"SELECT string_agg(from_offset || '-' || to_offset || ' ' || reason, ',') FROM cryptoviz.gap": "0-40 gone"})
}

func TestCommitEmptyAndHuge(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence := b.claim(0, 100)
	empty := &store.Batch{Rows: &row.Rows{}, Position: store.Position{First: 0, Next: 4}}
	b.commit(fence, empty)
	b.has(map[string]string{position: "4", rows: "0"})
	huge := b.batch(4, many(1, time.Now())...)
	huge.Dead = []store.DeadLetter{{Offset: 5, Key: strings.Repeat("k", 1<<20), Value: bytes.Repeat([]byte{0}, 20<<20), Reason: "huge"}}
	b.commit(fence, huge)
	b.has(map[string]string{rows: "1", "SELECT length(value) || ' ' || length(key) FROM cryptoviz.dead_letter": "20971520 1048576"})
}

// TestCommitAnswerLost cuts the connection when the server's answer to COMMIT comes: the position tells that it is stored.
func TestCommitAnswerLost(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec("ALTER TABLE raw_crypto_data DROP CONSTRAINT raw_crypto_data_pkey")
	cfg, err := pgxpool.ParseConfig(b.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.Fallbacks, cfg.ConnConfig.TLSConfig = nil, nil
	var cuts atomic.Int64
	var armed atomic.Bool
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &cutter{Conn: c, armed: &armed, cuts: &cuts}, err
	}
	s, err := store.Open(t.Context(), cfg, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fence := b.claim(0, 1000)
	armed.Store(true)
	for i := range 20 {
		batch := b.batch(int64(i*10), many(10, time.Now())...)
		for err = store.ErrBlocked; errors.Is(err, store.ErrBlocked); {
			err = s.Commit(t.Context(), b.target, fence, batch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if cuts.Load() < 20 {
		t.Errorf("%d answers cut", cuts.Load())
	}
	b.has(map[string]string{rows: "200", position: "200"})
}

// cutter lets COMMIT through and drops the connection instead of its answer, each time it is armed.
type cutter struct {
	net.Conn
	armed *atomic.Bool
	cuts  *atomic.Int64
	cut   atomic.Bool
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.armed.Load() && bytes.Contains(p, []byte("COMMIT")) {
		c.cut.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *cutter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.cut.Load() && bytes.Contains(p[:n], []byte("COMMIT")) {
		c.cuts.Add(1)
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func TestCommitGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence := b.claim(0, 10)
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := b.Commit(ctx, b.target, fence, b.batch(0, many(3, time.Now())...)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b.has(map[string]string{rows: "0", position: "0"})
}

// TestCommitOfALongKey: a row that is too large for the index is poison, and not the table's fault.
func TestCommitOfALongKey(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	fence, now := b.claim(0, 100), time.Now()
	junk := make([]byte, 3000)
	_, _ = rand.Read(junk) // PostgreSQL would compress anything else
	records := append(many(5, now), record(hex.EncodeToString(junk)+"/USDT", now, "1"))
	batch := b.batch(0, append(records, many(5, now.Add(time.Second))...)...)
	b.commit(fence, batch)
	b.has(map[string]string{rows: "10", position: "11", dead: "1"})
	if got := reasons(batch); len(got) != 1 || !strings.Contains(got[0], "5 table raw_crypto_data refuses it: index row") || !strings.Contains(got[0], "SQLSTATE 54000") {
		t.Errorf("reasons: %q", got)
	}
	if batch.Stored != 10 {
		t.Errorf("%d rows stored", batch.Stored)
	}
}

// TestCommitBesideAnotherUniqueIndex: only the primary key means "there already"; what breaks another one must not vanish.
func TestCommitBesideAnotherUniqueIndex(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec("CREATE UNIQUE INDEX ON raw_crypto_data (price, time)")
	fence, now := b.claim(0, 100), time.Now()
	again := record("BTCUSDT", now, "1")
	batch := b.batch(0, again, record("ETHUSDT", now, "1"), record("ETHUSDT", now.Add(time.Second), "2"), again)
	b.commit(fence, batch)
	b.has(map[string]string{rows: "2", position: "4", `SELECT string_agg("offset"::text, ' ') FROM cryptoviz.dead_letter`: "1"})
	if got := reasons(batch); len(got) != 1 || !strings.Contains(got[0], "SQLSTATE 23505") {
		t.Errorf("reasons: %q", got)
	}
}

// TestCommitWithoutThePrimaryKey: a table of another key is the table's fault.
func TestCommitWithoutThePrimaryKey(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec("ALTER TABLE raw_crypto_data DROP CONSTRAINT raw_crypto_data_pkey; CREATE UNIQUE INDEX ON raw_crypto_data (time)")
	one := record("BTCUSDT", time.Now(), "1")
	err := b.Commit(t.Context(), b.target, b.claim(0, 100), b.batch(0, one, one))
	if !errors.Is(err, store.ErrBlocked) || !strings.Contains(err.Error(), "does not have the primary key that pipeline.hcl declares: run cryptoviz plan") {
		t.Error(err)
	}
	b.has(map[string]string{rows: "0", position: "0", dead: "0"})
}

func TestCommitTellsWhatItStored(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec("ALTER TABLE raw_crypto_data ADD CHECK (price < 1000)")
	fence, now := b.claim(0, 100), time.Now()
	first := b.batch(0, many(10, now)...)
	for range 2 { // the second time it is stored already
		b.commit(fence, first)
		if first.Stored != 10 {
			t.Errorf("%d of 10", first.Stored)
		}
	}
	records := append(many(12, now), record("ETHUSDT", now, "5000"), record("ETHUSDT", now, "1"))
	second := b.batch(10, records...)
	b.commit(fence, second)
	if second.Stored != 3 {
		t.Errorf("%d of 3", second.Stored)
	}
	b.has(map[string]string{rows: "13", dead: "1"})
}

// TestCommitEndsBesideASilentServer: rows that flow slowly are waited for, a server that is silent is not.
func TestCommitEndsBesideASilentServer(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	s := b.open(store.Options{IdleTimeout: 2 * time.Second})
	fence := b.claim(0, 100)
	tx, err := b.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE raw_crypto_data IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	err = s.Commit(t.Context(), b.target, fence, b.batch(0, many(3, time.Now())...))
	if !errors.Is(err, store.ErrBlocked) || !strings.Contains(err.Error(), "no answer for 2s: is the connection dead") {
		t.Error(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END';
		CREATE TRIGGER slow BEFORE INSERT ON raw_crypto_data FOR EACH ROW EXECUTE FUNCTION slow(); ALTER TABLE raw_crypto_data ADD CHECK (price < 1000)`)
	batch := b.batch(0, append(many(3, time.Now()), record("ETHUSDT", time.Now(), "5000"), record("ETHUSDT", time.Now(), "6000"), record("XRPUSDT", time.Now(), "7000"))...)
	began := time.Now()
	if err := s.Commit(t.Context(), b.target, fence, batch); err != nil || time.Since(began) < 2800*time.Millisecond {
		t.Errorf("in several steps, after %s: %v", time.Since(began), err)
	}
	b.has(map[string]string{rows: "3", dead: "3", position: "6"})
}

// TestCommitUnderAnotherIsolation: the database's default does not decide what a batch sees.
func TestCommitUnderAnotherIsolation(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''serializable''', current_database()); END $$;
		CREATE TABLE seen (level text);
		CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO seen SELECT current_setting(''transaction_isolation''); RETURN NULL; END';
		CREATE TRIGGER look AFTER INSERT ON raw_crypto_data FOR EACH STATEMENT EXECUTE FUNCTION look(); CREATE TRIGGER look AFTER UPDATE ON cryptoviz.position FOR EACH STATEMENT EXECUTE FUNCTION look()`)
	b.Store = b.open(store.Options{})
	b.commit(b.claim(0, 100), b.batch(0, many(3, time.Now())...))
	b.has(map[string]string{rows: "3", "SELECT string_agg(DISTINCT level, ', ') || ' ' || (count(*) >= 2) FROM seen": "read committed true"})
}
