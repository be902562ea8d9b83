package provision_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

const ofEveryKind = `
topic "t" {}
view "v" {
  query = "SELECT id FROM x"
}
role "READER" {}
folder "f" {
  title = "F"
}
datasource "d" {
  host     = "db:5432"
  database = "prices"
  user     = "reader"
}
dashboard "b" {
  file       = "b.json"
  folder     = folder.f
  datasource = datasource.d
}
alert "a" {
  title      = "A"
  folder     = folder.f
  datasource = datasource.d
  query      = "SELECT 1 AS age"
  above      = 300
}
`

// with gives the harness a pipeline in a Grafana, with one dashboard.
func (w *harness) with(g *grafanatest.Server, hcl string) {
	w.t.Helper()
	hcl = "grafana {\n  url = \"http://graphs\"\n}\n" + hcl
	w.saysWith(hcl, map[string]string{"b.json": `{"title": "B", "panels": []}`})
	w.p.Grafana = &spec.Grafana{URL: g.URL, Auth: spec.NewSecret(g.Token), Timeout: w.p.Grafana.Timeout}
}

// A removed block deletes what cryptoviz created. What it did not create needs a consent of its own, whatever the kind.
func TestForeignIsNotRemoved(t *testing.T) {
	t.Parallel()
	kafka, g := client(t, testkit.Kafka(t).Addr()), grafanatest.New(t, grafanatest.V13)
	w := small(t, kafka, "")
	w.with(g, idTable+ofEveryKind)
	w.done("at first")
	var gone []string
	removed := ""
	for _, c := range w.plan().Changes {
		if c.Address != plan.EngineAddress {
			gone = append(gone, c.Address)
			removed += fmt.Sprintf("removed {\n  object = %s\n}\n", c.Address)
		}
	}
	w.exec("DELETE FROM cryptoviz.managed WHERE address <> 'engine.schema'") // as if others had made it all
	w.with(g, removed)
	foreign := func(address string) bool {
		c := changes(w.plan())[address]
		return c.Action == plan.Delete && c.Class() == plan.Destroys &&
			slices.ContainsFunc(c.Findings, func(f plan.Finding) bool {
				return f.Code == "CV-F01" && strings.Contains(f.Text, "cryptoviz did not create it")
			})
	}
	found := w.plan()
	allowed := slices.DeleteFunc(everything(found), func(k plan.Consent) bool { return k.Code == "CV-F01" })
	w.apply(found, allowed...)
	for _, address := range gone {
		if !foreign(address) {
			t.Errorf("%s is gone, or not foreign: %+v", address, changes(w.plan())[address])
		}
	}
	if _, found := w.destroying(); found.Count(plan.Delete) != 1 {
		t.Errorf("destroy deletes %d objects, want the engine's tables alone", found.Count(plan.Delete))
	}
	w.done("with consent")
}

// An object that was deleted outside and made again is not the one that the last apply set.
func TestRecreatedIsForeign(t *testing.T) {
	t.Parallel()
	w := small(t, client(t, testkit.Kafka(t).Addr()), idTable+"topic \"t\" {}\ntopic \"u\" {}\nview \"v\" {\n  query = \"SELECT id FROM x\"\n}\nrole \"READER\" {}\n")
	w.done("at first")
	w.exec("DROP TABLE x CASCADE; CREATE TABLE x (id bigint PRIMARY KEY); CREATE VIEW v AS SELECT id FROM x")
	admin := kadm.NewClient(w.kafka)
	if _, err := admin.DeleteTopic(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		_, err := admin.CreateTopic(t.Context(), 1, 1, nil, "t")
		return err
	})
	w.says("removed {\n  object = topic.t\n}\nremoved {\n  object = topic.u\n}\nremoved {\n  object = table.x\n}\nremoved {\n  object = view.v\n}\nremoved {\n  object = role.READER\n}\n")
	testkit.Eventually(t, func() error { // the broker knows of a new topic a little later
		for address, c := range changes(w.plan()) {
			foreign := slices.ContainsFunc(c.Findings, func(f plan.Finding) bool {
				return f.Code == "CV-F01" && strings.Contains(f.Text, "another one of its name")
			})
			if want := slices.Contains([]string{"topic.t", "table.x", "view.v"}, address); foreign != want {
				return fmt.Errorf("%s: foreign %v, want %v: %+v", address, foreign, want, c.Findings)
			}
		}
		return nil
	})
}

// What apply itself did to other objects is no change from outside, and what was deleted outside is said to be.
func TestWordsOfDrift(t *testing.T) {
	t.Parallel()
	const view = "view \"v\" {\n  query = \"SELECT id FROM x\"\n}\nview \"w\" {\n  query = \"SELECT count(*) AS n FROM x\"\n}\nrole \"READER\" {\n  grant {\n    privileges = [\"select\"]\n    on         = [view.v]\n  }\n}\n"
	w := small(t, client(t, testkit.Kafka(t).Addr()), idTable+"topic \"t\" {}\n"+view)
	w.done("at first")
	renamed := strings.NewReplacer(`column "id" {`, "column \"no\" {\n    was  = \"id\"", `["id"]`, `["no"]`).Replace(idTable)
	w.says(renamed + "topic \"t\" {}\n" + strings.ReplaceAll(view, "SELECT id FROM x", "SELECT no FROM x"))
	target, err := w.plan().Target([]string{"table.x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range w.apply(target) {
		if r.Outcome != provision.Done {
			t.Fatalf("%+v", r)
		}
	}
	for _, c := range w.plan().Changes {
		if c.Drifted() || c.DeletedOutside() {
			t.Errorf("%s is called changed from outside: %+v", c.Address, c.Diffs)
		}
	}
	w.done("all of it")
	w.exec("DROP TABLE x CASCADE")
	if _, err := kadm.NewClient(w.kafka).DeleteTopic(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"table.x", "view.v", "view.w", "topic.t"} {
		testkit.Eventually(t, func() error {
			if c := changes(w.plan())[address]; !c.DeletedOutside() {
				return fmt.Errorf("%s: %s, ours %v", address, c.Action, c.Ours)
			}
			return nil
		})
	}
	var out strings.Builder
	if err := w.plan().Print(&out, plan.Style{Width: 200}); err != nil || strings.Count(out.String(), "was deleted outside since the last apply, will be created again") != 4 {
		t.Errorf("%v\n%s", err, out.String())
	}
	w.done("created again")
}

// In a restored copy of the database every object has another id, and is the one that the last apply set.
func TestRestoredIsNotForeign(t *testing.T) {
	t.Parallel()
	w := small(t, client(t, testkit.Kafka(t).Addr()), idTable+"view \"v\" {\n  query = \"SELECT id FROM x\"\n}\n")
	w.done("at first")
	w.exec(`UPDATE cryptoviz.managed SET state = jsonb_set(state, '{id}', '"1"'), server = '1/1' WHERE state ? 'id'`)
	w.says("removed {\n  object = table.x\n}\nremoved {\n  object = view.v\n}\n")
	for address, c := range changes(w.plan()) {
		if slices.ContainsFunc(c.Findings, func(f plan.Finding) bool { return f.Code == "CV-F01" }) {
			t.Errorf("%s: %+v", address, c.Findings)
		}
	}
}

const oneRecord = `
source {
  attribution = "none"
}
poll {
  url = "http://feed/"
}
decode "json" {
  records = body
}
row {
  time = r.time
  v    = r.v
}
`

const feed = `
table "raw" {
  column "time" {
    type = "timestamptz"
  }
  column "v" {
    type = "bigint"
  }
  primary_key = ["time"]
}
source "NAME" {
  definition = "feed.hcl"
  interval   = "1m"
  topic      = topic.NAME
  table      = table.raw
}
topic "NAME" {}
`

// Two pipelines share a database: each leaves what the other one manages alone, and the last to go takes the engine's tables.
func TestTwoPipelines(t *testing.T) {
	t.Parallel()
	a := small(t, client(t, testkit.Kafka(t).Addr()), "")
	b := &harness{t: t, db: a.db, kafka: a.kafka}
	says := func(w *harness, name, hcl string) {
		files := map[string]string{"feed.hcl": oneRecord}
		w.saysWith(fmt.Sprintf("cryptoviz {\n  name = %q\n}\n", name)+hcl, files)
	}
	sources := func(want string) {
		t.Helper()
		var got string
		const sql = "SELECT coalesce(string_agg(concat_ws(' ', name, pipeline, enabled::text), ', ' ORDER BY name), '') FROM cryptoviz.source"
		if err := a.db.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	one := strings.ReplaceAll(feed, "NAME", "one")
	says(a, "a", one)
	a.done("the first")
	says(b, "b", idTable)
	b.done("the second")
	a.empty("after the second")
	sources("one a true")
	if p := b.plan(); len(p.Orphans) > 0 || !strings.Contains(strings.Join(p.Notes, "\n"), `pipeline "a"`) {
		t.Errorf("orphans %q, notes %q", p.Orphans, p.Notes)
	}

	says(b, "b", one) // the same objects
	found := changes(b.plan())
	for _, address := range []string{"topic.one", "table.raw", plan.EngineAddress} {
		if c := found[address]; !slices.ContainsFunc(c.Findings, func(f plan.Finding) bool { return f.Code == "CV-F02" }) {
			t.Errorf("%s does not say that pipeline a manages it: %+v", address, c.Findings)
		}
	}
	says(b, "b", idTable+"removed {\n  object = topic.one\n}\n")
	if c := changes(b.plan())["topic.one"]; c.Class() != plan.Destroys || c.Findings[0].Code != "CV-F01" {
		t.Errorf("deletes the topic of pipeline a with %+v", c.Findings)
	}

	says(b, "b", idTable)
	going, last := b.destroying()
	if last.Count(plan.Delete) != 1 {
		t.Errorf("destroy of b deletes %d objects, want table x alone", last.Count(plan.Delete))
	}
	if _, err := going.Apply(t.Context(), last, provision.Options{Allow: everything(last)}); err != nil {
		t.Fatal(err)
	}
	a.empty("after the destroy of the second")
	says(b, "c", one) // a has another name now
	b.done("renamed")
	b.empty("renamed")
	sources("one c true")
	going, last = b.destroying()
	if _, err := going.Apply(t.Context(), last, provision.Options{Allow: everything(last)}); err != nil {
		t.Fatal(err)
	}
	var schema bool
	if err := a.db.QueryRow(t.Context(), "SELECT to_regnamespace('cryptoviz') IS NOT NULL").Scan(&schema); err != nil || schema {
		t.Errorf("the engine's tables are there after the last pipeline went: %v", err)
	}
}
