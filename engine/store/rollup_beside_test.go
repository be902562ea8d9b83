package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestRollupsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.fill("BTC", h.day, 1440)
	other := h.open(store.Options{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var rows int64
	for i := range 8 {
		all.Go(func() {
			s := h.Store
			if i%2 == 1 {
				s = other
			}
			out, err := rawOf(s).Day(t.Context(), h.r, h.day, h.now, false)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			rows += out.RawRows
		})
	}
	all.Wait()
	if rows != 1440 {
		t.Errorf("%d rows", rows)
	}
	h.right()
	h.has(map[string]string{raw: "0", ledger: "2026-03-04 1440 24 0 1 t"})
}

// TestRollupAfterAnother: the second run waits for the first, then finds a late row, and must know that the day is dropped.
func TestRollupAfterAnother(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.fill("BTC", h.day, 60)
	h.fill("BTC", h.day.Add(3*time.Hour), 5)
	h.r.Query = strings.Replace(h.r.Query, "FROM raw_crypto_data AS r", "FROM pg_sleep(0.5) AS nap CROSS JOIN raw_crypto_data AS r", 1)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if _, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false); err != nil {
				t.Error(err)
			}
		})
	}
	h.waitsFor("wait_event = 'PgSleep'")
	h.fill("BTC", h.day.Add(3*time.Hour+10*time.Minute), 8) // waits for the first
	all.Wait()
	h.roll(h.day, false)
	h.right()
	h.has(map[string]string{raw: "0", "SELECT raw_rows || ' ' || late_rows FROM cryptoviz.rollup_day": "73 8"})
}

// TestRollupBesideWriters: whatever is written while a day is rolled up again and again is in an hour or still raw.
func TestRollupBesideWriters(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			h.fill("BTC", h.day, 1)
			h.exec("TRUNCATE keep, raw_crypto_data")
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			defer cancel()
			var all sync.WaitGroup
			for w := range 3 {
				all.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						h.write(w, i)
					}
				})
			}
			rolled := 0
			for began := time.Now(); ctx.Err() == nil && (rolled < 5 || time.Since(began) < 800*time.Millisecond); {
				if out, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false); err != nil {
					t.Error(err)
				} else if out.RawRows > 0 {
					rolled++
				}
			}
			cancel()
			all.Wait()
			h.roll(h.day, false)
			h.has(map[string]string{
				"SELECT (SELECT count(*) FROM keep WHERE time < '2026-03-05 00:00+00') - (SELECT sum(samples) FROM crypto_data_hourly)":                               "0",
				"SELECT (SELECT count(*) FROM keep WHERE time >= '2026-03-05 00:00+00') - (SELECT count(*) FROM raw_crypto_data)":                                     "0",
				"SELECT (SELECT count(*) FROM keep WHERE time < '2026-03-05 00:00+00') - (SELECT raw_rows FROM cryptoviz.rollup_day)":                                 "0",
				"SELECT (SELECT min(price) || ' ' || max(price) FROM keep WHERE time < '2026-03-05') = (SELECT min(low) || ' ' || max(high) FROM crypto_data_hourly)": "true",
			})
			if rolled < 5 {
				t.Errorf("only %d runs found rows", rolled)
			}
		})
	}
}

// write stores two rows in one transaction, one of the day and one of the next, as a worker does: again until they are in.
func (h *hours) write(w, i int) {
	at := h.day.Add(time.Duration(i) * time.Second % (24 * time.Hour)).Add(time.Duration(i) * time.Microsecond)
	for {
		_, err := h.Pool().Exec(h.t.Context(), `WITH made AS (INSERT INTO raw_crypto_data (time, source, base, quote, price)
			VALUES ($1, 'binance', $3, 'USDT', $4), ($2, 'binance', $3, 'USDT', $4) RETURNING *) INSERT INTO keep SELECT * FROM made`,
			at, at.Add(24*time.Hour), fmt.Sprint("M", w), float64(i))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "no partition") {
			h.t.Error(err)
			return
		}
		if err := partition.Create(h.t.Context(), h.Pool(), partition.Between(h.r.From, at, at)); err != nil {
			h.t.Error(err)
			return
		}
	}
}

// waitsFor waits until a session of this database is found to wait so.
func (h *hours) waitsFor(event string) {
	h.t.Helper()
	testkit.Eventually(h.t, func() error {
		if h.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "+event) == "0" {
			return errors.New("no session waits: " + event)
		}
		return nil
	})
}

// waitsForOpen rolls a day up while a transaction that writes to it is open: it waits, and loses nothing.
func (h *hours) waitsForOpen() {
	t := h.t
	t.Helper()
	h.fill("BTC", h.day, 10)
	tx, err := h.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO raw_crypto_data (time, source, base, quote, price) VALUES ($1, 'binance', 'ETH', 'USDT', 5)", h.day); err != nil {
		t.Fatal(err)
	}
	done := make(chan rollup.Result, 1)
	go func() { done <- h.roll(h.day, false) }()
	h.waitsFor("wait_event_type = 'Lock'")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := <-done; out.RawRows != 11 {
		t.Errorf("%+v", out)
	}
	h.has(map[string]string{raw: "0", sampled: "11"})
}

// TestRollupSeesOpenTransactions: it waits for a writer that is under way, and counts what that brings.
func TestRollupSeesOpenTransactions(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.waitsForOpen()
}

// TestRollupUnderAnotherIsolation: under the database's own default it would count and aggregate a snapshot from before its
// locks, and drop what came meanwhile.
func TestRollupUnderAnotherIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			h := newHours(t, "days")
			h.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''" + level + "''', current_database()); END $$")
			h.Store = h.open(store.Options{})
			h.waitsForOpen()
		})
	}
}

// TestRollupWaitsForItsTurn as long as it takes, whatever the session's lock_timeout is.
func TestRollupWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''50ms''', current_database()); END $$")
	h.Store = h.open(store.Options{})
	h.fill("BTC", h.day, 10)
	tx, err := h.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "cryptoviz.rollup "+h.r.Name+" 2026-03-04"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(7*time.Second, func() { _ = tx.Rollback(background) })
	began := time.Now()
	if out := h.roll(h.day, false); out.RawRows != 10 || time.Since(began) < 7*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), out)
	}
}

// TestRollupBesideAReader: a session that reads on for hours, like a dump, neither holds the rollup up nor loses its rows.
func TestRollupBesideAReader(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			var log bytes.Buffer
			h.log = slog.New(slog.NewTextHandler(&log, nil))
			h.fill("BTC", h.day, 100)
			reader, pid := h.session("dump")
			var n int
			for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM raw_crypto_data"} {
				if err := reader.QueryRow(t.Context(), sql).Scan(&n); err != nil && sql[0] != 'B' {
					t.Fatal(err)
				}
			}
			if out := h.roll(h.day, false); out.RawRows != 100 || !out.Dropped {
				t.Errorf("%+v", out)
			}
			h.right()
			h.has(map[string]string{raw: "0"})
			if err := reader.QueryRow(t.Context(), "SELECT count(*) FROM raw_crypto_data").Scan(&n); err != nil || n != 100 {
				t.Errorf("the reader sees %d rows: %v", n, err)
			}
			if said := log.String(); (layout == "days" || layout == "sixths") && !strings.Contains(said, fmt.Sprintf("pid %d, application dump", pid)) {
				t.Errorf("it says %s", said)
			}
			if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
				t.Fatal(err)
			}
			h.fill("BTC", h.day.AddDate(0, 0, -1), 10)
			h.roll(h.day.AddDate(0, 0, -1), false)
			h.right()
			if h.native && layout != "weeks" {
				h.has(map[string]string{"SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw_crypto_data'::regclass AND pg_get_expr((SELECT relpartbound FROM pg_class WHERE oid = inhrelid), inhrelid) LIKE '%2026-03-04%FROM%'": "0"})
			}
		})
	}
}

// TestRollupSaysWhoIsInTheWay: a writer that stays holds the day up, is named, and holds no other day.
func TestRollupSaysWhoIsInTheWay(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.fill("BTC", h.day, 10)
	h.fill("BTC", h.day.AddDate(0, 0, -1), 10)
	writer, pid := h.session("loader")
	for _, sql := range []string{"BEGIN", "UPDATE raw_crypto_data SET ask = 1 WHERE time >= '" + h.day.Format(time.RFC3339) + "'"} {
		if _, err := writer.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false)
	if !pg.Is(err, pg.LockBusy) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d, application loader, user cryptoviz, idle in transaction, in a transaction since 20", pid)) {
		t.Errorf("it says %v", err)
	}
	h.roll(h.day.AddDate(0, 0, -1), false)
	if _, err := writer.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	h.roll(h.day, false)
	h.right()
}

// session opens a connection of an application.
func (h *hours) session(application string) (*pgx.Conn, uint32) {
	h.t.Helper()
	cfg, err := pgx.ParseConfig(h.url)
	if err != nil {
		h.t.Fatal(err)
	}
	cfg.RuntimeParams["application_name"], cfg.DefaultQueryExecMode = application, pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(h.t.Context(), cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close(background) })
	return conn, conn.PgConn().PID()
}

// TestRollupBesideFunctionsOfOthers: functions of the names that the rollup calls are not what it calls.
func TestRollupBesideFunctionsOfOthers(t *testing.T) {
	t.Parallel()
	h := newHours(t, "weeks")
	h.fill("BTC", h.day, 10)
	h.exec(`CREATE FUNCTION date_bin(text, timestamptz, timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'of somebody else'; END $$`)
	h.due(h.day)
}
