package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Instances that plan at the same time all create the topic, and none fails.
func TestCreatedByAnotherMeanwhile(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	s := topicOf("binance", 3, 1, retentionMs, "604800000")
	var group sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		other := newHarness(t, w.client)
		r := other.cluster.Topic(s)
		c := other.plan(r)
		group.Go(func() { errs[i] = c.Make(t.Context()) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	w.ledger["topic.binance"] = w.cluster.Topic(s).want()
	w.empty(w.cluster.Topic(s))
}

func TestDeletionForbidden(t *testing.T) {
	t.Parallel()
	w := oneBroker(t, "delete.topic.enable=false")
	w.converge(topicOf("binance", 1, 1))
	r := w.cluster.Removed(removedTopic("binance"))
	if err := w.plan(r).Make(t.Context()); err == nil || !strings.Contains(err.Error(), "set delete.topic.enable=true") {
		t.Error(err)
	}
}

// A quota on changes is waited for, in the plan and in apply.
func TestQuotaIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	anonymous := "ANONYMOUS"
	if _, err := w.admin.AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{
		Entity: kadm.ClientQuotaEntity{{Type: "user", Name: &anonymous}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "controller_mutation_rate", Value: 6}},
	}}); err != nil {
		t.Fatal(err)
	}
	throttled := false
	for i := range 3 {
		begun := time.Now()
		w.converge(topicOf(fmt.Sprint("t", i), 24, 1))
		throttled = throttled || time.Since(begun) > 2*time.Second
	}
	if !throttled {
		t.Error("the quota refused nothing: this tests nothing")
	}
}

// A quota that would take too long is an error with its remedy; Ctrl-C is not mistaken for it.
func TestQuotaThatLetsNothingThrough(t *testing.T) {
	t.Parallel()
	refuse := func() (time.Duration, error) {
		return quotaWait + time.Second, &refusal{code: kerr.ThrottlingQuotaExceeded}
	}
	err := throttled(t.Context(), refuse)
	if !errors.Is(err, kerr.ThrottlingQuotaExceeded) || !strings.Contains(err.Error(), "raise it for this Kafka user, or apply again later") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := throttled(ctx, refuse); !errors.Is(err, context.Canceled) || errors.Is(err, kerr.ThrottlingQuotaExceeded) {
		t.Error(err)
	}
}

// Without rights a topic is not taken for a missing one, and the error names the right that is missing.
func TestRightsAreNamed(t *testing.T) {
	t.Parallel()
	b := testkit.KafkaSecured(t)
	root := newHarness(t, newClient(t, kgo.SeedBrokers(b.Addr())))
	if _, err := root.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "ann", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "secret"}}); err != nil {
		t.Fatal(err)
	}
	t.Run("writes go on while every replica is in sync", func(t *testing.T) {
		root := newHarness(t, newClient(t, kgo.SeedBrokers(b.Addr())))
		if c := root.converge(topicOf("tight", 1, 1, minInsync, "2")); codes(c) != "CV-K09@"+minInsync {
			t.Error(text(c))
		}
		root.produce("tight", 3, time.Now())
	})
	ann := newHarness(t, newClient(t, kgo.SeedBrokers(b.SecureAddr()), kgo.SASL(scram.Auth{User: "ann", Pass: "secret"}.AsSha512Mechanism())))
	there := topicOf("there", 1, 1, retentionMs, "604800000")
	root.converge(there)
	root.produce("there", 10, time.Now().Add(-time.Minute))
	allow := func(op kadm.ACLOperation) {
		t.Helper()
		acl := kadm.NewACLs().Topics("there").ResourcePatternType(kadm.ACLPatternLiteral).Operations(op).Allow("User:ann").AllowHosts("*")
		if _, err := root.admin.CreateACLs(t.Context(), acl); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(r *Topic, operation string) {
		t.Helper()
		want := "grant it with kafka-acls --add --allow-principal User:NAME --operation " + operation
		var err error
		ann.eventually(func() bool { // new rights are in force a moment later
			_, err = ann.try(t.Context(), r)
			return err != nil && strings.Contains(err.Error(), want)
		})
	}
	// unchecked is what may be planned without the right to do it.
	unchecked := func(r *Topic, action plan.Action, operation string) {
		t.Helper()
		want := "grant it with kafka-acls --add --allow-principal User:NAME --operation " + operation
		ann.eventually(func() bool {
			c, err := ann.try(t.Context(), r)
			return err == nil && c.Action == action && !c.Impossible() && strings.Contains(strings.Join(c.Notes, "\n"), want)
		})
	}
	shorter := topicOf("there", 1, 1, retentionMs, "120000")
	refused(ann.cluster.Topic(there), "Describe --topic there")
	refused(ann.cluster.Topic(topicOf("missing", 1, 1)), "Describe --topic missing")
	refused(ann.cluster.Removed(removedTopic("there")), "Describe --topic there")
	if names, err := ann.cluster.Unmanaged(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
	allow(kadm.OpDescribe)
	unchecked(ann.cluster.Topic(there), plan.None, "DescribeConfigs --topic there")
	unchecked(ann.cluster.Topic(topicOf("there", 2, 1, retentionMs, "604800000")), plan.Update, "Alter --topic there")
	unchecked(ann.cluster.Removed(removedTopic("there")), plan.Delete, "Delete --topic there")
	acl := kadm.NewACLs().Topics("missing").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpDescribe).Allow("User:ann").AllowHosts("*")
	if _, err := root.admin.CreateACLs(t.Context(), acl); err != nil {
		t.Fatal(err)
	}
	unchecked(ann.cluster.Topic(topicOf("missing", 1, 1, retentionMs, "604800000")), plan.Create, "Create --topic missing")
	allow(kadm.OpDescribeConfigs)
	unchecked(ann.cluster.Topic(shorter), plan.Update, "AlterConfigs --topic there")
	unchecked(ann.cluster.Topic(topicOf("there", 2, 1, retentionMs, "604800000")), plan.Update, "Alter --topic there")
	unchecked(ann.cluster.Removed(removedTopic("there")), plan.Delete, "Delete --topic there")
	allow(kadm.OpAlterConfigs)
	var c plan.Change
	ann.eventually(func() bool {
		var err error
		c, err = ann.try(t.Context(), ann.cluster.Topic(shorter))
		return err == nil
	})
	// ann may not look at the disks: the bytes are not known, the records are. Who may not create cannot learn defaults.
	if codes(c) != "CV-K13@retention" {
		t.Errorf("%s", text(c))
	}
	ann.ledger["topic.there"] = ann.cluster.Topic(there).want()
	if c = ann.plan(ann.cluster.Topic(topicOf("there", 1, 1))); codes(c) != "CV-K07@retention" || c.Findings[0].Loss.Count != 0 || !strings.Contains(c.Findings[0].Text, "not known") {
		t.Errorf("%s", text(c))
	}
	delete(ann.ledger, "topic.there")
	ann.converge(shorter)
	if c = ann.plan(ann.cluster.Topic(with(shorter, func(s *spec.Topic) { s.Config[retentionBytes] = "10" }))); codes(c) != "CV-K07@retention_bytes" || !strings.Contains(c.Findings[0].Text, "not known") {
		t.Errorf("%s", text(c))
	}
	// What was allowed in the plan may be forbidden in apply.
	r := ann.cluster.Topic(shorter)
	for operation, request := range map[string]step{
		"Delete --topic": {api: deleteTopics, Topic: "there"}, "Alter --topic": {api: createPartitions, Topic: "there", Partitions: 9},
		"Alter --cluster": {api: alterReplicas, Topic: "there", Replicas: map[int32][]int32{0: {1}}},
	} {
		if err := r.apply(t.Context(), plan.Change{}, []step{request}); err == nil || !strings.Contains(err.Error(), "--operation "+operation) {
			t.Errorf("%s: %v", request, err)
		}
	}
}

// A broker that deletes later than it says: the name is taken for a while, and its topic is not there.
func TestCreateWaitsForDeletion(t *testing.T) {
	t.Parallel()
	f := testkit.EmbeddedKafka(t)
	tries := 3
	f.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if req.(*kmsg.CreateTopicsRequest).ValidateOnly || tries == 0 {
			return nil, nil, false
		}
		tries--
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		resp.Topics = []kmsg.CreateTopicsResponseTopic{{Topic: "binance", ErrorCode: 36}}
		return resp, nil, true
	})
	w := newHarness(t, newClient(t, kgo.SeedBrokers(f.ListenAddrs()...)))
	w.converge(topicOf("binance", 2, 1, retentionMs, "604800000"))
	if tries != 0 {
		t.Error("the name was not taken")
	}
}

// The embedded Kafka of `up` is no real one; plans converge there all the same.
func TestConvergesOnTheEmbeddedKafka(t *testing.T) {
	t.Parallel()
	f := testkit.EmbeddedKafka(t)
	w := newHarness(t, newClient(t, kgo.SeedBrokers(f.ListenAddrs()...)))
	s := topicOf("binance", 1, 1, retentionMs, "604800000", cleanupPolicy, "delete", retentionBytes, "-1")
	w.converge(s)
	s = with(s, func(s *spec.Topic) {
		s.Partitions = 3
		s.Config[retentionMs] = "86400000"
		s.Config[maxMessage] = "2000000"
	})
	w.converge(s)
	if c := w.converge(with(s, func(s *spec.Topic) { delete(s.Config, retentionMs) })); codes(c) != "" {
		t.Errorf("back to the default, which is longer: %s", text(c))
	}
	w.produce("binance", 9, time.Now())
	r := w.cluster.Removed(removedTopic("binance"))
	c := w.plan(r)
	if codes(c) != "CV-K11@" || c.Findings[0].Loss.Count != 9 {
		t.Errorf("%s", text(c))
	}
	w.apply(r, c)
	w.empty(r)
}

// Eight at a time, as provision plans: what concerns all topics is asked once, whatever their number.
func TestManyTopicsTakeFewRequests(t *testing.T) {
	t.Parallel()
	f := testkit.EmbeddedKafka(t)
	w := newHarness(t, newClient(t, kgo.SeedBrokers(f.ListenAddrs()...)))
	all := func(f func(*Topic) error, resources []*Topic) {
		t.Helper()
		group := errgroup.Group{}
		group.SetLimit(8)
		for _, r := range resources {
			group.Go(func() error { return f(r) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	round := func(retention string, most int64) {
		t.Helper()
		w.cluster.Reset()
		before := w.cluster.requests.Load()
		if _, err := w.cluster.ID(t.Context()); err != nil { // which cluster it is comes first
			t.Fatal(err)
		}
		var resources []*Topic
		changes := map[*Topic]*plan.Change{}
		for i := range 100 {
			r := w.cluster.Topic(topicOf(fmt.Sprint("t", i), 1, 1, retentionMs, retention))
			resources, changes[r] = append(resources, r), &plan.Change{}
		}
		all(func(r *Topic) error {
			c, err := plan.Assess(t.Context(), r, nil, true)
			*changes[r] = c
			return err
		}, resources)
		if n := w.cluster.requests.Load() - before; n > most {
			t.Errorf("%d requests, want at most %d", n, most)
		}
		all(func(r *Topic) error { return changes[r].Make(t.Context()) }, resources)
	}
	round("604800000", 3) // the list, the missing ones by name, whether they can be made
	round("604800000", 2) // the list, the configs
	round("60000", 9)     // and whether they can be changed; five about offsets, one about disks
}

// Apply ends with its context, and within its own bound when nobody answers.
func TestApplyEnds(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	s := topicOf("binance", 1, 1)
	r := w.cluster.Topic(s)
	c := w.plan(r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Make(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.apply(r, c)
	w.empty(r)
}
