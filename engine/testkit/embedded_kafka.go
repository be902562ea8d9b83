package testkit

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// EmbeddedKafka starts the Kafka that `up` embeds, with one broker: tests may see and change each request. It ends with
// the test.
func EmbeddedKafka(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}
