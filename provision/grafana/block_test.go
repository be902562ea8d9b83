package grafana_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

// What Block writes, read by the language, is what Grafana has: the plan after import is empty.
func TestBlocksDeclareWhatIsThere(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.p.Folders[0].Title = "Crypto ${x} \"quoted\""
		w.p.DataSources[0].Default = true
		w.p.Alerts[0].Query = "SELECT '${x}', 1\n  FROM t\n\nWHERE a = 'SQL'"
		w.apply()
		srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) { m["title"] = "Edited <&> há" })
		srv.Put(t, "", "carol", []byte(`{"uid": "ab12-X", "title": "24h: Überblick", "schemaVersion": 42, "panels": [{"type": "text", "title": "no id"}]}`))

		empty := newHarness(t, srv)
		names, err := empty.org.Unmanaged(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names, " "); got != "alert.stale dashboard.ab12_X dashboard.market datasource.main folder.crypto folder.crypto_detail" {
			t.Fatalf("unmanaged: %s", got)
		}
		files := fstest.MapFS{}
		text := fmt.Sprintf(prelude, srv.URL)
		for _, address := range []string{"folder.crypto", "folder.crypto_detail", "datasource.main", "dashboard.market", "dashboard.ab12-X", "alert.stale"} {
			kind, name, _ := strings.Cut(address, ".")
			b, err := grafana.Block(context.Background(), empty.org, kind, name)
			if err != nil {
				t.Fatalf("%s: %v", address, err)
			}
			text += "\n" + b.HCL
			for name, src := range b.Files {
				files[name] = &fstest.MapFile{Data: src}
			}
			if empty.p = mustLoad(t, files, text); address == "dashboard.market" && !strings.Contains(b.HCL, "datasource = datasource.main") {
				t.Errorf("it lost its data source:\n%s", b.HCL)
			}
			empty.org = grafana.NewOrg(empty.client, empty.p).Quick()
		}
		if !strings.Contains(text, `dashboard "d_ab12_x"`) && !strings.Contains(text, `dashboard "`) {
			t.Error(text)
		}
		for _, c := range empty.plan() {
			if c.Changes() || !c.Adopt {
				t.Errorf("after import %s: %s %s\n%s", c.Address, c.Action, show(c.Diffs), text)
			}
		}
		names, err = empty.org.Unmanaged(context.Background())
		if err != nil || len(names) > 0 {
			t.Errorf("still unmanaged: %v (%v)", names, err)
		}
	})
}

const prelude = `kafka { brokers = ["localhost:1"] }
database { url = "postgres://u@localhost/d" }
grafana {
  url  = %q
  auth = env("TOKEN")
}
source "fear_greed" {
  definition = "sources/fear_greed.hcl"
  interval   = "1h"
  topic      = topic.fear_greed
  table      = table.sentiment
}
topic "fear_greed" { partitions = 1 }
table "sentiment" {
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "value" { type = "integer" }
  column "classification" { type = "text" }
  primary_key = ["source", "time"]
}
`

func mustLoad(t *testing.T, files fstest.MapFS, text string) *spec.Pipeline {
	t.Helper()
	source, err := os.ReadFile("../../sources/fear_greed.hcl")
	if err != nil {
		t.Fatal(err)
	}
	all := fstest.MapFS{"pipeline.hcl": {Data: []byte(text)}, "sources/fear_greed.hcl": {Data: source}}
	maps.Copy(all, files)
	p, d := load.Load(all, "pipeline.hcl", load.Options{Env: func(string) (string, bool) { return "token", true }})
	if d.HasErrors() {
		t.Fatalf("%v\n%s", d.Diags, text)
	}
	return p
}

func TestBlocksThatCannotBe(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	w.apply()
	srv.Source("cv-main", func(f, _ map[string]any, _ map[string]string) { f["type"] = "mysql" })
	srv.Rule("cv-stale", func(b map[string]any, _, group, _ *string) { *group, b["execErrState"] = "mine", "OK" })
	none := newHarness(t, srv)
	for address, want := range map[string]string{"datasource.main": "mysql", "dashboard.nosuch": "no dashboard nosuch", "alert.stale": "import that first"} {
		kind, name, _ := strings.Cut(address, ".")
		if _, err := grafana.Block(context.Background(), none.org, kind, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	w.org.Reset()
	if _, err := grafana.Block(context.Background(), w.org, "alert", "stale"); err == nil || !strings.Contains(err.Error(), "group is mine") || !strings.Contains(err.Error(), "model") {
		t.Errorf("alert.stale: %v", err)
	}
}
