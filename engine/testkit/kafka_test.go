package testkit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func kafkaClient(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// A record that two of three brokers have survives the end of one, and of another after the first is back.
func TestKafkaClusterLosesOneBrokerAtATime(t *testing.T) {
	brokers := testkit.KafkaCluster(t, 3)
	var seeds []string
	for _, b := range brokers {
		seeds = append(seeds, b.Addr())
	}
	client := kafkaClient(t, kgo.SeedBrokers(seeds...))
	admin := kadm.NewClient(client)
	two := "2"
	if _, err := admin.CreateTopic(t.Context(), 3, 3, map[string]*string{"min.insync.replicas": &two}, "a"); err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	for i, b := range []*testkit.Broker{nil, brokers[0], brokers[1]} {
		if b != nil {
			b.Kill()
		}
		for p := range int32(3) {
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: "a", Partition: p, Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatalf("without broker %d: %v", i, err)
			}
		}
		if b == nil {
			continue
		}
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
		for whole := false; !whole && ctx.Err() == nil; {
			now, err := admin.Metadata(kadm.WithAuthorizedOps(ctx), "a")
			if err != nil {
				t.Fatal(err)
			}
			whole = len(now.Brokers) == 3
			for _, p := range now.Topics["a"].Partitions {
				whole = whole && len(p.ISR) == 3
			}
		}
	}
	ends, err := admin.ListEndOffsets(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	if n != 9 {
		t.Errorf("%d records, want 9", n)
	}
}

func TestKafkaSecuredAsksWhoAndWhatFor(t *testing.T) {
	b := testkit.KafkaSecured(t)
	root := kadm.NewClient(kafkaClient(t, kgo.SeedBrokers(b.Addr())))
	if _, err := root.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "ann", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "secret"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := root.CreateTopic(t.Context(), 1, 1, nil, "a"); err != nil {
		t.Fatal(err)
	}
	user := func(password string) *kadm.Client {
		auth := scram.Auth{User: "ann", Pass: password}.AsSha512Mechanism()
		return kadm.NewClient(kafkaClient(t, kgo.SeedBrokers(b.SecureAddr()), kgo.SASL(auth), kgo.RetryTimeout(5*time.Second)))
	}
	if _, err := user("wrong").BrokerMetadata(t.Context()); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("a wrong password: %v", err)
	}
	made, err := user("secret").CreateTopics(t.Context(), 1, 1, nil, "b")
	if err != nil || !errors.Is(made["b"].Err, kerr.TopicAuthorizationFailed) {
		t.Errorf("without an ACL: %v %v", made["b"].Err, err)
	}
}

func TestKafkaTakesSettings(t *testing.T) {
	admin := kadm.NewClient(kafkaClient(t, kgo.SeedBrokers(testkit.Kafka(t, "delete.topic.enable=false").Addr())))
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteTopic(t.Context(), "a"); !errors.Is(err, kerr.TopicDeletionDisabled) {
		t.Errorf("deletion: %v", err)
	}
}
