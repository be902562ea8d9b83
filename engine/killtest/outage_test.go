package killtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

const (
	outageEnv = "CRYPTOVIZ_OUTAGE"         // how long the servers are away, as "10s"; unset: the test does not run
	bufferEnv = "CRYPTOVIZ_OUTAGE_BUFFER"  // kafka.buffer; default 64MiB
	brokerEnv = "CRYPTOVIZ_KILLTEST_KAFKA" // address|advertised|folder: the test is a broker
)

// runBroker is the embedded broker in a process of its own; clients are told the advertised address, which is a gate's.
func runBroker(text string) error {
	part := strings.Split(text, "|")
	_, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(part[2]), kfake.SyncWrites(), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		l, err := net.Listen(network, part[0])
		if err != nil {
			return nil, err
		}
		addr, err := net.ResolveTCPAddr("tcp", part[1])
		return advertised{l, addr}, err
	}))
	if err == nil {
		select {}
	}
	return err
}

type advertised struct {
	net.Listener
	addr net.Addr
}

func (a advertised) Addr() net.Addr { return a.addr }

// outage is one run: instances of the built program on servers of their own, of which one goes away.
type outage struct {
	t          *testing.T
	dir, bin   string
	env        []string
	postgres   *testkit.PostgresServer
	broker     *testkit.Process
	brokerArgs string
	pgGate     *testkit.Gate
	kafkaGate  *testkit.Gate
	pool       *pgxpool.Pool // past the gate
	instances  []*testkit.Process
	web        []string

	mu       sync.Mutex
	requests int
}

const outagePipeline = `
kafka {
  brokers = ["%s"]
  buffer  = "%s"
}
database {
  url        = env("DATABASE_URL")
  on_missing = "degrade"
}
source "tick" {
  definition = "tick.hcl"
  interval   = "1s"
  topic      = topic.tick
  table      = table.px
}
topic "tick" { partitions = 2 }
table "px" {
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "market" { type = "text" }
  column "price" { type = "double precision" }
  primary_key = ["source", "market", "time"]
  hypertable { time = "time" }
}
`

const outageDefinition = `
poll {
  url           = "http://%s/"
  allow_private = ["%s"]
  timeout       = "1s"
}
decode "json" {
  records = body
  key     = r.m
}
row {
  time   = from_unix_ms(r.t)
  source = source
  market = r.m
  price  = 1
}
`

func newOutage(t *testing.T, bin string, instances int) *outage {
	t.Helper()
	o := &outage{t: t, dir: t.TempDir(), bin: bin}
	o.postgres = testkit.StartPostgres(t, map[string]string{"shared_buffers": "16MB", "max_connections": "80", "fsync": "off"})
	u, err := url.Parse(o.postgres.URL())
	if err != nil {
		t.Fatal(err)
	}
	if o.pool, err = pgxpool.New(t.Context(), u.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.pool.Close)
	o.pgGate = testkit.NewGate(t, u.Host)
	u.Host = o.pgGate.Addr().String()
	o.env = append(os.Environ(), "DATABASE_URL="+u.String())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	o.kafkaGate = testkit.NewGate(t, addr)
	o.brokerArgs = addr + "|" + o.kafkaGate.Addr().String() + "|" + filepath.Join(o.dir, "kafka")
	o.startBroker()
	market := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		o.mu.Lock()
		o.requests++
		o.mu.Unlock()
		now := time.Now().UnixMilli()
		_ = json.NewEncoder(w).Encode([]map[string]any{{"m": "A", "t": now}, {"m": "B", "t": now}, {"m": "C", "t": now}})
	}))
	t.Cleanup(market.Close)
	at := strings.TrimPrefix(market.URL, "http://")
	buffer := os.Getenv(bufferEnv)
	if buffer == "" {
		buffer = "64MiB"
	}
	for name, text := range map[string]string{"pipeline.hcl": fmt.Sprintf(outagePipeline, o.kafkaGate.Addr(), buffer), "tick.hcl": fmt.Sprintf(outageDefinition, at, at)} {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	apply := exec.CommandContext(t.Context(), bin, "apply", "--auto-approve", "--state", "")
	apply.Dir, apply.Env = o.dir, o.env
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range instances {
		o.instance("schedule,work,rollup")
	}
	return o
}

func (o *outage) startBroker() {
	o.t.Helper()
	if err := os.MkdirAll(filepath.Join(o.dir, "kafka"), 0o700); err != nil {
		o.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0]) //nolint:gosec // the test itself
	cmd.Env = append(os.Environ(), brokerEnv+"="+o.brokerArgs)
	cmd.Stderr = os.Stderr
	o.broker = testkit.Start(o.t, cmd)
	addr, _, _ := strings.Cut(o.brokerArgs, "|")
	testkit.Eventually(o.t, func() error {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

func (o *outage) instance(stages string) {
	o.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	log, err := os.Create(filepath.Join(o.dir, fmt.Sprint("log", len(o.instances))))
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(o.bin, "run", "--listen", addr, "--log-format", "json", "--state", "", "--only", stages)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = o.dir, o.env, log, log
	o.instances, o.web = append(o.instances, testkit.Start(o.t, cmd)), append(o.web, "http://"+addr)
}

func (o *outage) count(sql string) (n int) {
	o.t.Helper()
	testkit.Eventually(o.t, func() error {
		ctx, cancel := context.WithTimeout(o.t.Context(), 5*time.Second)
		defer cancel()
		return o.pool.QueryRow(ctx, sql).Scan(&n)
	})
	return n
}

const good = "SELECT count(*) FROM cryptoviz.slot WHERE state IN ('ok', 'late')"

// flows waits for some more slots with data.
func (o *outage) flows(n int) {
	o.t.Helper()
	want := o.count(good) + n
	testkit.Eventually(o.t, func() error {
		if got := o.count(good); got < want {
			return fmt.Errorf("%d slots with data, want %d; %s", got, want, o.tail())
		}
		return nil
	})
}

func (o *outage) tail() string {
	text, _ := os.ReadFile(filepath.Join(o.dir, "log0"))
	return string(text[max(0, len(text)-3000):])
}

func (o *outage) away(system, manner string, gone bool) {
	o.t.Helper()
	var err error
	switch {
	case manner == "unreachable" && system == "PostgreSQL":
		o.pgGate.Shut(gone)
	case manner == "unreachable":
		o.kafkaGate.Shut(gone)
	case manner == "SIGSTOP" && system == "PostgreSQL":
		err = o.postgres.Signal(map[bool]syscall.Signal{true: syscall.SIGSTOP, false: syscall.SIGCONT}[gone])
	case manner == "SIGSTOP":
		err = o.broker.Signal(map[bool]syscall.Signal{true: syscall.SIGSTOP, false: syscall.SIGCONT}[gone])
	case system == "PostgreSQL" && gone:
		err = o.postgres.Kill()
	case system == "PostgreSQL":
		err = o.postgres.Restart()
	case gone:
		o.broker.Kill()
	default:
		o.startBroker()
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

// health is what the first instance said, and how long after the servers went or came.
type health struct {
	ready, metric time.Duration
	said, changed string
}

var told = regexp.MustCompile(`(?m)^(cryptoviz_(?:ledger_reachable|kafka_reachable|database_reachable|ready|buffered_slots|worker_blocked)\b\S*) (\S+)$`)

func get(url string) (int, string) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// watch looks until the readiness is so, or the context ends; what the metrics say differently from before is noted.
func (o *outage) watch(ctx context.Context, ready bool) (h health) {
	began := time.Now()
	_, text := get(o.web[0] + "/metrics")
	before := told.FindAllString(text, -1)
	for ctx.Err() == nil && (h.ready == 0 || h.metric == 0 && !ready) {
		if code, body := get(o.web[0] + "/readyz"); h.ready == 0 && (code == http.StatusOK) == ready {
			h.ready, h.said = time.Since(began), body
		}
		_, text := get(o.web[0] + "/metrics")
		var changed []string
		for _, line := range told.FindAllString(text, -1) {
			if !slices.Contains(before, line) {
				changed = append(changed, strings.TrimPrefix(line, "cryptoviz_"))
			}
		}
		if h.metric == 0 && len(changed) > 0 {
			h.metric, h.changed = time.Since(began), strings.Join(changed, ", ")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return h
}

// twice counts the keys of slots that are on the topic more than once.
func (o *outage) twice() (records, twice int) {
	o.t.Helper()
	seen := map[string]bool{}
	committed(o.t, o.kafkaGate.Addr().String(), "tick", func(r *kgo.Record) {
		records++
		id := record.SlotOf(r).String() + string(r.Key)
		if seen[id] {
			twice++
		}
		seen[id] = true
	})
	return records, twice
}

// committed reads a topic to its end, as workers do.
func committed(t *testing.T, broker, topic string, each func(*kgo.Record)) {
	t.Helper()
	ctx := testkit.Context(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(e kadm.ListedOffset) {
		if e.Offset > 0 {
			left[e.Partition] = e.Offset
		}
	})
	for len(left) > 0 {
		if ctx.Err() != nil {
			t.Fatal("the topic is not readable to its end")
		}
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				each(r)
			}
		})
	}
}

// TestOutage takes the servers away, each in three manners, from one instance and from three, and prints what became of the
// slots: CRYPTOVIZ_OUTAGE=10s go test ./engine/killtest -run Outage -parallel 6 -timeout 1h -v
func TestOutage(t *testing.T) {
	text := os.Getenv(outageEnv)
	if text == "" {
		t.Skip("set " + outageEnv + " to how long the servers are away")
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "cryptoviz")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var mu sync.Mutex
	var table []string
	t.Run("all", func(t *testing.T) {
		for _, system := range []string{"PostgreSQL", "Kafka"} {
			for _, manner := range []string{"killed", "SIGSTOP", "unreachable"} {
				for _, instances := range []int{1, 3} {
					t.Run(fmt.Sprintf("%s %s %d", system, manner, instances), func(t *testing.T) {
						t.Parallel()
						line := takeAway(t, bin, system, manner, instances, long)
						mu.Lock()
						defer mu.Unlock()
						table = append(table, line)
					})
				}
			}
		}
	})
	slices.Sort(table)
	t.Logf("\n| system | manner | instances | away | slots due | ended as | rows expected | found | on the topic twice | /readyz: not ready after, why | again after | metrics: after, what |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n%s",
		strings.Join(table, "\n"))
}

func takeAway(t *testing.T, bin, system, manner string, instances int, long time.Duration) string {
	t.Helper()
	o := newOutage(t, bin, instances)
	o.flows(5)
	o.away(system, manner, true)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	gone := o.watch(ctx, false)
	<-ctx.Done()
	cancel()
	o.away(system, manner, false)
	ctx, cancel = context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	back := o.watch(ctx, true)
	o.flows(5)
	testkit.Eventually(t, func() error {
		if n := o.count("SELECT count(*) FROM cryptoviz.slot WHERE state = 'running' AND slot < now() - interval '5 seconds'"); n > 0 {
			return fmt.Errorf("%d slots have not ended; %s", n, o.tail())
		}
		return nil
	})
	for _, i := range o.instances {
		_ = i.Signal(syscall.SIGTERM)
		<-i.Done()
	}
	records, twice := o.twice()
	o.instance("work") // what is on the topic, and not stored yet
	testkit.Eventually(t, func() error {
		if n := o.count("SELECT count(*) FROM px"); n < records {
			return fmt.Errorf("%d of %d records are stored", n, records)
		}
		return nil
	})
	due := o.count("SELECT 1 + extract(epoch FROM max(slot) - min(slot))::int FROM cryptoviz.slot")
	expected := o.count("SELECT coalesce(sum(records), 0)::int FROM cryptoviz.slot WHERE state IN ('ok', 'late')")
	found := o.count("SELECT count(*) FROM px")
	var ended []string
	rows, err := o.pool.Query(t.Context(), "SELECT state || ' ' || count(*) || coalesce(' (' || nullif(left(max(reason), 160), '') || ')', '') FROM cryptoviz.slot GROUP BY state ORDER BY state")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		ended = append(ended, s)
	}
	if expected != found || twice > 0 {
		t.Errorf("%d rows expected, %d found, %d twice; %s", expected, found, twice, o.tail())
	}
	round := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s" }
	return fmt.Sprintf("| %s | %s | %d | %s | %d | %s | %d | %d | %d | %s, %s | %s | %s, %s |", system, manner, instances, long, due, strings.Join(ended, ", "), expected, found, twice,
		round(gone.ready), strings.ReplaceAll(gone.said, "\n", "; "), round(back.ready), round(gone.metric), gone.changed)
}
