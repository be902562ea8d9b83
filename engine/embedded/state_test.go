package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestStateIsHeldByOne(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	_, err := LockState(dir)
	busy, ok := errors.AsType[*BusyError](err)
	if !ok || busy.PID != os.Getpid() {
		t.Fatalf("a second lock: %v", err)
	}
	if err := s.SetMode("simulated"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s = open(t, dir)
	if _, ok := errors.AsType[*ModeError](s.SetMode("live")); !ok {
		t.Fatal("a simulated directory became live")
	}
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetMode("live"); err != nil {
		t.Fatal(err)
	}
}

func TestStateOfAKilledProcessIsFree(t *testing.T) {
	dir := stateDir(t)
	c := startChild(t, "state", dir, nil).ready(t)
	if _, err := LockState(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", c.cmd.Process.Pid)) {
		t.Fatalf("got %v", err)
	}
	if r, err := FindRunning(dir); err != nil || r == nil || r.PID != c.cmd.Process.Pid {
		t.Fatalf("found %+v, %v", r, err)
	}
	c.kill()
	if r, err := FindRunning(dir); err != nil || r != nil {
		t.Fatalf("after the kill: found %+v, %v", r, err)
	}
	open(t, dir)
}

func TestLockFileWithGarbage(t *testing.T) {
	dir := stateDir(t)
	file := filepath.Join(dir, "lock")
	if err := os.WriteFile(file, []byte(strings.Repeat("garbage", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if text, err := os.ReadFile(file); err != nil || string(text) != fmt.Sprint(os.Getpid()) {
		t.Errorf("the lock holds %q, %v", text, err)
	}
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LockState(dir)
	if err == nil || strings.Contains(err.Error(), "process") || !strings.Contains(err.Error(), "already running in "+dir) {
		t.Errorf("a lock held by nobody knows whom: %v", err)
	}
	if r, err := FindRunning(dir); err != nil || r == nil || r.PID != 0 {
		t.Errorf("found %+v, %v", r, err)
	}
}

func TestStateFile(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"good":              {`{"mode": "live", "created": "2026-03-04T05:06:07Z", "kafka_port": 9}`, ""},
		"of a later one":    {`{"mode": "live", "created": "2026-03-04T05:06:07Z", "later": {}}`, ""},
		"mended":            {`{"mode": "live"}`, ""},
		"cut short":         {`{"mode": "live", "created": "2026-`, "it is damaged. Move the directory away, or, to keep its data, write"},
		"empty":             {"", "it is damaged"},
		"zeros":             {"\x00\x00\x00\x00", "it is damaged"},
		"garbage":           {"garbage", "it is damaged"},
		"a list":            {"[]", "it is damaged"},
		"a wrong type":      {`{"mode": 1}`, "it is damaged"},
		"of another":        {`{"version": 4, "terraform_version": "1.11.4"}`, "state.json is not of cryptoviz: use another directory with --state DIR"},
		"an empty object":   {"{}", "is not of cryptoviz"},
		"nothing in it":     {"null", "is not of cryptoviz"},
		"a text after that": {`{"mode": "live"} x`, "it is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			file := filepath.Join(dir, "state.json")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := LockState(dir)
			if (err == nil) != (c.want == "") || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err == nil {
				_ = s.Close()
				return
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != c.text {
				t.Errorf("the file was changed: %q, %v", text, err)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			open(t, dir) // and the lock is free
		})
	}
}

func TestForeignDirectoryIsLeftAlone(t *testing.T) {
	for _, name := range []string{"postgres", "kafka", "postgres.log"} {
		dir := stateDir(t)
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := LockState(dir)
		if err == nil || !strings.Contains(err.Error(), "holds "+name+" and no state.json: it is not a state directory of cryptoviz") {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "state.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a state was made beside it", name)
		}
	}
}

func TestStateOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 1)
	s := open(t, dir)
	if err := s.SetMode("live"); err != nil {
		t.Fatal(err)
	}
	remove := fill(t, dir)
	if err := s.Update(func(d *StateData) { d.KafkaPort = 1 }); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v", err)
	}
	_ = s.Close()
	if s = open(t, dir); s.Data.Mode != "live" {
		t.Errorf("the state became %+v", s.Data)
	}
	if _, err := LockState(filepath.Join(dir, "new")); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("a new one: %v", err)
	}
	if _, err := StartPostgres(t.Context(), s, quick); err == nil || !strings.Contains(err.Error(), "no space left on device") && !strings.Contains(err.Error(), "is full (0 MiB free, 256 needed)") {
		t.Errorf("PostgreSQL: %v", err)
	}
	remove()
	if err := s.Update(func(d *StateData) { d.KafkaPort = 1 }); err != nil {
		t.Error(err)
	}
}

func TestStateThatCannotBeWritten(t *testing.T) {
	dir := stateDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LockState(file); err == nil || !strings.Contains(err.Error(), "choose one that you may write with --state DIR") {
		t.Errorf("a file: %v", err)
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o500); err != nil { //nolint:gosec // read only
			t.Fatal(err)
		}
		if _, err := LockState(dir); err == nil || !strings.Contains(err.Error(), "choose one that you may write with --state DIR") {
			t.Errorf("a folder that is read only: %v", err)
		}
		return
	}
	if c := startChild(t, "state", dir, ordinary(t)); !strings.Contains(c.last, "belongs to user number 0, and this is number") {
		t.Errorf("a folder of root: %s", c.last)
	}
}

func TestUpdateSideBySide(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				if err := s.Update(func(d *StateData) {
					d.KafkaPort++
					d.Virtual = time.Unix(int64(d.KafkaPort), 0).UTC()
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	var saved StateData
	text, err := os.ReadFile(s.file())
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err != nil || saved.KafkaPort != 80 || saved.Virtual.Unix() != 80 {
		t.Errorf("saved %+v, %v", saved, err)
	}
	if info, err := os.Stat(s.file()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password lies in %v, %v", info, err)
	}
}

// files makes files with their folders.
func files(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClearRemovesOnlyWhatIsOurs(t *testing.T) {
	root := stateDir(t)
	s := open(t, filepath.Join(root, "b"))
	kept := []string{root + "/bc/data/x", root + "/a/data/x", root + "/b/cryptoviz.log", root + "/b/mine/x"}
	files(t, kept...)
	for _, was := range []string{"", root + "/bc", root + "/a", s.Dir + "/../a", s.Dir} { // state.json may be copied, or written by hand
		gone := []string{s.Dir + "/postgres/data/x", s.Dir + "/kafka/x", s.Dir + "/postgres.log"}
		files(t, gone...)
		if err := s.Update(func(d *StateData) { d.Mode, d.Password, d.PostgresDir = "live", "p", was }); err != nil {
			t.Fatal(err)
		}
		if err := s.Clear(); err != nil {
			t.Fatal(err)
		}
		for _, f := range gone {
			if _, err := os.Stat(f); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("postgres_dir %q: %s stays", was, f)
			}
		}
		for _, f := range kept {
			if _, err := os.Stat(f); err != nil {
				t.Errorf("postgres_dir %q: %v", was, err)
			}
		}
		if s.Data.Mode != "" || s.Data.Password != "" || s.Data.PostgresDir != "" || s.Data.Created.IsZero() {
			t.Errorf("the state is %+v", s.Data)
		}
	}
}

func TestPostgresDir(t *testing.T) {
	root := stateDir(t)
	s := open(t, filepath.Join(root, "b"))
	inside, outside := s.postgresDirs()
	if dir, err := s.postgresDir(); err != nil || dir != inside {
		t.Errorf("a new one: %s, %v", dir, err)
	}
	if !strings.HasPrefix(outside, system+"/") {
		t.Errorf("outside is %s", outside)
	}
	files(t, root+"/before/data/PG_VERSION")
	s.Data.PostgresDir = root + "/before"
	if _, err := s.postgresDir(); err == nil || !strings.Contains(err.Error(), s.Dir+" was moved or copied here, and its database is in "+root+"/before") {
		t.Errorf("a copy of the state without its database: %v", err)
	}
	files(t, inside+"/data/PG_VERSION")
	if dir, err := s.postgresDir(); err != nil || dir != inside {
		t.Errorf("a copy with its database: %s, %v", dir, err)
	}
	if err := os.RemoveAll(inside); err != nil {
		t.Fatal(err)
	}
	s.Data.PostgresDir = root + "/gone"
	if dir, err := s.postgresDir(); err != nil || dir != inside {
		t.Errorf("the database of before is gone: %s, %v", dir, err)
	}
	if err := os.Chmod(root, 0o700); err != nil { //nolint:gosec // closed to the server's account
		t.Fatal(err)
	}
	want := inside
	if os.Geteuid() == 0 {
		want = outside
	}
	if dir, err := s.postgresDir(); err != nil || dir != want {
		t.Errorf("in a closed folder: %s, %v", dir, err)
	}
}
