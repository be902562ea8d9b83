package embedded

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestStateFolderIsOurs: what another account could write, or what leads elsewhere, is refused, and nothing is written there.
func TestStateFolderIsOurs(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir, victim string) error
		want  string
	}{
		"its group may write":       {func(dir, _ string) error { return os.Chmod(dir, 0o775) }, "take that away with chmod go-w"},               //nolint:gosec // the point
		"everybody may write":       {func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "take that away with chmod go-w"}, //nolint:gosec // the point
		"another's":                 {func(dir, _ string) error { return os.Chown(dir, 65534, 65534) }, "belongs to user number 65534"},
		"the lock is a link":        {func(dir, v string) error { return os.Symlink(v, filepath.Join(dir, "lock")) }, "/lock is a link, a pipe"},
		"a link to beside it":       {func(dir, _ string) error { return os.Symlink("state.json", filepath.Join(dir, "lock")) }, "/lock is a link, a pipe"},
		"the state is a link":       {func(dir, v string) error { return os.Symlink(v, filepath.Join(dir, "state.json")) }, "/state.json is a link, a pipe"},
		"the next state is one":     {func(dir, v string) error { return os.Symlink(v, filepath.Join(dir, "state.json.new")) }, "/state.json.new is a link"},
		"a log is one":              {func(dir, v string) error { return os.Symlink(v, filepath.Join(dir, "cryptoviz.log")) }, "/cryptoviz.log is a link"},
		"the server's log":          {func(dir, v string) error { return os.Symlink(v, filepath.Join(dir, "postgres.log.1")) }, "/postgres.log.1 is a link"},
		"the records are one":       {func(dir, v string) error { return os.Symlink(filepath.Dir(v), filepath.Join(dir, "kafka")) }, "/kafka is a link"},
		"the database is one":       {func(dir, v string) error { return os.Symlink(filepath.Dir(v), filepath.Join(dir, "postgres")) }, "/postgres is a link"},
		"the lock is a pipe":        {func(dir, _ string) error { return syscall.Mkfifo(filepath.Join(dir, "lock"), 0o600) }, "/lock is a link, a pipe"},
		"the state is a pipe":       {func(dir, _ string) error { return syscall.Mkfifo(filepath.Join(dir, "state.json"), 0o600) }, "/state.json is a link, a pipe"},
		"the lock is a folder":      {func(dir, _ string) error { return os.Mkdir(filepath.Join(dir, "lock"), 0o700) }, "is a directory"},
		"the folder is a link":      {func(dir, _ string) error { return os.Rename(dir, dir+".moved") }, "is a link: name the folder that it leads to"},
		"the state is huge":         {func(dir, _ string) error { return os.Truncate(filepath.Join(dir, "state.json"), 1<<40) }, "it is damaged"},
		"links that are the user's": {func(dir, v string) error { return os.Symlink(v, filepath.Join(dir, "notes")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir, victim := filepath.Join(parent, "state"), filepath.Join(parent, "victims", "victim")
			files(t, victim)
			if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := LockState(dir)
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Close()
			for _, gone := range []string{"lock", "state.json"} {
				if strings.Contains(c.want, "/"+gone+" ") || gone == "lock" {
					_ = os.Remove(filepath.Join(dir, gone))
				}
			}
			if name == "another's" && os.Geteuid() != 0 {
				t.Skip("only root can give a folder away")
			}
			if err := c.spoil(dir, victim); err != nil {
				t.Fatal(err)
			}
			if name == "the folder is a link" {
				if err := os.Symlink(dir+".moved", dir); err != nil {
					t.Fatal(err)
				}
			}
			s, err = LockState(dir)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it is used: %v", err)
			}
			if _, err := FindRunning(dir); !strings.Contains(c.want, "damaged") && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("its services are looked for: %v", err)
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
				t.Errorf("the file became %q, %v", text, err)
			}
			if left, err := os.ReadDir(filepath.Dir(victim)); err != nil || len(left) != 1 {
				t.Errorf("beside it: %v, %v", left, err)
			}
		})
	}
}

// TestStateIsClosedToOthers: a state.json that somebody wrote by hand, too.
func TestStateIsClosedToOthers(t *testing.T) {
	dir := stateDir(t)
	file := filepath.Join(dir, stateFile)
	if err := os.WriteFile(file, []byte(`{"mode": "live"}`), 0o644); err != nil { //nolint:gosec // the point
		t.Fatal(err)
	}
	open(t, dir)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
