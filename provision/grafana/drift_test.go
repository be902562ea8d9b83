package grafana_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// panelOf finds a panel by its id, in collapsed rows too.
func panelOf(t *testing.T, model map[string]any, id string) map[string]any {
	t.Helper()
	var find func(list any) map[string]any
	find = func(list any) map[string]any {
		panels, _ := list.([]any)
		for _, p := range panels {
			m, _ := p.(map[string]any)
			if m["id"] == json.Number(id) {
				return m
			}
			if in := find(m["panels"]); in != nil {
				return in
			}
		}
		return nil
	}
	p := find(model["panels"])
	if p == nil {
		t.Fatalf("no panel %s", id)
	}
	return p
}

func inside(m map[string]any, path ...string) map[string]any {
	for _, k := range path {
		m, _ = m[k].(map[string]any)
	}
	return m
}

func listed(m map[string]any, path ...string) []any {
	list, _ := inside(m, path[:len(path)-1]...)[path[len(path)-1]].([]any)
	return list
}

// drifts are changes made outside, each with the attributes that must show it: those that the conformance suite of
// package provision does not make.
func drifts(t *testing.T) []struct {
	name, address string
	hand          func(s *grafanatest.Server)
	attrs         []string
	code          string
} {
	save := func(edit func(m map[string]any)) func(s *grafanatest.Server) {
		return func(s *grafanatest.Server) { s.SaveInBrowser(t, "cv-market", "alice", edit) }
	}
	rule := func(edit func(b map[string]any, group *string)) func(s *grafanatest.Server) {
		return func(s *grafanatest.Server) {
			s.Rule("cv-stale", func(b map[string]any, _, group, _ *string) { edit(b, group) })
		}
	}
	return []struct {
		name, address string
		hand          func(s *grafanatest.Server)
		attrs         []string
		code          string
	}{
		{"refresh", "dashboard.market", save(func(m map[string]any) { m["refresh"] = "5m" }), []string{"refresh"}, ""},
		{"refresh off", "dashboard.market", save(func(m map[string]any) { m["refresh"] = "" }), []string{"refresh"}, ""},
		{"time", "dashboard.market", save(func(m map[string]any) { inside(m, "time")["from"] = "now-1h" }), []string{"time"}, ""},
		{"links", "dashboard.market", save(func(m map[string]any) { m["links"] = append(listed(m, "links"), map[string]any{"title": "hers"}) }), []string{"links"}, "CV-G02"},
		{"variable", "dashboard.market", save(func(m map[string]any) { listed(m, "templating", "list")[1].(map[string]any)["multi"] = false }), []string{"variable source"}, "CV-G02"},
		{"order of variables", "dashboard.market", save(func(m map[string]any) { slices.Reverse(listed(m, "templating", "list")) }), []string{"variables"}, ""},
		{"annotation", "dashboard.market", save(func(m map[string]any) { listed(m, "annotations", "list")[1].(map[string]any)["enable"] = false }), []string{"annotation Gaps"}, "CV-G02"},
		{"panel's unit", "dashboard.market", save(func(m map[string]any) {
			inside(panelOf(t, m, "7"), "fieldConfig", "defaults")["unit"] = "currencyEUR"
		}), []string{"panel Price (id 7)"}, "CV-G02"},
		{"panel's title", "dashboard.market", save(func(m map[string]any) { panelOf(t, m, "7")["title"] = "Mine" }), []string{"panel Price (id 7)"}, "CV-G02"},
		{"panel's kind", "dashboard.market", save(func(m map[string]any) { panelOf(t, m, "1")["type"] = "gauge" }), []string{"panel Data (id 1)"}, "CV-G02"},
		{"threshold added", "dashboard.market", save(func(m map[string]any) {
			th := inside(panelOf(t, m, "1"), "fieldConfig", "defaults", "thresholds")
			th["steps"] = append(listed(th, "steps"), map[string]any{"color": "blue", "value": json.Number("90")})
		}), []string{"panel Data (id 1)"}, "CV-G02"},
		{"override added", "dashboard.market", save(func(m map[string]any) {
			inside(panelOf(t, m, "1"), "fieldConfig")["overrides"] = []any{map[string]any{"matcher": map[string]any{"id": "byName"}}}
		}), []string{"panel Data (id 1)"}, "CV-G02"},
		{"nested panel", "dashboard.market", save(func(m map[string]any) { panelOf(t, m, "9")["title"] = "x" }), []string{"panel Sources (id 9)"}, "CV-G02"},
		{"panel moved", "dashboard.market", save(func(m map[string]any) { inside(panelOf(t, m, "7"), "gridPos")["w"] = json.Number("24") }), []string{"layout"}, "CV-G02"},
		{"panel deleted", "dashboard.market", save(func(m map[string]any) { m["panels"] = slices.Delete(listed(m, "panels"), 1, 2) }), []string{"panel Price (id 7)"}, ""},
		{"row with its panel deleted", "dashboard.market", save(func(m map[string]any) { m["panels"] = listed(m, "panels")[:2] }), []string{"panel Pipeline (id 8)", "panel Sources (id 9)"}, ""},
		{"alert group", "alert.stale", rule(func(_ map[string]any, group *string) { *group = "eval" }), []string{"every", "group"}, ""},
		{"alert stage added", "alert.stale", rule(func(b map[string]any, _ *string) {
			b["data"] = append(listed(b, "data"), map[string]any{"refId": "C", "datasourceUid": "__expr__", "model": map[string]any{"type": "reduce"}})
		}), []string{"model"}, ""},
	}
}

func TestEachDrift(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		w.allow = []string{"CV-G02"}
		for _, tt := range drifts(t) {
			t.Run(tt.name, func(t *testing.T) {
				w.t = t
				tt.hand(w.srv)
				c := only(t, w.plan(), tt.address, plan.Drift, tt.attrs...)
				if got := codes(c); tt.code == "" && len(got) > 0 || tt.code != "" && !slices.Contains(got, tt.code) {
					t.Errorf("findings %v, want %q", got, tt.code)
				}
				if said := fmt.Sprint(c.Findings, c.Notes); c.Kind() == "dashboard" && !strings.Contains(said, "saved in Grafana by alice, ") {
					t.Errorf("it does not say who: %s", said)
				}
				w.apply()
			})
		}
	})
}

// What the editor adds by itself, and what nobody declared, is no difference, and stays when something else is applied.
func TestNobodysChangesStay(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) {
			m["panels"] = append(listed(m, "panels"), map[string]any{"id": json.Number("20"), "type": "text", "title": "Hers", "gridPos": map[string]any{"h": json.Number("2"), "w": json.Number("24"), "x": json.Number("0"), "y": json.Number("40")}})
			panelOf(t, m, "9")["links"] = []any{map[string]any{"title": "hers", "url": "/x"}}
			inside(m, "templating")["list"] = append(listed(m, "templating", "list"), map[string]any{"name": "hers", "type": "textbox", "query": "x"})
			m["customKey"] = map[string]any{"deep": json.Number("12345678901234567890")}
		})
		srv.Source("cv-main", func(f, j map[string]any, _ map[string]string) {
			j["postgresVersion"], j["timescaledb"], f["type"] = json.Number("1700"), true, "postgres"
		})
		srv.Rule("cv-stale", func(b map[string]any, _, _, _ *string) {
			b["isPaused"], b["keep_firing_for"], b["notification_settings"] = true, "2m", map[string]any{"receiver": "ops"}
			inside(b, "labels")["hers"] = "1"
			inside(b, "annotations")["runbook_url"] = "https://example.com"
		})
		w.settled()
		c := of(t, w.plan(), "dashboard.market")
		if !slices.ContainsFunc(c.Extra, func(a plan.Attr) bool { return a.Name == "panel Hers (id 20)" }) {
			t.Errorf("her panel is not listed: %v", c.Extra)
		}

		text(`"title": "Sources"`, `"title": "All sources"`)(w.p)
		w.p.DataSources[0].User = "reader"
		w.p.Alerts[0].Summary = "stale"
		w.apply()
		board := srv.Dashboard("cv-market")
		panelOf(t, board, "20")
		if p := panelOf(t, board, "9"); p["title"] != "All sources" || len(listed(p, "links")) != 1 {
			t.Errorf("the nested panel is %v", p)
		}
		if got := inside(board, "customKey")["deep"]; got != json.Number("12345678901234567890") {
			t.Errorf("the key of nobody is %v now", got)
		}
		if len(listed(board, "templating", "list")) != 3 {
			t.Errorf("the variables are %v", listed(board, "templating", "list"))
		}
		srv.Source("cv-main", func(_, j map[string]any, secrets map[string]string) {
			if j["timescaledb"] != true || secrets["password"] != "s3cret-of-db" {
				t.Errorf("the data source lost jsonData or its password: %v", j)
			}
		})
		srv.Rule("cv-stale", func(b map[string]any, _, _, _ *string) {
			if b["isPaused"] != true || b["keep_firing_for"] != "2m" || inside(b, "labels")["hers"] != "1" || inside(b, "annotations")["runbook_url"] == nil {
				t.Errorf("the rule lost what nobody declared: %v", b)
			}
		})
	})
}
