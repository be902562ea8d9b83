package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// installed is the built program in a folder of its own, with real Kafka and PostgreSQL; the exchanges are played on this
// machine, and the definitions name them as they would name any other server.
type installed struct {
	t       testing.TB
	program string
	dir     string
	env     []string
	brokers string
	dsn     string
}

func install(t testing.TB, settings map[string]string) *installed {
	t.Helper()
	in := &installed{t: t, dir: t.TempDir(), brokers: testkit.Kafka(t).Addr(), dsn: testkit.StartPostgres(t, settings).URL()}
	in.program = filepath.Join(in.dir, "cryptoviz")
	if out, err := exec.Command("go", "build", "-o", in.program, "../..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	in.env = append(os.Environ(), "KAFKA_BROKERS="+in.brokers, "DATABASE_URL="+in.dsn)
	in.run("init", ".")
	p, d := load.Load(os.DirFS(in.dir), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	server, err := simulate.New(p, simulate.Options{})
	if err == nil {
		err = server.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	line := regexp.MustCompile(`(?m)^(\s*)url\s*=.*$`)
	for _, s := range p.Sources {
		file := filepath.Join(in.dir, s.Definition.File)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at, err := url.Parse(server.Endpoint(s))
		if err != nil {
			t.Fatal(err)
		}
		text = line.ReplaceAll(text, fmt.Appendf(nil, "${1}url = %q\n${1}allow_private = [%q]", at, at.Host))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in.run("apply", "--auto-approve")
	return in
}

func (in *installed) command(args ...string) *exec.Cmd {
	cmd := exec.Command(in.program, args...)
	cmd.Dir, cmd.Env = in.dir, in.env
	return cmd
}

func (in *installed) run(args ...string) string {
	in.t.Helper()
	out, err := in.command(args...).CombinedOutput()
	if err != nil {
		in.t.Fatalf("cryptoviz %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (in *installed) number(sql string) (n int64) {
	in.t.Helper()
	conn, err := pgx.Connect(in.t.Context(), in.dsn)
	if err != nil {
		in.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(in.t.Context(), sql).Scan(&n); err != nil {
		in.t.Fatal(err)
	}
	return n
}

// waitFor asks until the number is at least want.
func (in *installed) waitFor(log *buffer, sql string, want int64) {
	in.t.Helper()
	testkit.Eventually(in.t, func() error {
		if got := in.number(sql); got < want {
			return fmt.Errorf("%s: %d, want %d\n%s", sql, got, want, log)
		}
		return nil
	})
}

// start is `cryptoviz run` in the background.
func (in *installed) start(args ...string) (*exec.Cmd, *buffer) {
	in.t.Helper()
	cmd, log := in.command(append([]string{"run", "--listen", ""}, args...)...), &buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(func() { _ = cmd.Process.Kill() })
	testkit.Eventually(in.t, func() error {
		if text := log.String(); !strings.Contains(text, "msg=running") {
			return fmt.Errorf("run does not begin:\n%s", text)
		}
		return nil
	})
	return cmd, log
}

func (in *installed) stop(cmd *exec.Cmd, log *buffer, signals ...syscall.Signal) {
	in.t.Helper()
	if len(signals) == 0 {
		signals = []syscall.Signal{syscall.SIGTERM}
	}
	for i, s := range signals {
		if err := cmd.Process.Signal(s); err != nil && i == 0 {
			in.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // as somebody presses Ctrl-C
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := testkit.Receive(in.t, done, "end of run"); err != nil {
		in.t.Errorf("run ended with %v:\n%s", err, log)
	}
}

// memory is the resident memory of a process now, and the most that it was, in MiB.
func memory(t testing.TB, pid int) (now, most float64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no /proc here: memory is not measured")
	}
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib / 1024
		case "VmHWM:":
			most = kib / 1024
		}
	}
	return now, most
}

const rowsOfSources = "SELECT (SELECT count(DISTINCT source) FROM raw_crypto_data) + (SELECT count(DISTINCT source) FROM crypto_sentiment)"

// The built program, from init over apply to rows, on real Kafka and PostgreSQL; a signal ends it in order.
func TestProgramOnRealServices(t *testing.T) {
	in := install(t, nil)
	cmd, log := in.start()
	in.waitFor(log, rowsOfSources, 4)
	if out := in.run("status"); !strings.Contains(out, "binance") || !strings.Contains(out, "ok") {
		t.Errorf("status:\n%s", out)
	}
	if out := in.run("plan"); !strings.Contains(out, "\nNo changes to Kafka and PostgreSQL. Grafana was left out.") {
		t.Errorf("plan after apply:\n%s", out)
	}
	in.stop(cmd, log)
	before := in.number("SELECT count(*) FROM raw_crypto_data")
	if n := in.number("SELECT count(*) FROM cryptoviz.slot WHERE state = 'running' AND lease_until > now()"); n != 0 {
		t.Errorf("%d slots are still held after the end", n)
	}
	cmd, log = in.start("--only", "work, rollup,work")
	hangUp := []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP} // its terminal was closed: the shell and the terminal say so
	if signal.Ignored(syscall.SIGHUP) {
		hangUp = append(hangUp, syscall.SIGTERM) // these tests run under nohup, and so does the program: it goes on
	}
	in.stop(cmd, log, hangUp...)
	if text := log.String(); !strings.Contains(text, "stages=work,rollup\n") || !strings.Contains(text, "msg=stopped") {
		t.Error(text)
	}
	if after := in.number("SELECT count(*) FROM raw_crypto_data"); after != before {
		t.Errorf("%d rows became %d over a restart without new data", before, after)
	}
}

// BenchmarkProgramMemory measures resident memory of `cryptoviz run` with the shipped sources, and while it catches up with a
// million records: go test -run - -bench ProgramMemory -benchtime 1x ./engine/cli
func BenchmarkProgramMemory(b *testing.B) {
	in := install(b, map[string]string{"shared_buffers": "512MB", "max_wal_size": "8GB"})
	for b.Loop() {
		cmd, log := in.start()
		in.waitFor(log, rowsOfSources, 4)
		time.Sleep(30 * time.Second) //nolint:forbidigo // a benchmark of what it needs when quiet
		quiet, _ := memory(b, cmd.Process.Pid)
		b.ReportMetric(quiet, "MiB_quiet")
		in.stop(cmd, log)

		const records = 1_000_000
		before := in.number("SELECT count(*) FROM raw_crypto_data")
		in.fill(records)
		cmd, log = in.start()
		in.waitFor(log, "SELECT count(*) FROM raw_crypto_data", before+records)
		_, most := memory(b, cmd.Process.Pid)
		b.ReportMetric(most, "MiB_most_under_load")
		in.stop(cmd, log)
	}
	b.ReportMetric(0, "ns/op")
}

// fill puts records on a topic as the producer does.
func (in *installed) fill(n int) {
	in.t.Helper()
	p, d := load.Load(os.DirFS(in.dir), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		in.t.Fatal(d.Diags)
	}
	producer, start := produce.New([]kgo.Opt{kgo.SeedBrokers(in.brokers)}, produce.Options{}), time.Now().Add(-2*time.Hour).Truncate(time.Hour)
	defer producer.Close(in.t.Context())
	for from := 0; from < n; from += 5000 {
		var records []record.Record
		for i := from; i < from+5000; i++ {
			at := start.Add(time.Duration(i) * time.Millisecond)
			records = append(records, record.Record{Key: "BTCUSDT", Received: at, Value: fmt.Appendf(nil,
				`{"symbol":"BTCUSDT","closeTime":%d,"lastPrice":"64123.10","bidPrice":"64123.00","askPrice":"64123.20","highPrice":"65000.00","lowPrice":"63000.00","volume":"1234.5","quoteVolume":"79000000.0","priceChangePercent":"0.10","count":7}`, at.UnixMilli())})
		}
		if err := producer.Send(in.t.Context(), p.Sources[0], start.Add(time.Duration(from)*time.Millisecond), records); err != nil {
			in.t.Fatal(err)
		}
	}
}
