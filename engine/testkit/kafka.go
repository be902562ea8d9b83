package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Broker is a real Apache Kafka broker, also a controller, that a test may kill.
type Broker struct {
	dir, jars    string
	node         int
	addr, secure string
	process      *Process
	keeper       *keeper
}

// Kafka starts a broker for one test from the jars in CRYPTOVIZ_TEST_KAFKA_LIB (see kafka/pom.xml). Topics are not made
// by themselves. It ends with the test. Settings are lines of server.properties, such as "delete.topic.enable=false".
func Kafka(t testing.TB, settings ...string) *Broker {
	t.Helper()
	return KafkaCluster(t, 1, settings...)[0]
}

// KafkaSecured starts a broker with a second listener (SecureAddr) that wants SCRAM-SHA-512, and with an authorizer. On
// the first listener a test is a super user: there it makes users, with kadm.AlterUserSCRAMs, and ACLs.
func KafkaSecured(t testing.TB) *Broker {
	t.Helper()
	return startKafka(t, 1, true, nil)[0]
}

// KafkaCluster starts n brokers that are one cluster. Each is a controller too: more than half of them must live. A
// broker that is killed keeps its ports and its data for Restart.
func KafkaCluster(t testing.TB, n int, settings ...string) []*Broker {
	t.Helper()
	return startKafka(t, n, false, settings)
}

func startKafka(t testing.TB, n int, secured bool, settings []string) []*Broker {
	t.Helper()
	jars := os.Getenv("CRYPTOVIZ_TEST_KAFKA_LIB")
	if jars == "" {
		unavailable(t, "no Apache Kafka: set CRYPTOVIZ_TEST_KAFKA_LIB to the folder of its jars")
	}
	if _, err := exec.LookPath("java"); err != nil {
		unavailable(t, "no Apache Kafka: java is not installed")
	}
	ports, err := reservePorts(3 * n) // of all, before the first start: each names the others
	if err != nil {
		t.Fatal(err)
	}
	voters := make([]string, n)
	for i := range voters {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[3*i+1])
	}
	out := make([]*Broker, n)
	for i := range out {
		b := &Broker{jars: jars, node: i + 1, addr: loopback(ports[3*i])}
		if b.dir, err = os.MkdirTemp("", "cryptoviz-test-*"); err != nil { //nolint:usetesting // the keeper removes it
			t.Fatal(err)
		}
		if b.keeper, err = newKeeper("KILL", b.dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if b.process != nil {
				b.Kill()
			}
			b.keeper.close()
		})
		if secured {
			b.secure = loopback(ports[3*i+2])
		}
		if err := b.configure(loopback(ports[3*i+1]), voters, settings); err != nil {
			t.Fatal(err)
		}
		if err := b.launch(); err != nil {
			t.Fatal(err)
		}
		out[i] = b
	}
	for _, b := range out {
		if err := b.ready(n); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// configure writes the settings, and the file that formats the log folder.
func (b *Broker) configure(controller string, voters, more []string) error {
	logs := filepath.Join(b.dir, "logs")
	listeners, protocols := "PLAINTEXT://"+b.addr+",CONTROLLER://"+controller,
		"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
	var security []string
	if b.secure != "" {
		listeners, protocols = listeners+",SECURE://"+b.secure, protocols+",SECURE:SASL_PLAINTEXT"
		security = []string{
			"sasl.enabled.mechanisms=SCRAM-SHA-512",
			"listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users=User:ANONYMOUS",
		}
	}
	copies := min(3, len(voters))
	settings := []string{
		fmt.Sprintf("node.id=%d", b.node), "process.roles=broker,controller", "controller.quorum.voters=" +
			strings.Join(voters, ","),
		"listeners=" + listeners, "controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT",
		"listener.security.protocol.map=" + protocols, "log.dirs=" + logs, "auto.create.topics.enable=false",
		fmt.Sprintf("offsets.topic.replication.factor=%d", copies), "offsets.topic.num.partitions=1",
		"group.initial.rebalance.delay.ms=0",
		fmt.Sprintf("transaction.state.log.replication.factor=%d", copies), "transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
		"broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=250", // a killed broker may come back soon
		"log.cleaner.dedupe.buffer.size=2097152", "group.min.session.timeout.ms=1000",
	}
	settings = slices.Concat(settings, security, more)
	meta := fmt.Sprintf(
		"version=1\ncluster.id=cryptovizTestCluster00\nnode.id=%d\ndirectory.id=cryptovizTest%03dFolder\n", b.node,
		b.node)
	return errors.Join(os.MkdirAll(logs, 0o700),
		os.WriteFile(filepath.Join(b.dir, "server.properties"), []byte(strings.Join(settings, "\n")+"\n"), 0o600),
		os.WriteFile(filepath.Join(logs, "meta.properties"), []byte(meta), 0o600))
}

// Addr is host:port of the broker; it stays over a restart.
func (b *Broker) Addr() string { return b.addr }

// SecureAddr is host:port of the listener with SCRAM, of KafkaSecured alone.
func (b *Broker) SecureAddr() string { return b.secure }

// Node is the broker's number in its cluster, from 1.
func (b *Broker) Node() int { return b.node }

// Kill ends the broker as a crash does.
func (b *Broker) Kill() { b.process.Kill() }

// Restart starts the broker on the same data and waits until it is a member of its cluster again.
func (b *Broker) Restart() error {
	if err := b.launch(); err != nil {
		return err
	}
	return b.ready(1)
}

func (b *Broker) launch() error {
	log, err := os.OpenFile(filepath.Join(b.dir, "broker.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-XX:-UsePerfData", "-Djava.io.tmpdir="+b.dir,
		"-cp", filepath.Join(b.jars, "*"), "kafka.Kafka", filepath.Join(b.dir, "server.properties"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, log, log
	b.process, err = start(cmd, b.keeper)
	return err
}

// ready waits until the broker itself answers, and knows itself and as many members as there should be.
func (b *Broker) ready(members int) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	seed := client.SeedBrokers()[0]
	for {
		var resp *kmsg.MetadataResponse
		r, err := seed.Request(ctx, kmsg.NewPtrMetadataRequest())
		if err == nil {
			resp = r.(*kmsg.MetadataResponse)
		}
		if resp != nil && len(resp.Brokers) >= members && slices.ContainsFunc(resp.Brokers,
			func(m kmsg.MetadataResponseBroker) bool {
				return int(m.NodeID) == b.node
			}) {
			return nil
		}
		select {
		case <-b.process.Done():
			return fmt.Errorf("start Kafka: it stopped: %s", b.logged())
		case <-ctx.Done():
			return fmt.Errorf("start Kafka: it does not answer: %w: %s", errors.Join(err, ctx.Err()), b.logged())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logged is the end of what the broker wrote.
func (b *Broker) logged() []byte {
	text, _ := os.ReadFile(filepath.Join(b.dir, "broker.log"))
	return bytes.TrimSpace(text[max(0, len(text)-2000):])
}
