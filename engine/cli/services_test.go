package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

// ask runs statements on the script's database, and returns what they answer: a line a row.
func ask(ts *testscript.TestScript, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "SET search_path = public"); err != nil { // the user's name is that of the engine's schema
		return "", err
	}
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, r := range results {
		for _, row := range r.Rows {
			out.Write(append(bytes.Join(row, []byte("|")), '\n'))
		}
	}
	return out.String(), nil
}

func cmdPsql(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: psql SQL")
	}
	text, err := ask(ts, args[0])
	ts.Check(err)
	_, err = ts.Stdout().Write([]byte(text))
	ts.Check(err)
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await SQL TEXT")
	}
	var got string
	var err error
	for began := time.Now(); time.Since(began) < testkit.Patience; time.Sleep(20 * time.Millisecond) {
		if got, err = ask(ts, args[0]); strings.TrimSpace(got) == args[1] {
			return
		}
	}
	ts.Fatalf("the answer is still %q, %v", got, err)
}

// until waits until a topic, by what is set on it, is as it should be: a broker answers before all that it knows is up to date.
// nil: there is no such topic.
func (b *brokers) until(ctx context.Context, good func(set map[string]string) bool, topic string) error {
	for {
		var set map[string]string
		topics, err := b.ListTopics(kadm.WithAuthorizedOps(ctx), topic)
		if err != nil {
			return err
		}
		if topics.Has(topic) {
			configs, err := b.DescribeTopicConfigs(ctx, topic)
			if err != nil {
				return err
			}
			set = map[string]string{}
			for _, c := range configs[0].Configs {
				if c.Source == kmsg.ConfigSourceDynamicTopicConfig {
					set[c.Key] = c.MaybeValue()
				}
			}
		}
		if good(set) {
			return nil
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // a poll without a testing.TB
	}
}

func cmdKafka(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || neg && args[0] != "list" {
		ts.Fatalf("usage: kafka create|alter|produce|delete|kill|restart|list ...")
	}
	b := world(ts).kafka
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	switch what, args := args[0], args[1:]; {
	case what == "create" && len(args) >= 2:
		n, err := strconv.ParseInt(args[1], 10, 32)
		ts.Check(err)
		config := map[string]*string{}
		for _, pair := range args[2:] {
			key, value, _ := strings.Cut(pair, "=")
			config[key] = &value
		}
		_, err = b.CreateTopic(ctx, int32(n), 1, config, args[0])
		ts.Check(err)
		ts.Check(b.until(ctx, func(set map[string]string) bool { return set != nil }, args[0]))
	case what == "alter" && len(args) >= 2:
		var changes []kadm.AlterConfig
		for _, pair := range args[1:] {
			key, value, _ := strings.Cut(pair, "=")
			c := kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value}
			if value == "" {
				c = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: key}
			}
			changes = append(changes, c)
		}
		done, err := b.AlterTopicConfigs(ctx, changes, args[0])
		ts.Check(err)
		ts.Check(done[0].Err)
		ts.Check(b.until(ctx, func(set map[string]string) bool {
			return !slices.ContainsFunc(changes, func(c kadm.AlterConfig) bool {
				value, is := set[c.Name]
				return is != (c.Op == kadm.SetConfig) || is && value != *c.Value
			})
		}, args[0]))
	case what == "produce" && len(args) == 3:
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		age, err := units.ParseDuration(args[2])
		ts.Check(err)
		records := make([]*kgo.Record, n)
		at := time.Now().Add(-age)
		for i := range records {
			records[i] = &kgo.Record{Topic: args[0], Key: []byte("BTC/USD"), Value: []byte(`{"market":"BTC/USD","price":"97000.1"}`), Timestamp: at}
		}
		producer, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.addrs, ",")...), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
			kgo.ProducerLinger(50*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression())) // one batch a partition: the same size each time
		ts.Check(err)
		defer producer.Close()
		ts.Check(producer.ProduceSync(ctx, records...).FirstErr())
	case (what == "kill" || what == "restart") && len(args) == 1:
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		if member := b.members[n-1]; what == "kill" {
			member.Kill()
		} else {
			ts.Check(member.Restart())
		}
	case what == "delete" && len(args) == 1:
		_, err := b.DeleteTopic(ctx, args[0])
		ts.Check(err)
		ts.Check(b.until(ctx, func(set map[string]string) bool { return set == nil }, args[0]))
	case what == "list" && len(args) == 0:
		topics, err := b.ListTopics(kadm.WithAuthorizedOps(ctx))
		ts.Check(err)
		if neg && len(topics) > 0 {
			ts.Fatalf("there are topics: %v", topics.Names())
		}
		for _, t := range topics.Sorted() {
			configs, err := b.DescribeTopicConfigs(ctx, t.Topic)
			ts.Check(err)
			_, err = fmt.Fprintf(ts.Stdout(), "%s %d%s\n", t.Topic, len(t.Partitions), ownSettings(configs[0]))
			ts.Check(err)
		}
	default:
		ts.Fatalf("kafka %s: not so", what)
	}
}

// ownSettings are those that are set on a topic itself.
func ownSettings(r kadm.ResourceConfig) string {
	var out []string
	for _, c := range r.Configs {
		if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
			out = append(out, " "+c.Key+"="+c.MaybeValue())
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func cmdGrafana(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: grafana folder|put|edit|rule|provision|fault|mended|annotations ...")
	}
	o := world(ts)
	switch what, args := args[0], args[1:]; {
	case what == "put" && len(args) == 1:
		o.grafana.Put(o.t, "", "bob", []byte(ts.ReadFile(args[0])))
	case what == "put" && len(args) == 2:
		o.grafana.Put(o.t, args[1], "bob", []byte(ts.ReadFile(args[0])))
	case what == "edit" && len(args) == 4:
		found := false
		o.grafana.SaveInBrowser(o.t, args[0], "ann", func(model map[string]any) {
			panels, _ := model["panels"].([]any)
			for _, p := range panels {
				if panel, _ := p.(map[string]any); panel["title"] == args[1] {
					found, panel[args[2]] = true, args[3]
				}
			}
		})
		if !found {
			ts.Fatalf("no panel %s", args[1])
		}
	case what == "rule" && len(args) == 3:
		o.grafana.Rule(args[0], func(body map[string]any, _, _, _ *string) { body[args[1]] = args[2] })
	case what == "folder" && len(args) == 2:
		body, err := json.Marshal(map[string]string{"uid": args[0], "title": args[1]})
		ts.Check(err)
		req, err := http.NewRequest(http.MethodPost, o.grafana.URL+"/api/folders", bytes.NewReader(body))
		ts.Check(err)
		req.Header.Set("Authorization", "Bearer "+o.grafana.Token)
		resp, err := http.DefaultClient.Do(req)
		ts.Check(err)
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
			ts.Fatalf("make a folder: %s", resp.Status)
		}
	case what == "provision" && len(args) == 1:
		o.grafana.Provision(args[0])
	case what == "fault" && len(args) >= 3:
		f, err := fault(args[2])
		ts.Check(err)
		if f.Method, f.Path = args[0], args[1]; len(args) == 4 {
			f.Times, err = strconv.Atoi(args[3])
			ts.Check(err)
		}
		o.mended = append(o.mended, o.grafana.Fail(f))
	case what == "mended" && len(args) == 0:
		for _, stop := range o.mended {
			stop()
		}
		o.mended = nil
	case what == "annotations" && len(args) == 0:
		for _, n := range o.grafana.Notes() {
			_, err := fmt.Fprintf(ts.Stdout(), "%s\n", n["text"])
			ts.Check(err)
		}
	default:
		ts.Fatalf("grafana %s: not so", what)
	}
}

// fault is what a word of a script means.
func fault(word string) (grafanatest.Fault, error) {
	switch word {
	case "cut":
		return grafanatest.Fault{Cut: true}, nil
	case "html":
		return grafanatest.Fault{Status: http.StatusBadGateway, Body: "<html><body>Bad gateway</body></html>"}, nil
	case "slow":
		return grafanatest.Fault{Delay: time.Minute, Status: http.StatusServiceUnavailable}, nil
	}
	status, err := strconv.Atoi(word)
	return grafanatest.Fault{Status: status}, err
}
