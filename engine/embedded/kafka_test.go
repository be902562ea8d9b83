package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func kafka(t *testing.T, s *State, log *slog.Logger) *Kafka {
	t.Helper()
	k, err := StartKafka(t.Context(), s, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Stop)
	return k
}

// client opens a client of the broker that a state knows.
func client(t *testing.T, d StateData, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	password := scram.Auth{User: kafkaUser, Pass: d.KafkaPassword}.AsSha256Mechanism()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers("127.0.0.1:"+strconv.Itoa(d.KafkaPort)), kgo.SASL(password))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	t.Cleanup(cancel)
	return ctx
}

func produce(t *testing.T, c *kgo.Client, text string) error {
	t.Helper()
	return c.ProduceSync(limited(t), &kgo.Record{Topic: "a", Value: []byte(text)}).FirstErr()
}

// check reads the topic from its start, and the group's position.
func check(t *testing.T, d StateData, position int64, want ...string) {
	t.Helper()
	c := client(t, d, kgo.ConsumeTopics("a"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	var got []string
	for ctx := limited(t); len(got) < len(want); {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	admin := kadm.NewClient(c)
	ends, err := admin.ListEndOffsets(limited(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("a", 0); fmt.Sprint(got) != fmt.Sprint(want) || end.Offset != int64(len(want)) {
		t.Errorf("the topic holds %q and ends at %d; want %q", got, end.Offset, want)
	}
	groups, err := admin.FetchOffsets(limited(t), "g")
	if err != nil {
		t.Fatal(err)
	}
	if at, _ := groups.Lookup("a", 0); at.At != position {
		t.Errorf("the group is at %d, want %d", at.At, position)
	}
}

func prepare(t *testing.T, d StateData, text string, position int64) {
	t.Helper()
	c := client(t, d)
	defer c.Close()
	admin := kadm.NewClient(c)
	if position == 1 {
		if _, err := admin.CreateTopic(limited(t), 1, 1, nil, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := produce(t, c, text); err != nil {
		t.Fatal(err)
	}
	at := kadm.Offsets{}
	at.AddOffset("a", 0, position, -1)
	if err := admin.CommitAllOffsets(limited(t), "g", at); err != nil {
		t.Fatal(err)
	}
}

func TestKafkaKeepsRecordsAndPositions(t *testing.T) {
	dir := stateDir(t)
	c := startChild(t, "kafka", dir, nil).ready(t)
	r, err := FindRunning(dir)
	if err != nil || r == nil {
		t.Fatal(r, err)
	}
	prepare(t, r.Data, "one", 1)
	c.stop(t)

	c = startChild(t, "kafka", dir, nil).ready(t)
	check(t, r.Data, 1, "one") // on the same port
	prepare(t, r.Data, "two", 2)
	c.kill()

	s := open(t, dir)
	kafka(t, s, nil)
	if s.Data.KafkaPort != r.Data.KafkaPort {
		t.Errorf("port %d became %d", r.Data.KafkaPort, s.Data.KafkaPort)
	}
	check(t, s.Data, 2, "one", "two")
}

func TestKafkaPortIsTaken(t *testing.T) {
	s := open(t, stateDir(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s.Data.KafkaPort = l.Addr().(*net.TCPAddr).Port
	k := kafka(t, s, nil)
	if want := "127.0.0.1:" + strconv.Itoa(s.Data.KafkaPort); len(k.Brokers()) != 1 || k.Brokers()[0] != want || s.Data.KafkaPort == l.Addr().(*net.TCPAddr).Port {
		t.Errorf("it listens on %v, the state says %s", k.Brokers(), want)
	}
	if err := client(t, s.Data).Ping(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestKafkaWithDamagedData(t *testing.T) {
	s := open(t, stateDir(t))
	dir := filepath.Join(s.Dir, "kafka")
	files(t, filepath.Join(dir, "meta.json"))
	if _, err := StartKafka(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "start the embedded Kafka in "+dir) || !strings.Contains(err.Error(), "move them away") {
		t.Errorf("got %v", err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	kafka(t, s, nil)
}

// TestKafkaOnAFullDisk shows what stands when the guard of the producers comes too late: what was refused is told, nothing
// that was acknowledged is lost, and it goes on when there is space.
func TestKafkaOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 2)
	s := open(t, dir)
	var complaints logged
	kafka(t, s, slog.New(slog.NewTextHandler(&complaints, nil)))
	prepare(t, s.Data, "one", 1)
	remove := fill(t, dir)
	c := client(t, s.Data, kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := produce(t, c, strings.Repeat("x", 10_000)); err == nil {
		t.Error("a record was acknowledged that cannot have been stored")
	}
	if text := complaints.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "no space left on device") {
		t.Errorf("the log says %q", text)
	}
	remove()
	if err := produce(t, c, "two"); err != nil {
		t.Fatal(err)
	}
	check(t, s.Data, 1, "one", "two")
}

// TestKafkaAsksForAPassword: another account of this machine can connect, and can do nothing.
func TestKafkaAsksForAPassword(t *testing.T) {
	dir := stateDir(t)
	old := kafkaOfAnOlderVersion(t, filepath.Join(dir, "kafka"))
	if err := os.WriteFile(filepath.Join(dir, "state.json"), fmt.Appendf(nil, `{"mode": "live", "created": "2026-03-04T05:06:07Z", "kafka_port": %d}`, old), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start knows the password
		s := open(t, dir)
		k := kafka(t, s, nil)
		broker := kgo.SeedBrokers(k.Brokers()...)
		for name, opt := range map[string]kgo.Opt{
			"no password":    kgo.WithHooks(),
			"a guess":        kgo.SASL(scram.Auth{User: kafkaUser, Pass: "guess"}.AsSha256Mechanism()),
			"kfake's own":    kgo.SASL(scram.Auth{User: "admin", Pass: "admin"}.AsSha256Mechanism()),
			"in clear words": kgo.SASL(plain.Auth{User: kafkaUser, Pass: s.Data.KafkaPassword}.AsMechanism()),
		} {
			c, err := kgo.NewClient(broker, opt, kgo.RequestRetries(0))
			if err != nil {
				t.Fatal(err)
			}
			for _, request := range []kmsg.Request{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrDeleteTopicsRequest(), kmsg.NewPtrCreateTopicsRequest(), kmsg.NewPtrProduceRequest()} {
				if _, err := c.SeedBrokers()[0].Request(limited(t), request); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %T: %v", name, request, err)
				}
			}
			c.Close()
		}
		topics, err := kadm.NewClient(client(t, s.Data)).ListTopics(limited(t))
		if err != nil || !topics.Has("old") {
			t.Errorf("with the password: %v, %v", topics.Names(), err)
		}
		k.Stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// kafkaOfAnOlderVersion fills a folder as a broker without passwords does, and returns the port of it.
func kafkaOfAnOlderVersion(t *testing.T, dir string) int {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SeedTopics(1, "old"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := net.SplitHostPort(c.ListenAddrs()[0])
	port, _ := strconv.Atoi(text)
	c.Close()
	return port
}
