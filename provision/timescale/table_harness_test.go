package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
)

// tableHarness drives resources as plan and apply do: read, compare with what the last apply set, judge, apply.
type tableHarness struct {
	t      *testing.T
	cat    *catalog.Catalog
	ledger map[string]plan.State
}

func newTableHarness(t *testing.T, url string) *tableHarness {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	cat := catalog.NewCatalog(pool)
	cat.Pipeline = &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}}
	return &tableHarness{t: t, cat: cat, ledger: map[string]plan.State{}}
}

// on returns the same harness for a subtest.
func (w *tableHarness) on(t *testing.T) *tableHarness {
	return &tableHarness{t: t, cat: w.cat, ledger: w.ledger}
}

// as returns the harness of another user, whom the SQL makes; %s is his name.
func (w *tableHarness) as(sql string) *tableHarness {
	w.t.Helper()
	name := "u" + w.text("SELECT substr(md5(random()::text), 1, 12)")
	w.exec(fmt.Sprintf(sql, name))
	cfg := w.cat.DB.Config()
	cfg.ConnConfig.RuntimeParams["role"] = name
	pool, err := pgxpool.NewWithConfig(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		pool.Close()
		_, _ = w.cat.DB.Exec(context.Background(), "DROP OWNED BY "+name+"; DROP ROLE "+name)
	})
	theirs := &tableHarness{t: w.t, cat: catalog.NewCatalog(pool), ledger: w.ledger}
	theirs.cat.Pipeline = w.cat.Pipeline
	return theirs
}

// clean drops everything that is visible.
func (w *tableHarness) clean() {
	w.t.Helper()
	w.cat.Reset()
	names, err := w.cat.Unmanaged(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, address := range names {
		kind, name, _ := strings.Cut(address, ".")
		word := map[string]string{"table": "TABLE", "view": "VIEW", "aggregate": "MATERIALIZED VIEW"}[kind]
		w.exec("DROP " + word + " IF EXISTS " + pg.Ident(name) + " CASCADE")
	}
	w.exec("DROP SCHEMA IF EXISTS cryptoviz CASCADE; DROP SCHEMA IF EXISTS other CASCADE")
}

func (w *tableHarness) table(s *spec.Table) *table.Table {
	return &table.Table{Catalog: w.cat, Spec: s, Now: time.Now}
}

func (w *tableHarness) exec(sql string) {
	w.t.Helper()
	if _, err := w.cat.DB.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *tableHarness) text(sql string) (out string) {
	w.t.Helper()
	if err := w.cat.DB.QueryRow(w.t.Context(), sql).Scan(&out); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func (w *tableHarness) plan(r resource) plan.Change {
	w.t.Helper()
	w.cat.Reset()
	live, err := r.Read(w.t.Context())
	if err != nil {
		w.t.Fatalf("%s: %v", r.Address(), err)
	}
	var last *plan.State
	state, ours := w.ledger[r.Address()]
	if ours {
		last = &state
	}
	c := compared(r, last, ours, live)
	c.Findings = nil // whose an object is, is not what these tests are about
	if err := r.Assess(w.t.Context(), &c); err != nil {
		w.t.Fatalf("%s: %v", r.Address(), err)
	}
	return c
}

// apply plans, applies, and demands that the next plan is empty and that a second apply does no harm.
func (w *tableHarness) apply(r resource) plan.Change {
	w.t.Helper()
	c := w.plan(r)
	if c.Impossible() {
		w.t.Fatalf("%s is impossible: %+v", c.Address, c.Findings)
	}
	for range 2 {
		if err := r.Make(w.t.Context(), c); err != nil {
			w.t.Fatalf("%v\n%s", err, strings.Join(c.Steps, ";\n"))
		}
	}
	if c.Want == nil {
		delete(w.ledger, c.Address)
	} else {
		w.ledger[c.Address] = *c.Want
	}
	if again := w.plan(r); again.Action != plan.None {
		w.t.Fatalf("the plan after apply is not empty: %s %+v\nafter %s", again.Action, again.Diffs, strings.Join(c.Steps, ";\n"))
	}
	return c
}

// differences lists a change's differences as "name cause".
func differences(c plan.Change) []string {
	var out []string
	for _, d := range c.Diffs {
		out = append(out, d.Name+" "+string(d.Cause))
	}
	slices.Sort(out)
	return out
}

func codes(c plan.Change) []string {
	var out []string
	for _, f := range c.Findings {
		if !slices.Contains(out, f.Code) {
			out = append(out, f.Code)
		}
	}
	slices.Sort(out)
	return out
}

func (w *tableHarness) expect(c plan.Change, diffs, found string) {
	w.t.Helper()
	if got := strings.Join(differences(c), ", "); got != diffs {
		w.t.Errorf("differences %q, want %q\n%+v", got, diffs, c.Diffs)
	}
	if got := strings.Join(codes(c), " "); got != found {
		w.t.Errorf("findings %q, want %q: %+v", got, found, c.Findings)
	}
}

// sample is a table with one of everything; on TimescaleDB with policies.
func sample(name string, timescale bool) *spec.Table {
	t := &spec.Table{
		Name: name, Description: "Prices, and it's \\ quoted.",
		Columns: []*spec.Column{
			{Name: "time", Type: spec.Timestamptz},
			{Name: "source", Type: spec.Text, Description: "Where it comes from."},
			{Name: "price", Type: spec.Double, Default: "0.0"},
			{Name: "bid", Type: spec.Double, Null: true},
			{Name: "n", Type: spec.Integer, Default: "1::bigint + 1"},
			{Name: "at", Type: spec.Timestamptz, Default: "now()"},
			{Name: "note", Type: spec.Text, Null: true, Default: "'a'"},
		},
		PrimaryKey: []string{"source", "time"},
		Indexes:    []*spec.Index{{Name: name + "_price_idx", Columns: []string{"price"}}, {Name: name + "_u", Columns: []string{"time", "source", "n"}, Unique: true}},
		Hypertable: &spec.Hypertable{Time: "time", ChunkInterval: 24 * time.Hour},
		Range:      hcl.Range{Filename: "pipeline.hcl", Start: hcl.Pos{Line: 7}},
	}
	if timescale {
		t.Hypertable.Retention = 400 * 24 * time.Hour
		t.Hypertable.Columnstore = &spec.Columnstore{After: 30 * 24 * time.Hour, SegmentBy: []string{"source"}, OrderBy: []string{"time DESC", "n"}}
	} else {
		t.Columns = append(t.Columns, &spec.Column{Name: "twice", Type: spec.Double, Null: true, Generated: "price*2", Description: "Of price."})
	}
	return t
}

// fill puts 20 rows into a sample, an hour apart until now; bid is null in each second row.
func (w *tableHarness) fill(name string) {
	w.t.Helper()
	w.exec(`INSERT INTO ` + name + ` (time, source, price, bid, note) SELECT date_trunc('day', now()) + i * interval '1 hour', 's' || i % 2, i + 0.5, CASE WHEN i % 2 = 0 THEN i END, i::text
		FROM generate_series(0, 19) i`)
}
