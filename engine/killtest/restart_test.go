package killtest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// TestRestartAfterAKill: an engine that was killed, and that nobody gave a name, stores again at once. A session is ten
// minutes long here: were its successor another member of the group, it would wait longer for the partitions than the test does.
func TestRestartAfterAKill(t *testing.T) {
	for name, broker := range map[string]func(*testing.T) string{
		"embedded": func(t *testing.T) string {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.max.session.timeout.ms": "1800000"}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			return cluster.ListenAddrs()[0]
		},
		"apache": func(t *testing.T) string { return testkit.Kafka(t).Addr() },
	} {
		t.Run(name, func(t *testing.T) {
			f := prepareAt(t, broker(t), testkit.StartPostgres(t, map[string]string{"fsync": "off"}), "restart", "")
			f.settings.Session = 10 * time.Minute
			f.engine = f.start("")
			f.flows("start")
			for range 3 {
				killed := time.Now()
				f.killEngine("")
				f.flows("kill")
				t.Logf("stored again %v after the kill", time.Since(killed).Round(time.Millisecond))
			}
			if n := f.query("SELECT count(*) - count(DISTINCT time) FROM raw_crypto_data"); n != 0 {
				t.Errorf("%d rows doubled", n)
			}
		})
	}
}
