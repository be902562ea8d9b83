package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// attacks are expressions that reach beyond the rows of a database. %s is a file, %d the backend of the superuser.
var attacks = map[string]string{
	"write a file":              "lo_export(1, '%s')",
	"write a file by its start": "lo_export(lo_from_bytea(0, 'x'), '%s')",
	"read a file":               "pg_read_file('/etc/passwd')",
	"read a binary file":        "pg_read_binary_file('/etc/passwd')",
	"load a file":               "lo_import('/etc/passwd')",
	"list a folder":             "pg_ls_dir('/')",
	"list the server's folder":  "pg_ls_waldir()",
	"look at a file":            "pg_stat_file('/etc/passwd')",
	"end a session":             "pg_terminate_backend(%d)",
	"cancel a query":            "pg_cancel_backend(%d)",
	"a physical slot":           "pg_create_physical_replication_slot('held', true)",
	"a logical slot":            "pg_create_logical_replication_slot('held', 'pgoutput')",
	"reload the server":         "pg_reload_conf()",
	"rotate its log":            "pg_rotate_logfile()",
	"switch the log of changes": "pg_switch_wal()",
	"another server":            "dblink('host=127.0.0.1', 'SELECT 1')",
	"the passwords":             "(SELECT rolpassword FROM pg_authid LIMIT 1)",
	"another user":              "set_config('role', 'cryptoviz_superuser', false)",
	"the superuser's session":   "set_config('session_authorization', 'cryptoviz_superuser', false)",
	"a preloaded library":       "set_config('session_preload_libraries', '/tmp/x.so', false)",
}

// readerAttacks are what the owner may do and a reader may not.
var readerAttacks = map[string]string{
	"a lock for ever":        "pg_advisory_lock(1)",
	"a lock if it is free":   "pg_try_advisory_xact_lock(1)",
	"a message":              "pg_notify('a', 'b')",
	"a large object":         "lo_from_bytea(0, 'x')",
	"the next of a sequence": "nextval('ids')",
	"set a sequence":         "setval('ids', 7)",
	"the ledger's secrets":   "(SELECT passwd FROM pg_shadow LIMIT 1)",
	"write after all":        "set_config('transaction_read_only', 'off', false)",
	"end one of the owner's": "pg_terminate_backend(%d)",
}

// statements are attacks that are no expressions. The owner may do some of them, in his database.
var statements = map[string]string{
	"run a program":         "COPY (SELECT 1) TO PROGRAM 'touch %s'",
	"copy to a file":        "COPY (SELECT 1) TO '%s'",
	"copy from a file":      "COPY words FROM '/etc/passwd'",
	"become a superuser":    "ALTER ROLE cryptoviz SUPERUSER",
	"take a role":           "GRANT pg_execute_server_program TO cryptoviz",
	"make a role":           "CREATE ROLE another",
	"a foreign library":     "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/x.so', 'f'",
	"set the server up":     "ALTER SYSTEM SET archive_command = 'touch %s'",
	"an untrusted language": "CREATE EXTENSION plpython3u",
	"files as tables":       "CREATE EXTENSION file_fdw",
	"another database":      "CREATE DATABASE another",
	"an event trigger":      "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
}

var readerStatements = map[string]string{
	"a table":           "CREATE TABLE mine (a int)",
	"a temporary table": "CREATE TEMP TABLE mine (a int)",
	"a row":             "INSERT INTO words VALUES ('x')",
	"no row":            "DELETE FROM words",
	"the table":         "DROP TABLE words",
	"a schema":          "CREATE SCHEMA mine",
	"a lock":            "BEGIN; LOCK TABLE words IN ACCESS EXCLUSIVE MODE",
}

func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// TestRolesOfTheServer tries what a stranger's pipeline.hcl, and a query, could hold.
func TestRolesOfTheServer(t *testing.T) {
	s := open(t, stateDir(t))
	p := postgres(t, s)
	spoils := t.TempDir()
	if err := os.Chmod(spoils, 0o777); err != nil { //nolint:gosec // the server's account would have to write
		t.Fatal(err)
	}
	super, mine, reads := dial(t, p.SuperuserURL()), dial(t, p.URL()), dial(t, s.Data.ReaderURL())
	run := func(c *pgx.Conn, sql string) error {
		_, err := c.Exec(t.Context(), sql)
		return err
	}
	if err := run(mine, "CREATE TABLE words (word text); INSERT INTO words VALUES ('one'); CREATE SEQUENCE ids; CREATE SCHEMA other; CREATE VIEW other.words AS SELECT * FROM words"); err != nil {
		t.Fatal(err)
	}
	filled := func(text string, pid uint32) string {
		text = strings.ReplaceAll(text, "%s", filepath.Join(spoils, "spoil"))
		return strings.ReplaceAll(text, "%d", fmt.Sprint(pid))
	}
	refused := func(who, name, sql string, err error) {
		t.Helper()
		pg, _ := errors.AsType[*pgconn.PgError](err)
		absent := pg != nil && (strings.Contains(pg.Message, "dblink") || strings.Contains(pg.Message, "plpython3u"))
		if pg == nil || pg.Code != "42501" && pg.Code != "25006" && pg.Code != "25001" && !absent {
			t.Errorf("%s, %s: %s: %v", who, name, sql, err)
		}
	}
	for name, attack := range attacks {
		sql := filled(attack, super.PgConn().PID())
		_ = run(mine, "DROP TABLE IF EXISTS tried")
		err := run(mine, "CREATE TABLE tried (word text, spoil text DEFAULT ("+sql+")::text)")
		if err == nil {
			err = run(mine, "INSERT INTO tried (word) VALUES ('x')")
		}
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "0A000" { // a set or a query is no default
			err = run(mine, "CREATE OR REPLACE VIEW spoil AS SELECT ("+sql+")::text AS a; SELECT * FROM spoil")
		}
		refused("a column's default", name, sql, err)
		refused("a query", name, sql, run(reads, "SELECT "+sql))
	}
	for name, attack := range readerAttacks {
		sql := filled(attack, mine.PgConn().PID())
		refused("a query", name, sql, run(reads, "SELECT "+sql))
		_ = run(reads, "ROLLBACK")
	}
	for name, attack := range statements {
		sql := filled(attack, 0)
		refused("the owner", name, sql, run(mine, sql))
		refused("the reader", name, sql, run(reads, sql))
	}
	_ = run(reads, "SET default_transaction_read_only = off") // what another program than ours would do first
	for name, sql := range readerStatements {
		refused("the reader", name, sql, run(reads, sql))
		_ = run(reads, "ROLLBACK")
	}
	if left, err := os.ReadDir(spoils); err != nil || len(left) > 0 {
		t.Errorf("files were written: %v, %v", left, err)
	}
	var seen string
	if err := reads.QueryRow(t.Context(), "SELECT a.word || b.word FROM words a, other.words b").Scan(&seen); err != nil || seen != "oneone" {
		t.Errorf("the reader sees %q, %v", seen, err)
	}
	if err := super.Ping(t.Context()); err != nil {
		t.Errorf("the superuser's session ended: %v", err)
	}
	if err := run(mine, "SELECT pg_advisory_lock(1), pg_terminate_backend("+fmt.Sprint(dial(t, p.URL()).PgConn().PID())+")"); err != nil {
		t.Errorf("what the engine needs: %v", err)
	}
}

// TestDatabaseOfAnOlderVersion has one user, who is the superuser and owns everything.
func TestDatabaseOfAnOlderVersion(t *testing.T) {
	s := open(t, stateDir(t))
	p := postgres(t, s)
	super := dial(t, p.SuperuserURL())
	for _, sql := range []string{
		"ALTER DATABASE cryptoviz OWNER TO cryptoviz_superuser", "ALTER SCHEMA public OWNER TO cryptoviz_superuser", "DROP OWNED BY cryptoviz", "DROP OWNED BY cryptoviz_reader",
		"DROP ROLE cryptoviz_reader", "DROP ROLE cryptoviz", "UPDATE pg_authid SET rolname = 'cryptoviz' WHERE oid = 10", "ALTER ROLE cryptoviz PASSWORD 'of before'",
	} {
		if _, err := super.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := s.Update(func(d *StateData) { d.Password, d.ReaderPassword, d.SuperuserPassword = "of before", "", "" }); err != nil {
		t.Fatal(err)
	}
	old := dial(t, s.Data.URL())
	const objects = `CREATE SCHEMA deep; CREATE TYPE mood AS ENUM ('a'); CREATE DOMAIN deep.small AS int CHECK (VALUE < 9); CREATE TYPE deep.pair AS (a int, b int);
		CREATE TABLE deep.t (id serial PRIMARY KEY, m mood, at timestamptz) ; CREATE INDEX ON deep.t (at); INSERT INTO deep.t (m) VALUES ('a');
		CREATE TABLE parts (at timestamptz NOT NULL, n bigint GENERATED ALWAYS AS IDENTITY) PARTITION BY RANGE (at); CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-01-02');
		CREATE VIEW v AS SELECT * FROM deep.t; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a; CREATE SEQUENCE deep.s;
		CREATE FUNCTION deep.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);
		CREATE ROLE ann LOGIN; GRANT SELECT ON deep.t TO ann`
	if _, err := old.Exec(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	_ = old.Close(t.Context())
	stop(t, p)
	for range 2 { // the second start finds it done
		p = postgres(t, s)
		mine := dial(t, p.URL())
		if s.Data.Password != "of before" {
			t.Error("the shown password changed")
		}
		var foreign, who string
		err := mine.QueryRow(t.Context(), `SELECT coalesce(string_agg(what, ', '), ''), (SELECT string_agg(rolname, ',' ORDER BY 1) FROM pg_roles WHERE rolsuper) FROM (
			SELECT 'schema ' || nspname AS what FROM pg_namespace WHERE nspowner <> 'cryptoviz'::regrole AND nspname !~ '^(pg_|information_schema)'
			UNION ALL SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relowner <> 'cryptoviz'::regrole AND nspname IN ('public', 'deep')
			UNION ALL SELECT c.oid::regtype::text FROM pg_type c JOIN pg_namespace n ON n.oid = c.typnamespace WHERE typowner <> 'cryptoviz'::regrole AND nspname IN ('public', 'deep')
			UNION ALL SELECT c.oid::regprocedure::text FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace WHERE proowner <> 'cryptoviz'::regrole AND nspname IN ('public', 'deep')
			UNION ALL SELECT datname FROM pg_database WHERE datname = current_database() AND datdba <> 'cryptoviz'::regrole) x`).Scan(&foreign, &who)
		if err != nil || foreign != "" || who != "cryptoviz_superuser" {
			t.Errorf("not the owner's: %q; superusers: %s; %v", foreign, who, err)
		}
		var n int
		if err := dial(t, s.Data.ReaderURL()).QueryRow(t.Context(), "SELECT count(*) FROM deep.t, v, mv").Scan(&n); err != nil || n != 1 {
			t.Errorf("the reader sees %d rows, %v", n, err)
		}
		var kept bool
		if err := mine.QueryRow(t.Context(), "SELECT has_table_privilege('ann', 'deep.t', 'SELECT')").Scan(&kept); err != nil || !kept {
			t.Errorf("what was granted is lost: %v", err)
		}
		if _, err := mine.Exec(t.Context(), "ALTER TABLE deep.t ADD COLUMN IF NOT EXISTS more int; DROP SEQUENCE IF EXISTS deep.s"); err != nil {
			t.Error(err)
		}
		stop(t, p)
	}
}
