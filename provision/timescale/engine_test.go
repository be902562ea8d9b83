package timescale

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestEngineOnPostgres(t *testing.T) { engines(t, newTableHarness(t, testkit.Postgres(t))) }

func feed(name string) *spec.Source {
	return &spec.Source{
		Name: name, Enabled: true, Interval: time.Minute, Topic: &spec.Topic{Name: name}, Table: &spec.Table{Name: "m"},
		Definition: &spec.Definition{Description: "Prices of " + name, Attribution: "Data: it's " + name},
	}
}

func engines(t *testing.T, w *tableHarness) {
	p := w.cat.Pipeline
	p.Sources = []*spec.Source{feed("a"), feed("b")}
	e := &Engine{Pipeline: p, Catalog: w.cat}
	if c := w.apply(e); c.Action != plan.Create || len(c.Findings) > 0 {
		t.Errorf("%s %+v", c.Action, c.Findings)
	}
	if s, err := store.Open(t.Context(), w.cat.DB.Config(), store.Options{}); err != nil {
		t.Error(err)
	} else {
		s.Close()
	}
	p.Sources[0].Interval = 90 * time.Second
	p.Sources[0].Definition.Description = ""
	w.expect(w.apply(e), "source.a description reset, source.a intent", "")
	if got := w.text("SELECT every::text || ' ' || per_hour || ' ' || attribution FROM cryptoviz.source WHERE name = 'a'"); got != "00:01:30 40 Data: it's a" {
		t.Error(got)
	}
	for sql, diffs := range map[string]string{
		"UPDATE cryptoviz.source SET enabled = false WHERE name = 'a'":   "source.a drift",
		"UPDATE cryptoviz.source SET attribution = '' WHERE name = 'a'":  "source.a attribution drift",
		"DELETE FROM cryptoviz.source WHERE name = 'b'":                  "source.b attribution drift, source.b description drift, source.b drift",
		"UPDATE cryptoviz.source SET every = '2 hours' WHERE name = 'b'": "source.b drift",
	} {
		w.exec(sql)
		w.expect(w.apply(e), diffs, "")
	}
	// A source that leaves the pipeline is disabled; so is one that nobody declared.
	p.Sources = p.Sources[:1]
	w.exec("INSERT INTO cryptoviz.source VALUES ('c', true, '1 minute', 60, 'c', 'm')")
	w.expect(w.apply(e), "source.b intent, source.c intent", "")
	if got := w.text("SELECT string_agg(name, ' ') FROM cryptoviz.source WHERE enabled"); got != "a" {
		t.Error(got)
	}

	// A source of another name begins the topic anew, unless nobody has stored any of it.
	p.Sources[0].Name = "renamed"
	w.expect(w.plan(e), "source.a intent, source.renamed attribution intent, source.renamed intent", "")
	w.exec("INSERT INTO cryptoviz.position (source, partition, topic, topic_id, next_offset, epoch) VALUES ('a', 0, 'a', gen_random_uuid(), 7, 1)")
	c := w.plan(e)
	if len(c.Findings) != 1 || c.Findings[0].Code != "CV-T38" || c.Findings[0].Text != `source "a" has stored topic.a until now; "renamed" stores all of it again that is still there` {
		t.Errorf("%+v", c.Findings)
	}
	w.exec("UPDATE cryptoviz.position SET source = 'renamed'") // as the code says
	if c := w.apply(e); len(c.Findings) > 0 {
		t.Errorf("%+v", c.Findings)
	}
	p.Sources[0].Name = "a"
	w.exec("DELETE FROM cryptoviz.position; DELETE FROM cryptoviz.source WHERE name = 'renamed'")
	w.apply(e)

	// From version 1.
	w.exec("DROP TABLE cryptoviz.managed; UPDATE cryptoviz.meta SET value = '1' WHERE key = 'schema_version'; INSERT INTO cryptoviz.meta VALUES ('mode', 'simulated')")
	if _, err := store.Open(t.Context(), w.cat.DB.Config(), store.Options{}); err == nil || !strings.Contains(err.Error(), "run cryptoviz apply") {
		t.Error(err)
	}
	w.expect(w.apply(e), "schema_version drift", "")
	if got := w.text("SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM cryptoviz.meta WHERE key <> 'ledger'"); got != "mode=simulated schema_version="+strconv.Itoa(schema.Version) {
		t.Error(got)
	}
	w.exec(schema.SQL)
	if got := w.text("SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM cryptoviz.meta WHERE key <> 'ledger'"); got != "mode=simulated schema_version="+strconv.Itoa(schema.Version) {
		t.Errorf("run again: %s", got)
	}

	newer, current := strconv.Itoa(schema.Version+1), strconv.Itoa(schema.Version)
	w.exec("UPDATE cryptoviz.meta SET value = '" + newer + "' WHERE key = 'schema_version'")
	w.expect(w.plan(e), "schema_version drift", "CV-T34")
	w.exec(schema.SQL)
	if got := w.text("SELECT value FROM cryptoviz.meta WHERE key = 'schema_version'"); got != newer {
		t.Errorf("an older program sets a newer schema back to %s", got)
	}
	w.exec("UPDATE cryptoviz.meta SET value = '" + current + "' WHERE key = 'schema_version'")

	p.Database.OnMissing = "error"
	c, found := w.plan(e), ""
	if caps, _ := w.cat.Capabilities(t.Context()); caps.Version == "" {
		found = "CV-T25"
	}
	w.expect(c, "", found)
	p.Database.OnMissing = "degrade"
}

// Destroy takes the engine's own tables, and nothing of others in the schema.
func TestEngineDestroyed(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	e := &Engine{Pipeline: w.cat.Pipeline, Catalog: w.cat}
	for _, kept := range []bool{true, false} {
		w.apply(e)
		if kept {
			w.exec("CREATE TABLE cryptoviz.mine (a int)")
		}
		w.expect(w.plan(&going{e}), "", "CV-T35")
		w.apply(&going{e})
		left := w.text("SELECT coalesce(string_agg(nspname || coalesce('.' || relname, ''), ' '), '') FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE nspname = 'cryptoviz'")
		if want := map[bool]string{true: "cryptoviz.mine", false: ""}[kept]; left != want {
			t.Errorf("left: %q, want %q", left, want)
		}
		w.exec("DROP TABLE IF EXISTS cryptoviz.mine")
	}
}

// going is a resource that destroy wants gone.
type going struct{ resource }

func (*going) Want() *plan.State { return nil }

func TestTableDestroyed(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	w.apply(w.table(s))
	w.exec("CREATE VIEW v AS SELECT price FROM m")
	w.expect(w.plan(&going{w.table(s)}), "", "CV-T20 CV-T29")
	w.cat.Pipeline.Views = []*spec.View{{Name: "v"}}
	w.expect(w.plan(&going{w.table(s)}), "", "CV-T29")
	w.exec("DROP VIEW v")
	w.apply(&going{w.table(s)})
}

func TestLedgerOnPostgres(t *testing.T) { ledgers(t, newTableHarness(t, testkit.Postgres(t))) }

func ledgers(t *testing.T, w *tableHarness) {
	l, ctx := &ledger.Ledger{DB: w.cat.DB}, t.Context()
	all, err := l.All(ctx)
	if err != nil || all == nil || len(all) > 0 {
		t.Errorf("before the first apply: %v %v", all, err)
	}
	if err := l.Forget(ctx, "table.m"); err != nil {
		t.Error(err)
	}
	salt, err := l.Salt(ctx)
	if err != nil || len(salt) != 32 {
		t.Errorf("salt %q %v", salt, err)
	}
	w.exec(schema.SQL)
	var s plan.State
	s.Set(plan.Attr{Name: "retention", Value: "7d", Raw: "604800000"})
	s.Set(plan.Attr{Name: "odd", Value: "it's \"quoted\" \\ and \n long ü"})
	s.Set(plan.Attr{Name: "password", Value: "abc", Secret: true})
	for range 2 {
		if err := l.Put(ctx, "table.m", ledger.Entry{State: s, Server: "7/1"}, "ann", "0.2"); err != nil {
			t.Fatal(err)
		}
	}
	if all, err = l.All(ctx); err != nil || len(all) != 1 || all["table.m"].Attrs[1] != s.Attrs[1] || len(all["table.m"].Attrs) != 3 || !all["table.m"].Attrs[2].Secret {
		t.Errorf("%+v %v", all, err)
	}
	if got := w.text("SELECT applied_by || ' ' || version FROM cryptoviz.managed WHERE applied_at > now() - interval '1 hour'"); got != "ann 0.2" {
		t.Error(got)
	}
	// The salt of before the first apply stays, and the database may move.
	if got := w.text("SELECT value FROM cryptoviz.meta WHERE key = 'salt'"); got != salt {
		t.Errorf("salt %s, want %s", got, salt)
	}
	w.exec("UPDATE cryptoviz.meta SET value = 'moved' WHERE key = 'salt'")
	if err := l.Put(ctx, "table.n", ledger.Entry{State: s}, "ann", "0.2"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Salt(ctx); err != nil || got != "moved" {
		t.Errorf("salt %q %v", got, err)
	}
	if err := l.Forget(ctx, "table.m"); err != nil {
		t.Error(err)
	}
	if all, _ = l.All(ctx); len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

// Two databases have two salts.
func TestSaltsDiffer(t *testing.T) {
	t.Parallel()
	a, b := &ledger.Ledger{DB: newTableHarness(t, testkit.Postgres(t)).cat.DB}, &ledger.Ledger{DB: newTableHarness(t, testkit.Postgres(t)).cat.DB}
	one, _ := a.Salt(t.Context())
	other, _ := b.Salt(t.Context())
	if one == other {
		t.Error("one salt for two databases")
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	first, err := pgxpool.New(t.Context(), url+"&application_name=first")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := pgxpool.New(t.Context(), url+"&application_name=second")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_, release, err := ledger.Lock(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	var pid string
	if err := second.QueryRow(t.Context(), "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	_, _, err = ledger.Lock(t.Context(), second)
	if err == nil || !strings.Contains(err.Error(), "process "+pid+` ("first"`) || !strings.Contains(err.Error(), time.Now().UTC().Format("2006-01-02")) {
		t.Fatalf("%v, want process %s", err, pid)
	}
	release()
	if _, release, err = ledger.Lock(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	release()

	// It dies with its connection.
	held, release, err := ledger.Lock(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec(t.Context(), "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); err != nil {
		t.Fatal(err)
	}
	<-held.Done()
	if err := context.Cause(held); !errors.Is(err, ledger.ErrLockLost) {
		t.Errorf("%v", err)
	}
	_, again, err := ledger.Lock(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	release()
	again()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ledger.Lock(ctx, first); err == nil {
		t.Error("a lock for who has ended")
	}
}

// A user that may not make a schema: the plan says so.
func TestEngineWithoutPrivilege(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	theirs := w.as("CREATE ROLE %s LOGIN")
	e := &Engine{Pipeline: theirs.cat.Pipeline, Catalog: theirs.cat}
	c := theirs.plan(e)
	theirs.expect(c, "schema_version intent", "CV-T28")
	if !strings.Contains(c.Findings[0].Text, "permission denied for database") || len(c.Steps) > 0 {
		t.Errorf("%+v", c)
	}
}
