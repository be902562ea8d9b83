package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/status"
)

// buffer is a bytes.Buffer that two goroutines use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// command runs one command on the shipped pipeline and returns what it printed and its exit code.
func command(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	var out, errs buffer
	code = Main(ctx, append([]string{"--file", "../../pipeline.hcl"}, args...), World{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "0.1.0", Getenv: func(string) (string, bool) { return "", false },
	})
	return out.String(), errs.String(), code
}

// started is an `up` in the background.
type started struct {
	stop   context.CancelFunc
	done   chan int
	stderr *buffer
}

// stateFolder is a folder that the account of PostgreSQL can pass to, so that nothing is left outside of it.
func stateFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cryptoviz-up-*") //nolint:usetesting // t.TempDir's folder is closed to other accounts
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "state")
}

func startUp(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &started{stop: stop, done: make(chan int, 1), stderr: &buffer{}}
	go func() {
		s.done <- Main(ctx, append([]string{"--file", "../../pipeline.hcl", "up", "--listen", ""}, args...), World{
			Stdin: strings.NewReader(""), Stdout: &buffer{}, Stderr: s.stderr, Version: "0.1.0", Getenv: func(string) (string, bool) { return "", false },
		})
	}()
	t.Cleanup(func() { s.end(t) })
	return s
}

func (s *started) end(t *testing.T) {
	t.Helper()
	s.stop()
	select {
	case code := <-s.done:
		s.done <- code
		if code != 0 {
			t.Errorf("up ended with %d:\n%s", code, s.stderr)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("up does not end:\n%s", s.stderr)
	}
}

// eventually asks until the answer is right.
func eventually(t *testing.T, s *started, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return
		}
		if len(s.done) > 0 {
			break
		}
	}
	t.Fatalf("%s did not come:\n%s", what, s.stderr)
}

func one(t *testing.T, dir, sql string) string {
	t.Helper()
	out, errs, code := command(t.Context(), "query", "--state", dir, "--format", "csv", sql)
	if code != 0 {
		t.Fatalf("%s: %s", sql, errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func TestUpFillsTablesAndKeepsThem(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	dir := stateFolder(t)
	up := startUp(t, "--simulate", "--speed", "600", "--state", dir)
	eventually(t, up, "a first row", func() bool { return strings.Contains(up.stderr.String(), "first row stored") })

	if _, errs, code := command(t.Context(), "up", "--simulate", "--state", dir); code != 1 || !strings.Contains(errs, fmt.Sprintf("already running in %s (process %d)", dir, os.Getpid())) {
		t.Errorf("second up: %d, %s", code, errs)
	}
	eventually(t, up, "twenty slots", func() bool {
		return one(t, dir, "SELECT count(*) >= 60 FROM cryptoviz.slot WHERE state = 'ok'") == "t"
	})
	text, errs, code := command(t.Context(), "status", "--json", "--state", dir)
	if code != 0 {
		t.Fatal(errs)
	}
	var s status.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.Mode != "simulated" || len(s.Sources) != 5 || len(s.Rollups) != 1 {
		t.Errorf("status: %v, %+v", err, s)
	}
	if text, _, _ := command(t.Context(), "status", "--state", dir); !strings.Contains(text, "simulated data") {
		t.Errorf("status does not say that the data is simulated:\n%s", text)
	}
	up.end(t)

	// Each finished slot has a row for each market, once. Fast time may pass midnight: a day that is rolled up has its samples in its hours.
	up = startUp(t, "--simulate", "--speed", "600", "--state", dir)
	eventually(t, up, "the pipeline again", func() bool { return strings.Contains(up.stderr.String(), "first row stored") })
	bad := one(t, dir, `WITH done AS (SELECT source, slot, day.dropped_at IS NOT NULL AS rolled FROM cryptoviz.slot
			LEFT JOIN cryptoviz.rollup_day day ON day.day = (slot AT TIME ZONE 'UTC')::date
			WHERE source = 'kraken' AND state = 'ok' AND slot < (SELECT max(slot) - interval '5 minutes' FROM cryptoviz.slot)),
		market(base) AS (VALUES ('BTC'), ('ETH'), ('SOL'))
		SELECT (SELECT count(*) FROM done d CROSS JOIN market m WHERE NOT d.rolled
				AND 1 <> (SELECT count(*) FROM raw_crypto_data r WHERE r.source = d.source AND r.base = m.base AND r.time = d.slot))
			+ (SELECT count(*) FROM (SELECT date_trunc('hour', slot) AS hour, count(*) AS slots FROM done WHERE rolled GROUP BY 1) d CROSS JOIN market m
				WHERE d.slots <> coalesce((SELECT samples FROM crypto_data_hourly h WHERE h.source = 'kraken' AND h.base = m.base AND h.time = d.hour), 0))`)
	if bad != "0" {
		t.Errorf("%s slots and hours have not one row a market", bad)
	}
	if n := one(t, dir, "SELECT count(*) FROM cryptoviz.dead_letter"); n != "0" {
		t.Errorf("%s dead letters", n)
	}
	for _, sql := range []string{"DELETE FROM raw_crypto_data", "SELECT 1; COMMIT; DELETE FROM raw_crypto_data", "SELECT nextval('cryptoviz.dead_letter_id_seq')"} {
		if _, errs, code := command(t.Context(), "query", "--state", dir, sql); code != 1 {
			t.Errorf("query ran %q: %s", sql, errs)
		}
	}
	up.end(t)

	for _, c := range []struct{ args, want string }{
		{"up", "holds simulated data and cannot become live"},
		{"status", "cryptoviz up has data in " + dir + " and is not running"},
		{"up --recorded ../../sources", "holds simulated data and cannot become recorded"},
		{"up --simulate --fresh", "not confirmed: nothing was deleted"},
		{"up --speed 5", "--speed needs --simulate or --recorded"},
		{"up --simulate --speed 0", "out of range"},
		{"up --recorded nowhere --simulate", "none of the others can be"},
	} {
		if _, errs, code := command(t.Context(), append(strings.Fields(c.args), "--state", dir)...); code != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %q, want %q", c.args, code, errs, c.want)
		}
	}
}

func TestQueryFormats(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1 AS a, 'x' AS b, NULL AS c, true AS d, '{\"k\":1}'::jsonb AS e, 'NaN'::float8 AS f": `{"a": 1, "b": "x", "c": null, "d": true, "e": {"k":1}, "f": "NaN"}`,
	} {
		if got := queryText(t, sql, "json"); !strings.Contains(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", sql, got, want)
		}
	}
	if got := queryText(t, "SELECT E'a\\x1b[31mb' AS x", "table"); strings.Contains(got, "\x1b") || !strings.Contains(got, "(1 row)") {
		t.Errorf("control characters reach the terminal: %q", got)
	}
	if got := queryText(t, "SELECT interval '1 day 2 hours' AS i, timestamptz '2026-11-22 00:00+00' AS t", "csv"); got != "i,t\n1 day 02:00:00,2026-11-22 00:00:00+00\n" {
		t.Errorf("csv: %q", got)
	}
}
