package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Broker is a real Apache Kafka broker, its own controller, that a test may kill.
type Broker struct {
	dir, jars string
	addr      string
	process   *Process
	keeper    *keeper
}

// Kafka starts a broker for one test from the jars in CRYPTOVIZ_TEST_KAFKA_LIB (see kafka/pom.xml). Topics are not made by
// themselves. It ends with the test.
func Kafka(t testing.TB) *Broker {
	t.Helper()
	jars := os.Getenv("CRYPTOVIZ_TEST_KAFKA_LIB")
	if jars == "" {
		unavailable(t, "no Apache Kafka: set CRYPTOVIZ_TEST_KAFKA_LIB to the folder of its jars")
	}
	if _, err := exec.LookPath("java"); err != nil {
		unavailable(t, "no Apache Kafka: java is not installed")
	}
	dir, err := os.MkdirTemp("", "cryptoviz-test-*") //nolint:usetesting // the keeper removes it
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{dir: dir, jars: jars}
	if b.keeper, err = newKeeper("KILL", b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.process != nil {
			b.Kill()
		}
		b.keeper.close()
	})
	if err := b.configure(); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	return b
}

// configure writes the settings, and the file that formats the log folder.
func (b *Broker) configure() error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	b.addr = "127.0.0.1:" + strconv.Itoa(ports[0])
	logs := filepath.Join(b.dir, "logs")
	settings := []string{
		"node.id=1", "process.roles=broker,controller", fmt.Sprintf("controller.quorum.voters=1@127.0.0.1:%d", ports[1]),
		fmt.Sprintf("listeners=PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d", b.addr, ports[1]),
		"controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "log.dirs=" + logs, "auto.create.topics.enable=false",
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=1", "group.initial.rebalance.delay.ms=0",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
		"broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=250", // a killed broker may come back soon
		"log.cleaner.dedupe.buffer.size=2097152", "group.min.session.timeout.ms=1000",
	}
	meta := "version=1\ncluster.id=cryptovizTestCluster00\nnode.id=1\ndirectory.id=cryptovizTestFolder001\n"
	return errors.Join(os.MkdirAll(logs, 0o700),
		os.WriteFile(filepath.Join(b.dir, "server.properties"), []byte(strings.Join(settings, "\n")+"\n"), 0o600),
		os.WriteFile(filepath.Join(logs, "meta.properties"), []byte(meta), 0o600))
}

// Addr is host:port of the broker; it stays over a restart.
func (b *Broker) Addr() string { return b.addr }

// Kill ends the broker as a crash does.
func (b *Broker) Kill() { b.process.Kill() }

// Restart starts the broker on the same data and waits until it answers.
func (b *Broker) Restart() error {
	log, err := os.OpenFile(filepath.Join(b.dir, "broker.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.io.tmpdir="+b.dir,
		"-cp", filepath.Join(b.jars, "*"), "kafka.Kafka", filepath.Join(b.dir, "server.properties"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, log, log
	if b.process, err = start(cmd, b.keeper); err != nil {
		return err
	}
	return b.ready()
}

func (b *Broker) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
		if err == nil && len(resp.Brokers) == 1 {
			return nil
		}
		select {
		case <-b.process.Done():
			text, _ := os.ReadFile(filepath.Join(b.dir, "broker.log"))
			return fmt.Errorf("start Kafka: it stopped: %s", bytes.TrimSpace(text[max(0, len(text)-2000):]))
		case <-ctx.Done():
			return fmt.Errorf("start Kafka: it does not answer: %w", errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freePorts holds all of them open before it closes any, so that they differ.
func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}
