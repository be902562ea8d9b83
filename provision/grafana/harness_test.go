package grafana_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// harness is a pipeline and a Grafana, with what the last apply had set.
type harness struct {
	t      *testing.T
	srv    *grafanatest.Server
	p      *spec.Pipeline
	client *grafana.Client
	org    *grafana.Org
	ledger map[string]plan.State
	allow  []string // codes that the user agrees to
}

func newHarness(t *testing.T, srv *grafanatest.Server) *harness {
	t.Helper()
	p := &spec.Pipeline{Grafana: &spec.Grafana{URL: srv.URL, Auth: spec.NewSecret(srv.Token), Timeout: 5 * time.Second}}
	w := &harness{t: t, srv: srv, p: p, ledger: map[string]plan.State{}}
	w.client = newClient(t, p.Grafana)
	w.org = grafana.NewOrg(w.client, p).Quick()
	return w
}

func newClient(t *testing.T, g *spec.Grafana) *grafana.Client {
	t.Helper()
	c, err := grafana.NewClient(g)
	if err != nil {
		t.Fatal(err)
	}
	c.Hurry()
	t.Cleanup(c.Close)
	return c
}

func at(line int) hcl.Range { return hcl.Range{Filename: "pipeline.hcl", Start: hcl.Pos{Line: line}} }

// full fills the pipeline with one of each.
func (w *harness) full() *harness {
	parent := &spec.Folder{Name: "crypto", Title: "Crypto", Range: at(1)}
	child := &spec.Folder{Name: "crypto_detail", Title: "Detail", Parent: parent, Range: at(2)}
	ds := &spec.DataSource{
		Name: "main", Title: "cryptoviz", UID: "cv-main", Host: "db:5432", Database: "cryptoviz", User: "grafana", Password: spec.NewSecret("s3cret-of-db"),
		SSLMode: "require", MinInterval: time.Minute, Range: at(3),
	}
	limit := 300.0
	w.p.Folders = []*spec.Folder{parent, child}
	w.p.DataSources = []*spec.DataSource{ds}
	w.p.Dashboards = []*spec.Dashboard{{Name: "market", File: "dashboards/market.json", UID: "cv-market", JSON: []byte(marketJSON), Folder: parent, DataSource: ds, Range: at(4)}}
	w.p.Alerts = []*spec.Alert{{
		Name: "stale", Title: "Source is stale", Folder: child, DataSource: ds, Query: "SELECT source, extract(epoch FROM now() - max(time)) AS age\nFROM raw_crypto_data GROUP BY 1",
		Above: &limit, For: 5 * time.Minute, Every: 2 * time.Minute, NoData: "alert", Labels: map[string]string{"severity": "page", "team": "data"}, Summary: "no sample for five minutes", Range: at(5),
	}}
	return w
}

// resources are all of the pipeline, as provision lists them.
func (w *harness) resources() []plan.Resource {
	var out []plan.Resource
	for _, f := range w.p.Folders {
		out = append(out, &grafana.Folder{Spec: f, Org: w.org})
	}
	for _, d := range w.p.DataSources {
		out = append(out, &grafana.DataSource{Spec: d, Org: w.org})
	}
	for _, d := range w.p.Dashboards {
		out = append(out, &grafana.Dashboard{Spec: d, Org: w.org})
	}
	for _, a := range w.p.Alerts {
		out = append(out, &grafana.Alert{Spec: a, Org: w.org})
	}
	for _, r := range w.p.Removed {
		out = append(out, &grafana.Removed{Spec: r, Org: w.org, Last: w.ledger[r.Address()]})
	}
	return out
}

// plan assesses everything, as provision does.
func (w *harness) plan() []plan.Change {
	w.t.Helper()
	changes, err := w.try()
	if err != nil {
		w.t.Fatal(err)
	}
	return changes
}

func (w *harness) try() ([]plan.Change, error) {
	ctx := context.Background()
	w.org.Reset()
	var out []plan.Change
	for _, r := range w.resources() {
		var last *plan.State
		state, managed := w.ledger[r.Address()]
		if managed {
			last = &state
		}
		c, err := plan.Assess(ctx, r, last, managed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Address(), err)
		}
		out = append(out, roundTrip(w.t, c))
	}
	return out, nil
}

// roundTrip passes what is shown of a change through JSON.
func roundTrip(t *testing.T, c plan.Change) plan.Change {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var out plan.Change
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	out.Do = c.Do
	return out
}

// carry applies changes, as provision does: everything is read again first, and what moved is refused.
func (w *harness) carry(changes []plan.Change) error {
	ctx := context.Background()
	w.org.Reset()
	resources := w.resources()
	for _, c := range changes {
		i := slices.IndexFunc(resources, func(r plan.Resource) bool { return r.Address() == c.Address })
		now, err := resources[i].Observe(ctx)
		if err != nil {
			return err
		}
		if now.Live.Fingerprint() != c.Live.Fingerprint() {
			return fmt.Errorf("%s moved since the plan", c.Address)
		}
	}
	for _, c := range changes {
		blocked := slices.ContainsFunc(c.Findings, func(f plan.Finding) bool {
			return f.Class == plan.Impossible || f.Class == plan.Destroys && !slices.Contains(w.allow, f.Code)
		})
		if blocked {
			continue
		}
		if c.Changes() {
			if err := c.Make(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.Address, err)
			}
		}
		if c.Want != nil {
			w.ledger[c.Address] = *c.Want
		} else {
			delete(w.ledger, c.Address)
		}
	}
	return nil
}

// apply plans, applies, and wants the plan after it to be empty.
func (w *harness) apply() []plan.Change {
	w.t.Helper()
	changes := w.plan()
	if err := w.carry(changes); err != nil {
		w.t.Fatal(err)
	}
	w.settled()
	return changes
}

// settled fails when there is something left to do, or when planning writes.
func (w *harness) settled() {
	w.t.Helper()
	w.srv.Forget()
	for _, c := range w.plan() {
		if c.Changes() {
			w.t.Errorf("after apply, %s is still to be changed: %s %v %v", c.Address, c.Action, show(c.Diffs), c.Notes)
		}
	}
	if writes := w.srv.Writes(); len(writes) > 0 {
		w.t.Errorf("a plan writes: %v", writes)
	}
}

func show(diffs []plan.Diff) string {
	var out []string
	for _, d := range diffs {
		out = append(out, fmt.Sprintf("%s: %q -> %q (%s)", d.Name, d.Old, d.New, d.Cause))
	}
	return strings.Join(out, "; ")
}

// of returns the change of an address.
func of(t *testing.T, changes []plan.Change, address string) plan.Change {
	t.Helper()
	i := slices.IndexFunc(changes, func(c plan.Change) bool { return c.Address == address })
	if i < 0 {
		t.Fatalf("no change of %s", address)
	}
	return changes[i]
}

// only fails unless exactly these attributes of one object differ, for this cause.
func only(t *testing.T, changes []plan.Change, address string, cause plan.Cause, attrs ...string) plan.Change {
	t.Helper()
	for _, c := range changes {
		if c.Address != address && c.Changes() {
			t.Errorf("%s changes too: %s", c.Address, show(c.Diffs))
		}
	}
	c := of(t, changes, address)
	var got []string
	for _, d := range c.Diffs {
		got = append(got, d.Name)
		if d.Cause != cause {
			t.Errorf("%s of %s differs because of %s, want %s", d.Name, address, d.Cause, cause)
		}
	}
	slices.Sort(got)
	slices.Sort(attrs)
	if !slices.Equal(got, attrs) || c.Action != plan.Update {
		t.Errorf("%s: %s of %v, want an update of %v\n%s", address, c.Action, got, attrs, show(c.Diffs))
	}
	return c
}

func codes(c plan.Change) []string {
	var out []string
	for _, f := range c.Findings {
		out = append(out, f.Code)
	}
	return out
}

// eachProfile runs a test on the three versions.
func eachProfile(t *testing.T, test func(t *testing.T, srv *grafanatest.Server)) {
	for _, p := range grafanatest.Profiles() {
		t.Run(p.String(), func(t *testing.T) { test(t, grafanatest.New(t, p)) })
	}
}

const marketJSON = `{
  "uid": "cv-market", "title": "Market", "description": "Prices.", "tags": ["crypto", "cryptoviz"], "timezone": "utc", "editable": true, "graphTooltip": 1,
  "schemaVersion": 41, "refresh": "30s", "time": {"from": "now-24h", "to": "now"}, "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m", "1h", "2h"], "hidden": false},
  "annotations": {"list": [
    {"builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": true, "hide": true, "name": "Annotations & Alerts", "type": "dashboard"},
    {"name": "Gaps", "enable": true, "iconColor": "red", "datasource": {"type": "grafana-postgresql-datasource", "uid": "${datasource}"},
     "target": {"refId": "Anno", "rawSql": "SELECT at AS time, reason AS text FROM cryptoviz.gap WHERE $__timeFilter(at)", "format": "table"}}
  ]},
  "links": [{"title": "Crypto", "type": "dashboards", "tags": ["crypto"], "asDropdown": true, "includeVars": true, "keepTime": true}],
  "templating": {"list": [
    {"name": "datasource", "type": "datasource", "query": "grafana-postgresql-datasource", "regex": "", "refresh": 1, "options": [], "current": {"text": "old", "value": "old"}},
    {"name": "source", "type": "query", "datasource": {"type": "grafana-postgresql-datasource", "uid": "${datasource}"}, "query": "SELECT name FROM cryptoviz.source", "refresh": 2, "multi": true, "includeAll": true, "options": [], "current": {"text": ["All"], "value": ["$__all"]}}
  ]},
  "panels": [
    {"id": 1, "type": "stat", "title": "Data", "gridPos": {"h": 4, "w": 4, "x": 0, "y": 0}, "datasource": {"type": "grafana-postgresql-datasource", "uid": "${datasource}"},
     "fieldConfig": {"defaults": {"unit": "short", "decimals": 1.0, "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": null}, {"color": "red", "value": 80}]}}, "overrides": []},
     "options": {"textMode": "value", "wideLayout": true}, "transparent": false,
     "targets": [{"refId": "A", "rawSql": "SELECT mode FROM cryptoviz.mode WHERE mode <> 'x' & 'y'", "format": "table"}]},
    {"id": 7, "type": "timeseries", "title": "Price", "gridPos": {"h": 8, "w": 12, "x": 0, "y": 4}, "interval": "1m",
     "fieldConfig": {"defaults": {"unit": "currencyUSD"}, "overrides": [{"matcher": {"id": "byName", "options": "volume"}, "properties": [{"id": "unit", "value": "short"}]}]},
     "targets": [{"refId": "A", "rawSql": "SELECT time, price FROM raw_crypto_data WHERE $__timeFilter(time) AND source = ANY(ARRAY[$source]::text[]) ORDER BY 1", "format": "time_series"}]},
    {"id": 8, "type": "row", "title": "Pipeline", "collapsed": true, "gridPos": {"h": 1, "w": 24, "x": 0, "y": 12}, "panels": [
      {"id": 9, "type": "table", "title": "Sources", "gridPos": {"h": 8, "w": 24, "x": 0, "y": 13}, "targets": [{"refId": "A", "rawSql": "SELECT name FROM cryptoviz.source", "format": "table"}]}
    ]}
  ]
}`
