package provision_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

type world struct {
	t     *testing.T
	p     *spec.Pipeline
	db    *pgxpool.Pool
	kafka *kgo.Client
}

// newWorld is the shipped pipeline, a real broker and the database at a URL.
func newWorld(t *testing.T, url string) *world {
	t.Helper()
	p, d := spec.Load(os.DirFS(".."), "pipeline.hcl", spec.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	w := &world{t: t, p: p}
	var err error
	if w.db, err = pgxpool.New(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if w.kafka, err = kgo.NewClient(kgo.SeedBrokers(testkit.Kafka(t).Addr())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.kafka.Close)
	return w
}

func (w *world) resources() []plan.Resource {
	return provision.Resources(w.p, provision.Clients{Kafka: w.kafka, DB: w.db, Now: time.Now})
}

func (w *world) plan() plan.Plan {
	w.t.Helper()
	found, err := provision.Plan(w.t.Context(), w.resources())
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (w *world) exec(sql string) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

func TestShippedPipelineOnPostgres(t *testing.T) { shipped(t, newWorld(t, testkit.Postgres(t))) }

func TestShippedPipelineOnTimescale(t *testing.T) { shipped(t, newWorld(t, testkit.Timescale(t))) }

// What is missing is created, a second plan is empty, and what differs is told.
func shipped(t *testing.T, w *world) {
	t.Helper()
	first := w.plan()
	if n := first.Count(plan.Create); n != len(first.Changes) || n != 1+5+3 {
		t.Errorf("%d of %d changes create something", n, len(first.Changes))
	}
	if err := provision.Apply(t.Context(), w.resources(), first, nil); err != nil {
		t.Fatal(err)
	}
	if again := w.plan(); again.Count(plan.None) != len(again.Changes) {
		t.Errorf("the plan after apply is not empty: %+v", again.Changes)
	}
	if err := provision.Apply(t.Context(), w.resources(), first, nil); err != nil {
		t.Errorf("the same plan once more, as by another instance: %v", err)
	}

	admin := kadm.NewClient(w.kafka)
	value := "3600000"
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, "kraken"); err != nil {
		t.Fatal(err)
	}
	w.exec("ALTER TABLE crypto_sentiment ADD COLUMN more text")
	w.exec("DROP TABLE crypto_data_hourly")
	found := map[string]plan.Change{}
	for _, c := range w.plan().Changes {
		found[c.Address] = c
	}
	for address, want := range map[string]string{"topic.kraken": "retention.ms 3600000 604800000", "table.crypto_sentiment": "more text not in pipeline.hcl"} {
		c := found[address]
		if len(c.Attrs) != 1 || c.Attrs[0].Name+" "+c.Attrs[0].Old+" "+c.Attrs[0].New != want {
			t.Errorf("%s: %+v, want %s", address, c, want)
		}
	}
	if found["table.crypto_data_hourly"].Action != plan.Create || found["topic.binance"].Action != plan.None {
		t.Errorf("%+v", found)
	}
}

func TestBrokerRefusesAtPlanTime(t *testing.T) {
	w := newWorld(t, testkit.Postgres(t))
	w.p.Topics[0].Replication = 3
	w.p.Topics[1].Config["retention.ms"] = "soon"
	found := w.plan()
	if found.Count(plan.Block) != 2 {
		t.Errorf("%+v", found.Changes)
	}
	if err := provision.Apply(t.Context(), w.resources(), found, nil); err == nil || !strings.Contains(err.Error(), "cannot be done") {
		t.Error(err)
	}
	topics, err := kadm.NewClient(w.kafka).ListTopics(t.Context())
	if err != nil || len(topics) != len(w.p.Topics)-2 {
		t.Errorf("one impossible topic hides the rest: %v, %v", topics.Names(), err)
	}
}
