package timescale

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// slowBuild is a large table, of which an index is built CONCURRENTLY, in sessions that wait for a lock a moment only, as the
// program's do; and an old transaction, which the build waits for.
func slowBuild(t *testing.T) (w *tableHarness, table *spec.Table, c plan.Change, old pgx.Tx) {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.RuntimeParams["lock_timeout"] = "300ms"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w = &tableHarness{t: t, cat: catalog.NewCatalog(pool), ledger: map[string]plan.State{}}
	w.cat.Pipeline = &spec.Pipeline{}
	w.exec(`CREATE TABLE "Big" (id bigint PRIMARY KEY, v text); INSERT INTO "Big" SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 30000) i; CREATE TABLE small (a int)`)
	table = &spec.Table{Name: "Big", PrimaryKey: []string{"id"}, Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "v", Type: spec.Text, Null: true}}}
	table.Indexes = []*spec.Index{{Name: `the "v"`, Columns: []string{"v"}, Unique: true}}
	c = w.plan(w.table(table))
	if len(c.Steps) != 1 || !strings.Contains(c.Steps[0], " CONCURRENTLY ") {
		t.Fatalf("steps %q", c.Steps)
	}
	if old, err = pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = old.Rollback(context.Background()) })
	if _, err := old.Exec(t.Context(), "SELECT count(*) FROM pg_class"); err != nil {
		t.Fatal(err)
	}
	return w, table, c, old
}

const theIndex = `(SELECT i.indexrelid::text || ' ' || i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = 'the "v"')`

// waits returns when n sessions wait for a lock.
func (w *tableHarness) waits(n string) {
	w.t.Helper()
	testkit.Eventually(w.t, func() error {
		if got := w.text("SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"); got != n {
			return fmt.Errorf("%s sessions wait, not %s", got, n)
		}
		return nil
	})
}

// An index that is built CONCURRENTLY waits for old transactions, however long they take, and afterwards it is of use.
func TestConcurrentIndexWaits(t *testing.T) {
	t.Parallel()
	w, table, c, old := slowBuild(t)
	done := make(chan error, 1)
	go func() { done <- w.table(table).Make(t.Context(), c) }()
	w.waits("1")
	oid, _, _ := strings.Cut(w.text("SELECT "+theIndex), " ")
	select {
	case err := <-done:
		t.Fatalf("it ended before the old transaction did: %v", err)
	case <-time.After(time.Second): //nolint:forbidigo // it must not end: three times the session's lock_timeout
	}
	if err := old.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if have := w.text("SELECT " + theIndex); have != oid+" true" {
		t.Errorf("the index was %s at first, and is %s: it was not built in one go", oid, have)
	}
	for _, conn := range w.cat.DB.AcquireAllIdle(t.Context()) {
		var locks, statements string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')").Scan(&locks, &statements); err != nil || locks != "300ms" || statements != "0" {
			t.Errorf("settings afterwards: %s, %s, %v", locks, statements, err)
		}
		conn.Release()
	}
}

// What an earlier try left behind is built again; while that try is still at work, it is waited for.
func TestConcurrentIndexAgain(t *testing.T) {
	t.Parallel()
	w, table, c, old := slowBuild(t)
	first := make(chan error, 1)
	go func() {
		conn, err := pgx.ConnectConfig(t.Context(), w.cat.DB.Config().ConnConfig)
		if err == nil {
			_, err = conn.Exec(t.Context(), "SET lock_timeout = 0")
		}
		if err == nil {
			_, err = conn.Exec(t.Context(), c.Steps[0])
			_ = conn.Close(context.WithoutCancel(t.Context()))
		}
		first <- err
	}()
	w.waits("1")
	oid, _, _ := strings.Cut(w.text("SELECT "+theIndex), " ")
	second := make(chan error, 1)
	go func() { second <- w.table(table).Make(t.Context(), c) }()
	w.waits("2")
	if err := old.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if have := w.text("SELECT " + theIndex); have != oid+" true" {
		t.Errorf("the index of the first session was %s, and now it is %s", oid, have)
	}

	t.Log("the first session was killed")
	w.exec(`UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"the ""v"""'::regclass`)
	if err := w.table(table).Make(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if have := w.text("SELECT " + theIndex); have == oid+" true" || !strings.HasSuffix(have, " true") {
		t.Errorf("it was not built again: %s", have)
	}
	if again := w.plan(w.table(table)); again.Changes() {
		t.Errorf("the plan after apply is not empty: %+v", again.Diffs)
	}

	t.Log("another table took the name since the plan")
	w.exec(`DROP INDEX "the ""v"""; CREATE INDEX "the ""v""" ON small (a)`)
	if err := w.table(table).Make(t.Context(), c); err == nil || !strings.Contains(err.Error(), "belongs to something else") {
		t.Errorf("applied: %v", err)
	}
}

// A build whose end leaves the index invalid is no success.
func TestConcurrentIndexStaysInvalid(t *testing.T) {
	t.Parallel()
	w, table, c, old := slowBuild(t)
	if err := old.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.exec(`CREATE FUNCTION spoil() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('"the ""v"""'); END $$;
		CREATE EVENT TRIGGER spoil ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION spoil()`)
	if err := w.table(table).Make(t.Context(), c); err == nil || !strings.Contains(err.Error(), "is invalid after it was built") {
		t.Errorf("applied: %v", err)
	}
}
