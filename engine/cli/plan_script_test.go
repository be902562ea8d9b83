package cli

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

// TestPlanScripts runs testdata/plan/*.txtar: the manual of plan, apply, show, import, graph, explain and destroy. Each script
// has a real Kafka and a real PostgreSQL database to itself, a Grafana (the contract server), and sources/kraken.hcl in its
// folder. Besides the commands of TestScripts there are
//
//	exits CODE cryptoviz ARGS...              the program ends with this code
//	cluster                                   three brokers instead of one
//	timescale                                 TimescaleDB instead of PostgreSQL
//	psql SQL                                  runs statements, prints what they return
//	await SQL TEXT                            asks until the answer is this text
//	kafka create TOPIC PARTITIONS [KEY=VALUE...]
//	kafka alter TOPIC KEY=VALUE...            an empty value takes the setting off
//	kafka produce TOPIC N AGE                 N records, as old as AGE
//	kafka delete TOPIC
//	kafka kill|restart N                      a broker of the cluster
//	kafka list                                the topics, with partitions and own settings; ! for none
//	grafana folder UID TITLE                  bob makes a folder
//	grafana put FILE [FOLDER]                 bob stores a dashboard
//	grafana edit UID PANEL FIELD VALUE        ann changes a panel in the browser
//	grafana provision UID                     the dashboard is one of a file on the server
//	grafana fault METHOD PATH ANSWER [TIMES]  ANSWER is a status, cut, html or slow
//	grafana mended                            takes all faults away
//	grafana annotations                       their texts
//
// What differs from run to run is made steady in the output: ports, names of databases, durations, present times.
func TestPlanScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pool := make(chan *brokers, 2)
	for range cap(pool) {
		pool <- newBrokers(t, 1)
	}
	three := make(chan *brokers, 1)
	three <- newBrokers(t, 3)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/plan", UpdateScripts: *updateScripts, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error { return setUp(e, root, pool, three) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"bundle": cmdBundle, "edit": cmdEdit,
			"exits": cmdExits, "cluster": cmdCluster, "timescale": cmdTimescale, "psql": cmdPsql, "await": cmdAwait, "kafka": cmdKafka, "grafana": cmdGrafana,
		},
	})
}

// brokers are a Kafka that one script at a time has to itself.
type brokers struct {
	addrs   string
	members []*testkit.Broker
	*kadm.Client
}

func newBrokers(t *testing.T, n int) *brokers {
	var addrs []string
	members := testkit.KafkaCluster(t, n)
	for _, b := range members {
		addrs = append(addrs, b.Addr())
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &brokers{strings.Join(addrs, ","), members, kadm.NewClient(client)}
}

// wipe deletes all topics, and waits until they are gone: a name may be taken again at once.
func (b *brokers) wipe(ctx context.Context) error {
	for {
		topics, err := b.ListTopics(kadm.WithAuthorizedOps(ctx)) // not from the client's cache
		if err != nil || len(topics) == 0 {
			return err
		}
		if _, err := b.DeleteTopics(ctx, topics.Names()...); err != nil {
			return err
		}
	}
}

// outside is the world of one script.
type outside struct {
	t       testing.TB
	kafka   *brokers
	three   chan *brokers
	grafana *grafanatest.Server
	mended  []func()
}

type outsideKey struct{}

func world(ts *testscript.TestScript) *outside { return ts.Value(outsideKey{}).(*outside) }

func setUp(e *testscript.Env, root string, pool, three chan *brokers) error {
	t, ok := e.T().(testing.TB)
	if !ok {
		return errors.New("the script runs outside of go test")
	}
	o := &outside{t: t, three: three, kafka: <-pool, grafana: grafanatest.New(t, grafanatest.V13)}
	mine := o.kafka
	e.Defer(func() { o.giveBack(pool, mine) })
	e.Values[outsideKey{}] = o
	e.Setenv(testRoot, root)
	e.Setenv(steadyVar, "1")
	e.Setenv("USER", "ann")
	e.Setenv("KAFKA_BROKERS", mine.addrs)
	e.Setenv("DATABASE_URL", testkit.Postgres(t))
	e.Setenv("GRAFANA_URL", o.grafana.URL)
	e.Setenv("GRAFANA_AUTH", o.grafana.Token)
	dir := filepath.Join(e.WorkDir, "sources")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kraken.hcl"), []byte(krakenSource), 0o600)
}

// giveBack empties brokers for the next script.
func (o *outside) giveBack(pool chan *brokers, b *brokers) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	if err := b.wipe(ctx); err != nil {
		o.t.Errorf("empty Kafka: %v", err)
	}
	pool <- b
}

// krakenSource is a definition for pipelines that are about other things.
const krakenSource = `source {
  description = "Prices, made up."
}
poll {
  url = "https://api.example.com/ticker"
}
decode "json" {
  records = body.result
  key     = r.market
}
row {
  time   = slot
  market = r.market
  price  = number(r.price)
}
`

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE cryptoviz ARGS...")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("it exits with %s, want %s:\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func cmdCluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: cluster")
	}
	o := world(ts)
	o.kafka = <-o.three
	mine := o.kafka
	ts.Defer(func() { o.giveBack(o.three, mine) })
	ts.Setenv("KAFKA_BROKERS", mine.addrs)
}

func cmdTimescale(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: timescale")
	}
	at, err := url.Parse(testkit.Timescale(world(ts).t))
	ts.Check(err)
	ts.Setenv("DATABASE_URL", at.String())
}
