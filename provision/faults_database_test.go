package provision_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestDatabaseFaults(t *testing.T) {
	t.Parallel()
	broker := testkit.Kafka(t).Addr()
	t.Run("cut", func(t *testing.T) { databaseIsCut(t, broker) })
	t.Run("sessions_ended", func(t *testing.T) { databaseEndsTheSessions(t, broker) })
	t.Run("lock_lost_in_the_ledger", func(t *testing.T) { lockIsLostInTheLedger(t, broker) })
	t.Run("read_only", func(t *testing.T) { databaseIsReadOnly(t, broker) })
	t.Run("table_held", func(t *testing.T) { tableIsHeld(t, broker) })
}

// The connection to the database is cut at one request after the other; before it arrives, or before its answer does; for a
// moment or until the next apply.
func databaseIsCut(t *testing.T, broker string) {
	stride := max(1, 480 / *seeds)
	for i, how := range []struct{ late, stay bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("late_%t_stays_%t", how.late, how.stay), func(t *testing.T) {
			for chunk := 1 + i*stride/4; ; chunk += stride {
				done := false
				t.Run(fmt.Sprint("request_", chunk), func(t *testing.T) {
					f := newFaulty(t, freshDatabase(t), broker)
					found := f.plan()
					f.dbWire.at(chunk, how.late, how.stay)
					results, err := f.tried(found, nil)
					done = f.dbWire.mend() < chunk
					text := said(results, err)
					t.Log(text)
					if f.alone(); err == nil { // it was in the last words
						f.empty("a success")
					} else if !strings.Contains(text, "PostgreSQL") {
						t.Error("it does not say what is wrong")
					}
					f.recovers(fmt.Sprint("request ", chunk))
				})
				if done || t.Failed() {
					return
				}
			}
		})
	}
}

// All sessions are ended from outside while apply works: its lock is lost, too.
func databaseEndsTheSessions(t *testing.T, broker string) {
	for n := 1; ; n += 7 {
		done := false
		t.Run(fmt.Sprint("event_", n), func(t *testing.T) {
			url := freshDatabase(t)
			f, other := newFaulty(t, url, broker), database(t, url)
			events := 0
			results, err := f.tried(f.plan(), func(provision.Event) {
				if events++; events == n {
					if _, err := other.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
						t.Error(err)
					}
				}
			})
			done = events < n
			other.Reset()
			text := said(results, err)
			t.Log(text)
			if f.alone(); err == nil { // it was at the end
				f.empty("a success")
			} else if !errors.Is(err, ledger.ErrLockLost) && !strings.Contains(text, "PostgreSQL ended the session") {
				t.Errorf("%v", err)
			}
			f.recovers("afterwards")
		})
		if done || t.Failed() {
			return
		}
	}
}

// losing ends all sessions while the last write into the ledger runs, and writes once apply knows it.
type losing struct {
	provision.Ledger
	end func(ctx context.Context)
}

func (l losing) FillIn(ctx context.Context, s plan.Servers, pipeline string) error {
	l.end(ctx)
	<-ctx.Done()
	return l.Ledger.FillIn(ctx, s, pipeline)
}

// What fails because the lock is lost says so, wherever it fails.
func lockIsLostInTheLedger(t *testing.T, broker string) {
	url := freshDatabase(t)
	f, other := newFaulty(t, url, broker), database(t, url)
	w := f.open()
	w.Ledger = losing{w.Ledger, func(ctx context.Context) {
		ctx = context.WithoutCancel(ctx) // the loss of the lock may be known before the answer
		if _, err := other.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Error(err)
		}
	}}
	if _, err := w.Apply(t.Context(), f.plan(), provision.Options{By: "test", Version: "0"}); !errors.Is(err, ledger.ErrLockLost) {
		t.Errorf("%v", err)
	}
	other.Reset()
	f.alone()
	f.recovers("afterwards")
}

// A role that may only read: the plan is shown, and apply says why it cannot.
func databaseIsReadOnly(t *testing.T, broker string) {
	f := newFaulty(t, freshDatabase(t), broker)
	found := f.plan()
	f.exec("ALTER DATABASE \"" + f.db.Config().ConnConfig.Database + "\" SET default_transaction_read_only = on")
	f.db.Reset()
	again, err := f.open().Plan(t.Context())
	if err != nil || len(again.Errors) > 0 || len(again.Changes) != len(found.Changes) {
		t.Fatalf("%v: %d changes and errors %+v, of %d changes", err, len(again.Changes), again.Errors, len(found.Changes))
	}
	for i, c := range again.Changes {
		if was := found.Changes[i]; c.Address != was.Address || c.Action != was.Action || c.Impossible() && !was.Impossible() {
			t.Errorf("%s, with the right to write %s", told(c), told(was))
		}
	}
	results, err := f.tried(found, nil)
	text := said(results, err)
	t.Log(text)
	if !strings.Contains(text, "read-only") {
		t.Error("it does not say why")
	}
	f.exec("BEGIN READ WRITE; ALTER DATABASE \"" + f.db.Config().ConnConfig.Database + "\" RESET default_transaction_read_only; COMMIT")
	f.db.Reset()
	f.recovers("when it may write again")
}

// Somebody holds a table: the plan ends soon and says what it could not look at.
func tableIsHeld(t *testing.T, broker string) {
	url := freshDatabase(t)
	f, other := newFaulty(t, url, broker), database(t, url)
	f.recovers("at first")
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "LOCK TABLE ticks, markets IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	f.p.Tables[0].Columns[2].Null = false
	f.p.Tables[1].Description = "Other."
	f.p.Views[0].Query += " LIMIT 1"
	f.p.Topics[0].Config["retention.ms"] = "3600000"
	started := time.Now()
	found, err := f.open().Plan(t.Context())
	if took := time.Since(started); err != nil || took > testkit.Patience {
		t.Fatalf("%v after %s", err, took)
	}
	for _, e := range found.Errors { // their queries cannot be read without the table
		if e.Address != "view.latest" && !strings.HasPrefix(e.Address, "role.") || !strings.Contains(e.Text, "lock timeout") {
			t.Errorf("%+v", e)
		}
	}
	all := changes(found)
	for _, address := range []string{"table.ticks", "table.markets", "dashboard.board", "alert.stale"} {
		if !strings.Contains(strings.Join(all[address].Notes, " "), "another session holds a lock") {
			t.Errorf("%s: %q", address, all[address].Notes)
		}
	}
	if all["topic.ticks"].Action != plan.Update {
		t.Errorf("%s", told(all["topic.ticks"]))
	}
	_ = tx.Rollback(t.Context())
	f.recovers("when it is free")
}
