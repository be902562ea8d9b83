package grafana_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// removed blocks for everything; the data source has a uid that its name does not make.
func TestRemoved(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.p.DataSources[0].UID = "own-uid"
		w.apply()
		w.p.Folders, w.p.DataSources, w.p.Dashboards, w.p.Alerts = nil, nil, nil, nil
		for _, address := range []string{"alert.stale", "dashboard.market", "datasource.main", "folder.crypto_detail", "folder.crypto"} {
			kind, name, _ := strings.Cut(address, ".")
			w.p.Removed = append(w.p.Removed, &spec.Removed{Kind: kind, Name: name, Range: at(9)})
		}
		changes := w.plan()
		want := map[string]string{"alert.stale": "CV-G07", "dashboard.market": "CV-G05", "datasource.main": "CV-G06", "folder.crypto_detail": "CV-G04", "folder.crypto": "CV-G04"}
		for _, c := range changes {
			if c.Action != plan.Delete || !slices.Equal(codes(c), []string{want[c.Address]}) || len(c.Steps) == 0 {
				t.Errorf("%s: %s %v %v", c.Address, c.Action, codes(c), c.Steps)
			}
		}
		says(t, finding(t, of(t, changes, "folder.crypto"), "CV-G04").Text, `alert rule "Source is stale"`, `dashboard "Market"`, `folder "Detail"`)
		w.allow = []string{"CV-G04"}
		if err := w.carry(changes); err != nil {
			t.Fatal(err)
		}
		for _, c := range w.plan() {
			if c.Changes() {
				t.Errorf("%s is still there", c.Address)
			}
		}
		for _, r := range w.resources() { // again: gone is gone
			if err := of(t, changes, r.Address()).Make(context.Background()); err != nil {
				t.Errorf("%s: %v", r.Address(), err)
			}
		}
		names, err := w.org.Unmanaged(context.Background())
		if err != nil || len(names) > 0 {
			t.Errorf("left: %v (%v)", names, err)
		}
	})
}

// A file that chose its uid later leaves the first dashboard behind, as CV-G11 says. A removed block takes the one
// that the last apply set, and the other is somebody else's by now.
func TestRemovedTakesOnlyWhatWasSet(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	w.p.Dashboards[0].UID, w.p.DataSources[0].UID, w.p.DataSources[0].Title = "own", "own-source", "Own"
	changes := w.plan()
	for address, was := range map[string]string{"dashboard.market": "cv-market", "datasource.main": "cv-main"} {
		says(t, finding(t, of(t, changes, address), "CV-G11").Text, was, "stays")
	}
	w.apply()
	w.p.Dashboards, w.p.Removed = nil, []*spec.Removed{{Kind: "dashboard", Name: "market"}}
	if err := w.carry(w.plan()); err != nil || w.srv.Dashboard("own") != nil {
		t.Errorf("own is still there: %v", err)
	}
	c := of(t, w.plan(), "dashboard.market") // the one that the name makes
	says(t, finding(t, c, "CV-F01").Text, "did not create it")
	if err := w.carry([]plan.Change{c}); err != nil || w.srv.Dashboard("cv-market") == nil {
		t.Errorf("cv-market is gone without consent: %v", err)
	}
}

func TestDeletingEditedWorkNeedsConsent(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	w.srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) { panelOf(t, m, "7")["title"] = "Hers" })
	w.p.Dashboards, w.p.Removed = nil, []*spec.Removed{{Kind: "dashboard", Name: "market"}}
	c := of(t, w.plan(), "dashboard.market")
	says(t, finding(t, c, "CV-G02").Text, "alice", "version 2")
	if c.Class() != plan.Destroys {
		t.Errorf("class %s", c.Class())
	}
}

// What comes into a folder between the plan and its apply is not deleted unseen.
func TestFolderWithSomethingNewIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V12)).full()
	w.p.Folders, w.p.Dashboards, w.p.DataSources, w.p.Alerts = w.p.Folders[:1], nil, nil, nil
	w.apply()
	w.p.Folders, w.p.Removed = nil, []*spec.Removed{{Kind: "folder", Name: "crypto"}}
	c := of(t, w.plan(), "folder.crypto")
	if len(c.Findings) > 0 {
		t.Errorf("it is empty, and yet: %v", c.Findings)
	}
	w.srv.Put(t, "cv-crypto", "carol", []byte(`{"uid": "new", "title": "Brand new"}`))
	err := c.Make(context.Background())
	if err == nil || !strings.Contains(err.Error(), "Brand new") || w.srv.Dashboard("new") == nil {
		t.Errorf("%v", err)
	}
	w.allow = []string{"CV-G04"}
	w.apply()
}

func TestNamesThatAreTaken(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	ds := *w.p.DataSources[0]
	ds.Name, ds.UID = "second", "cv-second"
	w.p.DataSources = append(w.p.DataSources, &ds)
	rule := *w.p.Alerts[0]
	rule.Name = "second"
	w.p.Alerts = append(w.p.Alerts, &rule)
	changes := w.plan()
	says(t, finding(t, of(t, changes, "datasource.second"), "CV-G08").Text, "cv-main", `uid = "cv-main"`)
	says(t, finding(t, of(t, changes, "alert.second"), "CV-G08").Text, "cv-stale")
	w.p.DataSources = w.p.DataSources[:1]
	twelve := newHarness(t, grafanatest.New(t, grafanatest.V12)).full()
	twelve.p.Alerts = w.p.Alerts
	twelve.apply() // 12.4 takes both rules
	twelve.p.Alerts[0].Summary = "x"
	if c := of(t, twelve.plan(), "alert.stale"); len(c.Findings) > 0 || !strings.Contains(strings.Join(c.Notes, "\n"), "cv-second") {
		t.Errorf("%v %v", c.Findings, c.Notes)
	}
	w.p.Alerts = w.p.Alerts[:1]

	w.srv.Source("cv-main", func(f, _ map[string]any, _ map[string]string) { f["type"] = "mysql" })
	if c := of(t, w.plan(), "datasource.main"); !slices.Contains(codes(c), "CV-G09") || !c.Impossible() {
		t.Errorf("%v", c.Findings)
	}
}

// Another data source is the default: that is told before it changes.
func TestDefaultDataSource(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.p.DataSources[0].Default = true
	w.apply()
	second := *w.p.DataSources[0]
	second.Name, second.UID, second.Title = "second", "cv-second", "second"
	w.p.DataSources[0].Default = false
	w.p.DataSources = append(w.p.DataSources, &second)
	changes := w.plan()
	says(t, finding(t, of(t, changes, "datasource.second"), "CV-G12").Text, `"cryptoviz" is the default now`)
	only(t, slices.DeleteFunc(slices.Clone(changes), func(c plan.Change) bool { return c.Address == "datasource.second" }), "datasource.main", plan.Reset, "default")
	w.apply()
}
