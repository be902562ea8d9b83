package timescale

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/role"
)

// staff is the scene of a natively partitioned or hyper table with a view, and the engine's own tables.
func staff(t *testing.T, start func(testing.TB) string) *scene {
	w := newScene(t, start)
	caps, err := w.catalog.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table := &spec.Table{Name: "ticks", PrimaryKey: []string{"source", "time"}, Hypertable: &spec.Hypertable{Time: "time", ChunkInterval: day}, Columns: []*spec.Column{
		{Name: "time", Type: spec.Timestamptz}, {Name: "source", Type: spec.Text}, {Name: "price", Type: spec.Double},
	}}
	caps.Available = "" // no hypertable where the extension is not installed
	for _, sql := range append(ddl.CreateSQL(table, caps, time.Now()), "CREATE VIEW latest AS SELECT source, price FROM ticks", schema.SQL) {
		w.exec(sql)
	}
	w.ledger = true
	w.p.Tables, w.p.Views = []*spec.Table{table}, []*spec.View{{Name: "latest", Query: "SELECT source, price FROM ticks"}}
	return w
}

func (w *scene) roleOf(r *spec.Role) *role.Role { return &role.Role{Queries: w.queries, Spec: r} }

func TestRoleOnPostgres(t *testing.T) { roleConverges(t, staff(t, testkit.Postgres)) }

func TestRoleOnTimescale(t *testing.T) { roleConverges(t, staff(t, timescaleURL)) }

// A role is made, changed attribute by attribute, changed outside, and deleted; each plan after an apply is empty.
func roleConverges(t *testing.T, w *scene) {
	x := &spec.Role{Name: w.role("reader")}
	r := w.roleOf(x)
	c := w.apply(r)
	w.expect(c, plan.Create, []string{"login:  -> false (intent)"})
	if err := r.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}
	name, db := pg.Ident(x.Name), pg.Ident(w.text("SELECT current_database()::text"))
	onAll := &spec.Grant{Privileges: []string{"select"}, On: []string{"ticks", "latest", "cryptoviz"}}
	for _, step := range []struct {
		name  string
		do    func()
		diffs []string
		codes []string
	}{
		{"login", func() { x.Login = true }, []string{"login: false -> true (intent)"}, nil},
		{"password", func() { x.Password = spec.NewSecret("first") }, []string{"password: - -> set (intent)"}, nil},
		{"other password", func() { x.Password = spec.NewSecret("It's \\ second") }, []string{"password: set -> set (intent)"}, nil},
		{"read only, timeout", func() { x.ReadOnly, x.Timeout = true, 30*time.Second }, []string{"read_only:  -> true (intent)", "statement_timeout:  -> 30s (intent)"}, nil},
		{"timeout", func() { x.Timeout = 90 * time.Minute }, []string{"statement_timeout: 30s -> 1h30m (intent)"}, nil},
		{"grants", func() { x.Grants = []*spec.Grant{onAll} }, []string{"select on ticks:  -> granted (intent)", "select on latest:  -> granted (intent)", "select on cryptoviz:  -> granted (intent)"}, nil},
		{"more grants", func() {
			x.Grants = append(x.Grants, &spec.Grant{Privileges: []string{"insert", "update"}, On: []string{"ticks"}})
		}, []string{"insert on ticks:  -> granted (intent)", "update on ticks:  -> granted (intent)"}, nil},
		{"fewer grants", func() { x.Grants = x.Grants[:1]; onAll.On = onAll.On[1:] }, []string{"insert on ticks: granted ->  (reset)", "select on ticks: granted ->  (reset)", "update on ticks: granted ->  (reset)"}, []string{"CV-R08"}},
		{"drift of grants", func() {
			w.exec("REVOKE SELECT ON latest FROM " + name + "; REVOKE SELECT ON cryptoviz.slot FROM " + name)
		}, []string{"select on latest:  -> granted (drift)", fmt.Sprintf("select on cryptoviz: granted on %d of %d tables -> granted (drift)", len(catalog.EngineGrants())-1, len(catalog.EngineGrants()))}, nil},
		{"drift of usage", func() { w.exec("REVOKE USAGE ON SCHEMA cryptoviz FROM " + name) }, []string{"select on cryptoviz: granted, without usage of the schema -> granted (drift)"}, nil},
		{"drift of login", func() { w.exec("ALTER ROLE " + name + " NOLOGIN") }, []string{"login: false -> true (drift)"}, nil},
		{"drift of the password", func() { w.exec("ALTER ROLE " + name + " PASSWORD 'changed'") }, []string{"password: set -> set (drift)"}, nil},
		{"drift: no password", func() { w.exec("ALTER ROLE " + name + " PASSWORD NULL") }, []string{"password: - -> set (drift)"}, nil},
		{"the same password, set by others", func() { w.exec("ALTER ROLE " + name + ` PASSWORD E'It\'s \\ second'`) }, nil, nil},
		{"drift of a setting", func() {
			w.exec("ALTER ROLE " + name + " IN DATABASE " + db + " SET statement_timeout = '5min'; ALTER ROLE " + name + " IN DATABASE " + db + " SET default_transaction_read_only = off")
		}, []string{"read_only: false -> true (drift)", "statement_timeout: 5m -> 1h30m (drift)"}, nil},
		{"one level up, which does not count", func() { w.exec("ALTER ROLE " + name + " SET statement_timeout = '1s'") }, nil, nil},
		{"drift: setting gone", func() {
			w.exec("ALTER ROLE " + name + " RESET ALL")
			w.exec("ALTER ROLE " + name + " IN DATABASE " + db + " RESET ALL")
		}, []string{"read_only:  -> true (drift)", "statement_timeout:  -> 1h30m (drift)"}, nil},
		{"one level up", func() {
			w.exec("ALTER ROLE " + name + " IN DATABASE " + db + " RESET ALL; ALTER ROLE " + name + " SET default_transaction_read_only = true; ALTER ROLE " + name + " SET statement_timeout = 5400000")
		}, nil, nil},
		{"unset", func() { x.Password = spec.UnsetSecret("RP is not set") }, nil, nil},
		{"unset, and the login changes", func() { x.Login = false }, []string{"login: true -> false (intent)"}, nil},
		{"unset, and changed outside", func() { w.exec("ALTER ROLE " + name + " PASSWORD 'third'") }, nil, nil},
		{"left out", func() { x.Login, x.Password = true, spec.Secret{} }, []string{"login: false -> true (intent)"}, nil},
		{"reset", func() {
			if w.text("SELECT (rolpassword IS NOT NULL)::text FROM pg_authid WHERE rolname = $1", x.Name) != "true" {
				t.Error("apply took the password away")
			}
			x.ReadOnly, x.Timeout, x.Password, x.Grants = false, 0, spec.NullSecret(), nil
		}, []string{
			"password: set ->  (intent)", "read_only: true ->  (reset)", "statement_timeout: 1h30m ->  (reset)", "select on latest: granted ->  (reset)", "select on cryptoviz: granted ->  (reset)",
		}, []string{"CV-R08"}},
	} {
		t.Log(step.name)
		step.do()
		c := w.apply(r)
		action := plan.Update
		if step.diffs == nil {
			action = plan.None
		}
		for i, d := range c.Diffs {
			if d.Name == "password" {
				if !d.Secret {
					t.Error("a password that is not marked")
				}
				c.Diffs[i].Old, c.Diffs[i].New = "set", "set"
				if d.Old == "" {
					c.Diffs[i].Old = "-"
				}
				if d.New == "" {
					c.Diffs[i].New = ""
				}
			}
		}
		// Usage of the schema comes from PUBLIC or with the first grant.
		c.Diffs = slices.DeleteFunc(c.Diffs, func(d plan.Diff) bool { return strings.HasPrefix(d.Name, "usage on schema ") })
		w.expect(c, action, step.diffs, step.codes...)
		if text := show(c); strings.Contains(text, "second") || strings.Contains(text, "SCRAM-SHA-256$") {
			t.Errorf("the plan shows a secret: %s", text)
		}
	}
	if have := w.text("SELECT count(*)::text FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE r.rolname = $1", x.Name); have != "0" {
		t.Errorf("%s settings are left", have)
	}

	t.Log("what others gave is left alone")
	w.exec("GRANT SELECT, TRUNCATE ON ticks TO " + name + "; GRANT SELECT (price) ON latest TO " + name + "; ALTER ROLE " + name + " CREATEDB; ALTER ROLE " + name + " SET work_mem = '1MB'; GRANT pg_monitor TO " + name)
	c = w.apply(r)
	w.expect(c, plan.None, nil)
	var extra []string
	for _, a := range c.Extra {
		extra = append(extra, a.Name)
	}
	if want := []string{"setting work_mem", "select (price) on latest", "select on ticks", "truncate on ticks", "createdb", "member of pg_monitor"}; !slices.Equal(extra, want) {
		t.Errorf("extra %q, want %q", extra, want)
	}
	if have, err := w.catalog.UnmanagedRoles(t.Context()); err != nil || !slices.Contains(have, "role."+x.Name) {
		t.Errorf("unmanaged %v, %v", have, err)
	}

	t.Log("deletion")
	gone := &role.Role{Queries: w.queries, Removed: &spec.Removed{Kind: "role", Name: x.Name}}
	for _, sql := range []string{"GRANT USAGE ON SCHEMA cryptoviz TO " + name, "CREATE TABLE its (a int)", "ALTER TABLE its OWNER TO " + name} {
		w.exec(sql)
	}
	w.expect(w.see(gone), plan.Delete, nil, "CV-R04")
	x.Login = false
	w.expect(w.see(r), plan.Update, []string{"login: true -> false (intent)"}, "CV-R03")
	w.exec("DROP TABLE its")
	if w.db.Config().ConnConfig.Database != "template1" { // that server cannot
		w.exec("GRANT CONNECT ON DATABASE " + db + " TO " + name)
	}
	c = w.apply(gone)
	w.expect(c, plan.Delete, nil, "CV-R05")
	if err := gone.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}
	w.expect(w.see(gone), plan.None, nil)
	if err := w.roleOf(x).Assess(t.Context(), &plan.Change{Action: plan.None}); err != nil { // nothing to delete, nothing read
		t.Error(err)
	}
}

// A reader reads and does nothing else; a writer adds rows, also by COPY and into chunks and partitions, and does nothing else.
func leastPrivilege(t *testing.T, w *scene, as func(*spec.Role, func(pgx.Tx) error) error) {
	reader := &spec.Role{Name: w.role("cv_reader"), Login: true, Password: spec.NewSecret("r"), ReadOnly: true, Timeout: time.Minute, Grants: []*spec.Grant{{Privileges: []string{"select"}, On: []string{"ticks", "latest", "cryptoviz"}}}}
	writer := &spec.Role{Name: w.role("cv_writer"), Login: true, Password: spec.NewSecret("w"), Grants: []*spec.Grant{
		{Privileges: []string{"insert", "select"}, On: []string{"ticks"}}, {Privileges: []string{"delete", "insert", "select", "update"}, On: []string{"cryptoviz"}},
	}}
	w.apply(w.roleOf(reader))
	w.apply(w.roleOf(writer))
	run := func(sql string) func(pgx.Tx) error {
		return func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		}
	}
	copies := func(tx pgx.Tx) error {
		_, err := tx.CopyFrom(t.Context(), pgx.Identifier{"ticks"}, []string{"time", "source", "price"}, pgx.CopyFromRows([][]any{{time.Now(), "c", 1.5}, {time.Now().Add(25 * time.Hour), "c", 2.5}}))
		return err
	}
	for _, c := range []struct {
		name string
		role *spec.Role
		do   func(pgx.Tx) error
		ok   bool
	}{
		{"reads a table", reader, run("SELECT * FROM ticks"), true},
		{"reads a view", reader, run("SELECT * FROM latest"), true},
		{"reads the engine's", reader, run("SELECT * FROM cryptoviz.slot, cryptoviz.mode"), true},
		{"reads the ledger", reader, run("SELECT * FROM cryptoviz.managed"), false},
		{"inserts", reader, run("INSERT INTO ticks VALUES (now(), 'x', 1)"), false},
		{"copies", reader, copies, false},
		{"deletes", reader, run("DELETE FROM ticks"), false},
		{"creates", reader, run("CREATE TABLE mine (a int)"), false},
		{"creates a schema", reader, run("CREATE SCHEMA mine"), false},
		{"drops", reader, run("DROP VIEW latest"), false},
		{"inserts, out of its transaction's mode", reader, run("SET TRANSACTION READ WRITE; INSERT INTO ticks VALUES (now(), 'x', 1)"), false},
		{"copies", writer, copies, true},
		{"inserts", writer, run("INSERT INTO ticks VALUES (now() + interval '2 days', 'x', 1) ON CONFLICT DO NOTHING"), true},
		{"writes the engine's", writer, run("INSERT INTO cryptoviz.dead_letter (source, topic, topic_id, partition, \"offset\", key, value, reason) VALUES ('s', 't', gen_random_uuid(), 0, 0, '', '', '')"), true},
		{"writes the ledger", writer, run("DELETE FROM cryptoviz.managed"), false},
		{"drops", writer, run("DROP TABLE ticks"), false},
		{"alters", writer, run("ALTER TABLE ticks ADD COLUMN b int"), false},
		{"truncates", writer, run("TRUNCATE ticks"), false},
		{"deletes", writer, run("DELETE FROM ticks"), false},
		{"creates", writer, run("CREATE TABLE mine (a int)"), false},
		{"reads what was added", reader, run("DO $$ BEGIN IF (SELECT count(*) FROM ticks) < 3 THEN RAISE EXCEPTION 'rows are missing'; END IF; END $$"), true},
		{"reads the view", writer, run("SELECT * FROM latest"), false},
	} {
		err := as(c.role, c.do)
		if state := pg.Code(err); c.ok && err != nil || !c.ok && state != "42501" && state != "25006" {
			t.Errorf("%s %s: %v", strings.TrimSuffix(c.role.Name, "_"+w.db.Config().ConnConfig.Database), c.name, err)
		}
	}
}

func TestLeastPrivilegeOnPostgres(t *testing.T) {
	t.Parallel()
	w := staff(t, testkit.Postgres)
	pools := map[string]*pgxpool.Pool{}
	leastPrivilege(t, w, func(r *spec.Role, f func(pgx.Tx) error) error {
		if pools[r.Name] == nil { // a real login with the password
			config := w.db.Config()
			config.ConnConfig.User, config.ConnConfig.Password = r.Name, r.Password.Reveal()
			db, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			pools[r.Name] = db
		}
		return pgx.BeginFunc(t.Context(), pools[r.Name], f)
	})
	for name, db := range pools {
		if strings.Contains(name, "reader") {
			var mode, patience string
			if err := db.QueryRow(t.Context(), "SELECT current_setting('default_transaction_read_only'), current_setting('statement_timeout')").Scan(&mode, &patience); err != nil || mode != "on" || patience != "1min" {
				t.Errorf("settings %s, %s, %v", mode, patience, err)
			}
		}
	}
	config := w.db.Config().ConnConfig.Copy()
	config.User, config.Password = w.role("cv_reader"), "wrong"
	if conn, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		_ = conn.Close(t.Context())
		if w.text("SELECT count(*)::text FROM pg_hba_file_rules WHERE auth_method = 'trust'") == "0" {
			t.Error("a wrong password was taken")
		}
	}
}

func TestLeastPrivilegeOnTimescale(t *testing.T) {
	t.Parallel()
	w := staff(t, timescaleURL)
	leastPrivilege(t, w, func(r *spec.Role, f func(pgx.Tx) error) error {
		return pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+pg.Ident(r.Name)); err != nil {
				return err
			}
			return f(tx)
		})
	})
}

// What a user without rights is told; and what a role that others use means.
func TestRoleRights(t *testing.T) {
	t.Parallel()
	w := staff(t, testkit.Postgres)
	weak, name := w.role("weak"), w.role("helper")
	w.exec("CREATE ROLE " + pg.Ident(weak) + " LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA cryptoviz TO " + pg.Ident(weak) + "; GRANT ALL ON ALL TABLES IN SCHEMA cryptoviz TO " + pg.Ident(weak))
	x := &spec.Role{Name: name, Login: true, Password: spec.NewSecret("canary"), Grants: []*spec.Grant{{Privileges: []string{"select"}, On: []string{"ticks"}}}}
	low := w.as(weak, "x")
	made := []string{"login:  -> true (intent)", "password:  -> " + w.hash(x) + " (intent)", "usage on schema public:  -> granted (intent)", "select on ticks:  -> granted (intent)"}
	c := low.see(low.roleOf(x))
	low.expect(c, plan.Create, made, "CV-R01")
	if text := c.Findings[0].Text; strings.Contains(text, "CREATEROLE") || !strings.Contains(text, "Let an administrator run CREATE ROLE "+pg.Ident(name)+"; ALTER ROLE "+pg.Ident(name)+" LOGIN PASSWORD '…'") || strings.Contains(text, "canary") {
		t.Errorf("%s", text)
	}

	t.Log("with the right to make roles, and no right to grant")
	w.exec("ALTER ROLE " + pg.Ident(weak) + " CREATEROLE")
	low.expect(low.see(low.roleOf(x)), plan.Create, made, "CV-R02")
	w.exec("ALTER TABLE ticks OWNER TO " + pg.Ident(weak))
	low.apply(low.roleOf(x))

	t.Log("without the right to read passwords: the ledger tells")
	low.expect(low.see(low.roleOf(x)), plan.None, nil)
	old := w.hash(x)
	x.Password = spec.NewSecret("second")
	low.expect(low.see(low.roleOf(x)), plan.Update, []string{"password: " + old + " -> " + w.hash(x) + " (intent)"})
	r := low.roleOf(x)
	low.carry(r, low.see(r))
	low.expect(low.see(low.roleOf(x)), plan.None, nil)
	x.Password = spec.UnsetSecret("RP is not set")
	if c := low.see(low.roleOf(x)); c.Changes() || !slices.Equal(c.Notes, []string{"password stays as it is: RP is not set"}) {
		t.Errorf("unset: %s", show(c))
	}
	byHand := &spec.Role{Name: w.role("by_hand"), Login: true, Password: spec.NullSecret()}
	w.exec("CREATE ROLE " + pg.Ident(byHand.Name) + " LOGIN PASSWORD 'x'")
	w.exec("GRANT " + pg.Ident(byHand.Name) + " TO " + pg.Ident(weak) + " WITH ADMIN OPTION") // from PostgreSQL 16 on it takes that
	low.expect(low.apply(low.roleOf(byHand)), plan.Update, []string{"password: unknown ->  (intent)"})
	x.Password = spec.NewSecret("second")
	x.Login = false
	w.exec("ALTER ROLE " + pg.Ident(name) + " SUPERUSER")
	low.expect(low.see(low.roleOf(x)), plan.Update, []string{"login: true -> false (intent)"}, "CV-R03")
	w.exec("ALTER ROLE " + pg.Ident(name) + " NOSUPERUSER")
	self := low.roleOf(&spec.Role{Name: weak})
	low.expect(low.see(self), plan.Update, []string{"login: true -> false (intent)"}, "CV-R03")

	t.Log("other signs than ASCII")
	x.Password = spec.NewSecret("pässword")
	w.expect(w.see(w.roleOf(x)), plan.Update, []string{"login: true -> false (intent)", "password: " + w.hashOf("second", name) + " -> " + w.hash(x) + " (intent)"}, "CV-R07")

	t.Log("a role that another database uses")
	x.Password = spec.Secret{}
	w.exec("ALTER TABLE ticks OWNER TO CURRENT_USER")
	other := newScene(t, testkit.Postgres)
	other.exec("CREATE TABLE theirs (a int)")
	other.exec("GRANT SELECT ON theirs TO " + pg.Ident(name))
	delete(w.last, "role."+name)
	w.p.Roles = []*spec.Role{x}
	c = w.see(w.roleOf(x))
	w.expect(c, plan.Update, []string{"login: true -> false (intent)"}, "CV-R06")
	if !c.Adopt || !strings.Contains(c.Findings[0].Text, other.db.Config().ConnConfig.Database) {
		t.Errorf("%s", show(c))
	}
	gone := &role.Role{Queries: w.queries, Removed: &spec.Removed{Kind: "role", Name: name}}
	w.expect(w.see(gone), plan.Delete, nil, "CV-R04")
	other.exec("DROP TABLE theirs")
	w.expect(w.see(gone), plan.Delete, nil, "CV-R05")
	low.expect(low.see(&role.Role{Queries: low.queries, Removed: gone.Removed}), plan.Delete, nil, "CV-R02")
	w.exec("ALTER TABLE ticks OWNER TO " + pg.Ident(weak))
	low.expect(low.see(&role.Role{Queries: low.queries, Removed: gone.Removed}), plan.Delete, nil, "CV-R05")
	w.exec("ALTER TABLE ticks OWNER TO CURRENT_USER")
	w.exec("ALTER ROLE " + pg.Ident(weak) + " NOCREATEROLE")
	low.expect(low.see(&role.Role{Queries: low.queries, Removed: gone.Removed}), plan.Delete, nil, "CV-R01")
}

// Privileges that another role gave, or that the role passed on, keep it from being dropped: the plan asks the server, and
// says so.
func TestRoleThatOthersGaveTo(t *testing.T) {
	t.Parallel()
	w := staff(t, testkit.Postgres)
	ann, bob := w.role("ann"), w.role("bob")
	w.exec("CREATE ROLE " + pg.Ident(ann))
	x := &spec.Role{Name: bob, Grants: []*spec.Grant{{Privileges: []string{"select"}, On: []string{"ticks"}}}}
	w.apply(w.roleOf(x))
	removed := func(name string) *role.Role {
		return &role.Role{Queries: w.queries, Removed: &spec.Removed{Kind: "role", Name: name}}
	}
	w.expect(w.see(removed(ann)), plan.Delete, nil)
	w.expect(w.see(removed(bob)), plan.Delete, nil)

	w.exec("GRANT SELECT ON ticks TO " + pg.Ident(bob) + " WITH GRANT OPTION; SET ROLE " + pg.Ident(bob) + "; GRANT SELECT ON ticks TO " + pg.Ident(ann) + "; RESET ROLE")
	gave := bob + " gave " + ann + " select on public.ticks"
	for name, code := range map[string]string{ann: "CV-R04", bob: "CV-R09"} {
		c := w.see(removed(name))
		w.expect(c, plan.Delete, nil, code)
		if len(c.Findings) > 0 && !strings.Contains(c.Findings[0].Text, gave) || len(c.Steps) > 0 {
			t.Errorf("%s", show(c))
		}
	}

	t.Log("a privilege that is taken back, and was passed on")
	x.Grants = nil
	taken := []string{"usage on schema public: granted ->  (reset)", "select on ticks: granted ->  (reset)"}
	c := w.see(w.roleOf(x))
	w.expect(c, plan.Update, taken, "CV-R08", "CV-R09")
	if len(c.Findings) > 1 && !strings.HasSuffix(c.Findings[1].Text, "; "+gave) || len(c.Steps) > 0 {
		t.Errorf("%s", show(c))
	}
	w.exec("REVOKE SELECT ON ticks FROM " + pg.Ident(bob) + " CASCADE; GRANT SELECT ON ticks TO " + pg.Ident(bob))
	w.expect(w.apply(w.roleOf(x)), plan.Update, taken, "CV-R08")

	t.Log("a column that it passed on while it had the table")
	w.exec("GRANT SELECT ON ticks TO " + pg.Ident(bob) + " WITH GRANT OPTION; SET ROLE " + pg.Ident(bob) + "; GRANT SELECT (price) ON ticks TO " + pg.Ident(ann) + "; RESET ROLE")
	c = w.see(removed(bob))
	w.expect(c, plan.Delete, nil, "CV-R04")
	if len(c.Findings) > 0 && !strings.Contains(c.Findings[0].Text, bob+" gave "+ann+" select (price) on public.ticks") {
		t.Errorf("%s", show(c))
	}
	w.exec("SET ROLE " + pg.Ident(bob) + "; REVOKE SELECT (price) ON ticks FROM " + pg.Ident(ann) + "; RESET ROLE; REVOKE SELECT ON ticks FROM " + pg.Ident(bob))

	t.Log("what the same plan makes cannot be tried")
	x.Grants = []*spec.Grant{{Privileges: []string{"select"}, On: []string{"soon"}}}
	w.p.Views = append(w.p.Views, &spec.View{Name: "soon", Query: "SELECT price FROM ticks"})
	if c = w.see(w.roleOf(x)); c.Impossible() || len(c.Steps) == 0 {
		t.Errorf("%s", show(c))
	}

	t.Log("another session holds the lock")
	tx, err := w.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "GRANT SELECT ON latest TO "+pg.Ident(ann)+"; COMMENT ON ROLE "+pg.Ident(ann)+" IS 'x'"); err != nil {
		t.Fatal(err)
	}
	c = w.see(removed(ann))
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "another session holds a lock") || len(c.Steps) == 0 {
		t.Errorf("%s", show(c))
	}
	w.apply(removed(ann))
	w.apply(removed(bob))
}

func (w *scene) hash(r *spec.Role) string { return w.hashOf(r.Password.Reveal(), r.Name) }

func (w *scene) hashOf(password, name string) string {
	w.t.Helper()
	r := w.roleOf(&spec.Role{Name: name, Password: spec.NewSecret(password)})
	if _, err := r.Read(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	a, _ := r.Want().Get("password")
	return a.Value
}

// A grant on a relation that the same plan makes; and one on an aggregate that is left out.
func TestRoleWithItsRelations(t *testing.T) {
	t.Parallel()
	w := staff(t, testkit.Postgres)
	w.p.Database.OnMissing = "degrade"
	w.p.Aggregates = []*spec.Aggregate{{Name: "hourly", From: w.p.Tables[0], Query: "SELECT time_bucket('1 hour', time), max(price) FROM ticks GROUP BY 1"}}
	w.p.Views = append(w.p.Views, &spec.View{Name: "soon", Query: "SELECT price FROM ticks"}, &spec.View{Name: "over", Query: "SELECT max FROM hourly"})
	x := &spec.Role{Name: w.role("reader"), Grants: []*spec.Grant{{Privileges: []string{"select"}, On: []string{"soon", "hourly", "over"}}}}
	r := w.roleOf(x)
	if have := r.DependsOn(); !slices.Equal(have, []string{plan.EngineAddress, "view.soon", "aggregate.hourly", "view.over"}) {
		t.Errorf("depends on %v", have)
	}
	caps, err := w.catalog.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Available != "" {
		t.Skip("this server has TimescaleDB")
	}
	c := w.see(r)
	w.expect(c, plan.Create, []string{"login:  -> false (intent)", "search_path:  -> cryptoviz, public (intent)", "usage on schema cryptoviz:  -> granted (intent)", "select on soon:  -> granted (intent)"})
	if len(c.Notes) != 2 {
		t.Errorf("notes %q", c.Notes)
	}
	w.apply(w.view(w.p.Views[1]))
	w.apply(r)
	w.exec("ALTER ROLE " + pg.Ident(x.Name) + " IN DATABASE " + pg.Ident(w.text("SELECT current_database()::text")) + " RESET search_path")
	w.expect(w.apply(r), plan.Update, []string{"search_path:  -> cryptoviz, public (drift)"})
}
