package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// harness is a cluster and the ledger of what was applied to it.
type harness struct {
	t       testing.TB
	cluster *Cluster
	client  *kgo.Client
	admin   *kadm.Client
	ledger  map[string]*plan.State
}

func newClient(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.RetryTimeout(15*time.Second))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func newHarness(t testing.TB, client *kgo.Client) *harness {
	return &harness{t: t, cluster: NewCluster(client), client: client, admin: kadm.NewClient(client), ledger: map[string]*plan.State{}}
}

// oneBroker is a harness on a broker of its own.
func oneBroker(t testing.TB, settings ...string) *harness {
	t.Helper()
	return newHarness(t, newClient(t, kgo.SeedBrokers(testkit.Kafka(t, settings...).Addr())))
}

func topicOf(name string, partitions int32, replication int16, config ...string) *spec.Topic {
	t := &spec.Topic{Name: name, Partitions: partitions, Replication: replication, Config: map[string]string{}, Range: hcl.Range{Filename: "pipeline.hcl", Start: hcl.Pos{Line: 41}}}
	for i := 0; i < len(config); i += 2 {
		t.Config[config[i]] = config[i+1]
	}
	return t
}

func removedTopic(name string) *spec.Removed { return &spec.Removed{Kind: "topic", Name: name} }

// Reset forgets everything that was read: the next use reads again.
func (c *Cluster) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.seconds = &reading{}, 0
	c.requests.Store(0)
}

// try plans one resource as provision does: observe, compare, assess.
func (w *harness) try(ctx context.Context, r *Topic) (plan.Change, error) {
	w.cluster.Reset()
	last, managed := w.ledger[r.Address()]
	return plan.Assess(ctx, r, last, managed)
}

func (w *harness) plan(r *Topic) plan.Change {
	w.t.Helper()
	c, err := w.try(w.t.Context(), r)
	if err != nil {
		w.t.Fatalf("plan %s: %v", r.Address(), err)
	}
	return c
}

// apply carries out a change and marks it, as provision does.
func (w *harness) apply(r *Topic, c plan.Change) {
	w.t.Helper()
	if err := c.Make(w.t.Context()); err != nil {
		w.t.Fatalf("apply: %v", err)
	}
	if c.Action == plan.Delete {
		delete(w.ledger, r.Address())
		return
	}
	w.ledger[r.Address()] = c.Want
}

// converge applies a topic, and wants the next plan to be empty.
func (w *harness) converge(s *spec.Topic) plan.Change {
	w.t.Helper()
	r := w.cluster.Topic(s)
	c := w.plan(r)
	w.apply(r, c)
	w.empty(r)
	return c
}

func (w *harness) empty(r *Topic) {
	w.t.Helper()
	if again := w.plan(r); again.Action != plan.None || len(again.Diffs)+len(again.Findings)+len(again.Steps) > 0 {
		w.t.Errorf("the plan after apply is not empty: %s", text(again))
	}
}

// text is a change in few words.
func text(c plan.Change) string {
	var out []string
	for _, d := range c.Diffs {
		out = append(out, fmt.Sprintf("%s: %s -> %s (%s)", d.Name, d.Old, d.New, d.Cause))
	}
	for _, f := range c.Findings {
		line := fmt.Sprintf("%s@%s %s", f.Code, f.Attr, f.Text)
		if f.Loss != nil {
			line += fmt.Sprintf(" {%d records, %d bytes, %s..%s %s}", f.Loss.Count, f.Loss.Bytes, f.Loss.From, f.Loss.To, f.Loss.When)
		}
		out = append(out, line)
	}
	out = append(out, c.Steps...)
	out = append(out, c.Notes...)
	return string(c.Action) + "\n  " + strings.Join(out, "\n  ")
}

// codes lists the findings as CODE@attribute.
func codes(c plan.Change) string {
	var out []string
	for _, f := range c.Findings {
		out = append(out, f.Code+"@"+f.Attr)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// outside changes a topic as another program does, and waits until the broker shows it.
func (w *harness) outside(topic string, set map[string]string, unset ...string) {
	w.t.Helper()
	if err := w.cluster.sendConfig(w.t.Context(), step{Topic: topic, Set: set, Delete: unset}); err != nil {
		w.t.Fatal(err)
	}
	w.eventually(func() bool {
		live := w.live(topic)
		for key, value := range set {
			if s := live.config[key]; !s.own() || s.value != canonical(key, value) {
				return false
			}
		}
		return !slices.ContainsFunc(unset, func(key string) bool { return live.config[key].own() })
	})
}

func (w *harness) live(name string) *topic {
	w.t.Helper()
	w.cluster.Reset()
	live, err := w.cluster.topic(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return live
}

func (w *harness) eventually(f func() bool) {
	w.t.Helper()
	if err := until(w.t.Context(), testkit.Patience, func(context.Context) (bool, error) { return f(), nil }); err != nil {
		w.t.Fatal(err)
	}
}

// produce writes n records of 100 bytes, one a second from a time on, spread evenly over the partitions.
func (w *harness) produce(topic string, n int, from time.Time) {
	w.t.Helper()
	partitions := len(w.live(topic).partitions)
	producer := newClient(w.t, kgo.SeedBrokers(w.client.OptValue(kgo.SeedBrokers).([]string)...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: fmt.Append(nil, i%7), Value: make([]byte, 100), Timestamp: from.Add(time.Duration(i) * time.Second)})
	}
	if err := producer.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// with is a spec with other settings.
func with(s *spec.Topic, change func(*spec.Topic)) *spec.Topic {
	out := *s
	out.Config = maps.Clone(s.Config)
	change(&out)
	return &out
}
