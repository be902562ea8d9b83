package produce_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

const childEnv = "CRYPTOVIZ_PRODUCE_BROKER"

// TestMain is a broker with its data in a folder when the test starts itself as one: it can be killed.
func TestMain(m *testing.M) {
	if dir, port, is := strings.Cut(os.Getenv(childEnv), "|"); is {
		var n int
		_, _ = fmt.Sscan(port, &n)
		_, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(n), kfake.DataDir(dir), kfake.SyncWrites(), kfake.SeedTopics(2, "s"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {}
	}
	goleak.VerifyTestMain(m)
}

func source(topic string) *spec.Source {
	return &spec.Source{Name: "s", Topic: &spec.Topic{Name: topic}, Definition: &spec.Definition{Hash: "0123456789abcdef"}}
}

func broker(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	return testkit.EmbeddedKafka(t, append(opts, kfake.SeedTopics(2, "s"))...)
}

// producer is one instance; what it still has at the end of the test is given up.
func producer(t *testing.T, addrs []string, opt produce.Options, more ...kgo.Opt) *produce.Producer {
	t.Helper()
	p := produce.New(append(more, kgo.SeedBrokers(addrs...)), opt)
	t.Cleanup(func() { shut(p) })
	return p
}

func shut(p *produce.Producer) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Close(ctx)
}

func admin(t *testing.T, addrs []string) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// committed reads the topic to its end, as workers do.
func committed(t *testing.T, addrs []string) (out []*kgo.Record) {
	t.Helper()
	ends, err := admin(t, addrs).ListEndOffsets(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumeTopics("s"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := testkit.Context(t)
	for len(left) > 0 {
		if ctx.Err() != nil {
			t.Fatalf("not readable to its end: %v of %v", left, ends)
		}
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// texts are slot and key of records, sorted.
func texts(records []*kgo.Record) (out []string) {
	for _, r := range records {
		out = append(out, record.SlotOf(r).Format(time.TimeOnly)+" "+string(r.Key))
	}
	slices.Sort(out)
	return out
}

func at(second int) time.Time {
	return time.Now().UTC().Truncate(time.Hour).Add(time.Duration(second) * time.Second)
}

func markets(n int) (out []record.Record) {
	for i := range n {
		out = append(out, record.Record{Key: fmt.Sprint("m", i), Value: []byte("{}")})
	}
	return out
}

func queue(t *testing.T, p *produce.Producer, slot time.Time, records ...record.Record) *produce.Delivery {
	t.Helper()
	d, err := p.Queue(source("s"), slot, records)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func result(t *testing.T, d *produce.Delivery) produce.Result {
	t.Helper()
	testkit.Receive(t, d.Done(), "delivery")
	return d.Result()
}

func wantResult(t *testing.T, d *produce.Delivery, want produce.Result) {
	t.Helper()
	if got := result(t, d); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// flaky is a way to the brokers that breaks now and then: before a request, or before its answer.
type flaky struct {
	mu   sync.Mutex
	rand *rand.Rand
	on   bool
}

func (f *flaky) breaks() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.on && f.rand.IntN(25) == 0
}

func (f *flaky) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
}

func (f *flaky) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return &flakyConn{conn, f}, nil
}

type flakyConn struct {
	net.Conn
	f *flaky
}

var errBroke = errors.New("the connection broke")

func (c *flakyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.f.breaks() {
		_ = c.Close()
		return 0, errBroke
	}
	return n, err
}

func (c *flakyConn) Write(p []byte) (int, error) {
	if c.f.breaks() {
		_ = c.Close()
		return 0, errBroke
	}
	return c.Conn.Write(p)
}

// mortal is a broker in a process of its own, on a port and a folder that stay.
type mortal struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
}

func newMortal(t *testing.T) *mortal {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	_ = l.Close()
	m.start()
	t.Cleanup(m.kill)
	return m
}

func (m *mortal) start() {
	m.t.Helper()
	_, port, _ := net.SplitHostPort(m.addr)
	m.cmd = exec.Command(os.Args[0]) //nolint:gosec // the test itself
	m.cmd.Env = append(os.Environ(), childEnv+"="+m.dir+"|"+port)
	m.cmd.Stderr = os.Stderr
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	testkit.Eventually(m.t, func() error {
		conn, err := net.Dial("tcp", m.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

func (m *mortal) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

func randomText(n int) string {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rand.N(256)) //nolint:gosec // a test
	}
	return string(out)
}
