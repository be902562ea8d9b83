package timescale

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// unprivileged is a user that may nothing but connect, as PostgreSQL 15 and later have it. Older ones let all make tables.
const unprivileged = "CREATE ROLE %s LOGIN; REVOKE CREATE ON SCHEMA public FROM public"

// What a user may not do, the plan says with the statement that allows it; and that statement does.
func TestTableWithoutPrivilege(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	theirs := w.as(unprivileged)
	user, database := theirs.text("SELECT current_user::text"), theirs.text("SELECT current_database()::text")
	expect := func(c plan.Change, want string) { // with the remedy, which it follows
		t.Helper()
		if len(c.Findings) != 1 || c.Findings[0].Code != "CV-T28" || !strings.HasPrefix(c.Findings[0].Text, want) {
			t.Fatalf("%+v, want %s", c.Findings, want)
		}
		_, sql, _ := strings.Cut(c.Findings[0].Text, " run ")
		w.exec(sql)
	}
	s := sample("m", false)
	expect(theirs.plan(theirs.table(s)), user+" may not make tables and indexes in schema public (permission denied for schema public). Let the schema's owner run GRANT CREATE ON SCHEMA \"public\" TO \""+user+"\"")
	theirs.apply(theirs.table(s))

	e := &Engine{Pipeline: theirs.cat.Pipeline, Catalog: theirs.cat}
	expect(theirs.plan(e), user+" may not make the schema cryptoviz in database "+database+" (permission denied for database "+database+"). Let an administrator run CREATE SCHEMA cryptoviz AUTHORIZATION \""+user+"\"")
	theirs.apply(e)

	// A schema and a table of another one.
	w.exec("DROP SCHEMA cryptoviz CASCADE; CREATE SCHEMA cryptoviz; GRANT USAGE ON SCHEMA cryptoviz TO " + pg.Ident(user) + "; CREATE TABLE public.theirs (time timestamptz NOT NULL, PRIMARY KEY (time))")
	expect(theirs.plan(e), user+" may not make tables in schema cryptoviz, which belongs to "+w.text("SELECT current_user::text")+" (permission denied")
	theirs.apply(e)
	s = &spec.Table{Name: "theirs", PrimaryKey: []string{"time"}, Columns: []*spec.Column{{Name: "time", Type: spec.Timestamptz}, {Name: "ask", Type: spec.Double, Null: true}}}
	expect(theirs.plan(theirs.table(s)), user+" is not the owner of theirs, "+w.text("SELECT current_user::text")+" is (must be owner of table theirs). Let an administrator run ALTER TABLE public.theirs OWNER TO \""+user+"\"")
	theirs.apply(theirs.table(s))
	if w.text("SELECT bool_or(pg_has_role('"+user+"', oid, 'MEMBER'))::text FROM pg_roles WHERE rolname <> '"+user+"'") != "false" {
		t.Error("a remedy gave away a role")
	}
}

// No schema to make tables in is no failure of the plan.
func TestTableWithoutSchema(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t)+"&search_path=nowhere")
	s := sample("m", false)
	s.Hypertable = nil
	c := w.plan(w.table(s))
	if len(c.Findings) != 1 || c.Findings[0].Code != "CV-T28" || !strings.Contains(c.Findings[0].Text, "no schema has been selected to create in") {
		t.Errorf("%+v", c.Findings)
	}
}

// hiddenExtension is TimescaleDB in a schema that the search_path lacks.
func hiddenExtension(t *testing.T, w *tableHarness) {
	w.exec("CREATE SCHEMA other")
	config := w.cat.DB.Config()
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET search_path = other")
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	w.cat.DB.Close()
	defer pool.Close()
	w = &tableHarness{t: t, cat: catalog.NewCatalog(pool), ledger: w.ledger}
	w.cat.Pipeline = &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}}
	s := sample("m", true)
	if c := w.apply(w.table(s)); !strings.Contains(strings.Join(c.Steps, "\n"), `"public".by_range(`) {
		t.Errorf("%q", c.Steps)
	}
	w.fill("m")
	s.Hypertable.ChunkInterval /= 2
	s.Hypertable.Retention /= 2
	s.Hypertable.Columnstore.After *= 2
	w.apply(w.table(s))
	w.apply(w.removed("m"))
	w.exec("DROP SCHEMA other; RESET search_path")
}
