package grafanatest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-openapi-client-go/models"

	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

// caller speaks HTTP to a server as anybody would.
type caller struct {
	t   *testing.T
	srv *grafanatest.Server
}

func (c caller) do(method, path, body string, header ...string) (int, []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.srv.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.srv.Token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, out
}

// want calls, and checks the status and parts of the answer.
func (c caller) want(status int, method, path, body string, parts ...string) {
	c.t.Helper()
	got, text := c.do(method, path, body)
	if got != status {
		c.t.Errorf("%s %s answers %d %s, want %d", method, path, got, text, status)
	}
	for _, p := range parts {
		if !bytes.Contains(text, []byte(p)) {
			c.t.Errorf("%s %s lacks %q: %s", method, path, p, text)
		}
	}
}

const (
	aRule = `{"uid": "r", "title": "R", "folderUID": "f", "ruleGroup": "g", "condition": "B", "for": "300s", "noDataState": "OK", "execErrState": "Error", "labels": {"a": "b"}, "annotations": {"summary": "s"},
		"data": [{"refId": "A", "datasourceUid": "x", "relativeTimeRange": {"from": 600, "to": 0}, "model": {"rawSql": "SELECT 1"}}, {"refId": "B", "datasourceUid": "__expr__", "model": {"type": "threshold"}}]}`
	aSource = `{"uid": "d", "name": "D", "type": "postgres", "url": "h:1", "user": "u", "access": "proxy", "jsonData": {"database": "x"}, "secureJsonData": {"password": "sekret"}}`
	aBoard  = `{"dashboard": {"uid": "b", "title": "B <1>", "tags": ["x"], "unknown": {"n": 12345678901234567890, "f": 1.0}}, "folderUid": "f", "message": "first"}`
)

func fill(t *testing.T, srv *grafanatest.Server) caller {
	t.Helper()
	c := caller{t, srv}
	c.want(200, "POST", "/api/folders", `{"uid": "f", "title": "F"}`)
	c.want(200, "POST", "/api/folders", `{"uid": "g", "title": "G", "parentUid": "f"}`)
	c.want(200, "POST", "/api/datasources", aSource, "Datasource added")
	c.want(200, "POST", "/api/dashboards/db", aBoard, `"version":1`)
	c.want(201, "POST", "/api/v1/provisioning/alert-rules", aRule)
	c.want(200, "POST", "/api/annotations", `{"text": "x", "tags": ["t"], "time": 1}`)
	return c
}

// Every kind of answer is decoded with the models of Grafana's official client; a field that they do not know is a
// mistake here, but for those that the models lack.
func TestAnswersAreOfTheOfficialModels(t *testing.T) {
	lacking := []string{"slug", "id"} // of a saved and of a deleted dashboard
	for _, p := range grafanatest.Profiles() {
		t.Run(p.String(), func(t *testing.T) {
			c := fill(t, grafanatest.New(t, p))
			var versions any = &models.DashboardVersionResponseMeta{}
			if p == grafanatest.V11 {
				versions = &[]models.DashboardVersionMeta{}
			}
			for _, tt := range []struct {
				method, path, body string
				into               any
			}{
				{"GET", "/api/health", "", &models.HealthResponse{}},
				{"GET", "/api/org", "", &models.OrgDetailsDTO{}},
				{"GET", "/api/folders", "", &[]models.FolderSearchHit{}},
				{"GET", "/api/folders/g", "", &models.Folder{}},
				{"PUT", "/api/folders/g", `{"title": "H", "version": 1}`, &models.Folder{}},
				{"POST", "/api/folders/g/move", `{"parentUid": ""}`, &models.Folder{}},
				{"GET", "/api/dashboards/uid/b", "", &models.DashboardFullWithMeta{}},
				{"GET", "/api/dashboards/uid/b/versions", "", versions},
				{"GET", "/api/dashboards/uid/b/versions/1", "", &models.DashboardVersionMeta{}},
				{"POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "B"}, "overwrite": true}`, &models.PostDashboardOKBody{}},
				{"GET", "/api/search", "", &models.HitList{}},
				{"GET", "/api/datasources", "", &models.DataSourceList{}},
				{"GET", "/api/datasources/uid/d", "", &models.DataSource{}},
				{"PUT", "/api/datasources/uid/d", aSource, &models.UpdateDataSourceByUIDOKBody{}},
				{"GET", "/api/annotations", "", &[]models.Annotation{}},
				{"POST", "/api/annotations", `{"text": "y"}`, &models.PostAnnotationOKBody{}},
				{"GET", "/api/v1/provisioning/alert-rules", "", &models.ProvisionedAlertRules{}},
				{"GET", "/api/v1/provisioning/alert-rules/r", "", &models.ProvisionedAlertRule{}},
				{"PUT", "/api/v1/provisioning/alert-rules/r", aRule, &models.ProvisionedAlertRule{}},
				{"GET", "/api/v1/provisioning/folder/f/rule-groups/g", "", &models.AlertRuleGroup{}},
				{"GET", "/api/folders/nosuch", "", &models.ErrorResponseBody{}},
				{"POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "B", "version": 77}}`, &models.ErrorResponseBody{}},
				{"DELETE", "/api/datasources/uid/d", "", &models.DeleteDataSourceByNameOKBody{}},
				{"DELETE", "/api/dashboards/uid/b", "", &models.DeleteDashboardByUIDOKBody{}},
				{"DELETE", "/api/folders/f?forceDeleteRules=true", "", &models.DeleteFolderOKBody{}},
			} {
				_, text := c.do(tt.method, tt.path, tt.body)
				d := json.NewDecoder(bytes.NewReader(text))
				d.DisallowUnknownFields()
				err := d.Decode(tt.into)
				if err != nil && !slices.ContainsFunc(lacking, func(name string) bool { return strings.Contains(err.Error(), `unknown field "`+name+`"`) }) {
					t.Errorf("%s %s is not a %T: %v\n%s", tt.method, tt.path, tt.into, err, text)
				}
				if err != nil { // again, without the strictness
					if err := json.Unmarshal(text, tt.into); err != nil {
						t.Errorf("%s %s is not a %T: %v\n%s", tt.method, tt.path, tt.into, err, text)
					}
				}
			}
		})
	}
}

// The status matrix of folders and dashboards, version by version.
func TestConflicts(t *testing.T) {
	for _, tt := range []struct {
		name, method, path, body string
		status                   map[grafanatest.Profile]int
		text                     map[grafanatest.Profile]string
	}{
		{"same folder", "POST", "/api/folders", `{"uid": "f", "title": "New"}`, per(409, 412, 412), texts("already exists", "version-mismatch", "version-mismatch")},
		{"same folder title", "POST", "/api/folders", `{"title": "F"}`, per(409, 200, 200), nil},
		{"folder of an old version", "PUT", "/api/folders/f", `{"title": "New", "version": 7}`, per(412, 412, 412), texts("the folder has", "The dashboard has been changed by someone else", "the folder has")},
		{"folder without a title", "POST", "/api/folders", `{"uid": "x"}`, per(400, 400, 400), nil},
		{"folder with a bad uid", "POST", "/api/folders", `{"uid": "a b", "title": "x"}`, per(400, 400, 400), nil},
		{"folder under itself", "POST", "/api/folders/f/move", `{"parentUid": "g"}`, per(400, 400, 400), nil},
		{"folder that holds rules", "DELETE", "/api/folders/f", "", per(400, 400, 400), texts("alert rules", "folder.not-empty", "alert rules")},
		{"dashboard without its version", "POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "B"}}`, per(412, 412, 409), texts("changed by someone else", "version-mismatch", "Use overwrite flag")},
		{"dashboard of an old version", "POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "B", "version": 9}}`, per(412, 412, 409), nil},
		{"dashboard of this version", "POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "B", "version": 1}, "folderUid": "f"}`, per(200, 200, 200), nil},
		{"dashboard overwritten", "POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "B"}, "overwrite": true}`, per(200, 200, 200), nil},
		{"folder missing", "POST", "/api/dashboards/db", `{"dashboard": {"title": "B"}, "folderUid": "nosuch"}`, per(404, 400, 400), texts("Folder not found", "folder not found", "folder not found")},
		{"no title", "POST", "/api/dashboards/db", `{"dashboard": {"uid": "n"}}`, per(400, 400, 400), texts("empty-name", "empty-name", "missing required title")},
		{"a folder as a dashboard", "POST", "/api/dashboards/db", `{"dashboard": {"title": "x"}, "isFolder": true}`, per(400, 400, 400), nil},
		{"refresh", "POST", "/api/dashboards/db", `{"dashboard": {"title": "x", "refresh": "1s"}}`, per(200, 200, 400), texts("", "", "refresh interval is too low")},
		{"version 2", "POST", "/api/dashboards/db", `{"dashboard": {"title": "x", "elements": {}}}`, per(200, 200, 400), nil},
		{"long message", "POST", "/api/dashboards/db", `{"dashboard": {"title": "x"}, "message": "` + strings.Repeat("m", 501) + `"}`, per(400, 400, 400), nil},
		{"unknown id", "POST", "/api/dashboards/db", `{"dashboard": {"id": 999, "title": "x"}}`, per(404, 404, 404), nil},
		{"unknown id, new uid", "POST", "/api/dashboards/db", `{"dashboard": {"id": 999, "uid": "y", "title": "x"}}`, per(404, 404, 200), nil},
		{"same data source", "POST", "/api/datasources", aSource, per(409, 409, 409), nil},
		{"data source of an old version", "PUT", "/api/datasources/uid/d", `{"name": "D", "type": "x", "version": 9}`, per(409, 409, 409), texts("already been updated", "", "")},
		{"another uid in the body", "PUT", "/api/datasources/uid/d", `{"uid": "e", "name": "D", "type": "x"}`, per(200, 500, 400), texts("", "Failed to update datasource", "")},
		{"data source by number", "GET", "/api/datasources/3", "", per(200, 404, 404), nil},
		{"data source by name", "GET", "/api/datasources/name/D", "", per(200, 200, 200), nil},
		{"same rule", "POST", "/api/v1/provisioning/alert-rules", aRule, per(409, 409, 409), texts("", "alerting.alert-rule.conflict", "")},
		{"rule of a title that is taken", "POST", "/api/v1/provisioning/alert-rules", strings.Replace(aRule, `"uid": "r"`, `"uid": "s"`, 1), per(409, 201, 409), nil},
		{"version 1", "GET", "/api/dashboards/uid/b/versions/1", "", per(200, 200, 200), texts(`"message":"first"`, `"message":"first"`, `"message":"first"`)},
		{"version 1 in the list", "GET", "/api/dashboards/uid/b/versions", "", per(200, 200, 200), texts(`"message":"first"`, `"message":"Initial save"`, `"message":"first"`)},
		{"dashboards in the list of versions", "GET", "/api/dashboards/uid/b/versions", "", per(200, 200, 200), texts("", `"data":{`, "")},
		{"who created it", "GET", "/api/dashboards/uid/b", "", per(200, 200, 200), texts(`"createdBy":"sa-cryptoviz"`, `"createdBy":"Anonymous"`, `"createdBy":"sa-cryptoviz"`)},
		{"who saved what was created", "GET", "/api/dashboards/uid/b", "", per(200, 200, 200), texts(`"updatedBy":"sa-cryptoviz"`, `"updatedBy":"Anonymous"`, `"updatedBy":"sa-cryptoviz"`)},
		{"slug", "POST", "/api/dashboards/db", `{"dashboard": {"title": "Crypto: market overview"}}`, per(200, 200, 200), texts("/crypto-market-overview", "/crypto3a-market-overview", "/crypto-market-overview")},
		{"the first data source", "GET", "/api/datasources/uid/d", "", per(200, 200, 200), texts(`"isDefault":false`, `"isDefault":true`, `"isDefault":false`)},
		{"dashboard as a resource", "GET", "/apis/dashboard.grafana.app/v0alpha1/namespaces/default/dashboards/b", "", per(404, 200, 200), texts("", `"grafana.app/message":"first"`, "")},
		{"group with an odd interval", "PUT", "/api/v1/provisioning/folder/f/rule-groups/g", `{"interval": 15, "rules": []}`, per(400, 400, 400), nil},
	} {
		for _, p := range grafanatest.Profiles() {
			t.Run(tt.name+" "+p.String(), func(t *testing.T) {
				fill(t, grafanatest.New(t, p)).want(tt.status[p], tt.method, tt.path, tt.body, tt.text[p])
			})
		}
	}
}

func per(v11, v12, v13 int) map[grafanatest.Profile]int {
	return map[grafanatest.Profile]int{grafanatest.V11: v11, grafanatest.V12: v12, grafanatest.V13: v13}
}

func texts(v11, v12, v13 string) map[grafanatest.Profile]string {
	return map[grafanatest.Profile]string{grafanatest.V11: v11, grafanatest.V12: v12, grafanatest.V13: v13}
}

func TestWhatTheServerKeepsAndHides(t *testing.T) {
	for _, p := range grafanatest.Profiles() {
		t.Run(p.String(), func(t *testing.T) {
			srv := grafanatest.New(t, p)
			c := fill(t, srv)
			_, first := c.do("GET", "/api/dashboards/uid/b", "")
			for _, part := range []string{"12345678901234567890", `"f":1.0`, `\u003c1\u003e`, `"version":1`, `"folderUid":"f"`, `"provisioned":false`} {
				if !bytes.Contains(first, []byte(part)) {
					t.Errorf("the dashboard lacks %s: %s", part, first)
				}
			}
			shuffled := false
			for range 20 {
				_, again := c.do("GET", "/api/dashboards/uid/b", "")
				shuffled = shuffled || !bytes.Equal(first, again)
			}
			if !shuffled {
				t.Error("its keys always come in the same order")
			}
			_, source := c.do("GET", "/api/datasources/uid/d", "")
			if bytes.Contains(source, []byte("sekret")) || !bytes.Contains(source, []byte(`"secureJsonFields":{"password":true}`)) || !bytes.Contains(source, []byte(`"grafana-postgresql-datasource"`)) {
				t.Errorf("the data source is %s", source)
			}
			_, list := c.do("GET", "/api/datasources", "")
			if bytes.Contains(list, []byte("secureJsonFields")) {
				t.Errorf("the list is %s", list)
			}
			_, same := c.do("POST", "/api/dashboards/db", strings.Replace(aBoard, `"message": "first"`, `"overwrite": true`, 1))
			if want := map[bool]string{true: `"version":2`, false: `"version":1`}[p == grafanatest.V11]; !bytes.Contains(same, []byte(want)) {
				t.Errorf("saved again without a change: %s", same)
			}
			srv.Provision("b")
			srv.ReadOnly("d")
			c.want(400, "POST", "/api/dashboards/db", `{"dashboard": {"uid": "b", "title": "x"}, "overwrite": true}`, "Cannot save provisioned dashboard")
			c.want(400, "DELETE", "/api/dashboards/uid/b", "", "provisioned dashboard cannot be deleted")
			c.want(403, "PUT", "/api/datasources/uid/d", aSource, "read-only")
			c.want(403, "DELETE", "/api/datasources/uid/d", "", "read-only")
			got, text := c.do("PUT", "/api/v1/provisioning/alert-rules/r", aRule, "X-Disable-Provenance", "true")
			if status, part := per(409, 500, 409)[p], texts("needs 'api'", "Internal Server Error", "needs 'api'")[p]; got != status || !bytes.Contains(text, []byte(part)) {
				t.Errorf("mixed provenance: %d %s", got, text)
			}
			_, rule := c.do("GET", "/api/v1/provisioning/alert-rules/r", "")
			if !bytes.Contains(rule, []byte(`"for":"5m"`)) || !bytes.Contains(rule, []byte(`"maxDataPoints":43200`)) || !bytes.Contains(rule, []byte(`"provenance":"api"`)) {
				t.Errorf("the rule is %s", rule)
			}
			_, children := c.do("GET", "/api/folders", "")
			if bytes.Contains(children, []byte(`"uid":"g"`)) {
				t.Errorf("the root lists %s", children)
			}
			c.want(200, "DELETE", "/api/folders/f?forceDeleteRules=true", "")
			for _, path := range []string{"/api/folders/g", "/api/dashboards/uid/b", "/api/v1/provisioning/alert-rules/r"} {
				c.want(404, "GET", path, "")
			}
		})
	}
}

func TestOrganisations(t *testing.T) {
	srv := grafanatest.New(t, grafanatest.V13)
	c := fill(t, srv)
	basic := func(org string) (int, []byte) {
		return c.do("GET", "/api/org", "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(grafanatest.User+":"+grafanatest.Password)), "X-Grafana-Org-Id", org)
	}
	if got, text := basic("2"); got != 200 || !bytes.Contains(text, []byte("Second Org.")) {
		t.Errorf("with a password: %d %s", got, text)
	}
	if got, _ := basic("9"); got != 401 {
		t.Errorf("an unknown organisation: %d", got)
	}
	if got, text := c.do("GET", "/api/org", "", "X-Grafana-Org-Id", "2"); got != 401 || !bytes.Contains(text, []byte("organization-mismatch")) {
		t.Errorf("with a token: %d %s", got, text)
	}
	if got, _ := c.do("GET", "/api/org", "", "Authorization", ""); got != 401 {
		t.Errorf("without credentials: %d", got)
	}
}

// 12.4 makes five folders in each other; the others are taken for allowing four.
func TestFolderDepth(t *testing.T) {
	for _, p := range grafanatest.Profiles() {
		t.Run(p.String(), func(t *testing.T) {
			c := caller{t, grafanatest.New(t, p)}
			depth := per(4, 5, 4)[p]
			for i := range depth {
				c.want(200, "POST", "/api/folders", fmt.Sprintf(`{"uid": "f%d", "title": "F", "parentUid": "%s"}`, i+1, strings.TrimSuffix(fmt.Sprintf("f%d", i), "f0")))
			}
			c.want(per(400, 500, 400)[p], "POST", "/api/folders", fmt.Sprintf(`{"uid": "deep", "title": "F", "parentUid": "f%d"}`, depth), "max")
		})
	}
}

// A dashboard that was saved in schema version 2 looks classic, but for its rows and for what the resource says.
func TestSavedInV2(t *testing.T) {
	srv := grafanatest.New(t, grafanatest.V12)
	c := fill(t, srv)
	c.want(200, "POST", "/api/dashboards/db", `{"dashboard": {"uid": "v", "title": "V", "panels": [{"id": 7, "type": "row", "panels": [{"id": 15, "type": "text"}]}, {"id": 11, "type": "row"}]}}`)
	resource := "/apis/dashboard.grafana.app/v0alpha1/namespaces/default/dashboards/v"
	if _, text := c.do("GET", resource, ""); bytes.Contains(text, []byte("storedVersion")) {
		t.Errorf("before: %s", text)
	}
	srv.SaveInV2(t, "v", "alice", func(map[string]any) {})
	c.want(200, "GET", "/api/dashboards/uid/v", "", `"id":16`, `"id":17`, `"id":15`, `"apiVersion":"v0alpha1"`, `"version":2`)
	c.want(200, "GET", resource, "", `"storedVersion":"v2beta1"`)
	c.want(200, "POST", "/api/dashboards/db", `{"dashboard": {"uid": "v", "title": "V"}, "overwrite": true}`)
	if _, text := c.do("GET", resource, ""); bytes.Contains(text, []byte("storedVersion")) {
		t.Errorf("after a classic save: %s", text)
	}
}

// A Viewer of 12.4 reads all that a plan needs; what it may not write, its permissions say.
func TestViewer(t *testing.T) {
	for _, p := range grafanatest.Profiles() {
		t.Run(p.String(), func(t *testing.T) {
			srv := grafanatest.New(t, p)
			c := fill(t, srv)
			as := func(role grafanatest.Role, method, path string) (int, []byte) {
				return c.do(method, path, "", "Authorization", "Bearer "+srv.AddToken(role, "x"))
			}
			for _, path := range []string{"/api/datasources", "/api/datasources/uid/d", "/api/v1/provisioning/alert-rules", "/api/v1/provisioning/folder/f/rule-groups/g"} {
				if got, text := as(grafanatest.Viewer, "GET", path); got != per(403, 200, 403)[p] {
					t.Errorf("a Viewer's %s: %d %s", path, got, text)
				}
			}
			if got, _ := as(grafanatest.Viewer, "DELETE", "/api/datasources/uid/d"); got != 403 {
				t.Errorf("a Viewer deletes a data source: %d", got)
			}
			for role, want := range map[grafanatest.Role][]string{grafanatest.Viewer: {}, grafanatest.Editor: {"folders:create", "dashboards:create", "alert.rules:create"}, grafanatest.Admin: {"datasources:create"}} {
				_, text := as(role, "GET", "/api/access-control/user/permissions")
				for _, action := range []string{"folders:create", "dashboards:create", "alert.rules:create", "datasources:create"} {
					has := role == grafanatest.Admin || slices.Contains(want, action)
					if bytes.Contains(text, []byte(`"`+action+`"`)) != has {
						t.Errorf("role %d, %s: %s", role, action, text)
					}
				}
			}
		})
	}
}

// 12.4 answers below its sub-path, and without it.
func TestSubPath(t *testing.T) {
	for _, p := range grafanatest.Profiles() {
		srv := grafanatest.NewAt(t, p, "/graphs")
		c := caller{t, srv}
		c.want(200, "GET", "/api/org", "")
		srv.URL = strings.TrimSuffix(srv.URL, "/graphs")
		c.want(per(404, 200, 404)[p], "GET", "/api/org", "")
	}
}
