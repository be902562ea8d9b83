package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// sent counts what really goes over the wire, connections' own requests left out.
type sent struct{ n atomic.Int64 }

func (s *sent) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, _ kgo.BrokerE2E) {
	if key != int16(kmsg.ApiVersions) {
		s.n.Add(1)
	}
}

// BenchmarkPlan reads, compares and assesses many topics: that agree, that are missing, and whose retention all goes down.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			hook := &sent{}
			addr := testkit.Kafka(b, "log.index.size.max.bytes=4096").Addr()
			w := newHarness(b, newClient(b, kgo.SeedBrokers(addr), kgo.WithHooks(hook)))
			var specs []*spec.Topic
			for i := range n {
				specs = append(specs, topicOf(fmt.Sprintf("topic_%04d", i), 1, 1, retentionMs, "604800000", cleanupPolicy, "delete"))
			}
			measure := func(name string, want plan.Action, specs []*spec.Topic) {
				b.Run(name, func(b *testing.B) {
					w.cluster = NewCluster(w.client)
					var resources []*Topic
					for _, s := range specs {
						resources = append(resources, w.cluster.Topic(s))
					}
					var requests, wire int64
					for b.Loop() {
						w.cluster.Reset()
						before, beforeWire := w.cluster.requests.Load(), hook.n.Load()
						for _, r := range resources {
							if c, err := plan.Assess(b.Context(), r, nil, true); err != nil || c.Action != want {
								b.Fatalf("%v: %s", err, text(c))
							}
						}
						requests, wire = w.cluster.requests.Load()-before, hook.n.Load()-beforeWire
					}
					b.ReportMetric(float64(requests), "requests")
					b.ReportMetric(float64(wire), "on-the-wire")
				})
			}
			measure("missing", plan.Create, specs)
			for batch := range slices.Chunk(specs, changeBatch) {
				req := kmsg.NewPtrCreateTopicsRequest()
				for _, s := range batch {
					req.Topics = append(req.Topics, creation(s.Name, s.Partitions, s.Replication, s.Config))
				}
				if _, err := ask[*kmsg.CreateTopicsResponse](b.Context(), w.cluster, req); err != nil {
					b.Fatal(err)
				}
			}
			err := until(b.Context(), 5*time.Minute, func(ctx context.Context) (bool, error) { // a broker makes the files of a topic one by one
				names, err := w.cluster.Unmanaged(ctx)
				w.cluster.Reset()
				return len(names) == n, err
			})
			if err != nil {
				b.Fatal(err)
			}
			measure("agree", plan.None, specs)
			var shorter []*spec.Topic
			for _, s := range specs {
				shorter = append(shorter, with(s, func(s *spec.Topic) { s.Config[retentionMs] = "3600000" }))
			}
			measure("shorter", plan.Update, shorter)
		})
	}
}
