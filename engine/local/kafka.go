package local

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Kafka is the embedded broker: kfake with a data directory. It is for one machine, and no production broker.
type Kafka struct {
	cluster *kfake.Cluster
}

// StartKafka starts the broker on loopback with the data under the state directory, on the port of last time if it is free.
func StartKafka(ctx context.Context, s *State, log *slog.Logger) (*Kafka, error) {
	dir := filepath.Join(s.Dir, "kafka")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the embedded Kafka: %w", err)
	}
	port := s.Data.KafkaPort
	if !portFree(ctx, port) {
		port = 0
	}
	if port == 0 {
		var err error
		if port, err = freePort(ctx); err != nil {
			return nil, fmt.Errorf("start the embedded Kafka: %w", err)
		}
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.SyncWrites(), kfake.WithLogger(kfake.BasicLogger(discard{log}, kfake.LogLevelError)))
	if err != nil {
		return nil, fmt.Errorf("start the embedded Kafka in %s: %w", dir, err)
	}
	s.Data.KafkaPort = port
	if err := s.Save(); err != nil {
		cluster.Close()
		return nil, err
	}
	return &Kafka{cluster}, nil
}

// discard turns the broker's log into ours, at debug level.
type discard struct{ log *slog.Logger }

func (d discard) Write(p []byte) (int, error) {
	if d.log != nil {
		d.log.Debug("embedded kafka", "text", string(p))
	}
	return len(p), nil
}

// Brokers returns the addresses.
func (k *Kafka) Brokers() []string { return k.cluster.ListenAddrs() }

// Stop writes everything down and ends the broker.
func (k *Kafka) Stop() { k.cluster.Close() }

func portFree(ctx context.Context, port int) bool {
	if port == 0 {
		return false
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
