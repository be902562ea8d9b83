package grafana_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

// Each fault, with what the user is told.
func TestFaults(t *testing.T) {
	t.Parallel()
	login := `<!DOCTYPE html><html><body>Please log in, token TOKEN</body></html>`
	tests := []struct {
		name  string
		fault grafanatest.Fault
		want  []string
		calls int // of GET /api/org
	}{
		{"401", grafanatest.Fault{Status: 401, Body: `{"message":"API key expired","messageId":"api-key.expired"}`}, []string{"401", "GET /api/org", "API key expired", "grafana.auth", "make a new one"}, 1},
		{"401 of a password", grafanatest.Fault{Status: 401, Body: `{"message":"Invalid username or password"}`}, []string{"401", "user:password"}, 1},
		{"403", grafanatest.Fault{Status: 403, Body: `{"message":"You'll need additional permissions to perform this action. Permissions needed: orgs:read"}`}, []string{"403", "orgs:read", "role Editor"}, 1},
		{"404", grafanatest.Fault{Status: 404, Body: `{"message":"Not found"}`}, []string{"404", "Not found"}, 1},
		{"a page of another server", grafanatest.Fault{Status: 404, Body: login}, []string{"404", "a web page", "grafana.url", "sub-path"}, 1},
		{"a login page", grafanatest.Fault{Status: 200, Body: login}, []string{"200", "a web page", "login page or a proxy"}, 1},
		{"a redirect", grafanatest.Fault{Status: 302, Body: `{}`, Header: http.Header{"Location": {"https://login.example.com/?next=TOKEN"}}}, []string{"302", "login.example.com", "grafana.url"}, 1},
		{"409", grafanatest.Fault{Status: 409, Body: `{"message":"nope"}`}, []string{"409", "nope"}, 1},
		{"412", grafanatest.Fault{Status: 412, Body: `{"status":"version-mismatch","message":"changed"}`}, []string{"412", "changed"}, 1},
		{"429 four times", grafanatest.Fault{Status: 429}, []string{"429", "try again"}, 4},
		{"429 for long", grafanatest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, []string{"429", "wait 1h0m0s"}, 1},
		{"500", grafanatest.Fault{Status: 500, Body: `{"message":"database is locked TOKEN"}`}, []string{"500", "database is locked (sensitive)"}, 1},
		{"502 of a proxy", grafanatest.Fault{Status: 502, Body: "<html>Bad gateway</html>"}, []string{"502", "a web page", "starting or overloaded"}, 4},
		{"503", grafanatest.Fault{Status: 503}, []string{"503", "starting or overloaded"}, 4},
		{"no JSON", grafanatest.Fault{Status: 200, Body: `"text"`}, []string{"200", "another form"}, 1},
		{"cut", grafanatest.Fault{Cut: true}, []string{"closed before its answer was whole"}, 1},
		{"slow", grafanatest.Fault{Delay: 10 * time.Second}, []string{"no answer from Grafana at 127.0.0.1:", "within 300ms"}, 1},
		{"control characters", grafanatest.Fault{Status: 400, Body: `{"message":"a\u001b[31mred` + strings.Repeat("x", 500) + `"}`}, []string{"a [31mred", "…"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := grafanatest.New(t, grafanatest.V13)
			w := newHarness(t, srv).full()
			if tt.fault.Delay > 0 {
				w.p.Grafana.Timeout = 300 * time.Millisecond
			}
			w.org = grafana.NewOrg(newClient(t, w.p.Grafana), w.p).Quick()
			tt.fault.Path = "/api/org"
			tt.fault.Body = strings.ReplaceAll(tt.fault.Body, "TOKEN", srv.Token)
			for _, values := range tt.fault.Header {
				values[0] = strings.ReplaceAll(values[0], "TOKEN", srv.Token)
			}
			srv.Fail(tt.fault)
			_, err := w.try()
			if err == nil {
				t.Fatal("no error")
			}
			says(t, err.Error(), tt.want...)
			if strings.Contains(err.Error(), srv.Token) {
				t.Errorf("the token is told: %v", err)
			}
			calls := slices.DeleteFunc(srv.Requests(), func(r grafanatest.Request) bool { return r.Path != "/api/org" })
			if len(calls) != tt.calls && tt.name != "slow" && tt.name != "cut" { // net/http itself repeats one on an old connection
				t.Errorf("%d attempts, want %d", len(calls), tt.calls)
			}
		})
	}
}

// A fault that passes is not noticed, and Retry-After is kept to.
func TestFaultsThatPass(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V12)
	w := newHarness(t, srv).full()
	srv.Fail(grafanatest.Fault{Path: "/api/org", Times: 1, Status: 429, Header: http.Header{"Retry-After": {"1"}}})
	srv.Fail(grafanatest.Fault{Path: "/api/folders/cv-crypto", Times: 2, Status: 503})
	started := time.Now()
	w.apply()
	if took := time.Since(started); took < time.Second {
		t.Errorf("it waited %s, and was asked to wait 1 s", took)
	}
}

// A request that makes something is sent once.
func TestPostsAreNotRepeated(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V12)
	w := newHarness(t, srv).full()
	changes := w.plan()
	srv.Fail(grafanatest.Fault{Method: "POST", Status: 503})
	srv.Forget()
	if err := w.carry(changes); err == nil {
		t.Fatal("no error")
	}
	if writes := srv.Writes(); len(writes) != 1 {
		t.Errorf("%d writes: %v", len(writes), writes)
	}
}

// One object that cannot be read does not hide the others.
func TestOneUnreadableObject(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	srv.Fail(grafanatest.Fault{Path: "/api/v1/provisioning", Status: 403, Body: `{"message":"Permissions needed: alert.provisioning:read"}`})
	srv.Fail(grafanatest.Fault{Path: "/api/datasources", Status: 403, Body: `{"message":"Permissions needed: datasources:read"}`})
	failed := map[string]string{}
	for _, r := range w.resources() {
		if _, err := r.Observe(context.Background()); err != nil {
			failed[r.Address()] = err.Error()
		}
	}
	if len(failed) != 2 {
		t.Errorf("failed: %v", failed)
	}
	says(t, failed["datasource.main"], "role Admin")
	says(t, failed["alert.stale"], "alert.provisioning:read", "role Editor")
}

// What apply would be refused, plan says: a Viewer of 12.4 reads all of it. Where Grafana does not say what the
// credentials may do, the answer to the write has to do.
func TestRoles(t *testing.T) {
	t.Parallel()
	for role, refused := range map[grafanatest.Role][]string{
		grafanatest.Viewer: {"folder.crypto", "folder.crypto_detail", "datasource.main", "dashboard.market", "alert.stale"},
		grafanatest.Editor: {"datasource.main"}, grafanatest.Admin: nil,
	} {
		srv := grafanatest.New(t, grafanatest.V12)
		w := newHarness(t, srv).full()
		admin := w.org
		as := func(role grafanatest.Role) {
			w.p.Grafana.Auth = spec.NewSecret(srv.AddToken(role, "other"))
			w.org = grafana.NewOrg(newClient(t, w.p.Grafana), w.p).Quick()
		}
		as(role)
		expect := func() {
			t.Helper()
			var got []string
			for _, c := range w.plan() {
				if slices.Contains(codes(c), "CV-G15") {
					got = append(got, c.Address)
				}
			}
			if !slices.Equal(got, refused) {
				t.Errorf("role %d: refused %v, want %v", role, got, refused)
			}
		}
		expect()
		w.org = admin
		w.apply()
		as(role)
		w.settled()
		w.p.Folders[0].Title, w.p.Folders[1].Title, w.p.DataSources[0].User, w.p.Alerts[0].Summary = "X", "Y", "reader", "x"
		text(`"title": "Price"`, `"title": "Last price"`)(w.p)
		expect()
		w.p.Removed = []*spec.Removed{{Kind: "folder", Name: "crypto"}, {Kind: "folder", Name: "crypto_detail"}, {Kind: "datasource", Name: "main"}, {Kind: "dashboard", Name: "market"}, {Kind: "alert", Name: "stale"}}
		w.p.Folders, w.p.DataSources, w.p.Dashboards, w.p.Alerts = nil, nil, nil, nil
		expect()
	}
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	w.p.Grafana.Auth = spec.NewSecret(srv.AddToken(grafanatest.Viewer, "viewer"))
	w.p.DataSources, w.p.Alerts = nil, nil
	w.p.Dashboards[0].DataSource = nil
	w.org = grafana.NewOrg(newClient(t, w.p.Grafana), w.p).Quick()
	srv.Fail(grafanatest.Fault{Path: "/api/access-control", Status: 500})
	if err := w.carry(w.plan()); err == nil || !strings.Contains(err.Error(), "folders:create") || !strings.Contains(err.Error(), "role Editor") {
		t.Errorf("a viewer: %v", err)
	}
}

// The library prints bodies with secrets when GF_LOG is set; the client takes that from it.
func TestNothingIsPrintedWhateverTheEnvironmentSays(t *testing.T) {
	// Alone: it sets the environment.
	t.Setenv("GF_LOG", "1")
	var out bytes.Buffer
	log.SetOutput(&out)
	defer log.SetOutput(os.Stderr)
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	w.apply()
	if out.Len() > 0 {
		t.Errorf("printed: %.200s", out.String())
	}
}

func TestSubPathAndPassword(t *testing.T) {
	t.Parallel()
	srv := grafanatest.NewAt(t, grafanatest.V13, "/grafana/")
	w := newHarness(t, srv).full()
	w.p.Grafana.URL += "/"
	w.p.Grafana.Auth = spec.NewSecret(grafanatest.User + ":" + grafanatest.Password)
	w.client = newClient(t, w.p.Grafana)
	w.org = grafana.NewOrg(w.client, w.p).Quick()
	w.apply()
	if srv.Dashboard("cv-market") == nil {
		t.Error("no dashboard")
	}
	w.p.Grafana.URL = strings.TrimSuffix(w.p.Grafana.URL, "/grafana/")
	w.org = grafana.NewOrg(newClient(t, w.p.Grafana), w.p).Quick()
	if _, err := w.try(); err == nil || !strings.Contains(err.Error(), "sub-path") {
		t.Errorf("without the sub-path: %v", err)
	}
	w.p.Grafana.URL, w.p.Grafana.Auth = srv.URL, spec.NewSecret("admin:wrong-password")
	w.org = grafana.NewOrg(newClient(t, w.p.Grafana), w.p).Quick()
	if _, err := w.try(); err == nil || strings.Contains(err.Error(), "wrong-password") || !strings.Contains(err.Error(), "user:password") {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	srv.Fail(grafanatest.Fault{Path: "/api/org", Status: 200, Body: `{"name": "` + strings.Repeat("x", 2<<20) + `"}`})
	w.client.Limit(1 << 20)
	if _, err := w.try(); err == nil || !strings.Contains(err.Error(), "with more than 1 MiB") {
		t.Errorf("%.200v", err)
	}
}

// Credentials go to Grafana's host alone.
func TestCredentialsDoNotFollowARedirect(t *testing.T) {
	t.Parallel()
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = asked || r.Header.Get("Authorization") != "" }))
	defer other.Close()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	srv.Fail(grafanatest.Fault{Path: "/api/health", Status: 307, Body: "{}", Header: http.Header{"Location": {other.URL}}})
	if _, err := w.try(); err == nil {
		t.Error("no error")
	}
	if asked {
		t.Error("another host got the credentials")
	}
}

func TestNewClientRefuses(t *testing.T) {
	t.Parallel()
	for url, auth := range map[string]string{"": "x", "grafana.example.com": "x", "ftp://x": "x", "http://ok": "", "http://u:p@host": "x"} {
		if _, err := grafana.NewClient(&spec.Grafana{URL: url, Auth: spec.NewSecret(auth)}); err == nil {
			t.Errorf("%q with %q is taken", url, auth)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, p := range grafanatest.Profiles() {
		srv := grafanatest.New(t, p)
		w := newHarness(t, srv)
		text, major, err := grafana.Version(w.client, context.Background())
		if err != nil || major != int(p) || text != p.String() {
			t.Errorf("%s: %q, %d, %v", p, text, major, err)
		}
		srv.HideVersion()
		if text, major, err = grafana.Version(w.client, context.Background()); err != nil || major != 0 || text != "" {
			t.Errorf("hidden: %q, %d, %v", text, major, err)
		}
		w.full().apply()
		if got := w.org.Describe().Text; !strings.Contains(got, "version hidden") {
			t.Errorf("described as %s", got)
		}
		srv.Fail(grafanatest.Fault{Path: "/api/health", Status: 200, Body: `{"database":"ok","version":"10.4.1"}`})
		if _, err := w.try(); err == nil || !strings.Contains(err.Error(), "10.4.1") {
			t.Errorf("version 10: %v", err)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, srv).full()
	stop := srv.Fail(grafanatest.Fault{Path: "/api/dashboards", Delay: 10 * time.Minute})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond) //nolint:forbidigo // it ends with its context
	defer cancel()
	if _, err := w.resources()[0].Observe(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	stop()
	if _, err := w.try(); err != nil { // an interrupted read is no snapshot
		t.Error(err)
	}
}

func TestAnnotate(t *testing.T) {
	t.Parallel()
	srv := grafanatest.New(t, grafanatest.V12)
	w := newHarness(t, srv)
	before := time.Now().UnixMilli()
	if err := w.client.Annotate(context.Background(), "apply: 3 changes", []string{"cryptoviz", "apply"}); err != nil {
		t.Fatal(err)
	}
	notes := srv.Notes()
	if len(notes) != 1 || notes[0]["text"] != "apply: 3 changes" || len(listed(notes[0], "tags")) != 2 {
		t.Fatalf("notes: %v", notes)
	}
	if at, ok := notes[0]["time"].(interface{ Int64() (int64, error) }); ok {
		if ms, err := at.Int64(); err != nil || ms < before {
			t.Errorf("time %d, %v", ms, err)
		}
	}
	srv.Fail(grafanatest.Fault{Path: "/api/annotations", Status: 403})
	if err := w.client.Annotate(context.Background(), "x", nil); err == nil {
		t.Error("no error")
	}
}

// TestAddressWithASecretPath: a proxy may let in by a part of the path. No message and no plan shows it.
func TestAddressWithASecretPath(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, `{"message": "no route `+r.URL.Path+`"}`, http.StatusNotFound)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://login.example.com"+r.URL.Path, http.StatusFound)
		},
		"other JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[]`)) },
		"no JSON":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`text`)) },
		"cut":        func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		srv := httptest.NewServer(answer)
		p := &spec.Pipeline{Grafana: &spec.Grafana{URL: srv.URL + "/t0ken-of-the-proxy/grafana", Auth: spec.NewSecret("s3cret")}}
		client := newClient(t, p.Grafana)
		org := grafana.NewOrg(client, p)
		err := client.Annotate(t.Context(), "applied", nil)
		if said := fmt.Sprint(err, org.Describe()); err == nil || strings.Contains(said, "t0ken") || !strings.Contains(said, srv.URL+"/…") {
			t.Errorf("%s: %s", name, said)
		}
		srv.Close()
	}
}
