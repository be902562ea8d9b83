package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
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
	return commandIn(ctx, nil, args...)
}

// commandIn runs one with variables of the environment.
func commandIn(ctx context.Context, env map[string]string, args ...string) (stdout, stderr string, code int) {
	var out, errs buffer
	code = Main(ctx, append([]string{"--file", "../../pipeline.hcl"}, args...), IO{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "0.1.0",
		Getenv: func(name string) (string, bool) { value, is := env[name]; return value, is },
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
	return startUpIn(t, nil, args...)
}

// startUpIn starts one with variables of the environment.
func startUpIn(t *testing.T, env map[string]string, args ...string) *started {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &started{stop: stop, done: make(chan int, 1), stderr: &buffer{}}
	go func() {
		s.done <- Main(ctx, append([]string{"--file", "../../pipeline.hcl", "up", "--listen", ""}, args...), IO{
			Stdin: strings.NewReader(""), Stdout: &buffer{}, Stderr: s.stderr, Version: "0.1.0", Getenv: func(name string) (string, bool) { value, is := env[name]; return value, is },
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
	case <-time.After(testkit.Patience):
		t.Fatalf("up does not end:\n%s", s.stderr)
	}
}

// eventually asks until the answer is right.
func eventually(t *testing.T, s *started, what string, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, func() error {
		switch {
		case ok():
			return nil
		case len(s.done) > 0:
			t.Fatalf("up ended before %s came:\n%s", what, s.stderr)
		}
		return fmt.Errorf("%s did not come:\n%s", what, s.stderr)
	})
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

// TestUpWithNothingToPlay: what is wrong is said before the state directory is given a mode, once for each source.
func TestUpWithNothingToPlay(t *testing.T) {
	folder, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	files, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(folder, files); err != nil {
		t.Fatal(err)
	}
	samples, err := filepath.Glob(filepath.Join(folder, "sources", "*.*.*"))
	if err != nil || len(samples) < 5 {
		t.Fatal(samples, err)
	}
	for _, name := range samples {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	pipeline := filepath.Join(folder, "pipeline.hcl")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--recorded", "/nonexist"}, []string{"Error: --recorded /nonexist is no folder"}},
		{[]string{"--recorded", write("notes.txt", "")}, []string{"source kraken is off: there is no recording of it", "holds no recording of a source of " + pipeline}},
		{[]string{"--recorded", write("kraken-1.ndjson", `{"received": 1, "message": {}}`)}, []string{"source kraken is off: its recording kraken-1.ndjson does not fit sources/kraken.hcl: "}},
		{[]string{"--simulate"}, []string{"source kraken is off: sources/kraken.reply.json is missing", "Error: nothing can be played: no source has a sample: write " + folder + "/sources/"}},
	} {
		_, errs, code := command(t.Context(), append([]string{"--file", pipeline, "up", "--state", state}, c.args...)...)
		for _, want := range c.want {
			if code != 1 || strings.Count(errs, want) != 1 {
				t.Errorf("%s: exit %d, want %q once in\n%s", c.args, code, want, errs)
			}
		}
		if n := strings.Count(errs, "source kraken") + strings.Count(errs, "source=kraken"); n > 1 {
			t.Errorf("kraken is told of %d times:\n%s", n, errs)
		}
		if text, err := os.ReadFile(filepath.Join(state, "state.json")); err != nil || !strings.Contains(string(text), `"mode": ""`) {
			t.Errorf("%s: %v, %s", c.args, err, text)
		}
	}
}

// TestUpTellsItsChanges: what it makes, and what it leaves out, with the command for that. `run` passes it by and says so.
func TestUpTellsItsChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	folder, dir := t.TempDir(), stateFolder(t)
	files, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(folder, files); err != nil {
		t.Fatal(err)
	}
	pipeline := filepath.Join(folder, "pipeline.hcl")
	up := startUp(t, "--file", pipeline, "--simulate", "--speed", "60", "--state", dir)
	eventually(t, up, "a record of kraken", func() bool {
		out, _, code := command(t.Context(), "query", "--state", dir, "--format", "csv", "SELECT 'rows' FROM raw_crypto_data WHERE source = 'kraken'")
		return code == 0 && strings.Contains(out, "\nrows")
	})
	for _, want := range []string{"  topic.kraken created\n", "  table.raw_crypto_data created\n", "cryptoviz query --file " + pipeline + " --state " + dir + " \"SELECT"} {
		if n := strings.Count(up.stderr.String(), want); n != 1 {
			t.Errorf("said %q %d times:\n%s", want, n, up.stderr)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"run --only rollup", "cryptoviz up runs in " + dir + ", and run does not use it: it works on the Kafka and PostgreSQL that " + pipeline + " names.\nError: the database postgres://127.0.0.1:1/ours does not answer"},
		{"query SELECT", "Using the Kafka and PostgreSQL of cryptoviz up in " + dir + `, not DATABASE_URL: for those add --state "".` + "\n"},
		{"query --state= SELECT", "Error: the database postgres://127.0.0.1:1/ours does not answer"},
	} {
		var errs buffer
		Main(t.Context(), append([]string{"--file", pipeline, "--state", dir}, strings.Fields(c.args)...), IO{
			Stdin: strings.NewReader(""), Stdout: &buffer{}, Stderr: &errs, Version: "0.1.0",
			Getenv: func(name string) (string, bool) { return "postgres://127.0.0.1:1/ours", name == "DATABASE_URL" },
		})
		if !strings.HasPrefix(errs.String(), c.want) {
			t.Errorf("%s: %s, want %s", c.args, errs.String(), c.want)
		}
	}
	up.end(t)

	text, err := os.ReadFile(pipeline)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range []string{`source "kraken"`, `topic "kraken"`} {
		before, rest, _ := strings.Cut(string(text), block)
		_, after, found := strings.Cut(rest, "\n}\n")
		if !found {
			t.Fatalf("no %s", block)
		}
		text = []byte(before + after)
	}
	text = append(text, "\nremoved {\n  object = topic.kraken\n}\n"...)
	before, after, _ := strings.Cut(string(text), `topic "okx" {`)
	text = []byte(before + `topic "okx" {` + strings.Replace(after, `"7d"`, `"8d"`, 1))
	if err := os.WriteFile(pipeline, text, 0o600); err != nil {
		t.Fatal(err)
	}
	up = startUp(t, "--file", pipeline, "--simulate", "--speed", "60", "--state", dir)
	amount := regexp.MustCompile(`topic\.kraken=\d+ `) // more or fewer records have come
	eventually(t, up, "the pipeline again", func() bool { return strings.Contains(up.stderr.String(), "first row stored") })
	for _, want := range []string{"  topic.okx changed: retention", "  topic.kraken is left as it is: ", "  while up runs: cryptoviz apply --allow CV-K11@topic.kraken=N --file " + pipeline + " --state " + dir + "\n"} {
		said := amount.ReplaceAllString(up.stderr.String(), "topic.kraken=N ")
		if n := strings.Count(said, want); n != 1 {
			t.Errorf("said %q %d times:\n%s", want, n, said)
		}
	}
}

// TestUpKeepsThePortOfPostgres: while another program has the port of the server that is to be started again, up waits; the
// engine goes on when it is free.
func TestUpKeepsThePortOfPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	dir := stateFolder(t)
	up := startUp(t, "--simulate", "--speed", "60", "--state", dir)
	eventually(t, up, "a first row", func() bool { return strings.Contains(up.stderr.String(), "first row stored") })
	running, err := embedded.FindRunning(dir)
	if err != nil {
		t.Fatal(err)
	}
	const waits = "another program took its port"
	for try := 0; !strings.Contains(up.stderr.String(), waits); try++ {
		if try == 5 {
			t.Fatalf("the port could not be taken:\n%s", up.stderr)
		}
		eventually(t, up, "the database", func() bool {
			_, _, code := command(t.Context(), "query", "--state", dir, "SELECT 1")
			return code == 0
		})
		takeFromPostgres(t, up, running.Data, waits)
	}
	free := time.Now()
	eventually(t, up, "new rows", func() bool {
		out, _, code := command(t.Context(), "query", "--state", dir, "--format", "csv", "SELECT 'rows' FROM cryptoviz.slot WHERE state = 'ok' AND started_at > '"+free.Format(time.RFC3339Nano)+"'")
		return code == 0 && strings.Contains(out, "\nrows")
	})
	if now, err := embedded.FindRunning(dir); err != nil || now.Data.PostgresPort != running.Data.PostgresPort {
		t.Errorf("%v, on port %d, not %d", err, now.Data.PostgresPort, running.Data.PostgresPort)
	}
}

// takeFromPostgres kills the server and holds its port until up has said so, unless the next server is quicker.
func takeFromPostgres(t *testing.T, up *started, data embedded.StateData, said string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data.PostgresDir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); { // the caller tries again
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", data.PostgresPort))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && !strings.Contains(up.stderr.String(), said); {
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // a race with a server that starts; the caller tries again
		}
		return
	}
}
