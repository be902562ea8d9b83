package provision_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

func TestGrafanaFaults(t *testing.T) {
	t.Parallel()
	broker := testkit.Kafka(t).Addr()
	t.Run("fails", func(t *testing.T) { grafanaFails(t, broker) })
	t.Run("loses_answers", func(t *testing.T) { grafanaLosesAnswers(t, broker) })
	t.Run("moves_meanwhile", func(t *testing.T) { grafanaMovesMeanwhile(t, broker) })
}

// Grafana fails, while plan reads or while apply writes. The other systems are planned and applied all the same, what failed
// says why, and a later apply does the rest.
func grafanaFails(t *testing.T, broker string) {
	const page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please log in.</body></html>"
	for _, test := range []struct {
		name  string
		fault grafanatest.Fault
		plan  string // what the plan's errors say; "": it has none
		apply string // what the reasons of apply say
	}{
		{"401", grafanatest.Fault{Status: 401, Body: `{"message":"Invalid API key","messageId":"api-key.invalid"}`}, "make a new one for the service account", "make a new one for the service account"},
		{"403", grafanatest.Fault{Status: 403}, "role Editor", "role Editor"},
		{"404", grafanatest.Fault{Status: 404}, "answers 404", "answers 404"},
		{"404_page", grafanatest.Fault{Status: 404, Body: page}, "lack the sub-path", "lack the sub-path"},
		{"409", grafanatest.Fault{Status: 409}, "answers 409", "answers 409"},
		{"412", grafanatest.Fault{Status: 412}, "answers 412", "answers 412"},
		{"429_once", grafanatest.Fault{Status: 429, Times: 1}, "", "overloaded: try again"},
		{"500", grafanatest.Fault{Status: 500}, "answers 500", "answers 500"},
		{"503_twice", grafanatest.Fault{Status: 503, Times: 2}, "", "overloaded: try again"},
		{"page", grafanatest.Fault{Status: 200, Body: page}, "may be a login page", "may be a login page"},
		{"other_json", grafanatest.Fault{Status: 200, Body: `["a"]`}, "another form", "another form"},
		{"cut", grafanatest.Fault{Cut: true}, "was closed before its answer", "was closed before its answer"},
		{"slow", grafanatest.Fault{Delay: 1500 * time.Millisecond, Cut: true}, "no answer from Grafana", "no answer from Grafana"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFaulty(t, freshDatabase(t), broker)
			inGrafana := []string{"folder.crypto", "datasource.main", "dashboard.board", "alert.stale"}
			patience := f.p.Grafana.Timeout
			impatient := func() {
				if test.fault.Delay > 0 {
					f.p.Grafana.Timeout = time.Second
				}
			}
			// While plan reads.
			impatient()
			read := test.fault
			read.Path = "/api/"
			stop := f.grafana.Fail(read)
			found, err := f.open().Plan(t.Context())
			stop()
			f.p.Grafana.Timeout = patience
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range found.Errors {
				if !slices.Contains(inGrafana, e.Address) || !strings.Contains(e.Text, test.plan) || !strings.Contains(e.Text, "Grafana") {
					t.Errorf("%+v", e)
				}
			}
			if len(found.Errors) > 0 != (test.plan != "") {
				t.Errorf("%d errors", len(found.Errors))
			}
			if n := len(found.Changes) + len(found.Errors); n != 11 {
				t.Errorf("%d objects", n)
			}
			// While apply writes.
			whole := f.plan()
			var stops []func()
			for _, method := range []string{http.MethodPost, http.MethodPut} {
				write := test.fault
				write.Method = method
				stops = append(stops, f.grafana.Fail(write))
			}
			impatient()
			results, err := f.tried(whole, nil)
			f.p.Grafana.Timeout = patience
			for _, stop := range stops {
				stop()
			}
			text := said(results, err)
			t.Log(text)
			for _, r := range results {
				if r.Outcome != provision.Done && (!slices.Contains(inGrafana, r.Address) || r.Outcome == provision.Refused) {
					t.Errorf("%+v", r)
				}
			}
			if err == nil || !strings.Contains(text, test.apply) {
				t.Errorf("%v: it does not say %q", err, test.apply)
			}
			f.recovers("afterwards")
		})
	}
}

// Answers are lost after the request was carried out: nothing is made twice.
func grafanaLosesAnswers(t *testing.T, broker string) {
	for n := range 4 {
		t.Run(fmt.Sprint("write_", n), func(t *testing.T) {
			f := newFaulty(t, freshDatabase(t), broker)
			found := f.plan()
			stop := f.grafana.Fail(grafanatest.Fault{Method: http.MethodPost, After: n, Times: 1, Cut: true, Served: true})
			results, err := f.tried(found, nil)
			stop()
			if !slices.ContainsFunc(f.grafana.Requests(), func(r grafanatest.Request) bool { return r.Status == 0 }) {
				t.Error("no answer was lost")
			}
			t.Log(said(results, err))
			f.recovers("afterwards")
		})
	}
}

// Somebody else saves the dashboard between plan and apply: apply does not overwrite it.
func grafanaMovesMeanwhile(t *testing.T, broker string) {
	f := newFaulty(t, freshDatabase(t), broker)
	f.recovers("at first")
	f.p.Dashboards[0].JSON = []byte(strings.Replace(smallBoard, "Latest", "Newest", 1))
	f.p.Folders[0].Title = "Other"
	found := f.plan()
	f.grafana.SaveInBrowser(t, "cv-board", "ann", func(model map[string]any) { model["title"] = "Mine" })
	f.grafana.Folder("cv-crypto", func(title, _ *string) { *title = "Theirs" })
	results, err := f.tried(found, nil)
	text := said(results, err)
	t.Log(text)
	for _, address := range []string{"folder.crypto", "dashboard.board"} {
		if r := outcomes(results)[address]; r.Outcome != provision.Refused || len(r.Since) == 0 {
			t.Errorf("%+v", r)
		}
	}
	if f.grafana.Dashboard("cv-board")["title"] != "Mine" {
		t.Error("it was overwritten")
	}
	f.recovers("when planned again")
}
