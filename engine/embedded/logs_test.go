package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A writer that keeps its file open, as the private server does, writes on and on: the folder stays bounded, nothing that was
// written last is missing, and the writer notices nothing.
func TestRotateBoundsALogThatAnotherProcessHolds(t *testing.T) {
	const limit = 1000
	path := filepath.Join(t.TempDir(), "postgres.log")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for i := range 5000 {
		if _, err := fmt.Fprintln(f, "line", i); err != nil {
			t.Fatal(err)
		}
		if err := rotate(path, limit); err != nil {
			t.Fatal(err)
		}
	}
	all, total := "", int64(0)
	for _, name := range []string{path + ".2", path + ".1", path} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > limit+20 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, %v", name, info.Size(), info.Mode())
		}
		total += info.Size()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	lines := strings.Split(strings.TrimSpace(all), "\n")
	for i, line := range lines {
		if want := fmt.Sprint("line ", 5000-len(lines)+i); line != want {
			t.Fatalf("%q, want %q", line, want)
		}
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1+keptLogs || total < 2*limit {
		t.Errorf("%v with %d bytes", left, total)
	}
}

func TestRotateCopiesNoMoreThanTwiceTheLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, []byte(strings.Repeat("a", 5000)+"end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rotate(path, 1000); err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(path + ".1"); err != nil || len(old) != 2000 || !strings.HasSuffix(string(old), "end") {
		t.Errorf("%d bytes, %v", len(old), err)
	}
}

func TestRotateFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, []byte(strings.Repeat("a", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "a.log")
	if err := os.Symlink(mine, log); err != nil {
		t.Fatal(err)
	}
	if err := rotate(log, 10); !errors.Is(err, syscall.ELOOP) {
		t.Error(err)
	}
	if text, err := os.ReadFile(mine); err != nil || len(text) != 100 {
		t.Error(len(text), err)
	}
}

func TestRotateLogsLooksAtBoth(t *testing.T) {
	s := &State{Dir: t.TempDir()}
	for _, name := range []string{"cryptoviz.log", "postgres.log"} {
		f, err := os.Create(filepath.Join(s.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(maxLog+1), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.RotateLogs(ctx, slog.New(slog.DiscardHandler)) }()
	for _, name := range []string{"cryptoviz.log", "postgres.log"} {
		until(t, name+" is empty", func() bool {
			info, err := os.Stat(filepath.Join(s.Dir, name))
			return err == nil && info.Size() == 0
		})
	}
	cancel()
	<-done
}
