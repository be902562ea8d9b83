package kafka

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// What a change costs, on a topic with 60 records of ten days ago and 40 of an hour ago.
func TestJudgeSaysWhatGoes(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	old, recent := time.Now().UTC().Add(-10*24*time.Hour).Truncate(time.Second), time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	ago := func(days int) time.Time { return time.Now().UTC().Add(-time.Duration(days) * 24 * time.Hour) } // no newer record goes
	fill := func(s *spec.Topic) *spec.Topic {
		w.converge(s)
		w.produce(s.Name, 60, old)
		w.produce(s.Name, 40, recent)
		return s
	}
	forever := fill(topicOf("forever", 3, 1, retentionMs, "-1", retentionBytes, "-1"))
	month := fill(topicOf("month", 3, 1, retentionMs, "2592000000"))
	compacted := fill(topicOf("compacted", 3, 1, cleanupPolicy, "compact"))
	both := fill(topicOf("both", 3, 1, cleanupPolicy, "compact,delete", retentionMs, "2592000000"))
	empty := topicOf("empty", 1, 1, retentionMs, "-1")
	w.converge(empty)
	set := func(key, value string) func(*spec.Topic) { return func(s *spec.Topic) { s.Config[key] = value } }
	unset := func(key string) func(*spec.Topic) { return func(s *spec.Topic) { delete(s.Config, key) } }
	for _, c := range []struct {
		name    string
		of      *spec.Topic
		change  func(*spec.Topic)
		want    string // codes
		records int64
		to      time.Time
	}{
		{"to five days", forever, set(retentionMs, "432000000"), "CV-K07@retention", 60, ago(5)},
		{"to a minute: all", forever, set(retentionMs, "60000"), "CV-K07@retention", 100, recent.Add(39 * time.Second)},
		{"to a month: nothing yet", forever, set(retentionMs, "2592000000"), "CV-K13@retention", 0, time.Time{}},
		{"longer", month, set(retentionMs, "5184000000"), "", 0, time.Time{}},
		{"without end", month, set(retentionMs, "-1"), "", 0, time.Time{}},
		{"back to the brokers' seven days", month, unset(retentionMs), "CV-K07@retention", 60, ago(7)},
		{"back to seven days from without end", forever, unset(retentionMs), "CV-K07@retention", 60, ago(7)},
		{"no limit by default either", forever, unset(retentionBytes), "", 0, time.Time{}},
		{"a large limit", forever, set(retentionBytes, "1000000000"), "CV-K13@retention_bytes", 0, time.Time{}},
		{"no bytes at all", forever, set(retentionBytes, "0"), "CV-K07@retention_bytes", 100, recent.Add(39 * time.Second)},
		{"of an empty topic", empty, set(retentionMs, "60000"), "CV-K13@retention", 0, time.Time{}},
		{"compact", month, set(cleanupPolicy, "compact"), "CV-K08@cleanup_policy", 100, recent.Add(39 * time.Second)},
		{"compact too", month, set(cleanupPolicy, "delete,compact"), "CV-K08@cleanup_policy", 100, recent.Add(39 * time.Second)},
		{"compact an empty topic", empty, set(cleanupPolicy, "compact"), "CV-K13@cleanup_policy", 0, time.Time{}},
		{"delete what was compacted", compacted, set(cleanupPolicy, "delete"), "CV-K08@cleanup_policy", 60, ago(7)},
		{"delete, by another retention", compacted, func(s *spec.Topic) { s.Config[cleanupPolicy], s.Config[retentionMs] = "delete", "60000" }, "CV-K08@cleanup_policy", 100, recent.Add(39 * time.Second)},
		{"the default policy deletes", compacted, unset(cleanupPolicy), "CV-K08@cleanup_policy", 60, ago(7)},
		{"retention of a compacted topic means nothing", compacted, set(retentionMs, "60000"), "", 0, time.Time{}},
		{"compact no more", both, set(cleanupPolicy, "delete"), "", 0, time.Time{}},
		{"delete no more", both, set(cleanupPolicy, "compact"), "", 0, time.Time{}},
		{"smaller messages", month, set(maxMessage, "1000"), "CV-K10@max.message.bytes", 0, time.Time{}},
		{"larger messages", month, set(maxMessage, "9000000"), "", 0, time.Time{}},
		{"more in sync than there are", month, set(minInsync, "2"), "CV-K09@min.insync.replicas", 0, time.Time{}},
		{"compression", month, set(compression, "zstd"), "", 0, time.Time{}},
		{"fewer partitions", month, func(s *spec.Topic) { s.Partitions = 2 }, "CV-K01@partitions", 0, time.Time{}},
		{"more partitions", month, func(s *spec.Topic) { s.Partitions = 4 }, "CV-K03@partitions", 0, time.Time{}},
		{"more partitions than Kafka makes at once", month, func(s *spec.Topic) { s.Partitions = 100_000 }, "CV-K05@", 0, time.Time{}},
		{"more replicas than brokers", month, func(s *spec.Topic) { s.Replication = 2 }, "CV-K02@replication", 0, time.Time{}},
		{"a value that is none", month, set(retentionMs, "soon"), "CV-K05@retention", 0, time.Time{}},
		{"a value out of range", month, set(retentionMs, "-2"), "CV-K05@retention", 0, time.Time{}},
		{"a key that is none", month, set("retention.hours", "1"), "CV-K05@retention.hours", 0, time.Time{}},
		{"two at once", month, func(s *spec.Topic) { s.Partitions, s.Config[retentionMs] = 1, "432000000" }, "CV-K01@partitions CV-K07@retention", 60, ago(5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := *w
			w.t = t
			got := w.plan(w.cluster.Topic(with(c.of, c.change)))
			if codes(got) != c.want {
				t.Fatalf("want %s: %s", c.want, text(got))
			}
			i := slices.IndexFunc(got.Findings, func(f plan.Finding) bool { return f.Class == plan.Destroys })
			if i < 0 {
				if c.records > 0 {
					t.Errorf("%s", text(got))
				}
				return
			}
			l := got.Findings[i].Loss
			to, err := time.Parse(time.RFC3339, l.To)
			if err != nil || to.Sub(c.to).Abs() > time.Minute {
				t.Errorf("to %s, want %s", l.To, c.to)
			}
			if l.Count != c.records || l.From != old.Format(time.RFC3339) || l.Bytes < 100*c.records || l.Bytes > 1000*c.records || l.When == "" {
				t.Errorf("want %d records from %s: %s", c.records, old, text(got))
			}
		})
	}

	gone := w.plan(w.cluster.Removed(removedTopic("month")))
	if l := gone.Findings[0].Loss; codes(gone) != "CV-K11@" || l.Count != 100 || l.Bytes < 10_000 || l.From != old.Format(time.RFC3339) || l.When != "at once" {
		t.Errorf("%s", text(gone))
	}
	if c := w.converge(with(forever, set(retentionMs, "432000000"))); c.Steps[0] != `IncrementalAlterConfigs {"topic":"forever","set":{"retention.ms":"432000000"}}` {
		t.Errorf("more than what differs: %s", text(c))
	}
}

// What Kafka would refuse is found when the topic is planned, with its words; the others are not hidden by it.
func TestKafkaRefusesAtPlanTime(t *testing.T) {
	t.Parallel()
	w := oneBroker(t, "min.insync.replicas=2")
	for _, c := range []struct {
		of          *spec.Topic
		want, words string
	}{
		{topicOf("wide", 1, 3), "CV-K02@replication", "only 1 broker(s) are registered"},
		{topicOf("bad_value", 1, 1, retentionMs, "soon"), "CV-K05@retention", "Not a number"},
		{topicOf("bad_key", 1, 1, "retention.hours", "1"), "CV-K05@retention.hours", "Unknown topic config name"},
		{topicOf("bad/name", 1, 1), "CV-K05@", "bad/name"},
		{topicOf("insync", 1, 1), "CV-K09@replication", "it asks for 2 replicas in sync, and a partition has 1"},
		{topicOf("compact", 1, 1, minInsync, "1", cleanupPolicy, "compact"), "", ""},
		{topicOf("good", 1, 1, minInsync, "1"), "", ""},
		{topicOf("__mine", 1, 1), "CV-K12@", "belongs to Kafka"},
		{topicOf("_schemas", 1, 1), "CV-K12@", "belongs to Kafka"},
	} {
		w.cluster.Topic(c.of)
		t.Run(c.of.Name, func(t *testing.T) {
			w := *w
			w.t = t
			got := w.plan(w.cluster.Topic(c.of))
			if codes(got) != c.want || !strings.Contains(text(got), c.words) || got.Impossible() != (len(got.Steps) == 0) {
				t.Errorf("want %s with %q: %s", c.want, c.words, text(got))
			}
		})
	}
	w.cluster.Reset()
	if s, err := w.cluster.load(t.Context()); err != nil || len(s.topics) > 0 {
		t.Errorf("planning made %v, %v", s.topics, err)
	}
}

// a.b and a_b cannot both exist: neither with one that is there, nor two of the plan.
func TestNamesCollide(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	if _, err := w.admin.CreateTopic(t.Context(), 1, 1, nil, "live.one"); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool { return w.live("live.one") != nil })
	resources := map[string]*Topic{}
	for _, name := range []string{"live_one", "a.b", "a_b", "a_c"} {
		resources[name] = w.cluster.Topic(topicOf(name, 1, 1))
	}
	for name, want := range map[string]string{"live_one": "live.one", "a.b": "a_b", "a_b": "a.b", "a_c": ""} {
		c := w.plan(resources[name])
		if want == "" && len(c.Findings) > 0 || want != "" && (codes(c) != "CV-K06@" || !strings.Contains(c.Findings[0].Text, "topic "+want+" ")) {
			t.Errorf("%s: %s", name, text(c))
		}
	}
}

// A service that does not tell what its disks hold, nor the rights on the cluster: the records are counted, and nothing fails.
func TestBrokersThatLackRequests(t *testing.T) {
	t.Parallel()
	k := testkit.EmbeddedKafka(t, kfake.SeedTopics(1, "ticks"))
	versions := kversion.Stable()
	for _, r := range []kmsg.Request{kmsg.NewPtrDescribeLogDirsRequest(), kmsg.NewPtrDescribeClusterRequest()} {
		versions.SetMaxKeyVersion(r.Key(), -1)
	}
	client := newClient(t, kgo.SeedBrokers(k.ListenAddrs()...), kgo.MaxVersions(versions))
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "ticks", Value: []byte("x"), Timestamp: time.Now().Add(-3 * time.Hour)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	topic := NewCluster(client).Topic(topicOf("ticks", 1, 2, retentionMs, "3600000"))
	c, err := plan.Assess(t.Context(), topic, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, f := range c.Findings {
		codes = append(codes, f.Code)
		if f.Code == "CV-K07" && (f.Loss == nil || f.Loss.Count != 1) {
			t.Errorf("%+v", f.Loss)
		}
	}
	if strings.Join(codes, " ") != "CV-K02 CV-K07" {
		t.Errorf("%+v", c.Findings)
	}
	_, err = ask[*kmsg.DescribeClusterResponse](t.Context(), topic.cluster, kmsg.NewPtrDescribeClusterRequest())
	if err == nil || !strings.Contains(err.Error(), "do not know the request") {
		t.Error(err)
	}
}
