package embedded

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	const foreign = ": be that user, give it to this one (chown), or use another one"
	if _, err := FindRunning(dir); err == nil || !strings.Contains(err.Error(), foreign) {
		t.Errorf("root uses the services of another account: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	var data StateData
	if err == nil {
		err = json.Unmarshal(text, &data)
	}
	if err != nil {
		t.Fatal(err)
	}
	execute(t, data.URL(), "CREATE TABLE kept AS SELECT 1 AS a")
	c.stop(t)
	if lives(c.pid) {
		t.Error("the server runs on")
	}
	if _, err := LockState(dir); err == nil || !strings.Contains(err.Error(), foreign) {
		t.Errorf("root takes the folder of another account: %v", err)
	}
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
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
