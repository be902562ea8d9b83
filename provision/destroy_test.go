package provision_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// withGrafana is a harness whose Grafana the test can look into.
func withGrafana(t *testing.T) (*harness, *grafanatest.Server) {
	t.Helper()
	g := grafanatest.New(t, grafanatest.V13)
	w := newHarness(t, testkit.Postgres(t))
	w.p.Grafana = &spec.Grafana{URL: g.URL, Auth: spec.NewSecret(g.Token), Timeout: w.p.Grafana.Timeout}
	return w, g
}

// destroying plans to delete all.
func (w *harness) destroying() (*provision.Stack, plan.Plan) {
	w.t.Helper()
	going := w.open().Destroying(nil)
	found, err := going.Plan(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return going, found
}

// Destroy deletes what carries our mark, and nothing else.
func TestDestroy(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	w.exec("CREATE TABLE mine (a int)")
	w.apply(w.plan())
	going, found := w.destroying()
	if found.Count(plan.Delete) != 12 {
		t.Errorf("%d deletions", found.Count(plan.Delete))
	}
	results, err := going.Apply(t.Context(), found, provision.Options{Allow: everything(found)})
	if err != nil {
		t.Fatalf("%v: %+v", err, results)
	}
	for address, c := range changes(w.plan()) {
		if c.Action != plan.Create {
			t.Errorf("%s: %s", address, c.Action)
		}
	}
	w.exec("DROP TABLE mine")
}

// The marks stay until all that carries one is gone: the second destroy does the rest.
func TestDestroyThatFails(t *testing.T) {
	w, g := withGrafana(t)
	w.apply(w.plan())
	mend := g.Fail(grafanatest.Fault{Method: http.MethodDelete, Path: "/api/folders", Status: http.StatusInternalServerError})
	going, found := w.destroying()
	results, _ := going.Apply(t.Context(), found, provision.Options{Allow: everything(found)})
	done := outcomes(results)
	if r := done["folder.crypto"]; r.Outcome != provision.Failed {
		t.Errorf("%+v", r)
	}
	if r := done["engine.schema"]; r.Outcome != provision.Skipped || r.Reason != "folder.crypto still needs it" {
		t.Errorf("%+v", r)
	}
	mend()
	going, found = w.destroying()
	if n := found.Count(plan.Delete); n != 2 {
		t.Errorf("%d deletions are left", n)
	}
	if _, err := going.Apply(t.Context(), found, provision.Options{Allow: everything(found)}); err != nil {
		t.Error(err)
	}
}

// When the file names the uid of somebody else's object, that is adopted, not ours: plan says so, and destroy deletes what the
// last apply set.
func TestUidOfAnother(t *testing.T) {
	w, g := withGrafana(t)
	ours := w.p.DataSources[0]
	theirs := *ours
	theirs.Name, theirs.UID, theirs.Title, theirs.Host, theirs.Default = "other", "somebodys", "Somebody's", "theirs:5432", false
	w.p.DataSources = append(w.p.DataSources, &theirs)
	w.apply(w.plan())
	w.exec("DELETE FROM cryptoviz.managed WHERE address = 'datasource.other'")
	w.p.DataSources = w.p.DataSources[:1]
	was := ours.UID
	ours.UID = theirs.UID
	c := changes(w.plan())["datasource."+ours.Name]
	if !c.Adopt || c.Drifted() || !slices.ContainsFunc(c.Findings, func(f plan.Finding) bool { return f.Code == "CV-G11" }) {
		t.Errorf("adopt %v, drifted %v, %+v", c.Adopt, c.Drifted(), c.Findings)
	}
	going, found := w.destroying()
	if _, err := going.Apply(t.Context(), found, provision.Options{Allow: everything(found)}); err != nil {
		t.Error(err)
	}
	var deleted []string
	for _, r := range g.Requests() {
		if r.Method == http.MethodDelete && strings.Contains(r.Path, "datasources") {
			deleted = append(deleted, r.Path)
		}
	}
	if len(deleted) != 1 || !strings.HasSuffix(deleted[0], "/"+was) {
		t.Errorf("deleted %v, ours was %s", deleted, was)
	}
}

// A folder that holds another object of the same title than the plan counted is not deleted.
func TestFolderWithAnotherOfTheSameTitle(t *testing.T) {
	w, g := withGrafana(t)
	w.p.Dashboards, w.p.Alerts = nil, nil
	w.apply(w.plan())
	g.Put(t, "cv-crypto", "ann", []byte(`{"uid":"one","title":"Copy","panels":[]}`))
	w.p.Folders, w.p.Removed = nil, []*spec.Removed{{Kind: "folder", Name: "crypto"}}
	found := w.plan()
	g.Put(t, "cv-crypto", "bob", []byte(`{"uid":"two","title":"Copy","panels":[]}`))
	r := outcomes(w.apply(found, consent("CV-G04@folder.crypto")))["folder.crypto"]
	if r.Outcome != provision.Refused || since(r) != "CV-G04 1 object agreed to -> 2 objects" || g.Dashboard("two") == nil {
		t.Errorf("%+v", r)
	}
}

// A target on a fresh database brings the engine's tables with it: they hold the mark.
func TestTargetOnAFreshDatabase(t *testing.T) {
	w := newHarness(t, testkit.Postgres(t))
	part, err := w.plan().Target([]string{"topic.binance"})
	if err != nil {
		t.Fatal(err)
	}
	done := outcomes(w.apply(part))
	if len(done) != 2 || done["topic.binance"].Outcome != provision.Done || done["engine.schema"].Outcome != provision.Done {
		t.Errorf("%+v", done)
	}
	part, err = w.plan().Target([]string{"topic.kraken"})
	if err != nil || len(part.Changes) != 1 {
		t.Errorf("%v %+v", err, part.Changes)
	}
}
