package grafana_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestCreateThenNothing(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
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

// intents change one attribute of the dashboard: those that the conformance suite of package provision does not.
var intents = []struct {
	name   string
	change func(p *spec.Pipeline)
	attrs  []string
}{
	{"dashboard to the root", func(p *spec.Pipeline) { p.Dashboards[0].Folder = nil }, []string{"folder"}},
	{"refresh", text(`"refresh": "30s"`, `"refresh": "1m"`), []string{"refresh"}},
	{"time", text(`now-24h`, `now-7d`), []string{"time"}},
	{"description taken away", text(`"description": "Prices.", `, ``), []string{"description"}},
	{"links", text(`"keepTime": true`, `"keepTime": false`), []string{"links"}},
	{"variable", text(`"query": "SELECT name FROM cryptoviz.source"`, `"query": "SELECT name FROM cryptoviz.source ORDER BY 1"`), []string{"variable source"}},
	{"annotation", text(`"iconColor": "red"`, `"iconColor": "blue"`), []string{"annotation Gaps"}},
	{"panel", text(`"unit": "currencyUSD"`, `"unit": "currencyEUR"`), []string{"panel Price (id 7)"}},
	{"panel title", text(`"title": "Price"`, `"title": "Last price"`), []string{"panel Last price (id 7)"}},
	{"field of a panel taken away", text(`"interval": "1m",`, ``), []string{"panel Last price (id 7)"}},
	{"nested panel", text(`"title": "Sources"`, `"title": "All sources"`), []string{"panel All sources (id 9)"}},
	{"layout", text(`"gridPos": {"h": 8, "w": 12, "x": 0, "y": 4}`, `"gridPos": {"h": 8, "w": 24, "x": 0, "y": 4}`), []string{"layout"}},
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
		w := newHarness(t, srv).full()
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
				if c := only(t, changes, "dashboard.market", cause, tt.attrs...); len(c.Findings) > 0 {
					t.Errorf("findings %v", codes(c))
				}
				w.apply()
			})
		}
	})
}
