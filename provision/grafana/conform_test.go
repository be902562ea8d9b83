package grafana_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestCreateThenNothing(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newWorld(t, srv).full()
		changes := w.apply()
		for _, c := range changes {
			if c.Action != plan.Create || len(c.Steps) == 0 {
				t.Errorf("%s: %s with the steps %v", c.Address, c.Action, c.Steps)
			}
			if strings.Contains(strings.Join(c.Steps, " "), "s3cret-of-db") {
				t.Errorf("%s: a step tells the password", c.Address)
			}
			text, err := json.Marshal(c)
			if err != nil || strings.Contains(string(text), "s3cret-of-db") {
				t.Errorf("%s: the change tells the password (%v)", c.Address, err)
			}
		}
		if got := srv.Secret("cv-main", "password"); got != "s3cret-of-db" {
			t.Errorf("Grafana has the password %q", got)
		}
		board := srv.Dashboard("cv-market")
		text, err := json.Marshal(board)
		if err != nil || !strings.Contains(string(text), `"value":"cv-main"`) {
			t.Errorf("the data source variable stands elsewhere: %s (%v)", text, err)
		}
	})
}

// intent changes one attribute of the pipeline.
var intents = []struct {
	name, address string
	change        func(p *spec.Pipeline)
	attrs         []string
	codes         []string
}{
	{"folder title", "folder.crypto", func(p *spec.Pipeline) { p.Folders[0].Title = "Coins" }, []string{"title"}, nil},
	{"folder parent", "folder.crypto_detail", func(p *spec.Pipeline) { p.Folders[1].Parent = nil }, []string{"parent"}, []string{"CV-G10"}},
	{"data source title", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].Title = "prices" }, []string{"title"}, nil},
	{"host", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].Host = "db2:5432" }, []string{"host"}, []string{"CV-G13"}},
	{"database", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].Database = "other" }, []string{"database"}, []string{"CV-G13"}},
	{"user", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].User = "reader" }, []string{"user"}, nil},
	{"password", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].Password = spec.NewSecret("n3w-secret") }, []string{"password"}, nil},
	{"sslmode", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].SSLMode = "verify-full" }, []string{"sslmode"}, nil},
	{"min_interval", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].MinInterval = 90 * time.Second }, []string{"min_interval"}, nil},
	{"default", "datasource.main", func(p *spec.Pipeline) { p.DataSources[0].Default = true }, []string{"default"}, nil},
	{"dashboard folder", "dashboard.market", func(p *spec.Pipeline) { p.Dashboards[0].Folder = p.Folders[1] }, []string{"folder"}, nil},
	{"dashboard to the root", "dashboard.market", func(p *spec.Pipeline) { p.Dashboards[0].Folder = nil }, []string{"folder"}, nil},
	{"dashboard title", "dashboard.market", text(`"title": "Market"`, `"title": "Coins"`), []string{"title"}, nil},
	{"tags", "dashboard.market", text(`"tags": ["crypto", "cryptoviz"]`, `"tags": ["coins", "cryptoviz"]`), []string{"tags"}, nil},
	{"refresh", "dashboard.market", text(`"refresh": "30s"`, `"refresh": "1m"`), []string{"refresh"}, nil},
	{"time", "dashboard.market", text(`now-24h`, `now-7d`), []string{"time"}, nil},
	{"description taken away", "dashboard.market", text(`"description": "Prices.", `, ``), []string{"description"}, nil},
	{"links", "dashboard.market", text(`"keepTime": true`, `"keepTime": false`), []string{"links"}, nil},
	{"variable", "dashboard.market", text(`"query": "SELECT name FROM cryptoviz.source"`, `"query": "SELECT name FROM cryptoviz.source ORDER BY 1"`), []string{"variable source"}, nil},
	{"annotation", "dashboard.market", text(`"iconColor": "red"`, `"iconColor": "blue"`), []string{"annotation Gaps"}, nil},
	{"panel", "dashboard.market", text(`"unit": "currencyUSD"`, `"unit": "currencyEUR"`), []string{"panel Price (id 7)"}, nil},
	{"panel title", "dashboard.market", text(`"title": "Price"`, `"title": "Last price"`), []string{"panel Last price (id 7)"}, nil},
	{"field of a panel taken away", "dashboard.market", text(`"interval": "1m",`, ``), []string{"panel Last price (id 7)"}, nil},
	{"nested panel", "dashboard.market", text(`"title": "Sources"`, `"title": "All sources"`), []string{"panel All sources (id 9)"}, nil},
	{"layout", "dashboard.market", text(`"gridPos": {"h": 8, "w": 12, "x": 0, "y": 4}`, `"gridPos": {"h": 8, "w": 24, "x": 0, "y": 4}`), []string{"layout"}, nil},
	{"alert title", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Title = "Stale" }, []string{"title"}, nil},
	{"alert folder", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Folder = p.Folders[0] }, []string{"folder"}, nil},
	{"alert query", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Query = "SELECT 1" }, []string{"query"}, nil},
	{"threshold", "alert.stale", func(p *spec.Pipeline) { f := 2.5; p.Alerts[0].Above, p.Alerts[0].Below = nil, &f }, []string{"threshold"}, nil},
	{"for", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].For = 90 * time.Second }, []string{"for"}, nil},
	{"every", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Every = time.Minute }, []string{"every"}, nil},
	{"no_data", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].NoData = "ok" }, []string{"no_data"}, nil},
	{"label", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Labels = map[string]string{"severity": "mail", "team": "data"} }, []string{"label severity"}, nil},
	{"summary", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Summary = "stale" }, []string{"summary"}, nil},
	{"description", "alert.stale", func(p *spec.Pipeline) { p.Alerts[0].Description = "see the runbook" }, []string{"description"}, nil},
}

func text(old, with string) func(p *spec.Pipeline) {
	return func(p *spec.Pipeline) {
		d := p.Dashboards[0]
		out := strings.Replace(string(d.JSON), old, with, 1)
		if out == string(d.JSON) {
			panic("the dashboard has no " + old)
		}
		d.JSON = []byte(out)
	}
}

func TestEachIntent(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newWorld(t, srv).full()
		w.apply()
		for _, tt := range intents { // one upon the other
			t.Run(tt.name, func(t *testing.T) {
				w.t = t
				tt.change(w.p)
				changes := w.plan()
				cause := plan.Intent
				if tt.name == "description taken away" {
					cause = plan.Reset
				}
				c := only(t, changes, tt.address, cause, tt.attrs...)
				if got := codes(c); strings.Join(got, " ") != strings.Join(tt.codes, " ") {
					t.Errorf("findings %v, want %v", got, tt.codes)
				}
				w.apply()
			})
		}
	})
}
