package provision_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestKafkaFaults(t *testing.T) {
	t.Parallel()
	t.Run("one_broker", func(t *testing.T) {
		broker := testkit.Kafka(t).Addr()
		t.Run("cut", func(t *testing.T) { kafkaIsCut(t, broker) })
		t.Run("gone", func(t *testing.T) { kafkaIsGone(t, broker) })
	})
	t.Run("one_of_three_down", brokerIsDown)
}

// The connections to Kafka are cut at one request after the other. A cut for a moment is not even noticed: the client sends
// its requests again.
func kafkaIsCut(t *testing.T, broker string) {
	f := newFaulty(t, freshDatabase(t), broker)
	f.recovers("at first")
	n := 0
	for i, how := range []struct{ late, stay bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		for request := 1 + i; ; request += 12 {
			for _, topic := range f.p.Topics {
				n++
				topic.Partitions++
				topic.Config["retention.ms"] = fmt.Sprint(3_600_000 + 1000*n)
			}
			found := f.plan()
			f.kfkWire.at(request, how.late, how.stay)
			results, err := f.tried(found, nil)
			done := f.kfkWire.mend() < request
			text := said(results, err)
			t.Logf("request %d %+v: %s", request, how, text)
			switch {
			case done && err != nil, !how.stay && err != nil:
				t.Errorf("%v", err)
			case how.stay && !done && err != nil && !strings.Contains(text, "Kafka"):
				t.Error("it does not name Kafka")
			}
			f.recovers(fmt.Sprint("request ", request))
			if done || t.Failed() {
				break
			}
		}
	}
}

// Kafka is gone entirely: the plan ends soon, with errors for the topics alone; apply does the rest.
func kafkaIsGone(t *testing.T, broker string) {
	f := newFaulty(t, freshDatabase(t), broker)
	for i := range 20 {
		f.p.Topics = append(f.p.Topics, &spec.Topic{Name: fmt.Sprint("more_", i), Partitions: 1, Replication: 1, Config: map[string]string{}})
	}
	whole := f.plan()
	f.kfkWire.cut(true)
	started := time.Now()
	found, err := f.open().Plan(t.Context())
	if took := time.Since(started); err != nil || took > testkit.Patience {
		t.Fatalf("%v after %s", err, took)
	}
	if len(found.Errors) != len(f.p.Topics) || len(found.Changes) != len(whole.Changes)-len(f.p.Topics) || found.ExitCode() != 1 {
		t.Errorf("%d errors, %d changes of %d, exit %d", len(found.Errors), len(found.Changes), len(whole.Changes), found.ExitCode())
	}
	for _, e := range found.Errors {
		if !strings.HasPrefix(e.Address, "topic.") || !strings.Contains(e.Text, "Kafka") {
			t.Errorf("%+v", e)
		}
	}
	t.Log(found.Errors[0])
	results, err := f.tried(found, nil)
	if err != nil || len(results) != len(found.Changes) {
		t.Errorf("%s", said(results, err))
	}
	// A plan that was made before: what is read again before it is changed cannot be, and holds nothing else up.
	results, err = f.tried(whole, nil)
	if !errors.Is(err, provision.ErrIncomplete) {
		t.Error(err)
	}
	for _, r := range results {
		if want := strings.HasPrefix(r.Address, "topic."); want != (r.Outcome == provision.Failed && strings.Contains(r.Reason, "no answer from Kafka")) {
			t.Errorf("%+v", r)
		}
	}
	f.kfkWire.mend()
	f.recovers("when it is back")
}

// One of three brokers is down: what needs it is impossible, the rest is done; when it is back, all is.
func brokerIsDown(t *testing.T) {
	brokers := testkit.KafkaCluster(t, 3)
	f := newFaulty(t, freshDatabase(t), brokers[0].Addr(), brokers[1].Addr(), brokers[2].Addr())
	f.p.Topics[0].Replication = 3
	f.recovers("with all")
	brokers[2].Kill()
	up := func(n int) { // each of them knows so many
		t.Helper()
		testkit.Eventually(t, func() error {
			now, err := kadm.NewClient(f.kafka).BrokerMetadata(kadm.WithAuthorizedOps(t.Context()))
			for _, b := range now.Brokers {
				var answer kmsg.Response
				if answer, err = f.kafka.Broker(int(b.NodeID)).RetriableRequest(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
					break
				}
				if got := len(answer.(*kmsg.MetadataResponse).Brokers); got != n || len(now.Brokers) != n {
					return fmt.Errorf("broker %d knows %d brokers, want %d", b.NodeID, got, n)
				}
			}
			return err
		})
	}
	up(2)
	f.empty("one is down")
	f.p.Topics[0].Config["retention.ms"] = "7200000"
	f.p.Topics[1].Replication = 3
	f.p.Topics = append(f.p.Topics, &spec.Topic{Name: "third", Partitions: 3, Replication: 3, Config: map[string]string{}}, &spec.Topic{Name: "fourth", Partitions: 3, Replication: 2, Config: map[string]string{}})
	found := f.plan()
	for _, c := range found.Changes {
		t.Log(told(c))
	}
	for address, code := range map[string]string{"topic.trades": "CV-K02", "topic.third": "", "topic.ticks": "", "topic.fourth": ""} {
		c := changes(found)[address]
		if c.Impossible() != (code != "") || code != "" && c.Findings[0].Code != code {
			t.Errorf("%s", told(c))
		}
	}
	done := outcomes(f.apply(found, everything(found)...))
	for address, want := range map[string]provision.Outcome{"topic.trades": provision.Skipped, "topic.third": provision.Done, "topic.ticks": provision.Done, "topic.fourth": provision.Done} {
		if done[address].Outcome != want {
			t.Errorf("%+v", done[address])
		}
	}
	if err := brokers[2].Restart(); err != nil {
		t.Fatal(err)
	}
	up(3)
	if n := f.plan().Count(plan.Create, plan.Update); n != 1 {
		t.Errorf("%d changes are left", n)
	}
	f.recovers("when it is back")
}
