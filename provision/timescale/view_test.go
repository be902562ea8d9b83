package timescale

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

const ticks = `CREATE TABLE ticks (time timestamptz NOT NULL, source text NOT NULL, price double precision, PRIMARY KEY (source, time))`

func TestViewOnPostgres(t *testing.T) { viewConverges(t, newScene(t, testkit.Postgres)) }

func TestViewOnTimescale(t *testing.T) { viewConverges(t, newScene(t, timescaleURL)) }

// A view is made, changed attribute by attribute, changed outside, and deleted; each plan after an apply is empty.
func viewConverges(t *testing.T, w *scene) {
	w.exec(ticks)
	w.exec(`INSERT INTO ticks VALUES (now(), 'a', 1)`)
	v := &spec.View{Name: "latest", Query: "-- the newest\nSELECT source, price FROM ticks WHERE time > now() - interval '1h' ; -- end", QueryAt: "sql/latest.sql"}
	w.p.Views = []*spec.View{v}
	r := w.view(v)

	c := w.apply(r)
	w.expect(c, plan.Create, []string{"query:  -> SQL (intent)"})
	if len(c.Steps) != 4 || c.Steps[0] != "BEGIN" || !strings.HasPrefix(c.Steps[2], `CREATE OR REPLACE VIEW "latest" AS`) {
		t.Errorf("steps %q", c.Steps)
	}
	if err := r.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}
	if n := w.text("SELECT count(*)::text FROM latest"); n != "1" {
		t.Errorf("%s rows", n)
	}

	t.Log("another text with the same meaning is no change")
	v.Query = "select Source , price\nfrom public.ticks t where t.time > now() - '01:00'::interval"
	v.Query = strings.Replace(v.Query, " t where t.time", " where time", 1)
	w.expect(w.see(r), plan.None, nil)

	t.Log("more columns, a comment")
	v.Query += " AND price > 0"
	v.Description = "It's the newest."
	w.expect(w.apply(r), plan.Update, []string{"query: SQL -> SQL (intent)", "description:  -> It's the newest. (intent)"})
	v.Query = "SELECT source, price, time FROM ticks"
	c = w.apply(r)
	w.expect(c, plan.Update, []string{"query: SQL -> SQL (intent)"})

	t.Log("drift")
	w.exec("CREATE OR REPLACE VIEW latest AS SELECT source, price, time FROM ticks WHERE false")
	w.expect(w.apply(r), plan.Update, []string{"query: SQL -> SQL (drift)"})
	w.exec("COMMENT ON VIEW latest IS 'other'")
	w.expect(w.apply(r), plan.Update, []string{"description: other -> It's the newest. (drift)"})
	v.Description = ""
	w.expect(w.apply(r), plan.Update, []string{"description: It's the newest. ->  (reset)"})
	w.exec("COMMENT ON VIEW latest IS 'by hand'")
	c = w.apply(r)
	w.expect(c, plan.None, nil)
	if len(c.Extra) != 1 || c.Extra[0].Value != "by hand" {
		t.Errorf("extra %v", c.Extra)
	}
	w.exec("DROP VIEW latest")
	w.expect(w.apply(r), plan.Create, []string{"query:  -> SQL (intent)"})

	t.Log("other columns: dropped and made again, with what hung on it")
	w.exec("CREATE ROLE " + pgx.Identifier{w.role("viewer")}.Sanitize())
	w.exec("GRANT SELECT ON latest TO " + pg.Ident(w.role("viewer")))
	w.exec("GRANT SELECT (price) ON latest TO PUBLIC")
	w.exec("COMMENT ON COLUMN latest.price IS 'in dollars'")
	w.exec("COMMENT ON VIEW latest IS 'kept'")
	w.exec("ALTER VIEW latest SET (security_barrier = true)")
	v.Query = "SELECT time, source AS name, price FROM ticks"
	c = w.apply(r)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-V04")
	if err := r.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}
	if have := w.text(`SELECT has_table_privilege($1, 'latest', 'SELECT') || ' ' || has_column_privilege($1, 'latest', 'price', 'SELECT') || ' ' || col_description('latest'::regclass, 3) || ' ' ||
		obj_description('latest'::regclass) || ' ' || (SELECT reloptions::text FROM pg_class WHERE relname = 'latest')`, w.role("viewer")); have != "true true in dollars kept {security_barrier=true}" {
		t.Errorf("after it was made again: %s", have)
	}

	t.Log("what reads it")
	w.exec("CREATE VIEW outer_view AS SELECT name FROM latest")
	v.Query = "SELECT source FROM ticks"
	c = w.see(r)
	w.expect(c, plan.Update, []string{"query: SQL -> SQL (intent)"}, "CV-V03")
	if !strings.Contains(c.Findings[0].Text, "view.outer_view depends on it") || len(c.Steps) > 0 {
		t.Errorf("%s", show(c))
	}
	gone := &view.View{Queries: w.queries, Removed: &spec.Removed{Kind: "view", Name: "latest"}}
	w.expect(w.see(gone), plan.Delete, nil, "CV-V05")
	outer := &view.View{Queries: w.queries, Removed: &spec.Removed{Kind: "view", Name: "outer_view"}}
	w.expect(w.see(outer), plan.Delete, nil)
	if have := outer.DependsOn(); !slices.Equal(have, []string{"view.latest"}) {
		t.Errorf("deleted before %v", have)
	}
	w.p.Views, w.p.Removed = nil, []*spec.Removed{outer.Removed}
	w.expect(w.see(gone), plan.Delete, nil, "CV-V06")
	w.apply(outer)
	w.expect(w.apply(gone), plan.Delete, nil, "CV-V06")
	w.expect(w.see(gone), plan.None, nil)
}

// What else hangs on a view: columns' defaults come back with it, rules and what needs the type of its rows stand in the way.
func TestViewDependents(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	w.exec(ticks + "; CREATE SEQUENCE s; CREATE VIEW v AS SELECT source, price, time FROM ticks")
	w.exec("ALTER VIEW v ALTER COLUMN price SET DEFAULT nextval('s'), ALTER COLUMN source SET DEFAULT 'here', ALTER COLUMN time SET DEFAULT now()")
	v := &spec.View{Name: "v", Query: "SELECT price, source, time::text AS time FROM ticks"}
	w.p.Views = []*spec.View{v}
	r := w.view(v)
	gone := &view.View{Queries: w.queries, Removed: &spec.Removed{Kind: "view", Name: "v"}}

	for _, test := range []struct{ make, drop, want string }{
		{"CREATE FUNCTION f(x v) RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION f", "function f(v) depends on it"},
		{"CREATE FUNCTION f(x v[]) RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION f", "function f(v[]) depends on it"},
		{"CREATE FUNCTION f() RETURNS SETOF v LANGUAGE sql AS 'SELECT NULL::v'", "DROP FUNCTION f", "function f() depends on it"},
		{"CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM v; END", "DROP FUNCTION f", "function f() depends on it"},
		{"CREATE TABLE copies (one v)", "DROP TABLE copies", "column one of table copies depends on it"},
		{"CREATE VIEW typed AS SELECT NULL::v IS NULL AS a", "DROP VIEW typed", "view typed depends on it"},
		{"CREATE VIEW whole AS SELECT v, v.price FROM v", "DROP VIEW whole", "view.whole depends on it"},
	} {
		w.exec(test.make)
		for _, c := range []plan.Change{w.see(r), w.see(gone)} {
			code := map[plan.Action]string{plan.Update: "CV-V03", plan.Delete: "CV-V05"}[c.Action]
			if len(c.Findings) != 1 || c.Findings[0].Code != code || !strings.HasSuffix(c.Findings[0].Text, test.want) || len(c.Steps) > 0 {
				t.Errorf("%s: %s", test.make, show(c))
			}
		}
		w.exec(test.drop)
	}
	w.exec("CREATE VIEW whole AS SELECT v, v.price FROM v")
	w.p.Removed = []*spec.Removed{{Kind: "view", Name: "whole"}}
	w.expect(w.see(gone), plan.Delete, nil)
	w.exec("DROP VIEW whole")

	c := w.apply(r)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-V04")
	if text := c.Findings[0].Text; !strings.HasSuffix(text, "time becomes text; the default of time goes") {
		t.Error(text)
	}
	if have := w.text("SELECT string_agg(a.attname || ' ' || pg_get_expr(d.adbin, 0), ', ' ORDER BY a.attnum) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adrelid = 'v'::regclass"); have != "price nextval('s'::regclass), source 'here'::text" {
		t.Errorf("defaults after it was made again: %s", have)
	}
}

func TestViewAdoptsAndRefuses(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	w.exec(ticks)
	dir := t.TempDir()
	w.p.FS = os.DirFS(dir)
	if err := os.Mkdir(dir+"/sql", 0o700); err != nil {
		t.Fatal(err)
	}
	const text = "SELECT source,\n  prise FROM ticks"
	if err := os.WriteFile(dir+"/sql/bad.sql", []byte("\n\n"+text+";\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, query, at, want string
	}{
		{"column", text, "sql/bad.sql", "sql/bad.sql:4:3: column \"prise\" does not exist"},
		{"inline", text, "pipeline.hcl:7", "pipeline.hcl:7, line 2, column 3 of the query: column \"prise\" does not exist"},
		{"table", "SELECT 1 AS a FROM tics", "sql/x.sql", "sql/x.sql:1:20: relation \"tics\" does not exist"},
		{"syntax", "SELECT source, FROM ticks", "sql/x.sql", "sql/x.sql:1:16: syntax error"},
		{"two", "SELECT 1 AS a; DROP TABLE ticks", "sql/x.sql", "sql/x.sql: cannot insert multiple commands"},
		{"no query", "DELETE FROM ticks", "sql/x.sql", "sql/x.sql:1:1: syntax error"},
		{"twice", "SELECT source, source FROM ticks", "sql/x.sql", "sql/x.sql: column \"source\" specified more than once"},
		{"runes", "SELECT '€€' AS a, b FROM ticks", "sql/x.sql", "sql/x.sql:1:19: column \"b\" does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := &spec.View{Name: "good", Query: "SELECT price FROM ticks"}
			bad := &spec.View{Name: "bad", Query: c.query, QueryAt: c.at}
			w.p.Views = []*spec.View{good, bad}
			w.expect(w.see(w.view(good)), plan.Create, []string{"query:  -> SQL (intent)"})
			change := w.see(w.view(bad))
			if len(change.Findings) != 1 || change.Findings[0].Code != "CV-V02" || !strings.HasPrefix(change.Findings[0].Text, c.want) || len(change.Steps) > 0 {
				t.Errorf("%s", show(change))
			}
			if err := w.view(bad).Make(t.Context(), change); err == nil {
				t.Error("an impossible change was applied")
			}
		})
	}
	if w.text("SELECT to_regclass('ticks')::text") != "ticks" {
		t.Fatal("planning changed the database")
	}

	t.Log("a name in use, another's view")
	w.exec("CREATE TABLE good (a int)")
	v := &spec.View{Name: "good", Query: "SELECT price FROM ticks"}
	w.p.Views = []*spec.View{v}
	w.expect(w.see(w.view(v)), plan.Create, []string{"query:  -> SQL (intent)"}, "CV-V01")
	w.exec("DROP TABLE good; CREATE VIEW good AS SELECT price FROM ticks WHERE price > 0")
	c := w.see(w.view(v))
	w.expect(c, plan.Update, []string{"query: SQL -> SQL (intent)"})
	if !c.Adopt {
		t.Error("not adopted")
	}
	w.apply(w.view(v))
}

// Queries are asked about with the tables and the views that the same plan makes, whatever they replace.
func TestViewsPlanTogether(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	w.exec(ticks)
	table := &spec.Table{Name: "coins", PrimaryKey: []string{"name"}, Columns: []*spec.Column{{Name: "name", Type: spec.Text}, {Name: "title", Type: spec.Text, Null: true}}}
	w.p.Tables = []*spec.Table{table}
	base := &spec.View{Name: "base", Query: "SELECT source, price FROM ticks"}
	top := &spec.View{Name: "top", Query: "SELECT * FROM base JOIN coins ON coins.name = base.source"}
	w.p.Views = []*spec.View{top, base} // the declared order does not matter
	if have := w.view(top).DependsOn(); !slices.Equal(have, []string{plan.EngineAddress, "table.coins", "view.base"}) {
		t.Errorf("depends on %v", have)
	}
	w.catalog.Reset()
	for _, r := range []*view.View{w.view(base), w.view(top)} {
		c := w.plan(r)
		w.expect(c, plan.Create, []string{"query:  -> SQL (intent)"})
		if strings.Contains(strings.Join(c.Steps, ""), "cryptoviz_plan") {
			t.Errorf("a step names the schema of the trial: %q", c.Steps)
		}
	}
	if w.text("SELECT count(*)::text FROM pg_namespace WHERE nspname LIKE 'cryptoviz_plan%'") != "0" {
		t.Error("the trial left its schema")
	}
	w.exec("CREATE TABLE coins (name text PRIMARY KEY, title text)")
	w.apply(w.view(base))
	w.apply(w.view(top))

	t.Log("a column more below: the star above follows in the same plan, though the view below is not changed yet")
	base.Query = "SELECT source, price, time FROM ticks"
	w.catalog.Reset()
	w.expect(w.plan(w.view(base)), plan.Update, []string{"query: SQL -> SQL (intent)"})
	w.expect(w.plan(w.view(top)), plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-V04")
	if w.text("SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'base'::regclass AND attnum > 0") != "2" {
		t.Error("planning changed a view")
	}
	w.apply(w.view(base))
	w.apply(w.view(top))

	t.Log("a column more in a table that the plan changes")
	top.Query = "SELECT * FROM coins"
	w.apply(w.view(top))
	rank := &spec.Column{Name: "rank", Type: spec.Integer, Null: true}
	table.Columns = append(table.Columns, rank)
	c := w.see(w.view(top))
	w.expect(c, plan.Update, []string{"query: SQL -> SQL (intent)"})
	if !strings.Contains(c.Diffs[0].New, "rank") || !strings.Contains(c.Diffs[0].New, "public.coins") {
		t.Errorf("new query %s", c.Diffs[0].New)
	}
	table.Columns = table.Columns[:2]

	t.Log("a user who may make no schema, and owns the rest")
	owner := w.role("plain")
	w.exec("CREATE ROLE " + pg.Ident(owner) + " LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO " + pg.Ident(owner))
	for _, r := range []string{"TABLE ticks", "TABLE coins", "VIEW base", "VIEW top"} {
		w.exec("ALTER " + r + " OWNER TO " + pg.Ident(owner))
	}
	boss := w
	w = w.as(owner, "x")
	base.Query, top.Query = "SELECT source, price FROM ticks WHERE price > 1", "SELECT source, title FROM base JOIN coins ON coins.name = base.source"
	third := &spec.View{Name: "third", Query: "SELECT title FROM fourth"}
	fourth := &spec.View{Name: "fourth", Query: "SELECT title FROM coins"}
	w.p.Views = append(w.p.Views, third, fourth)
	w.apply(w.view(fourth))
	w.apply(w.view(third))
	boss.exec("ALTER VIEW third OWNER TO " + pg.Ident(boss.text("SELECT current_user::text")))
	third.Description = "new"
	w.expect(w.see(w.view(third)), plan.Update, []string{"description:  -> new (intent)"}, "CV-V07")
	fourth.Query = "SELECT title, rank FROM coins" // a column that the plan adds
	table.Columns = append(table.Columns, rank)
	w.catalog.Reset()
	c = w.see(w.view(fourth))
	w.expect(c, plan.Update, []string{"query: SQL -> SQL (intent)"})
	if !strings.Contains(c.Diffs[0].New, "rank") || strings.Contains(strings.Join(c.Steps, " "), "pg_temp") {
		t.Errorf("new query %q in %q", c.Diffs[0].New, c.Steps)
	}
	w.expect(w.see(w.view(third)), plan.Update, []string{"description:  -> new (intent)"}, "CV-V07")
	table.Columns, fourth.Query = table.Columns[:2], "SELECT title FROM coins"

	t.Log("a user who may not even make temporary views")
	boss.exec("REVOKE TEMPORARY ON DATABASE " + pg.Ident(w.db.Config().ConnConfig.Database) + " FROM PUBLIC")
	fourth.Query = "SELECT  coins.title\nFROM coins -- written in another way"
	w.catalog.Reset()
	w.expect(w.see(w.view(fourth)), plan.None, nil)
	fourth.Query = "SELECT title AS name FROM coins"
	w.catalog.Reset()
	w.expect(w.see(w.view(fourth)), plan.Update, []string{"query: SQL -> SQL (intent)"})
}

// as is the scene of another user.
func (w *scene) as(user, password string) *scene {
	config := w.db.Config()
	config.ConnConfig.User, config.ConnConfig.Password = user, password
	db, err := pgxpool.NewWithConfig(w.t.Context(), config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	other := *w
	other.db, other.catalog = db, catalog.NewCatalog(db)
	other.catalog.Pipeline = w.p
	other.queries = NewQueries(w.p, other.catalog)
	return &other
}

// The fast way takes few requests, whatever the number of views.
func TestViewsAreReadTogether(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	w.exec(ticks)
	for i := range 50 {
		v := &spec.View{Name: "v" + string(rune('a'+i/26)) + string(rune('a'+i%26)), Query: "SELECT price FROM ticks"}
		w.p.Views = append(w.p.Views, v)
		w.exec("CREATE VIEW " + v.Name + " AS " + v.Query)
	}
	w.catalog.Reset()
	before := w.catalog.Describe().Requests
	for _, v := range w.p.Views {
		w.expect(w.plan(w.view(v)), plan.None, nil)
	}
	if n := w.catalog.Describe().Requests - before; n > 25 {
		t.Errorf("%d requests", n)
	} else {
		t.Logf("%d requests for 50 views, %.0f ms", n, w.catalog.Describe().Seconds*1000)
	}
}

// New views over a new table, and what reads them, are checked in few requests; of those that the server rejects each is named, and
// the others are answered all the same.
func TestRejectedAmongManyIsNamed(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	w.p.Tables = []*spec.Table{{Name: "coins", PrimaryKey: []string{"name"}, Columns: []*spec.Column{{Name: "name", Type: spec.Text}}}}
	var changed []string
	for i := range 40 {
		v := &spec.View{Name: fmt.Sprintf("v%02d", i), Query: "SELECT name FROM coins"}
		if i == 7 {
			v.Query = "SELECT title FROM coins"
		}
		w.p.Views, changed = append(w.p.Views, v), append(changed, "view."+v.Name)
	}
	for i, v := range w.p.Views {
		c := w.plan(w.view(v))
		if c.Impossible() != (i == 7) || i != 7 && c.Steps == nil {
			t.Errorf("%s: %s", v.Name, show(c))
		}
	}
	if n := w.catalog.Describe().Requests; n > 100 {
		t.Errorf("%d requests for 40 views", n)
	}
	var checks []*shadow.Check
	for i := range 30 {
		checks = append(checks, &shadow.Check{Address: "dashboard.d", SQL: fmt.Sprintf("SELECT name FROM v%02d", i)})
	}
	checks[20].SQL = "SELECT pg_sleep(1000), title FROM coins"
	checks[21].SQL = "SELECT 1; DROP TABLE coins"
	checks[22].SQL = "SELECT pg_sleep(1000)"
	before := w.catalog.Describe().Requests
	if err := w.queries.Check(t.Context(), changed, checks); err != nil {
		t.Fatal(err)
	}
	for i, c := range checks {
		if (c.Rejected != "") != slices.Contains([]int{7, 20, 21}, i) || c.Unchecked {
			t.Errorf("%d: %+v", i, c)
		}
	}
	if n := w.catalog.Describe().Requests - before; n > 120 {
		t.Errorf("%d requests for 30 checks", n)
	}
}
