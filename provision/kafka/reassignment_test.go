package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func leaders(t *topic) (out []int32) {
	for _, p := range t.partitions {
		out = append(out, p.leader)
	}
	return out
}

// Replicas are added and taken away, evenly and without moving a leader; one at a time the brokers fail.
func TestReplicationOnThreeBrokers(t *testing.T) {
	t.Parallel()
	brokers := testkit.KafkaCluster(t, 3)
	var seeds []string
	for _, b := range brokers {
		seeds = append(seeds, b.Addr())
	}
	w := newHarness(t, newClient(t, kgo.SeedBrokers(seeds...)))
	base := topicOf("binance", 6, 1, retentionMs, "604800000")
	other := topicOf("kraken", 6, 1, retentionMs, "604800000")
	w.converge(base)
	w.converge(other)
	w.produce("binance", 600, time.Now().Add(-time.Hour))
	before := leaders(w.live("binance"))

	// After apply each broker shows it: any may answer the next plan, or a producer.
	wide := w.cluster.Topic(topicOf("wide", 300, 3))
	c := w.plan(wide)
	w.apply(wide, c)
	for _, b := range brokers {
		if lacks := wide.unpropagated(t.Context(), b.Node(), c); lacks != "" {
			t.Error(lacks)
		}
	}
	wide = w.cluster.Removed(removedTopic("wide"))
	w.apply(wide, w.plan(wide))

	// Up, for two topics in one plan: each broker gets about as many copies.
	two := with(base, func(s *spec.Topic) { s.Replication, s.Config[minInsync] = 2, "2" })
	first, second := w.cluster.Topic(two), w.cluster.Topic(with(other, func(s *spec.Topic) { s.Replication = 2 }))
	c = w.plan(first)
	c2 := w.plan(second)
	if codes(c) != "CV-K04@replication" || !strings.Contains(c.Findings[0].Text, "6 replicas to copy, ") || len(c.Steps) != 2 || !strings.HasPrefix(c.Steps[0], alterReplicas) || !strings.HasPrefix(c.Steps[1], alterConfigs) {
		t.Errorf("%s", text(c))
	}
	copies := map[int32]int{}
	for name, moves := range w.cluster.read.reassignments {
		for id, to := range moves {
			p := w.cluster.read.snapshot.topics[name].partitions[id]
			if to[0] != p.replicas[0] || len(to) != 2 || to[0] == to[1] {
				t.Errorf("%s/%d: %v -> %v", name, id, p.replicas, to)
			}
			copies[to[1]]++
		}
	}
	for b := range int32(3) {
		if copies[b+1] < 3 || copies[b+1] > 5 {
			t.Errorf("copies by broker: %v", copies)
		}
	}
	w.apply(first, c)
	w.empty(first)
	w.apply(second, c2)
	w.empty(second)
	if after := leaders(w.live("binance")); !slices.Equal(before, after) {
		t.Errorf("leaders %v -> %v", before, after)
	}

	// More replicas than are in sync are refused nowhere: the plan says it. More than brokers cannot be.
	if c := w.plan(w.cluster.Topic(with(two, func(s *spec.Topic) { s.Replication = 4 }))); codes(c) != "CV-K02@replication" {
		t.Errorf("%s", text(c))
	}
	if c := w.plan(w.cluster.Topic(with(two, func(s *spec.Topic) { s.Replication = 1 }))); codes(c) != "CV-K04@replication CV-K09@replication" {
		t.Errorf("%s", text(c))
	}

	// Replicas and partitions at once: the new partitions have as many.
	three := with(two, func(s *spec.Topic) { s.Replication, s.Partitions, s.Config[minInsync] = 3, 9, "1" })
	if c := w.converge(three); codes(c) != "CV-K03@partitions CV-K04@replication" || len(c.Steps) != 3 {
		t.Errorf("%s", text(c))
	}
	if low, high := w.live("binance").replication(); low != 3 || high != 3 {
		t.Errorf("%d to %d replicas", low, high)
	}
	before = leaders(w.live("binance"))
	if c := w.converge(with(three, func(s *spec.Topic) { s.Replication = 1 })); !strings.Contains(text(c), "replicas of 9 partitions are given up") {
		t.Errorf("%s", text(c))
	}
	if after := leaders(w.live("binance")); !slices.Equal(before, after) {
		t.Errorf("leaders %v -> %v", before, after)
	}

	// Partitions that differ among themselves count as a difference, and only they are moved.
	partial := kadm.AlterPartitionAssignmentsReq{}
	partial.Assign("binance", 4, []int32{1, 2})
	if _, err := w.admin.AlterPartitionAssignments(t.Context(), partial); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool { _, high := w.live("binance").replication(); return high == 2 })
	one := w.cluster.Topic(with(three, func(s *spec.Topic) { s.Replication = 1 }))
	c = w.plan(one)
	if d, _ := c.Diff(replicationAttr); d.Old != "1 to 2" || d.Cause != plan.Drift || len(w.cluster.read.reassignments["binance"]) != 1 {
		t.Errorf("%s", text(c))
	}
	w.apply(one, c)
	w.empty(one)

	// A broker is down: its replica cannot be made, and it is the first to be given up.
	w.converge(with(base, func(s *spec.Topic) { s.Partitions, s.Replication = 9, 3 }))
	alone := topicOf("alone", 3, 1)
	w.converge(alone)
	w.produce("alone", 30, time.Now())
	brokers[2].Kill()
	w.eventually(func() bool { w.live("binance"); return len(w.cluster.read.snapshot.brokers) == 2 })
	if c := w.plan(w.cluster.Topic(with(other, func(s *spec.Topic) { s.Replication = 3 }))); codes(c) != "CV-K02@replication" || !strings.Contains(text(c), "2 brokers are up") {
		t.Errorf("%s", text(c))
	}
	w.converge(with(base, func(s *spec.Topic) { s.Partitions, s.Replication = 9, 2 }))
	for _, p := range w.live("binance").partitions {
		if slices.Contains(p.replicas, int32(brokers[2].Node())) {
			t.Errorf("partition %d still on the broker that is down: %v", p.id, p.replicas)
		}
	}
	removed := w.cluster.Removed(removedTopic("alone"))
	c = w.plan(removed)
	if l := c.Findings[0].Loss; l.Count != 20 || !strings.Contains(c.Findings[0].Text, "and more in 1 partition that cannot be read") {
		t.Errorf("%s", text(c))
	}
	w.apply(removed, c)
	w.empty(removed)
	if err := brokers[2].Restart(); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool { w.live("binance"); return len(w.cluster.read.snapshot.brokers) == 3 })
	w.converge(with(base, func(s *spec.Topic) { s.Partitions, s.Replication = 9, 3 }))
	w.empty(removed)

	// Without a majority of controllers nothing can be changed: apply ends with its context.
	late := w.cluster.Topic(topicOf("late", 1, 1))
	c = w.plan(late)
	brokers[1].Kill()
	brokers[2].Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) //nolint:forbidigo // it ends with its context
	defer cancel()
	if err := c.Make(ctx); err == nil || ctx.Err() == nil {
		t.Errorf("without a majority of controllers: %v", err)
	}
}

// A copy that takes longer than apply waits goes on by itself; plans show it until it is done, and the next apply waits again.
func TestCopyIsResumed(t *testing.T) {
	t.Parallel()
	brokers := testkit.KafkaCluster(t, 2)
	w := newHarness(t, newClient(t, kgo.SeedBrokers(brokers[0].Addr(), brokers[1].Addr())))
	base := topicOf("binance", 1, 1, maxMessage, "2000000")
	w.converge(base)
	w.produce("binance", 15_000, time.Now().Add(-5*time.Hour)) // 2 MB, at 400 kB/s
	slow := "400000"
	for _, b := range brokers {
		if _, err := w.admin.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Name: "leader.replication.throttled.rate", Value: &slow}, {Name: "follower.replication.throttled.rate", Value: &slow}}, int32(b.Node())); err != nil {
			t.Fatal(err)
		}
	}
	w.outside("binance", map[string]string{"leader.replication.throttled.replicas": "*", "follower.replication.throttled.replicas": "*"})
	w.cluster.moveWait = time.Second
	two := w.cluster.Topic(with(base, func(s *spec.Topic) { s.Replication = 2 }))
	c := w.plan(two)
	err := c.Make(t.Context())
	if err == nil || !strings.Contains(err.Error(), "still being copied after 1s: Kafka goes on by itself") {
		t.Fatal(err)
	}
	again := w.plan(two)
	if d, _ := again.Diff(replicationAttr); d.Old != "1" || d.New != "2" || !slices.Equal(again.Steps, c.Steps) {
		t.Errorf("%s", text(again))
	}
	// Another setting may be changed meanwhile.
	w.ledger["topic.binance"] = w.cluster.Topic(base).want()
	meanwhile := w.cluster.Topic(with(base, func(s *spec.Topic) { s.Config[maxMessage] = "3000000" }))
	w.apply(meanwhile, w.plan(meanwhile))
	w.cluster.moveWait = time.Minute
	two = w.cluster.Topic(with(base, func(s *spec.Topic) { s.Replication = 2 }))
	begun := time.Now()
	w.apply(two, w.plan(two))
	if time.Since(begun) < time.Second {
		t.Error("the copy was as quick as without the throttle: this tests nothing")
	}
	w.empty(two)
}

func TestAssign(t *testing.T) {
	t.Parallel()
	s := &snapshot{brokers: []int32{1, 2, 3, 4}, topics: map[string]*topic{}}
	add := func(name string, partitions ...partition) {
		for i := range partitions {
			partitions[i].id = int32(i)
		}
		s.topics[name] = &topic{name: name, partitions: partitions}
	}
	add("others", partition{leader: 1, replicas: []int32{1, 2}}, partition{leader: 1, replicas: []int32{1, 2}}, partition{leader: 1, replicas: []int32{1}})
	add("up", partition{leader: 1, replicas: []int32{1}}, partition{leader: 2, replicas: []int32{2}})
	add("down", partition{leader: 2, replicas: []int32{1, 2, 3}}, partition{leader: 3, replicas: []int32{1, 9, 3}}, partition{leader: -1, replicas: []int32{4, 9}})
	add("underway", partition{leader: 1, replicas: []int32{1, 2, 3}, adding: []int32{3}}, partition{leader: 1, replicas: []int32{2, 1, 3}, adding: []int32{2}, removing: []int32{3}})
	add("agrees", partition{leader: 1, replicas: []int32{1}})
	got := assign(s, map[string]int{"up": 3, "down": 1, "underway": 3, "agrees": 1})
	want := map[string]map[int32][]int32{
		"up":       {0: {1, 3, 4}, 1: {2, 3, 4}},
		"down":     {0: {2}, 1: {3}, 2: {4}},
		"underway": {0: {1, 2, 3}, 1: {2, 1, 4}},
	}
	for name := range want {
		if !maps.EqualFunc(got[name], want[name], slices.Equal) {
			t.Errorf("%s: %v, want %v", name, got[name], want[name])
		}
	}
	if _, moved := got["agrees"]; moved {
		t.Errorf("%v", got["agrees"])
	}
	if again := fmt.Sprint(assign(s, map[string]int{"up": 3, "down": 1, "underway": 3, "agrees": 1})); again != fmt.Sprint(got) {
		t.Errorf("%s, then %s", fmt.Sprint(got), again)
	}
}
