package provision_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// harness is a pipeline, a real broker, the database at a URL and a Grafana.
type harness struct {
	t     *testing.T
	p     *spec.Pipeline
	db    *pgxpool.Pool
	kafka *kgo.Client
}

func newHarness(t *testing.T, url string) *harness {
	t.Helper()
	g := grafanatest.New(t, grafanatest.V13)
	env := map[string]string{"GRAFANA_URL": g.URL, "GRAFANA_AUTH": g.Token}
	p, d := load.Load(os.DirFS(".."), "pipeline.hcl", load.Options{Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	w := &harness{t: t, p: p}
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

func (w *harness) open() *provision.Stack {
	w.t.Helper()
	out, err := provision.NewStack(w.p, provision.Clients{Kafka: w.kafka, DB: w.db, Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(out.Close)
	return out
}

func (w *harness) plan() plan.Plan {
	w.t.Helper()
	found, err := w.open().Plan(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range found.Errors {
		w.t.Errorf("%s: %s", e.Address, e.Text)
	}
	return found
}

// consent is what --allow gives.
func consent(text string) plan.Consent {
	k, err := plan.ParseConsent(text, provision.Codes())
	if err != nil {
		panic(err)
	}
	return k
}

func (w *harness) apply(p plan.Plan, allow ...plan.Consent) []provision.Result {
	w.t.Helper()
	return w.applyAgreed(plan.Agree(p), allow...)
}

func (w *harness) applyAgreed(a plan.Agreement, allow ...plan.Consent) []provision.Result {
	w.t.Helper()
	results, err := w.open().ApplyAgreed(w.t.Context(), a, provision.Options{Allow: allow, By: "test", Version: "0"})
	if err != nil && !errors.Is(err, provision.ErrIncomplete) {
		w.t.Fatal(err)
	}
	return results
}

// empty plans and wants nothing to do.
func (w *harness) empty(when string) {
	w.t.Helper()
	for _, c := range w.plan().Changes {
		if c.Changes() || c.Marks() {
			w.t.Errorf("%s: %s %s: %+v", when, c.Action, c.Address, c.Diffs)
		}
	}
}

func (w *harness) exec(sql string) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

func changes(p plan.Plan) map[string]plan.Change {
	out := map[string]plan.Change{}
	for _, c := range p.Changes {
		out[c.Address] = c
	}
	return out
}

func outcomes(results []provision.Result) map[string]provision.Result {
	out := map[string]provision.Result{}
	for _, r := range results {
		out[r.Address] = r
	}
	return out
}

func TestShippedPipelineOnPostgres(t *testing.T) { shipped(t, newHarness(t, testkit.Postgres(t))) }

func TestShippedPipelineOnTimescale(t *testing.T) { shipped(t, newHarness(t, testkit.Timescale(t))) }

// What is missing is created, a second plan is empty, what was changed outside is told apart and set back.
func shipped(t *testing.T, w *harness) {
	t.Helper()
	first := w.plan()
	if n := first.Count(plan.Create); n != len(first.Changes) || n != 1+5+3+3 {
		t.Errorf("%d of %d changes create something", n, len(first.Changes))
	}
	for _, c := range first.Changes {
		for _, f := range c.Findings {
			t.Errorf("%s: %s %s: %s", c.Address, f.Code, f.Class, f.Text)
		}
	}
	for _, r := range w.apply(first) {
		if r.Outcome != provision.Done {
			t.Errorf("%+v", r)
		}
	}
	w.empty("after apply")
	for _, r := range w.apply(first) {
		if r.Outcome != provision.Done || r.Reason != "already so" {
			t.Errorf("the same plan once more: %+v", r)
		}
	}

	admin := kadm.NewClient(w.kafka)
	value := "3600000"
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, "kraken"); err != nil {
		t.Fatal(err)
	}
	w.exec("ALTER TABLE crypto_sentiment ADD COLUMN more text")
	w.exec("DROP TABLE crypto_data_hourly")
	found := changes(w.plan())
	if c := found["topic.kraken"]; len(c.Diffs) != 1 || c.Diffs[0].Cause != plan.Drift || c.Diffs[0].Old != "1h" || c.Diffs[0].New != "7d" {
		t.Errorf("topic.kraken: %+v", c.Diffs)
	}
	if c := found["table.crypto_sentiment"]; c.Changes() || len(c.Extra) != 1 {
		t.Errorf("table.crypto_sentiment: %+v, %+v", c.Diffs, c.Extra)
	}
	if found["table.crypto_data_hourly"].Action != plan.Create || found["topic.binance"].Action != plan.None {
		t.Errorf("%+v", found)
	}
	w.apply(w.plan())
	w.empty("after the drift was applied")
}

// One impossible change hides none of the others.
func TestImpossibleHidesNothing(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.p.Topics[0].Replication = 3
	w.p.Topics[1].Config["retention.ms"] = "soon"
	found := w.plan()
	got := changes(found)
	if !got["topic.binance"].Impossible() || !got["topic.kraken"].Impossible() || found.ExitCode() != 3 {
		t.Errorf("%+v %+v, exit %d", got["topic.binance"].Findings, got["topic.kraken"].Findings, found.ExitCode())
	}
	done := outcomes(w.apply(found))
	for address, r := range done {
		if want := map[bool]provision.Outcome{true: provision.Skipped, false: provision.Done}[address == "topic.binance" || address == "topic.kraken"]; r.Outcome != want {
			t.Errorf("%s: %+v", address, r)
		}
	}
	topics, err := kadm.NewClient(w.kafka).ListTopics(kadm.WithAuthorizedOps(t.Context()))
	if err != nil || len(topics) != len(w.p.Topics)-2 {
		t.Errorf("%v, %v", topics.Names(), err)
	}
}

// What moved since the plan is refused, with what moved; the rest goes on.
func TestMovedSinceThePlan(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.apply(w.plan())
	w.p.Topics[0].Config["retention.ms"] = "1209600000"
	w.p.Topics[1].Config["retention.ms"] = "1209600000"
	found := w.plan()
	value := "3600000"
	if _, err := kadm.NewClient(w.kafka).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, "binance"); err != nil {
		t.Fatal(err)
	}
	done := outcomes(w.apply(found))
	if r := done["topic.binance"]; r.Outcome != provision.Refused || len(r.Since) != 1 || r.Since[0].Old != "7d" || r.Since[0].New != "1h" {
		t.Errorf("%+v", r)
	}
	if r := done["topic.kraken"]; r.Outcome != provision.Done {
		t.Errorf("%+v", r)
	}
}

// What was deleted and made again since the plan, with the same settings, is another object: what it holds the plan has not
// counted.
func TestMadeAgainSinceThePlan(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.apply(w.plan())
	topic, table, other := w.p.Topics[0], w.p.Tables[2], w.p.Tables[1]
	days, about, aboutOther := topic.Config["retention.ms"], table.Description, other.Description
	topic.Config["retention.ms"], table.Description, other.Description = "1209600000", "Other.", "Other."
	found := w.plan()
	admin := kadm.NewClient(w.kafka)
	if _, err := admin.DeleteTopic(t.Context(), topic.Name); err != nil {
		t.Fatal(err)
	}
	w.exec("DROP TABLE " + table.Name)
	topic.Config["retention.ms"], table.Description, other.Description = days, about, aboutOther
	made := changes(w.plan())
	w.apply(plan.Plan{Changes: []plan.Change{made["topic."+topic.Name], made["table."+table.Name]}})
	topic.Config["retention.ms"], table.Description, other.Description = "1209600000", "Other.", "Other."
	done := outcomes(w.apply(found))
	for _, address := range []string{"topic." + topic.Name, "table." + table.Name} {
		r := done[address]
		if r.Outcome != provision.Refused || len(r.Since) == 0 || r.Since[0].What != "object" || !strings.HasPrefix(r.Since[0].New, "deleted, and another made") {
			t.Errorf("%+v", r)
		}
	}
	if r := done["table."+other.Name]; r.Outcome != provision.Done {
		t.Errorf("%+v", r)
	}
	if done = outcomes(w.apply(w.plan())); len(done) != 2 {
		t.Errorf("%+v", done)
	}
	w.empty("planned again")
}

// A shorter keep_raw deletes days. Until apply was allowed to, the engine keeps them as long as before.
func TestShorterKeepRaw(t *testing.T) {
	url := testkit.Postgres(t)
	w := newHarness(t, url)
	w.db = database(t, url)
	r := w.p.Rollups[0]
	r.KeepRaw = 90 * 24 * time.Hour
	w.apply(w.plan())
	w.empty("applied")
	w.exec("DROP TABLE cryptoviz.rollup_state; UPDATE cryptoviz.meta SET value = '4' WHERE key = 'schema_version'") // an earlier version
	w.apply(w.plan())
	w.empty("migrated")
	day := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -9)
	w.exec(fmt.Sprintf("CREATE TABLE nine PARTITION OF raw_crypto_data FOR VALUES FROM ('%s') TO ('%s')", day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)))
	w.exec(fmt.Sprintf("INSERT INTO raw_crypto_data (time, source, base, quote, price) SELECT t, 'kraken', 'BTC', 'USD', 1 FROM generate_series('%[1]s'::timestamptz, '%[1]s'::timestamptz + interval '99 minutes', '1 minute') t", day.Format(time.RFC3339)))
	st, err := store.Open(t.Context(), w.db.Config(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	raw := rollup.Raw{Pool: st.Pool(), Log: slog.New(slog.DiscardHandler)}
	rolled := func(dropped bool) {
		t.Helper()
		out, err := raw.Day(t.Context(), r, day, time.Now(), false)
		if err != nil || out.Dropped != dropped {
			t.Errorf("%+v %v", out, err)
		}
		due, err := raw.Due(t.Context(), r, time.Now())
		if err != nil || len(due) > 0 {
			t.Errorf("due: %v %v", due, err)
		}
	}
	rolled(false)
	r.KeepRaw = 0
	rolled(false)
	found := w.plan()
	c := changes(found)["table.raw_crypto_data"]
	if len(c.Findings) != 1 || c.Findings[0].Code != "CV-T39" || c.Findings[0].Loss.Count != 100 || c.Findings[0].Loss.From != day.Format(time.RFC3339) || len(c.Steps) > 0 {
		t.Errorf("%+v %q", c.Findings, c.Steps)
	}
	if done := outcomes(w.apply(found)); done["table.raw_crypto_data"].Outcome != provision.Skipped {
		t.Errorf("%+v", done)
	}
	rolled(false)
	w.apply(w.plan(), consent("CV-T39@table.raw_crypto_data"))
	w.empty("allowed")
	rolled(true)
	r.KeepRaw = 30 * 24 * time.Hour // a longer one costs nothing
	if c := changes(w.plan())["table.raw_crypto_data"]; c.Action != plan.Update || len(c.Findings) > 0 {
		t.Errorf("%s", told(c))
	}
	kept := func(want string) {
		t.Helper()
		var got string
		const sql = "SELECT coalesce(string_agg(table_name || ' ' || keep_raw, ', '), '') FROM cryptoviz.rollup_state"
		if err := w.db.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	w.apply(w.plan())
	kept("raw_crypto_data 30 days")
	w.p.Rollups = nil
	w.apply(w.plan())
	kept("")
}

// A column leaves a table and the view that reads it in one edit, and one apply. What depends on a change that cannot be done is
// not counted as done.
func TestColumnAndItsReader(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.exec("CREATE VIEW crypto_data_hourly AS SELECT 1 AS one")
	table := w.p.Tables[2]
	w.p.Views = []*spec.View{
		{Name: "mood", Query: "SELECT time, value, classification FROM crypto_sentiment"}, {Name: "hours", Query: "SELECT time FROM crypto_data_hourly"},
	}
	found := w.plan()
	if c := changes(found)["view.hours"]; c.Waits != "table.crypto_data_hourly" || strings.Contains(found.Summary(), "must wait") == (c.Waits == "") {
		t.Errorf("%+v %s", c, found.Summary())
	}
	if done := outcomes(w.apply(found)); done["view.hours"].Outcome != provision.Skipped || done["view.mood"].Outcome != provision.Done {
		t.Errorf("%+v", done)
	}
	w.exec("DROP VIEW crypto_data_hourly")
	w.apply(w.plan())
	w.empty("all is there")
	table.Columns = slices.DeleteFunc(slices.Clone(table.Columns), func(c *spec.Column) bool { return c.Name == "classification" })
	w.p.Views[0].Query = "SELECT time, value FROM crypto_sentiment"
	found = w.plan()
	if c := changes(found); c["table.crypto_sentiment"].Group != "table.crypto_sentiment" || c["view.mood"].Group != "table.crypto_sentiment" {
		t.Errorf("%s\n%s", told(c["table.crypto_sentiment"]), told(c["view.mood"]))
	}
	w.apply(found, everything(found)...)
	w.empty("after one apply")
}

// A destroying change waits for its consent, and only that one.
func TestConsent(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.apply(w.plan())
	for range 100 {
		if err := w.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "binance", Value: []byte("x"), Timestamp: time.Now().Add(-3 * time.Hour)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	w.p.Topics[0].Config["retention.ms"] = "3600000"
	w.p.Topics[1].Config["retention.ms"] = "1209600000"
	found := w.plan()
	c := changes(found)["topic.binance"]
	if c.Class() != plan.Destroys || c.Findings[0].Loss == nil || c.Findings[0].Loss.Count != 100 {
		t.Fatalf("%+v", c.Findings)
	}
	done := outcomes(w.apply(found, consent("CV-K07@topic.other")))
	if done["topic.binance"].Outcome != provision.Skipped || done["topic.kraken"].Outcome != provision.Done {
		t.Errorf("%+v", done)
	}
	if done = outcomes(w.apply(w.plan(), consent(c.Findings[0].Code+"@topic.binance"))); done["topic.binance"].Outcome != provision.Done {
		t.Errorf("%+v", done)
	}
	w.empty("after consent")
}

// A block that goes leaves its object alone; a removed block deletes it.
func TestRemoved(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.apply(w.plan())
	okx := w.p.Topics[4]
	w.p.Topics, w.p.Sources = w.p.Topics[:4], w.p.Sources[:4]
	found := w.plan()
	if strings.Join(found.Orphans, " ") != "topic.okx" || found.Count(plan.Delete) != 0 {
		t.Errorf("%+v", found.Orphans)
	}
	w.p.Removed = []*spec.Removed{{Kind: "topic", Name: okx.Name}}
	found = w.plan()
	c := changes(found)["topic.okx"]
	if c.Action != plan.Delete || c.Class() != plan.Destroys {
		t.Fatalf("%+v", c)
	}
	w.apply(found, consent(c.Findings[0].Code+"@topic.okx"))
	topics, err := kadm.NewClient(w.kafka).ListTopics(kadm.WithAuthorizedOps(t.Context()))
	if err != nil || topics.Has(okx.Name) {
		t.Errorf("%v, %v", topics.Names(), err)
	}
	w.empty("after the removal")
}

// A dropped or renamed column names the rollup and the panels that read it.
func TestReadersOfAColumn(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.apply(w.plan())
	for _, c := range w.p.Tables[0].Columns {
		if c.Name == "volume_24h" {
			c.Name, c.Was = "volume_day", "volume_24h"
		}
	}
	got := changes(w.plan())
	for _, address := range []string{"rollup.hourly", "dashboard.market_overview"} {
		c := got[address]
		if len(c.Findings) == 0 || !strings.Contains(c.Findings[0].Text, "volume_24h") {
			t.Errorf("%s: %+v", address, c.Findings)
		}
	}
}

// Whatever reads an object that goes is named before it goes, also what has not been made yet.
func TestReadersOfWhatIsRemoved(t *testing.T) {
	url := testkit.Postgres(t)
	w, admin := newHarness(t, url), database(t, url)
	w.db = admin
	table := &spec.Table{Name: "spreads", Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}}, PrimaryKey: []string{"id"}}
	w.p.Tables = append(w.p.Tables, table)
	w.p.Views = []*spec.View{{Name: "wide", Query: "SELECT base, price FROM raw_crypto_data"}, {Name: "stays", Query: "SELECT price AS wide FROM raw_crypto_data"}}
	source, zero := w.p.DataSources[0], 0.0
	for name, query := range map[string]string{"far": "SELECT count(*) FROM wide", "named": "SELECT count(public.wide.price) FROM public.wide"} {
		w.p.Alerts = append(w.p.Alerts, &spec.Alert{Name: name, Title: name, Folder: w.p.Folders[0], DataSource: source, Query: query, Above: &zero, Every: time.Minute, NoData: "ok"})
	}
	first := w.plan()
	if c := changes(first); len(c["alert.far"].Findings)+len(c["alert.named"].Findings) > 0 { // the view that they read is made with them
		t.Errorf("%+v %+v", c["alert.far"].Findings, c["alert.named"].Findings)
	}
	w.apply(first)
	w.empty("before")
	w.p.Tables, w.p.Views = w.p.Tables[:len(w.p.Tables)-1], append(w.p.Views[1:], &spec.View{Name: "later", Query: "SELECT base FROM wide"}, &spec.View{Name: "after", Query: "SELECT wide.id FROM spreads AS wide"})
	w.p.Removed = []*spec.Removed{{Kind: "view", Name: "wide"}, {Kind: "table", Name: "spreads"}}
	w.p.Views = append(w.p.Views, &spec.View{Name: "of_new", Query: "SELECT id FROM fresh"}, &spec.View{Name: "named", Query: "SELECT id FROM public.fresh"},
		&spec.View{Name: "named_gone", Query: "SELECT id FROM \"public\" . spreads"})
	w.p.Tables = append(w.p.Tables, &spec.Table{Name: "fresh", Columns: table.Columns, PrimaryKey: table.PrimaryKey})
	got := changes(w.plan())
	for address, want := range map[string]string{
		"view.later": "CV-V02: :1:18: it reads view.wide, which a removed block deletes", "view.after": "CV-V02: :1:21: it reads table.spreads, which a removed block deletes",
		"alert.far": "it reads view.wide, which a removed block deletes", "alert.named": "it reads view.wide, which a removed block deletes",
		"view.named_gone": "CV-V02: :1:27: it reads table.spreads, which a removed block deletes", "view.named": "", "view.stays": "", "view.of_new": "", "table.fresh": "",
	} {
		c, text := got[address], ""
		for _, f := range c.Findings {
			text += f.Code + ": " + f.Text
		}
		if !strings.Contains(text, want) || want == "" && text != "" {
			t.Errorf("%s: %q, want %q", address, text, want)
		}
	}
	// Who may make no schema cannot hide what goes; the new table is tried all the same.
	role := "hand_of_" + w.db.Config().ConnConfig.Database
	w.exec("CREATE ROLE " + role + "; GRANT USAGE, CREATE ON SCHEMA public TO " + role + "; GRANT USAGE ON SCHEMA cryptoviz TO " + role + "; GRANT SELECT ON ALL TABLES IN SCHEMA cryptoviz, public TO " + role)
	t.Cleanup(func() { _, _ = admin.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	cfg := w.db.Config()
	cfg.ConnConfig.RuntimeParams["role"] = role
	var err error
	if w.db, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if c := changes(w.plan())["view.of_new"]; c.Action != plan.Create || len(c.Findings) > 0 {
		t.Errorf("%s", told(c))
	}
}

// Interrupted at any point, the next apply does the rest.
func TestInterrupted(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	for stop := 1; ; stop++ {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := w.open().Apply(ctx, w.plan(), provision.Options{Progress: func(e provision.Event) {
			if e.Outcome == "" {
				if n++; n == stop {
					cancel()
				}
			}
		}})
		cancel()
		if err == nil {
			break
		}
		if stop > 40 {
			t.Fatal(err)
		}
	}
	w.empty("in the end")
}

// Two applies at once: the second one says who is at work.
func TestTwoApplies(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	found := w.plan()
	entered, leave := make(chan bool), make(chan bool)
	done := make(chan error)
	go func() {
		first := true
		_, err := w.open().Apply(t.Context(), found, provision.Options{Progress: func(provision.Event) {
			if first {
				first = false
				close(entered)
				<-leave
			}
		}})
		done <- err
	}()
	<-entered
	_, err := w.open().Apply(testkit.Context(t), found, provision.Options{})
	if err == nil || !strings.Contains(err.Error(), "apply") {
		t.Errorf("%v", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
