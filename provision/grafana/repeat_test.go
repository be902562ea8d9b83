package grafana_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Applying the same change twice, or after an answer was lost, ends well.
func TestApplyIsSafeToRepeat(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		for _, path := range []string{"/api/folders", "/api/datasources", "/api/dashboards/db", "/api/v1/provisioning/alert-rules"} {
			srv.Fail(grafanatest.Fault{Method: "POST", Path: path, Times: 1, Cut: true, Served: true})
		}
		changes := w.plan()
		for range 2 {
			for i, r := range w.resources() {
				if err := changes[i].Make(context.Background()); err != nil && !strings.Contains(err.Error(), "closed") {
					t.Fatalf("%s: %v", r.Address(), err)
				}
			}
		}
		for i, r := range w.resources() {
			if err := changes[i].Make(context.Background()); err != nil {
				t.Fatalf("%s: %v", r.Address(), err)
			}
			w.ledger[r.Address()] = *changes[i].Want
		}
		w.settled()
		text(`"title": "Price"`, `"title": "Last price"`)(w.p)
		w.p.Folders[0].Title, w.p.DataSources[0].User, w.p.Alerts[0].Summary = "X", "reader", "x"
		changes = w.plan()
		for range 2 {
			for i, r := range w.resources() {
				if err := changes[i].Make(context.Background()); err != nil {
					t.Fatalf("%s: %v", r.Address(), err)
				}
				w.ledger[r.Address()] = *changes[i].Want
			}
		}
		w.settled()
	})
}

// The file has another kind of panel: nothing of the old kind stays. A field that left the file leaves Grafana.
func TestNothingStaysOfWhatTheFileDropped(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	text(`"type": "stat", "title": "Data"`, `"type": "gauge", "title": "Data"`)(w.p)
	text(`"textMode": "value", "wideLayout": true`, `"showThresholdLabels": true`)(w.p)
	text(`"interval": "1m",`, ``)(w.p)
	text(`"unit": "currencyUSD"`, `"decimals": 2`)(w.p)
	text(`"multi": true, `, ``)(w.p)
	w.apply()
	board := w.srv.Dashboard("cv-market")
	if o := inside(panelOf(t, board, "1"), "options"); o["textMode"] != nil || o["showThresholdLabels"] != true {
		t.Errorf("options: %v", o)
	}
	p := panelOf(t, board, "7")
	if d := inside(p, "fieldConfig", "defaults"); p["interval"] != nil || d["unit"] != nil || d["decimals"] != json.Number("2") {
		t.Errorf("panel: %v", p)
	}
	if v, _ := listed(board, "templating", "list")[1].(map[string]any); v["multi"] != nil {
		t.Errorf("variable: %v", v)
	}

	// In the editor it became a table: set back, it is a gauge without a table's options.
	w.srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) {
		p := panelOf(t, m, "1")
		p["type"], p["options"] = "table", map[string]any{"showHeader": true}
	})
	w.allow = []string{"CV-G02"}
	w.apply()
	if o := inside(panelOf(t, w.srv.Dashboard("cv-market"), "1"), "options"); o["showHeader"] != nil {
		t.Errorf("options: %v", o)
	}
}

// A dashboard with tabs is not flattened: whether Grafana shows it as it is stored, or as classic JSON.
func TestSchemaVersion2(t *testing.T) {
	t.Parallel()
	for name, save := range map[string]func(srv *grafanatest.Server){
		"elements": func(srv *grafanatest.Server) {
			srv.SaveByAPI(t, "cv-market", "alice", "", func(m map[string]any) {
				delete(m, "panels")
				m["elements"], m["layout"] = map[string]any{"panel-1": map[string]any{}}, map[string]any{"kind": "TabsLayout"}
			})
		},
		"stored": func(srv *grafanatest.Server) {
			srv.SaveInV2(t, "cv-market", "alice", func(m map[string]any) { panelOf(t, m, "7")["title"] = "Hers" })
		},
		"stored, and the file changes": func(srv *grafanatest.Server) {
			srv.SaveInV2(t, "cv-market", "alice", func(map[string]any) {})
		},
	} {
		for _, profile := range []grafanatest.Profile{grafanatest.V12, grafanatest.V13} {
			t.Run(name+" "+profile.String(), func(t *testing.T) {
				w := newHarness(t, grafanatest.New(t, profile)).full()
				w.apply()
				save(w.srv)
				if name == "stored, and the file changes" {
					w.settled() // only the ids of rows are new
					text(`"title": "Price"`, `"title": "Last price"`)(w.p)
				}
				before := w.srv.Dashboard("cv-market")
				c := of(t, w.plan(), "dashboard.market")
				says(t, finding(t, c, "CV-G14").Text, "alice")
				w.srv.Forget()
				if err := w.carry([]plan.Change{c}); err != nil || len(w.srv.Writes()) > 0 || fmt.Sprint(w.srv.Dashboard("cv-market")) != fmt.Sprint(before) {
					t.Errorf("%v, writes %v", err, w.srv.Writes())
				}
			})
		}
	}
}

// Saved as classic JSON again, the rows keep the ids that schema version 2 gave them: they are the file's rows all
// the same.
func TestRowsAreNotWrittenTwice(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V12)).full()
	w.apply()
	w.srv.SaveInV2(t, "cv-market", "alice", func(map[string]any) {})
	w.srv.SaveByAPI(t, "cv-market", "bob", "", func(m map[string]any) { m["hers"] = true })
	text(`"title": "Price"`, `"title": "Last price"`)(w.p)
	only(t, w.plan(), "dashboard.market", plan.Intent, "panel Last price (id 7)")
	w.apply()
	rows := 0
	for _, p := range listed(w.srv.Dashboard("cv-market"), "panels") {
		if p.(map[string]any)["type"] == "row" {
			rows++
		}
	}
	if rows != 1 || len(listed(panelOf(t, w.srv.Dashboard("cv-market"), "8"), "panels")) != 1 {
		t.Errorf("%d rows: %v", rows, w.srv.Dashboard("cv-market")["panels"])
	}
}

// Another data source or rule than the one that was read is not overwritten; a rule that was made in the editor stays
// editable.
func TestOthersChangedInTheMeantime(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		w.p.DataSources[0].User, w.p.Folders[0].Title = "reader", "Mine"
		changes := w.plan()
		srv.Source("cv-main", func(f, _ map[string]any, _ map[string]string) { f["url"] = "elsewhere:1" })
		srv.Folder("cv-crypto", func(title, _ *string) { *title = "Hers" })
		for i, r := range w.resources()[:3] {
			if i == 1 {
				continue
			}
			err := of(t, changes, r.Address()).Make(context.Background())
			if err == nil || !strings.Contains(err.Error(), "another user") {
				t.Errorf("%s: %v", r.Address(), err)
			}
		}
		srv.Rule("cv-stale", func(_ map[string]any, _, _, provenance *string) { *provenance = "" })
		w.p.Alerts[0].Summary, w.p.Alerts[0].Every = "x", time.Minute
		w.apply()
		srv.Rule("cv-stale", func(_ map[string]any, _, _, provenance *string) {
			if *provenance != "" {
				t.Errorf("the rule is locked now: %s", *provenance)
			}
		})
	})
}

// A number, and a key order, that only look different.
func TestNoFalseDifference(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		text(`"title": "Market"`, `"title": "  Market\ufeff "`)(w.p)
		text(`"id": 9, "type": "table"`, `"id": 9, "libraryPanel": {"uid": "lib", "name": "Lib", "version": 3, "meta": {"updated": "2026-01-01"}}, "type": "table"`)(w.p)
		text(`"uid": "cv-market"`, `"uid": "cv-market", "id": 41, "version": 99, "iteration": 5, "gnetId": null, "empty": [], "gone": {}`)(w.p)
		w.apply()
		srv.SaveByAPI(t, "cv-market", "server", "", func(m map[string]any) {
			inside(panelOf(t, m, "1"), "fieldConfig", "defaults")["decimals"] = json.Number("1")
			delete(panelOf(t, m, "1"), "transparent")
			delete(inside(panelOf(t, m, "1"), "fieldConfig"), "overrides")
			inside(panelOf(t, m, "9"), "libraryPanel")["meta"] = map[string]any{"updated": "2026-02-02"}
			m["schemaVersion"] = json.Number("42")
			delete(m, "empty")
		})
		w.settled()
	})
}

// When the answer to a new password is lost, nobody knows whether it was set: that is an error, and the next apply
// sets it.
func TestPasswordWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	w.p.DataSources[0].Password = spec.NewSecret("n3w-secret")
	changes := w.plan()
	w.srv.Fail(grafanatest.Fault{Method: "PUT", Path: "/api/datasources", Times: 1, Status: 500, Body: `{"message": "lost n3w-secret"}`})
	err := w.carry(changes)
	if err == nil || strings.Contains(err.Error(), "n3w-secret") || w.srv.Secret("cv-main", "password") != "s3cret-of-db" {
		t.Fatalf("%v", err)
	}
	w.apply()
	if got := w.srv.Secret("cv-main", "password"); got != "n3w-secret" {
		t.Errorf("the password is %s", got)
	}
}
