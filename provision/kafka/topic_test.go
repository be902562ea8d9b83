package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Every attribute: declared, changed, drifted, left out again; after each apply the plan is empty.
func TestTopicConverges(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	base := topicOf("binance", 2, 1, retentionMs, "604800000", cleanupPolicy, "delete")
	created := w.converge(base)
	if created.Action != plan.Create || created.Where != "pipeline.hcl:41" || len(created.Steps) != 1 || created.Steps[0] != `CreateTopics {"topic":"binance","partitions":2,"replication":1,"set":{"cleanup.policy":"delete","retention.ms":"604800000"}}` {
		t.Errorf("%s", text(created))
	}
	if err := created.Make(t.Context()); err != nil {
		t.Errorf("the same creation once more: %v", err)
	}

	// Each key of the config that Kafka has, with another value than its default.
	values := map[string][2]string{
		retentionMs: {"86400000", "1d"}, retentionBytes: {"1073741824", "1GiB"}, cleanupPolicy: {"delete, compact", "compact,delete"}, compression: {"zstd", "zstd"},
		minInsync: {"1", "1"}, maxMessage: {"2000000", "2000000"}, "segment.ms": {" 03600000 ", "3600000"}, "segment.bytes": {"2097152", "2097152"},
		"min.cleanable.dirty.ratio": {"0.250", "0.25"}, "unclean.leader.election.enable": {"TRUE", "true"}, "message.timestamp.type": {"LogAppendTime", "LogAppendTime"},
		"delete.retention.ms": {"+60000", "60000"}, "follower.replication.throttled.replicas": {"1:1, 0:1", "0:1,1:1"}, "preallocate": {"True", "true"},
		"flush.messages": {"1000", "1000"}, "index.interval.bytes": {"8192", "8192"}, "max.compaction.lag.ms": {"9000000", "9000000"}, "compression.zstd.level": {"5", "5"},
	}
	for key, value := range values {
		t.Run(key, func(t *testing.T) {
			w := *w
			w.t = t
			changed := with(base, func(s *spec.Topic) { s.Config[key] = value[0] })
			r := w.cluster.Topic(changed)
			c := w.plan(r)
			if key == minInsync { // the default: it is pinned, and nothing differs
				if c.Action != plan.None || !c.Marks() {
					t.Fatalf("%s", text(c))
				}
			} else if len(c.Diffs) != 1 || c.Diffs[0].Name != attrOf(key) || c.Diffs[0].New != value[1] || c.Diffs[0].Cause != plan.Intent {
				t.Fatalf("%s", text(c))
			}
			w.apply(r, c)
			w.empty(r)

			drifted := map[string]string{retentionMs: "1000", cleanupPolicy: "compact", compression: "lz4", "min.cleanable.dirty.ratio": "0.9", "unclean.leader.election.enable": "false", "message.timestamp.type": "CreateTime", "preallocate": "false", "follower.replication.throttled.replicas": "0:1", "compression.zstd.level": "7", minInsync: "3"}[key]
			if drifted == "" {
				drifted = "7777777"
			}
			w.outside("binance", map[string]string{key: drifted})
			if c = w.plan(r); len(c.Diffs) != 1 || c.Diffs[0].Name != attrOf(key) || c.Diffs[0].Cause != plan.Drift {
				t.Fatalf("drift: %s", text(c))
			}
			w.apply(r, c)
			w.empty(r)

			back := w.cluster.Topic(base)
			c = w.plan(back)
			if cause := c.Diffs[0].Cause; len(c.Diffs) != 1 || c.Diffs[0].Name != attrOf(key) || (base.Config[key] == "") != (cause == plan.Reset) {
				t.Fatalf("left out: %s", text(c))
			}
			w.apply(back, c)
			w.empty(back)
			if base.Config[key] == "" && c.Notes[0] != attrOf(key)+" becomes "+friendly(key, w.live("binance").config[key].value)+", the default of the brokers" {
				t.Errorf("it became %v, and the plan said %s", w.live("binance").config[key].value, c.Notes)
			}
			if _, still := w.live("binance").state(nil).Get(attrOf(key)); still != (base.Config[key] != "") {
				t.Errorf("set on the topic: %v", still)
			}
		})
	}

	more := with(base, func(s *spec.Topic) { s.Partitions = 5 })
	if c := w.converge(more); codes(c) != "CV-K03@partitions" || len(c.Diffs) != 1 || c.Steps[0] != `CreatePartitions {"topic":"binance","partitions":5}` {
		t.Errorf("%s", text(c))
	} else if err := c.Make(t.Context()); err != nil {
		t.Errorf("the same partitions once more: %v", err)
	}

	gone := w.cluster.Removed(removedTopic("binance"))
	c := w.plan(gone)
	if c.Action != plan.Delete || codes(c) != "CV-K11@" || c.Steps[0] != `DeleteTopics {"topic":"binance"}` {
		t.Errorf("%s", text(c))
	}
	w.apply(gone, c)
	w.empty(gone)
	if err := c.Make(t.Context()); err != nil {
		t.Errorf("the same deletion once more: %v", err)
	}
	w.converge(base) // the name is free at once
}

// What a setting becomes when it is left out is what the brokers say, in whatever unit.
func TestDefaultsOfTheBrokers(t *testing.T) {
	t.Parallel()
	w := oneBroker(t, "log.retention.hours=48", "log.roll.hours=5", "log.roll.jitter.hours=1", "log.retention.bytes=5000")
	s := topicOf("binance", 1, 1, retentionMs, "60000", "segment.ms", "60000", "segment.jitter.ms", "60000", retentionBytes, "1000")
	w.converge(s)
	s.Config = map[string]string{}
	c := w.plan(w.cluster.Topic(s))
	want := []string{"retention becomes 2d", "retention_bytes becomes 5000", "segment.jitter.ms becomes 3600000", "segment.ms becomes 18000000"}
	for i := range want {
		if len(c.Notes) != len(want) || !strings.HasPrefix(c.Notes[i], want[i]+", ") {
			t.Fatalf("want %s: %s", want, text(c))
		}
	}
	w.converge(s)
	for key, value := range map[string]string{retentionMs: "172800000", "segment.ms": "18000000", "segment.jitter.ms": "3600000", retentionBytes: "5000"} {
		if got := w.live("binance").config[key]; got.value != value || got.own() {
			t.Errorf("%s: %v", key, got)
		}
	}
}

// A topic that somebody made is adopted: what the block does not name is left alone.
func TestTopicIsAdopted(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	two := "2000000"
	day := "86400000"
	if _, err := w.admin.CreateTopic(t.Context(), 1, 1, map[string]*string{maxMessage: &two, retentionMs: &day}, "kraken"); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool { return w.live("kraken") != nil })
	s := topicOf("kraken", 1, 1, retentionMs, "604800000")
	c := w.plan(w.cluster.Topic(s))
	if !c.Adopt || c.Action != plan.Update || len(c.Diffs) != 1 || c.Diffs[0].Cause != plan.Intent || len(c.Extra) != 1 || c.Extra[0].Name != maxMessage || len(c.Findings) != 0 {
		t.Errorf("%s, extra %v", text(c), c.Extra)
	}
	w.converge(s)
	if got := w.live("kraken").config[maxMessage]; !got.own() || got.value != two {
		t.Errorf("what nobody declares was changed: %v", got)
	}
	var position kadm.Offsets
	position.Add(kadm.Offset{Topic: "kraken", At: 1})
	w.eventually(func() bool { // the first commit makes Kafka's own topic
		_, err := w.admin.CommitOffsets(t.Context(), "group", position)
		return err == nil && w.live("__consumer_offsets") != nil
	})
	if names, err := w.cluster.Unmanaged(t.Context()); err != nil || strings.Join(names, " ") != "topic.kraken" {
		t.Errorf("%v, %v", names, err)
	}
	if r := w.cluster.Describe(); r.System != "Kafka" || !strings.HasSuffix(r.Text, ": 1 topic on 1 broker") || r.Requests == 0 || r.Seconds <= 0 {
		t.Errorf("%+v", r)
	}
	if c := w.plan(w.cluster.Removed(removedTopic("__consumer_offsets"))); codes(c) != "CV-F01@ CV-K12@" || len(c.Steps) > 0 {
		t.Errorf("%s", text(c))
	}
}
