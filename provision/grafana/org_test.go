package grafana_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// A plan asks for each thing once, and never twice.
func TestRequestsOfAPlan(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		w := newHarness(t, srv).full()
		w.apply()
		srv.Forget()
		w.plan()
		if _, err := w.org.Unmanaged(context.Background()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range srv.Requests() {
			got = append(got, r.Method+" "+r.Path)
		}
		slices.Sort(got)
		want := []string{
			"GET /api/access-control/user/permissions", "GET /api/dashboards/uid/cv-market", "GET /api/datasources", "GET /api/datasources/uid/cv-main", "GET /api/folders/cv-crypto", "GET /api/folders/cv-crypto-detail",
			"GET /api/health", "GET /api/org", "GET /api/search", "GET /api/v1/provisioning/alert-rules", "GET /api/v1/provisioning/folder/cv-crypto-detail/rule-groups/cv-stale",
		}
		if !slices.Equal(got, want) {
			t.Errorf("requests:\n%s", strings.Join(got, "\n"))
		}
		d := w.org.Describe()
		if d.Requests != len(want) || d.Seconds <= 0 || d.System != "Grafana" {
			t.Errorf("described as %+v", d)
		}
		says(t, d.Text, srv.URL, srv.Profile.String(), "Main Org.", "2 folders", "1 data source", "1 dashboard", "1 alert rule")
	})
}

// Fifty dashboards: one request each, eight at a time, and a few more.
func TestFiftyDashboards(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	for i := range 49 {
		d := *w.p.Dashboards[0]
		d.Name, d.UID = fmt.Sprintf("copy_%d", i), fmt.Sprintf("cv-copy-%d", i)
		d.JSON = []byte(strings.Replace(string(d.JSON), `"uid": "cv-market"`, fmt.Sprintf(`"uid": %q`, d.UID), 1))
		w.p.Dashboards = append(w.p.Dashboards, &d)
	}
	w.apply()
	srv.Forget()
	started := time.Now()
	w.plan()
	took := time.Since(started)
	if n := len(srv.Requests()); n != 59 {
		t.Errorf("%d requests", n)
	}
	t.Logf("plan of 50 dashboards: %d requests, %s", len(srv.Requests()), took.Round(time.Millisecond))
}

// Search lags behind from 12 on: nothing that is declared depends on it.
func TestSearchLag(t *testing.T) {
	t.Parallel()
	eachProfile(t, func(t *testing.T, srv *grafanatest.Server) {
		srv.SearchLag(1000)
		w := newHarness(t, srv).full()
		w.apply()
		srv.Put(t, "cv-crypto", "carol", []byte(`{"uid": "other", "title": "Other"}`))
		names, err := w.org.Unmanaged(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if srv.Profile == grafanatest.V11 != slices.Contains(names, "dashboard.other") {
			t.Errorf("unmanaged: %v", names)
		}
		srv.SearchLag(0)
		w.org.Reset()
		if names, err = w.org.Unmanaged(context.Background()); err != nil || !slices.Equal(names, []string{"dashboard.other"}) {
			t.Errorf("later: %v (%v)", names, err)
		}
	})
}

func TestSearchPages(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V12)
	for i := range 2345 {
		srv.Put(t, "", "carol", fmt.Appendf(nil, `{"uid": "u%d", "title": "T", "tags": ["a%d"]}`, i, i))
	}
	w := newHarness(t, srv)
	names, err := w.org.Unmanaged(context.Background())
	if err != nil || len(names) != 2345 {
		t.Errorf("%d names (%v)", len(names), err)
	}
	searches := slices.DeleteFunc(srv.Requests(), func(r grafanatest.Request) bool { return r.Path != "/api/search" })
	if len(searches) != 3 {
		t.Errorf("%d pages", len(searches))
	}
}

// A Grafana without alerting, or a token that may not see some lists, is fine for a pipeline that declares nothing
// there.
func TestListsThatNobodyNeeds(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	w.p.Alerts, w.p.DataSources, w.p.Dashboards = nil, nil, nil
	srv.Fail(grafanatest.Fault{Path: "/api/v1/provisioning", Status: 404})
	srv.Fail(grafanatest.Fault{Path: "/api/datasources", Status: 403})
	w.apply()
	if _, err := w.org.Unmanaged(context.Background()); err != nil {
		t.Error(err)
	}
}

// What an apply makes depends on what it needs.
func TestDependencies(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	want := map[string]string{
		"folder.crypto": "", "folder.crypto_detail": "folder.crypto", "datasource.main": "",
		"dashboard.market": "folder.crypto datasource.main", "alert.stale": "folder.crypto_detail datasource.main",
	}
	for i, r := range w.resources() {
		o, err := r.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(o.DependsOn, " "); got != want[r.Address()] || r.Where() != fmt.Sprintf("pipeline.hcl:%d", i+1) {
			t.Errorf("%s at %s depends on %q", r.Address(), r.Where(), got)
		}
	}
}

// A mistake in a dashboard's file is that dashboard's error.
func TestBrokenFile(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.p.Dashboards[0].JSON = []byte(`{"uid": 1`)
	if _, err := w.try(); err == nil || !strings.Contains(err.Error(), "dashboards/market.json is not a dashboard JSON file") {
		t.Errorf("%v", err)
	}
}

// The whole of a plan of Grafana, as it is printed.
func TestPrinted(t *testing.T) {
	t.Parallel()
	w := newHarness(t, grafanatest.New(t, grafanatest.V13)).full()
	w.apply()
	w.srv.SaveInBrowser(t, "cv-market", "alice", func(m map[string]any) {
		inside(panelOf(t, m, "7"), "fieldConfig", "defaults")["unit"] = "currencyEUR"
	})
	text(`"textMode": "value"`, `"textMode": "name"`)(w.p)
	w.p.DataSources[0].Password = spec.NewSecret("n3w-s3cret")
	w.p.Alerts[0].For = time.Minute
	var out strings.Builder
	if err := (plan.Plan{Changes: w.plan()}).Print(&out, plan.Style{Width: 110}); err != nil {
		t.Fatal(err)
	}
	says(t, out.String(), "CV-G03 risky: saved in Grafana by alice", "(sensitive, changed)", `options.textMode "value" -> "name"`, "kept panel Price (id 7)", "5m -> 1m")
	if strings.Contains(out.String(), "s3cret") {
		t.Error("it tells the password")
	}
	t.Log("\n" + out.String())
}

// Resources are read, assessed and applied side by side, as provision does it.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V12)
	w := newHarness(t, srv).full()
	for i := range 20 {
		d := *w.p.Dashboards[0]
		d.Name, d.UID = fmt.Sprintf("copy_%d", i), fmt.Sprintf("cv-copy-%d", i)
		d.JSON = []byte(strings.Replace(string(d.JSON), `"uid": "cv-market"`, fmt.Sprintf(`"uid": %q`, d.UID), 1))
		w.p.Dashboards = append(w.p.Dashboards, &d)
	}
	resources := w.resources()
	changes := make([]plan.Change, len(resources))
	all := func(do func(i int, r plan.Resource) error) {
		t.Helper()
		group := errgroup.Group{}
		group.SetLimit(8)
		for i, r := range resources {
			group.Go(func() error { return do(i, r) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	all(func(i int, r plan.Resource) error {
		c, err := plan.Assess(t.Context(), r, nil, false)
		changes[i] = c
		return err
	})
	for i := range 3 { // folders and the data source first
		if err := changes[i].Make(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all(func(i int, _ plan.Resource) error {
		if i < 3 {
			return nil
		}
		return changes[i].Make(t.Context())
	})
	for i, r := range resources {
		w.ledger[r.Address()] = *changes[i].Want
	}
	w.settled()
}
