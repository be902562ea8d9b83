package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestPostgresAsAnOrdinaryUser(t *testing.T) {
	acct := ordinary(t)
	dir := stateDir(t)
	if err := acct.own(dir); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, "postgres", dir, acct).ready(t)
	r, err := FindRunning(dir)
	if err != nil || r == nil {
		t.Fatal(r, err)
	}
	execute(t, r.Data.URL(), "CREATE TABLE kept AS SELECT 1 AS a")
	c.stop(t)
	if lives(c.pid) {
		t.Error("the server runs on")
	}
	s := open(t, dir) // root goes on where the user stopped, and the files stay the user's
	p := postgres(t, s)
	execute(t, p.URL(), "SELECT 1 / count(*) FROM kept")
	stop(t, p)
	_ = filepath.WalkDir(filepath.Join(dir, "postgres"), func(path string, d fs.DirEntry, _ error) error {
		if info, err := d.Info(); err != nil || info.Sys().(*syscall.Stat_t).Uid != uint32(acct.uid) { //nolint:gosec // an account number
			t.Errorf("%s belongs to %d", path, info.Sys().(*syscall.Stat_t).Uid)
		}
		return nil
	})
}

// TestPostgresUnderAClosedHome has the state where only root may pass, as /root is, and a strict umask.
func TestPostgresUnderAClosedHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user runs the server itself")
	}
	umask(t, 0o077)
	home := stateDir(t)
	if err := os.Chmod(home, 0o700); err != nil { //nolint:gosec // closed
		t.Fatal(err)
	}
	s := open(t, filepath.Join(home, "state"))
	p := postgres(t, s)
	execute(t, p.URL(), "CREATE TABLE kept AS SELECT 1 AS a")
	_, outside := s.postgresDirs()
	t.Cleanup(func() { _ = os.RemoveAll(outside) })
	if s.Data.PostgresDir != outside || passable(s.Dir) || !passable(outside) {
		t.Errorf("the database is in %s", s.Data.PostgresDir)
	}
	stop(t, p)
	p = postgres(t, s)
	execute(t, p.URL(), "SELECT 1 / count(*) FROM kept")
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if lives(p.pid) {
		t.Error("the server runs on without its files")
	}
	if _, err := os.Stat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", outside, err)
	}
}
