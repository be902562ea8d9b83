package timescale

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// unprivileged is a user that may nothing but connect, as PostgreSQL 15 and later have it. Older ones let all make tables.
const unprivileged = "CREATE ROLE %s LOGIN; REVOKE CREATE ON SCHEMA public FROM public"

// What a user may not do, the plan says with the statement that allows it; and that statement does.
func TestTableWithoutPrivilege(t *testing.T) {
	t.Parallel()
	w := newTableWorld(t, testkit.Postgres(t))
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
	expect(theirs.plan(theirs.table(s)), user+" may not make tables and indexes in schema public (permission denied for schema public). Let the schema's owner or a superuser run GRANT CREATE ON SCHEMA \"public\" TO \""+user+"\"")
	theirs.apply(theirs.table(s))

	e := &Engine{Pipeline: theirs.cat.Pipeline, Catalog: theirs.cat}
	expect(theirs.plan(e), user+" may not make the schema cryptoviz in database "+database+" (permission denied for database "+database+"). Let the database's owner or a superuser run GRANT CREATE ON DATABASE \""+database+"\" TO \""+user+"\"")
	theirs.apply(e)
	w.exec("REVOKE CREATE ON DATABASE " + quote(database) + " FROM " + quote(user))

	// Tables and a schema of another one.
	other := w.as("CREATE ROLE %s LOGIN; GRANT USAGE ON SCHEMA cryptoviz TO %[1]s; GRANT SELECT ON ALL TABLES IN SCHEMA public, cryptoviz TO %[1]s")
	name := other.text("SELECT current_user::text")
	e = &Engine{Pipeline: &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}, Sources: []*spec.Source{feed("a")}}, Catalog: other.cat}
	expect(other.plan(e), "schema cryptoviz belongs to "+user+", not to "+name+" (permission denied")
	w.exec("REVOKE " + quote(user) + " FROM " + quote(name))
	s.Columns = append(s.Columns, &spec.Column{Name: "ask", Type: spec.Double, Null: true})
	expect(other.plan(other.table(s)), name+" is not the owner of m, "+user+" is (must be owner of table m). Use that user, or let a superuser run GRANT \""+user+"\" TO \""+name+"\"")
	other.apply(other.table(s))
}

// No schema to make tables in is no failure of the plan.
func TestTableWithoutSchema(t *testing.T) {
	t.Parallel()
	w := newTableWorld(t, testkit.Postgres(t)+"&search_path=nowhere")
	s := sample("m", false)
	s.Hypertable = nil
	c := w.plan(w.table(s))
	if len(c.Findings) != 1 || c.Findings[0].Code != "CV-T28" || !strings.Contains(c.Findings[0].Text, "no schema has been selected to create in") {
		t.Errorf("%+v", c.Findings)
	}
}

// hiddenExtension is TimescaleDB in a schema that the search_path lacks.
func hiddenExtension(t *testing.T, w *tableWorld) {
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
	w = &tableWorld{t: t, cat: NewCatalog(pool), ledger: w.ledger}
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
