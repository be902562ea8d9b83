package rollup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

var day = time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)

const oneDay = 24 * time.Hour

// rig is a database prepared for the shipped rollup, and a runner's log.
type rig struct {
	t    *testing.T
	r    *spec.Rollup
	st   *store.Store
	gate gate
	log  record
}

// gate answers as the test says; open by default.
type gate struct {
	closed atomic.Bool
	err    error
	asked  atomic.Int64
}

func (g *gate) DayComplete(context.Context, time.Time) (bool, error) {
	g.asked.Add(1)
	return !g.closed.Load(), g.err
}

// record is a log that tests read.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) lines(with string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.b.String()) {
		if strings.Contains(line, with) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func newRig(t *testing.T) *rig {
	t.Helper()
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
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
	r := p.Rollups[0]
	statements := append([]string{schema.SQL}, ddl.CreateSQL(r.Into, catalog.Capabilities{}, day)...)
	plain := *r.From // one table: a test may write to any day
	plain.Hypertable = nil
	for _, sql := range append(statements, ddl.CreateSQL(&plain, catalog.Capabilities{}, day)...) {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	st, err := store.Open(t.Context(), cfg, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return &rig{t: t, r: r, st: st}
}

func (g *rig) exec(sql string) {
	g.t.Helper()
	if _, err := g.st.Pool().Exec(g.t.Context(), sql); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) text(sql string) string {
	g.t.Helper()
	var out string
	if err := g.st.Pool().QueryRow(g.t.Context(), "SELECT coalesce(("+sql+")::text, '')").Scan(&out); err != nil {
		g.t.Fatal(err)
	}
	return out
}

// sample stores one raw row of each of these days.
func (g *rig) sample(days ...time.Time) {
	g.t.Helper()
	for _, d := range days {
		g.exec(fmt.Sprintf("INSERT INTO raw_crypto_data (time, source, base, quote, price) VALUES ('%s', 'binance', 'BTC', 'USDT', 1)", d.Add(time.Hour).Format(time.RFC3339)))
	}
}

func (g *rig) runner(clk clock.Clock) *rollup.Runner {
	g.t.Helper()
	r, err := rollup.New(g.r, g.st.Pool(), &g.gate, clk, slog.New(slog.NewTextHandler(&g.log, nil)))
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// run runs a runner until the test is over, or stop is called.
func (g *rig) run(clk clock.Clock) (stop func()) {
	g.t.Helper()
	r := g.runner(clk)
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := testkit.Receive(g.t, done, "end of Run"); err != nil {
			g.t.Errorf("Run: %v", err)
		}
	})
	g.t.Cleanup(stop)
	return stop
}

// wait waits until the query gives the text.
func (g *rig) wait(sql, want string) {
	g.t.Helper()
	testkit.Eventually(g.t, func() error {
		if got := g.text(sql); got != want {
			return fmt.Errorf("%s: %q, want %q\n%s", sql, got, want, strings.Join(g.log.lines(""), "\n"))
		}
		return nil
	})
}

// waitLog waits until so many lines have this text, and returns them. What the database shows may not have been said yet.
func (g *rig) waitLog(with string, n int) (lines []string) {
	g.t.Helper()
	testkit.Eventually(g.t, func() error {
		if lines = g.log.lines(with); len(lines) < n {
			return fmt.Errorf("%d of %d lines with %q in the log:\n%s", len(lines), n, with, strings.Join(g.log.lines(""), "\n"))
		}
		return nil
	})
	return lines
}

const days = "SELECT string_agg(day::text, ' ' ORDER BY day) FROM cryptoviz.rollup_day"

func TestRunCatchesUpOldestFirst(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day, day.AddDate(0, 0, -30), day.AddDate(0, 0, -2), day.Add(oneDay))
	stop := g.run(clock.Fast(day.Add(oneDay+10*time.Hour), 1))
	g.wait(days, "2026-02-02 2026-03-02 2026-03-04")
	lines := g.waitLog("day rolled up", 3)
	stop()
	if len(lines) != 3 || !slices.IsSortedFunc(lines, func(a, b string) int {
		return strings.Compare(a[strings.Index(a, "day=2026"):], b[strings.Index(b, "day=2026"):])
	}) {
		t.Errorf("log:\n%s", strings.Join(lines, "\n"))
	}
	if got := g.text("SELECT count(*) FROM raw_crypto_data"); got != "1" {
		t.Errorf("%s raw rows", got)
	}
}

func TestRunKeepsItsTime(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day)
	g.run(clock.Fast(day.Add(oneDay+4*time.Minute), 120)) // 00:05 comes in half a second
	g.wait(days, "2026-03-04")
	if at := g.text("SELECT rolled_at AT TIME ZONE 'UTC' FROM cryptoviz.rollup_day"); at < "2026-03-05 00:05:00" { // the next time is twelve minutes away
		t.Errorf("rolled up at %s", at)
	}
}

// TestRunKeepsUp: what came due while a pass was under way is rolled up at once, not at the next time.
func TestRunKeepsUp(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.r.Wait = 1000 * time.Hour
	g.sample(day, day.Add(oneDay), day.Add(2*oneDay))
	g.gate.closed.Store(true)
	var off atomic.Int64
	g.run(clock.Stepped(clock.Fast(day.Add(oneDay+10*time.Hour), 20), &off))
	g.waitLog("rollup waits for workers to pass midnight", 1)
	off.Store(int64(48 * time.Hour))
	g.gate.closed.Store(false)
	g.wait(days, "2026-03-04 2026-03-05 2026-03-06")
}

func TestRunWaitsForWorkers(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.r.Wait = time.Hour
	g.sample(day)
	g.gate.closed.Store(true)
	g.run(clock.Fast(day.Add(oneDay+5*time.Minute), 20))
	began := time.Now()
	g.waitLog("rollup waits for workers to pass midnight", 1)
	testkit.Eventually(t, func() error {
		if n := g.gate.asked.Load(); n < 4 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	if took := time.Since(began); took < 3*200*time.Millisecond {
		t.Errorf("asked four times in %s", took)
	}
	if got := g.text(days); got != "" {
		t.Errorf("it did not wait: %s", got)
	}
	g.gate.closed.Store(false)
	g.wait(days, "2026-03-04")
	if n := len(g.log.lines("rollup waits for workers")); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestRunGoesOnAfterTheWait(t *testing.T) {
	t.Parallel()
	for name, gateErr := range map[string]error{"closed": nil, "unknown": errors.New("read the topics' ends: broker down")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.r.Wait = 400 * time.Millisecond
			g.sample(day, day.AddDate(0, 0, -1))
			g.gate.err = gateErr
			g.gate.closed.Store(gateErr == nil)
			began := time.Now()
			g.run(clock.Fast(day.Add(oneDay+5*time.Minute), 1))
			g.wait(days, "2026-03-03 2026-03-04")
			if d := time.Since(began); d < 2*time.Second {
				t.Errorf("it waited %s", d)
			}
			if n := len(g.log.lines("rollup waits for workers")); n > 1 {
				t.Errorf("it waited for each of %d days", n)
			}
			said := g.log.lines("goes on without workers that have not passed midnight")
			if len(said) != 2 || gateErr != nil && !strings.Contains(said[0], "broker down") {
				t.Errorf("log:\n%s", strings.Join(said, "\n"))
			}
		})
	}
}

func TestRunWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day)
	g.exec("ALTER TABLE cryptoviz.rollup_day RENAME TO away")
	g.run(clock.Fast(day.Add(oneDay+5*time.Minute), 5000))
	g.waitLog("rollup waits for the database", 1)
	g.wait("SELECT xact_rollback >= 3 FROM pg_stat_database WHERE datname = current_database()", "true") // it goes on trying
	if n := len(g.log.lines("waits for the database")); n != 1 {
		t.Errorf("said %d times", n)
	}
	// Every session but this one is cut, as when the server restarts.
	g.exec("ALTER TABLE cryptoviz.away RENAME TO rollup_day; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	g.wait(days, "2026-03-04")
	g.waitLog("rollup goes on", 1)
}

func TestRunLeavesABrokenDay(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day.AddDate(0, 0, -1), day)
	g.r.Query = strings.Replace(g.r.Query, "r.time < $2", "r.time < $2 AND r.time <> '2026-03-03 01:00+00'", 1)
	g.run(clock.Fast(day.Add(oneDay+5*time.Minute), 1))
	g.wait(days, "2026-03-04")
	said := g.waitLog("day not rolled up", 1)
	if len(said) != 1 || !strings.Contains(said[0], "level=ERROR") || !strings.Contains(said[0], "again_in=1h") || !strings.Contains(said[0], "sql/rollup_hourly.sql: the query gives no row for the 1 rows") {
		t.Errorf("log:\n%s", strings.Join(said, "\n"))
	}
	if got := g.text("SELECT min(time) AT TIME ZONE 'UTC' FROM raw_crypto_data"); got != "2026-03-03 01:00:00" {
		t.Errorf("oldest raw row: %q", got)
	}
}

// TestRunDoesNotGiveUp: a day that something holds is tried until it is done, says who, and holds no other day.
func TestRunDoesNotGiveUp(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day.AddDate(0, 0, -1), day)
	tx, err := g.st.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('cryptoviz.rollup hourly 2026-03-03', 0))"); err != nil { // another instance that hangs, say
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is over
	g.run(clock.Fast(day.Add(oneDay+10*time.Hour), 1))
	g.wait(days, "2026-03-04")
	said := g.waitLog("day not rolled up yet", 1)
	if !strings.Contains(said[0], "level=WARN") || !strings.Contains(said[0], "day=2026-03-03") || !strings.Contains(said[0], fmt.Sprint("pid ", tx.Conn().PgConn().PID(), ", ")) {
		t.Errorf("log:\n%s", strings.Join(said, "\n"))
	}
	g.wait("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", "true") // it tries again
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.wait(days, "2026-03-03 2026-03-04")
}

// TestRunTriesAgain what failed without a fault of the query: a timeout, a right that was missing.
func TestRunTriesAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day.AddDate(0, 0, -1), day)
	g.exec("ALTER TABLE crypto_data_hourly RENAME TO away")
	g.run(clock.Fast(day.Add(oneDay+10*time.Hour), 1))
	g.waitLog("day not rolled up yet", 2)
	g.exec("ALTER TABLE away RENAME TO crypto_data_hourly")
	g.wait(days, "2026-03-03 2026-03-04")
}

// TestAttempts: the pauses grow up to a minute; a fault waits an hour.
func TestAttempts(t *testing.T) {
	for faulty, want := range map[bool]string{false: "[500ms 1s 2s 4s 8s 16s 32s 1m0s 1m0s]", true: "[1h0m0s 1h0m0s 1h0m0s 1h0m0s 1h0m0s 1h0m0s 1h0m0s 1h0m0s 1h0m0s]"} {
		if got := fmt.Sprint(rollup.Pauses(9, faulty)); got != want {
			t.Errorf("faulty %t: %s", faulty, got)
		}
	}
}

// TestRunWakesUp: a machine that was suspended over the time of its schedule rolls up when it wakes, not as much later.
func TestRunWakesUp(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day)
	var off atomic.Int64
	g.run(clock.Stepped(clock.Fast(day.Add(oneDay-time.Hour), 1), &off)) // 23:00
	time.Sleep(300 * time.Millisecond)                                   //nolint:forbidigo // it must not do anything
	if got := g.text(days); got != "" {
		t.Fatalf("rolled up at 23:00: %s", got)
	}
	off.Store(int64(8 * time.Hour))
	g.wait(days, "2026-03-04")
}

// TestRunOfAClockThatWentBack looks again what is next, and does not do so without a pause.
func TestRunOfAClockThatWentBack(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var off atomic.Int64
	off.Store(int64(48 * time.Hour)) // it was wrong: its next time lies two days ahead
	g.run(clock.Stepped(clock.Fast(day.Add(oneDay+5*time.Minute+time.Second), 1), &off))
	time.Sleep(300 * time.Millisecond) //nolint:forbidigo // it waits for the wrong time
	g.sample(day)
	off.Store(0)
	g.wait(days, "2026-03-04")
	if n := g.gate.asked.Load(); n != 1 {
		t.Errorf("the gate was asked %d times", n)
	}
}

func TestRunTellsOfRejectedRows(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.r.Late = "reject"
	g.sample(day)
	clk := clock.Fast(day.Add(oneDay+5*time.Minute), 1)
	if _, err := g.runner(clk).Day(t.Context(), day, false); err != nil {
		t.Fatal(err)
	}
	g.sample(day.Add(time.Minute))
	g.run(clk)
	g.waitLog(`msg="late rows rejected: they stay raw" rollup=hourly day=2026-03-04 late_rows=1`, 1)
}

func TestDayByHand(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.sample(day)
	g.gate.closed.Store(true) // by hand nobody is waited for
	r := g.runner(clock.Fast(day.Add(oneDay+time.Minute), 1))
	due, err := r.Due(t.Context())
	if err != nil || !slices.Equal(due, []time.Time{day}) {
		t.Errorf("due %v %v", due, err)
	}
	dry, err := r.Day(t.Context(), day, true)
	if err != nil || !dry.DryRun || dry.RawRows != 1 || g.text(days) != "" {
		t.Errorf("%+v %v", dry, err)
	}
	if _, err := r.Day(t.Context(), day.Add(oneDay), false); !errors.Is(err, rollup.ErrUnfinished) {
		t.Errorf("today: %v", err)
	}
	if res, err := r.Day(t.Context(), day, false); err != nil || res.DryRun || !res.Dropped || res.HourlyRows != 1 {
		t.Errorf("%+v %v", res, err)
	}
}

func TestNewReadsTheSchedule(t *testing.T) {
	t.Parallel()
	if _, err := rollup.New(&spec.Rollup{Name: "x", Schedule: "61 0 * * *"}, nil, nil, clock.Real(), nil); err == nil || !strings.Contains(err.Error(), "schedule of rollup x") {
		t.Error(err)
	}
	g := newRig(t)
	g.r.Schedule = "0 0 30 2 *"
	stop := g.run(clock.Real())
	g.waitLog("rollup is never due", 1)
	stop()
}
