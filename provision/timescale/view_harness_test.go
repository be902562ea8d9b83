package timescale

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// scene is a database with a pipeline that changes, and what the last apply set.
type scene struct {
	t       *testing.T
	db      *pgxpool.Pool
	p       *spec.Pipeline
	catalog *catalog.Catalog
	queries *shadow.Queries
	last    map[string]plan.State
	roles   []string
	ledger  bool // cryptoviz.managed is there: write it, too
}

func newScene(t *testing.T, start func(testing.TB) string) *scene {
	t.Helper()
	w := &scene{t: t}
	t.Cleanup(w.dropRoles) // after the database is gone: roles belong to the whole server
	db, err := pgxpool.New(t.Context(), start(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	w.db, w.p, w.last = db, &spec.Pipeline{File: "pipeline.hcl", FS: os.DirFS(t.TempDir())}, map[string]plan.State{}
	w.p.Database.OnMissing = "error"
	w.catalog = catalog.NewCatalog(db)
	w.catalog.Pipeline = w.p
	w.queries = NewQueries(w.p, w.catalog)
	return w
}

// timescaleURL prefers a real server, which CRYPTOVIZ_TEST_POSTGRES may name, to the one in WebAssembly.
func timescaleURL(t testing.TB) string {
	t.Helper()
	if os.Getenv("CRYPTOVIZ_TEST_POSTGRES") != "" {
		url := testkit.Postgres(t)
		db, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close(context.WithoutCancel(t.Context())) }()
		if caps, err := catalog.Detect(t.Context(), db); err == nil && caps.Available != "" {
			if _, err := db.Exec(t.Context(), "CREATE EXTENSION timescaledb"); err != nil {
				t.Fatal(err)
			}
			return url
		}
	}
	return testkit.Timescale(t)
}

// role is the name of a role that no other test uses, and that goes with the test.
func (w *scene) role(name string) string {
	name += "_" + w.db.Config().ConnConfig.Database
	if !slices.Contains(w.roles, name) {
		w.roles = append(w.roles, name)
	}
	return name
}

func (w *scene) dropRoles() {
	if len(w.roles) == 0 || w.db.Config().ConnConfig.Database == "template1" { // that server is gone by now
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	config := w.db.Config().ConnConfig.Copy()
	config.Database = "postgres"
	db, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer func() { _ = db.Close(ctx) }()
	for _, name := range w.roles {
		if _, err := db.Exec(ctx, "DROP ROLE IF EXISTS "+pg.Ident(name)); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *scene) exec(sql string) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// text returns one value as text.
func (w *scene) text(sql string, args ...any) string {
	w.t.Helper()
	var out string
	if err := w.db.QueryRow(w.t.Context(), sql, args...).Scan(&out); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// plan reads, compares and assesses as the command does.
func (w *scene) plan(r resource) plan.Change {
	w.t.Helper()
	live, err := r.Read(w.t.Context())
	if err != nil {
		w.t.Fatalf("read %s: %v", r.Address(), err)
	}
	var last *plan.State
	s, ours := w.last[r.Address()]
	if ours {
		last = &s
	}
	c := compared(r, last, ours, live)
	c.Findings = nil // whose an object is, is not what these tests are about
	if err := r.Assess(w.t.Context(), &c); err != nil {
		w.t.Fatalf("judge %s: %v", r.Address(), err)
	}
	return c
}

// see plans anew.
func (w *scene) see(r resource) plan.Change {
	w.t.Helper()
	w.catalog.Reset()
	return w.plan(r)
}

// apply plans anew and applies, writes the ledger, and wants the plan after it to be empty.
func (w *scene) apply(r resource) plan.Change {
	w.t.Helper()
	c := w.see(r)
	if c.Impossible() {
		w.t.Fatalf("%s is impossible: %v", c.Address, c.Findings)
	}
	if c.Changes() {
		if err := r.Make(w.t.Context(), c); err != nil {
			w.t.Fatalf("%v\nsteps:\n%s", err, strings.Join(c.Steps, ";\n"))
		}
	}
	w.mark(r)
	if again := w.see(r); again.Changes() || len(again.Diffs) > 0 {
		w.t.Fatalf("the plan after apply is not empty: %s", show(again))
	}
	return c
}

// mark writes the ledger.
func (w *scene) mark(r resource) {
	if want := r.Want(); want != nil {
		last := w.last[r.Address()]
		record := (&plan.Change{Want: want, Last: &last}).Recorded()
		w.last[r.Address()] = record
		if w.ledger {
			if err := (&ledger.Ledger{DB: w.db}).Put(w.t.Context(), r.Address(), ledger.Entry{State: record}, "test", "test"); err != nil {
				w.t.Fatal(err)
			}
		}
	} else {
		delete(w.last, r.Address())
	}
}

func show(c plan.Change) string {
	c.Live, c.Want, c.Last = nil, nil, nil
	text, _ := json.MarshalIndent(c, "", "  ")
	return string(text)
}

// expect wants exactly these differences, "name: old -> new (cause)", and these codes.
func (w *scene) expect(c plan.Change, action plan.Action, diffs []string, codes ...string) {
	w.t.Helper()
	var have, found []string
	for _, d := range c.Diffs {
		have = append(have, d.Name+": "+short(d.Old)+" -> "+short(d.New)+" ("+string(d.Cause)+")")
	}
	for _, f := range c.Findings {
		found = append(found, f.Code)
	}
	if c.Action != action || strings.Join(have, "\n") != strings.Join(diffs, "\n") || strings.Join(found, " ") != strings.Join(codes, " ") {
		w.t.Errorf("action %s, differences\n%s\ncodes %v; want %s,\n%s\n%v\n%s", c.Action, strings.Join(have, "\n"), found, action, strings.Join(diffs, "\n"), codes, show(c))
	}
}

// short stands for a query: servers write them differently.
func short(value string) string {
	if strings.Contains(value, "FROM") {
		return "SQL"
	}
	return value
}

func (w *scene) view(v *spec.View) *view.View { return &view.View{Queries: w.queries, Spec: v} }
