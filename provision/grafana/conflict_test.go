package grafana_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func finding(t *testing.T, c plan.Change, code string) plan.Finding {
	t.Helper()
	i := slices.IndexFunc(c.Findings, func(f plan.Finding) bool { return f.Code == code })
	if i < 0 {
		t.Fatalf("no finding %s: %v %v", code, c.Findings, c.Notes)
	}
	return c.Findings[i]
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("it lacks %q: %s", p, text)
		}
	}
}

// alice edits the panel Price, the file the panel Data: both are kept.
func TestEditsInDifferentPlacesAreMerged(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		srv.SaveInBrowser(t, "cv-market", "bob", func(m map[string]any) { m["description"] = "Prices." })
		srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) {
			p := panelOf(t, m, "7")
			p["title"], inside(p, "fieldConfig", "defaults")["unit"] = "Price in EUR", "currencyEUR"
		})
		text(`"textMode": "value"`, `"textMode": "name"`)(w.p)
		text(`{"id": 8, "type": "row"`, `{"id": 12, "type": "text", "title": "New", "gridPos": {"h": 2, "w": 24, "x": 0, "y": 30}}, {"id": 8, "type": "row"`)(w.p)

		changes := w.plan()
		c := only(t, changes, "dashboard.market", plan.Intent, "panel Data (id 1)", "panel New (id 12)")
		says(t, finding(t, c, "CV-G03").Text, "alice", "2026-01-09 14:", "panel Price (id 7)", "the last apply's is 1", "bob")
		if strings.Contains(finding(t, c, "CV-G03").Text, "sa-cryptoviz") {
			t.Errorf("it takes the apply for somebody: %s", finding(t, c, "CV-G03").Text)
		}
		if c.Class() != plan.Risky {
			t.Errorf("its class is %s", c.Class())
		}
		says(t, strings.Join(c.Notes, "\n"), `kept panel Price (id 7)`, `title "Price" -> "Price in EUR"`, `fieldConfig.defaults.unit "currencyUSD" -> "currencyEUR"`, `textMode "value" -> "name"`)
		if err := w.carry(changes); err != nil {
			t.Fatal(err)
		}
		board := srv.Dashboard("cv-market")
		if panelOf(t, board, "7")["title"] != "Price in EUR" || inside(panelOf(t, board, "1"), "options")["textMode"] != "name" || panelOf(t, board, "12")["title"] != "New" {
			t.Errorf("it was not merged: %v", board["panels"])
		}

		// What is left is hers alone: it is shown, and set back with consent only.
		c = only(t, w.plan(), "dashboard.market", plan.Drift, "panel Price (id 7)")
		says(t, finding(t, c, "CV-G02").Text, "alice, before by bob", "kept by the last apply (version 4)")
		before := srv.Dashboard("cv-market")
		if err := w.carry([]plan.Change{c}); err != nil {
			t.Fatal(err)
		}
		if got := srv.Dashboard("cv-market"); panelOf(t, got, "7")["title"] != panelOf(t, before, "7")["title"] {
			t.Error("her panel was set back without consent")
		}
		w.allow = []string{"CV-G02"}
		w.apply()

		// Or taken into the file.
		w = newHarness(t, grafanatest.New(t, srv.Profile)).full()
		w.apply()
		w.srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) { panelOf(t, m, "7")["title"] = "Price in EUR" })
		text(`"title": "Price"`, `"title": "Price in EUR"`)(w.p)
		w.settled()
	})
}

// Both edit the panel Price.
func TestEditsOfTheSamePanelNeedConsent(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) {
			inside(panelOf(t, m, "7"), "fieldConfig", "defaults")["unit"] = "currencyEUR"
			panelOf(t, m, "9")["title"] = "Hers too"
		})
		text(`"title": "Price"`, `"title": "Last price"`)(w.p)
		c := of(t, w.plan(), "dashboard.market")
		f := finding(t, c, "CV-G02")
		says(t, f.Text, "alice", "version 2", "panel Last price (id 7)", "panel Sources (id 9)")
		if c.Class() != plan.Destroys || f.Loss == nil {
			t.Errorf("class %s, loss %v", c.Class(), f.Loss)
		}
		if d, _ := c.Diff("panel Last price (id 7)"); d.Cause != plan.Both {
			t.Errorf("the panel differs because of %s", d.Cause)
		}
		says(t, strings.Join(c.Notes, "\n"), `title "Price" -> "Last price"`, `in Grafana it was changed: fieldConfig.defaults.unit "currencyUSD" -> "currencyEUR"`)
		if err := w.carry([]plan.Change{c}); err != nil {
			t.Fatal(err)
		}
		if panelOf(t, srv.Dashboard("cv-market"), "7")["title"] != "Price" {
			t.Error("it was overwritten without consent")
		}
		w.allow = []string{"CV-G02"}
		w.apply()
		p := panelOf(t, srv.Dashboard("cv-market"), "7")
		if p["title"] != "Last price" || inside(p, "fieldConfig", "defaults")["unit"] != "currencyUSD" {
			t.Errorf("the panel is %v", p)
		}
	})
}

// The file drops a panel that alice has edited.
func TestADroppedPanelWithEditsNeedsConsent(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	w.srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) { panelOf(t, m, "7")["title"] = "Mine" })
	d := w.p.Dashboards[0]
	before, rest, _ := strings.Cut(string(d.JSON), `    {"id": 7,`)
	_, after, _ := strings.Cut(rest, `    {"id": 8,`)
	d.JSON = []byte(before + `    {"id": 8,` + after)
	c := of(t, w.plan(), "dashboard.market")
	says(t, finding(t, c, "CV-G02").Text, "panel Mine (id 7)")
	w.allow = []string{"CV-G02"}
	w.apply()
	if len(listed(w.srv.Dashboard("cv-market"), "panels")) != 2 {
		t.Error("the panel is still there")
	}
}

func TestADroppedPanelWithoutEditsJustGoes(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V12)).full()
	w.apply()
	d := w.p.Dashboards[0]
	before, rest, _ := strings.Cut(string(d.JSON), `    {"id": 7,`)
	_, after, _ := strings.Cut(rest, `    {"id": 8,`)
	d.JSON = []byte(before + `    {"id": 8,` + after)
	c := of(t, w.plan(), "dashboard.market")
	if len(c.Findings) > 0 {
		t.Errorf("findings: %v", c.Findings)
	}
	w.apply()
	if len(listed(w.srv.Dashboard("cv-market"), "panels")) != 2 {
		t.Error("the panel is still there")
	}
}

// The ledger is lost: what we saved last is known by the message of its version; what somebody else made is not
// overwritten.
func TestAdoption(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		clear(w.ledger)
		for _, c := range w.plan() {
			if c.Address == "datasource.main" { // Grafana does not tell its password: it is set anew
				only(t, []plan.Change{c}, c.Address, plan.Intent, "password")
				continue
			}
			if c.Changes() || !c.Adopt {
				t.Errorf("%s: %s, adopted %t: %s", c.Address, c.Action, c.Adopt, show(c.Diffs))
			}
		}
		text(`"title": "Price"`, `"title": "Last price"`)(w.p)
		if c := of(t, w.plan(), "dashboard.market"); len(c.Findings) > 0 {
			t.Errorf("it is ours, and yet: %v", c.Findings)
		}
		w.apply()

		foreign := newHarness(t, grafanatest.New(t, srv.Profile)).full()
		foreign.srv.Put(t, "", "carol", []byte(strings.Replace(marketJSON, `"title": "Price"`, `"title": "Carol's"`, 1)))
		c := of(t, foreign.plan(), "dashboard.market")
		says(t, finding(t, c, "CV-G02").Text, "carol", "panel Price (id 7)")
		readable := foreign.srv.Fail(grafanatest.Fault{Path: "/api/dashboards/uid/cv-market/versions", Status: 403})
		if c = of(t, foreign.plan(), "dashboard.market"); strings.Contains(finding(t, c, "CV-G02").Text, "Anonymous") {
			t.Errorf("%s", finding(t, c, "CV-G02").Text)
		}
		readable()
		if err := foreign.carry(foreign.plan()); err != nil {
			t.Fatal(err)
		}
		if panelOf(t, foreign.srv.Dashboard("cv-market"), "7")["title"] != "Carol's" {
			t.Error("a foreign dashboard was overwritten")
		}
		foreign.allow = []string{"CV-G02"}
		foreign.apply()
	})
}

func TestProvisionedFromAFile(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		srv.Provision("cv-market")
		srv.ReadOnly("cv-main")
		srv.Rule("cv-stale", func(_ map[string]any, _, _, provenance *string) { *provenance = "file" })
		ledger := maps.Clone(w.ledger)
		clear(w.ledger)
		for _, c := range w.plan() {
			if c.Changes() || !c.Adopt {
				t.Errorf("%s agrees, and yet: %s %s", c.Address, c.Action, show(c.Diffs))
			}
		}
		text(`"title": "Price"`, `"title": "Last price"`)(w.p)
		w.p.DataSources[0].User = "reader"
		w.p.Alerts[0].Summary = "x"
		changes := w.plan()
		for _, address := range []string{"dashboard.market", "datasource.main", "alert.stale"} {
			if c := of(t, changes, address); !c.Impossible() {
				t.Errorf("%s: %v", address, c.Findings)
			}
		}
		srv.Forget()
		if err := w.carry(changes); err != nil || len(srv.Writes()) > 0 {
			t.Errorf("%v, writes %v", err, srv.Writes())
		}
		w.p.Removed = []*spec.Removed{{Kind: "dashboard", Name: "market"}, {Kind: "datasource", Name: "main"}, {Kind: "alert", Name: "stale"}}
		w.p.Dashboards, w.p.DataSources, w.p.Alerts = nil, nil, nil
		w.ledger = ledger
		for _, c := range w.plan() {
			if c.Want == nil && !c.Impossible() {
				t.Errorf("%s can be deleted: %v", c.Address, c.Findings)
			}
		}
	})
}

// Somebody saves between the plan and its apply, or between apply's second look and its write.
func TestSavedInTheMeantime(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		text(`"title": "Price"`, `"title": "Last price"`)(w.p)
		c := of(t, w.plan(), "dashboard.market")
		srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) { panelOf(t, m, "1")["title"] = "Hers" })
		err := c.Make(context.Background())
		if err == nil {
			t.Fatal("it was overwritten")
		}
		says(t, err.Error(), "alice", "version 2", "panel Hers (id 1)", "plan again")
		if panelOf(t, srv.Dashboard("cv-market"), "1")["title"] != "Hers" {
			t.Error("her edit is gone")
		}
		if got := w.carry([]plan.Change{c}); got == nil || !strings.Contains(got.Error(), "moved") {
			t.Errorf("a stale plan: %v", got)
		}
	})
}

func TestNewUID(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	text(`"uid": "cv-market"`, `"uid": "cv-market-2"`)(w.p)
	w.p.Dashboards[0].UID = "cv-market-2"
	c := of(t, w.plan(), "dashboard.market")
	if c.Action != plan.Create {
		t.Errorf("%s", c.Action)
	}
	says(t, finding(t, c, "CV-G11").Text, "cv-market")
	w.apply()
	names, err := w.org.Unmanaged(context.Background())
	if err != nil || !slices.Contains(names, "dashboard.market") || w.srv.Dashboard("cv-market") == nil {
		t.Errorf("unmanaged: %v (%v)", names, err)
	}
}

// 11 and 12 raise a refresh that is too short, which is nobody's drift; 13 refuses it.
func TestRefreshBelowTheMinimum(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		text(`"refresh": "30s"`, `"refresh": "1s"`)(w.p)
		c := of(t, w.plan(), "dashboard.market")
		says(t, strings.Join(c.Notes, "\n"), "refresh 1s is below")
		if srv.Profile == grafanatest.V13 {
			err := w.carry(w.plan())
			if err == nil {
				t.Fatal("13 took it")
			}
			says(t, err.Error(), "min_refresh_interval", "dashboards/market.json")
			return
		}
		w.apply()
		says(t, strings.Join(of(t, w.plan(), "dashboard.market").Notes, "\n"), "raises the refresh of 1s to 5s")
		text(`"refresh": "1s"`, `"refresh": "30s"`)(w.p)
		only(t, w.plan(), "dashboard.market", plan.Intent, "refresh")
		w.apply()
		text(`"refresh": "30s"`, `"refresh": "10s"`)(w.p) // shorter than live, and allowed: a real change
		only(t, w.plan(), "dashboard.market", plan.Intent, "refresh")
		w.apply()
		if got := srv.Dashboard("cv-market")["refresh"]; got != "10s" {
			t.Errorf("refresh is %v", got)
		}
	})
}

// Panels that people moved are work of theirs: named, kept where the file changes other places, and set back with
// consent only. The file's own panels that come and go are no move of anybody's.
func TestMovedPanels(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		place := func() string { return fmt.Sprint(panelOf(t, srv.Dashboard("cv-market"), "7")["gridPos"]) }
		move := func(m map[string]any) { inside(panelOf(t, m, "7"), "gridPos")["w"] = json.Number("24") }
		srv.SaveInBrowser(t, "cv-market", "alice", move)
		hers := place()
		text(`"title": "Data"`, `"title": "All data"`)(w.p)
		c := only(t, w.plan(), "dashboard.market", plan.Intent, "panel All data (id 1)")
		says(t, finding(t, c, "CV-G03").Text, "alice", "the place of panel Price (id 7)")
		says(t, strings.Join(c.Notes, "\n"), "kept layout as it is in Grafana: panel 7.w 12 -> 24")
		if err := w.carry([]plan.Change{c}); err != nil || place() != hers {
			t.Errorf("%v: it is at %s", err, place())
		}

		// The file drops a panel and moves the one below: that is no edit of hers, and hers is still one.
		d := w.p.Dashboards[0]
		before, _, _ := strings.Cut(string(d.JSON), `    {"id": 8,`)
		d.JSON = []byte(strings.TrimRight(before, ", \n") + "\n  ]\n}")
		c = of(t, w.plan(), "dashboard.market")
		says(t, finding(t, c, "CV-G03").Text, "alice", "the place of panel Price (id 7)")
		if err := w.carry([]plan.Change{c}); err != nil || place() != hers {
			t.Errorf("%v: it is at %s", err, place())
		}
		c = only(t, w.plan(), "dashboard.market", plan.Drift, "layout")
		says(t, finding(t, c, "CV-G02").Text, "alice", "the place of panel Price (id 7) would be lost")
		if err := w.carry([]plan.Change{c}); err != nil || place() != hers {
			t.Errorf("without consent: %v, %s", err, place())
		}
		w.allow = []string{"CV-G02"}
		w.apply()

		// Nobody edits: a panel goes, and another takes its place.
		text(`"x": 0, "y": 4}`, `"x": 0, "y": 0}`)(w.p)
		text(`    {"id": 1, "type": "stat"`, `    {"id": 3, "type": "stat"`)(w.p)
		if c := of(t, w.plan(), "dashboard.market"); len(c.Findings) > 0 {
			t.Errorf("%v", c.Findings)
		}
		w.apply()

		// Without the ledger, another layout is somebody's.
		srv.SaveInBrowser(t, "cv-market", "carol", move)
		clear(w.ledger)
		says(t, finding(t, of(t, w.plan(), "dashboard.market"), "CV-G02").Text, "carol", "the place of panel Price (id 7)")
	})
}
