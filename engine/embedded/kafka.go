package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// The embedded broker has one user, who may do everything. SCRAM never sends the password, not even to a program that
// took the broker's port.
const (
	kafkaMechanism = "SCRAM-SHA-256"
	kafkaUser      = "cryptoviz"
)

// Kafka is the embedded broker: kfake with a data directory. It is for one machine, and no production broker.
type Kafka struct {
	cluster *kfake.Cluster
}

// StartKafka starts the broker on loopback with the data under the state directory, on the port of last time if it is
// free.
func StartKafka(_ context.Context, s *State, log *slog.Logger) (*Kafka, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Join(s.Dir, "kafka")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the embedded Kafka: %w", err)
	}
	if s.Data.KafkaPassword == "" { // a new one, or one of an older version: forget whom it knew
		if err := os.Remove(filepath.Join(dir, "sasl.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("start the embedded Kafka: %w", err)
		}
		if err := s.Update(func(d *StateData) { d.KafkaPassword = rand.Text() }); err != nil {
			return nil, err
		}
	}
	start := func(port int) (*kfake.Cluster, error) {
		return kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.SyncWrites(),
			kfake.EnableSASL(), kfake.Superuser(kafkaMechanism, kafkaUser, s.Data.KafkaPassword),
			kfake.WithLogger(brokerLog{log}))
	}
	cluster, err := start(s.Data.KafkaPort)
	if errors.Is(err, syscall.EADDRINUSE) {
		cluster, err = start(0)
	}
	if err != nil {
		return nil, fmt.Errorf("start the embedded Kafka in %s: %w. If its files are damaged, move them away: only "+
			"records that are not stored yet are lost", dir, err)
	}
	k := &Kafka{cluster}
	_, text, _ := net.SplitHostPort(k.Brokers()[0])
	port, _ := strconv.Atoi(text)
	if err := s.Update(func(d *StateData) { d.KafkaPort = port }); err != nil {
		cluster.Close()
		return nil, err
	}
	return k, nil
}

// brokerLog hands on what the broker complains about: it answers a client with no more than an error code.
type brokerLog struct{ log *slog.Logger }

func (b brokerLog) Logf(level kfake.LogLevel, text string, args ...any) {
	// of 5 ms
	if (level == kfake.LogLevelError || level == kfake.LogLevelWarn) && !strings.HasPrefix(text, "txn: EndTxn slow") {
		b.log.Warn("embedded kafka", "text", fmt.Sprintf(text, args...))
	}
}

// Brokers returns the addresses.
func (k *Kafka) Brokers() []string { return k.cluster.ListenAddrs() }

// Stop writes everything down and ends the broker.
func (k *Kafka) Stop() { k.cluster.Close() }
