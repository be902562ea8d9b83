package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestPostgresGoesOn plays, on one data directory, what may have happened since the last start.
func TestPostgresGoesOn(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	halfMade(t, filepath.Join(dir, "postgres"))
	p := postgres(t, s)
	execute(t, p.URL(), "CREATE TABLE kept AS SELECT 1 AS a")
	data := filepath.Join(dir, "postgres", "data")
	pidFile := filepath.Join(data, "postmaster.pid")

	// again starts the server and looks whether the data is there.
	again := func(t *testing.T) *Postgres {
		t.Helper()
		p := postgres(t, s)
		execute(t, p.URL(), "SELECT 1 / count(*) FROM kept")
		return p
	}

	t.Run("secrets", func(t *testing.T) { checkSecrets(t, s, p, data) })

	t.Run("left running", func(t *testing.T) { // as after a kill of ours without a parent-death signal
		second := again(t)
		if second.pid != p.pid || !second.adopted || second.URL() != p.URL() {
			t.Fatalf("a second start made process %d beside %d", second.pid, p.pid)
		}
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		<-second.Done() // it is told, too
		stop(t, second)
	})

	t.Run("killed", func(t *testing.T) { // a stale postmaster.pid, and a recovery
		p := again(t)
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		p = again(t)
		stop(t, p)
		stop(t, p) // twice is no mistake
	})

	t.Run("number of another", func(t *testing.T) {
		stop(t, again(t))
		other := sleeper(t, data, "sleep 60")
		text := fmt.Sprintf("%d\n%s\n1\n%d\n\n127.0.0.1\n     1         1\nready   \n", other.Process.Pid, data, s.Data.PostgresPort)
		if err := os.WriteFile(pidFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if acct, err := chooseAccount(data); err != nil || acct.own(pidFile) != nil {
			t.Fatal(err)
		}
		p := again(t)
		if p.adopted {
			t.Error("adopted")
		}
		stop(t, p)
		if err := other.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("the other process: %v", err)
		}
	})

	t.Run("uncollected", func(t *testing.T) { // the server ended, and nobody asked for its exit code
		if runtime.GOOS != "linux" {
			t.Skip("what init collects")
		}
		zombie := sleeper(t, data, "exec kill -KILL $$")
		until(t, "the child ends", func() bool { return !lives(zombie.Process.Pid) })
		if err := syscall.Kill(zombie.Process.Pid, 0); err != nil {
			t.Fatalf("no zombie: %v", err)
		}
		if err := os.WriteFile(pidFile, []byte(strconv.Itoa(zombie.Process.Pid)+"\n"+data+"\n1\n1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if acct, err := chooseAccount(data); err != nil || acct.own(pidFile) != nil {
			t.Fatal(err)
		}
		stop(t, again(t))
	})

	t.Run("port taken", func(t *testing.T) {
		was := s.Data.PostgresPort
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(was))
		if err != nil {
			t.Fatal(err)
		}
		p := again(t)
		stop(t, p)
		_ = l.Close()
		if s.Data.PostgresPort == was || !strings.Contains(p.URL(), ":"+strconv.Itoa(s.Data.PostgresPort)+"/") {
			t.Errorf("on port %d again: %s", was, p.URL())
		}
	})

	t.Run("port kept", func(t *testing.T) { // a restart within one up, whose clients know the port
		was := s.Data.PostgresPort
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(was))
		if err != nil {
			t.Fatal(err)
		}
		_, err = StartPostgres(t.Context(), s, PostgresOptions{KeepPort: true})
		if port, ok := errors.AsType[*PortError](err); !ok || port.Port != was {
			t.Errorf("with its port taken: %v", err)
		}
		_ = l.Close()
		p, err := StartPostgres(t.Context(), s, PostgresOptions{KeepPort: true})
		if err != nil {
			t.Fatal(err)
		}
		stop(t, p)
		if s.Data.PostgresPort != was {
			t.Errorf("on port %d, not %d", s.Data.PostgresPort, was)
		}
	})

	t.Run("password lost", func(t *testing.T) {
		for _, running := range []bool{false, true} {
			p := again(t)
			if !running {
				stop(t, p)
			}
			old := s.Data.Password
			if err := s.Update(func(d *StateData) { *d = StateData{Mode: "live"} }); err != nil { // as it is mended
				t.Fatal(err)
			}
			p = again(t)
			if s.Data.Password == "" || s.Data.Password == old {
				t.Errorf("the password is %q", s.Data.Password)
			}
			stop(t, p)
		}
	})

	t.Run("password wrong", func(t *testing.T) {
		old := s.Data.SuperuserPassword
		if err := s.Update(func(d *StateData) { d.SuperuserPassword, d.Password = "wrong", "it's another" }); err != nil {
			t.Fatal(err)
		}
		_, err := StartPostgres(t.Context(), s, quick)
		if err == nil || !strings.Contains(err.Error(), "it does not take the superuser_password in state.json") {
			t.Errorf("got %v", err)
		}
		if err := s.Update(func(d *StateData) { d.SuperuserPassword = old }); err != nil {
			t.Fatal(err)
		}
		stop(t, again(t))
	})

	t.Run("a setting that it does not know", func(t *testing.T) {
		_, err := StartPostgres(t.Context(), s, PostgresOptions{Settings: map[string]string{"no_such_setting": "1"}})
		if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
			t.Errorf("got %v", err)
		}
		stop(t, again(t))
	})

	t.Run("port taken meanwhile", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) //nolint:forbidigo // it waits as long as it may
		defer cancel()
		taken := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		if _, err := StartPostgres(ctx, s, PostgresOptions{Settings: map[string]string{"port": taken}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it gave up before: %v", err)
		}
		stop(t, again(t))
	})

	t.Run("files without PG_VERSION", func(t *testing.T) {
		version := filepath.Join(data, "PG_VERSION")
		if err := os.Rename(version, version+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := StartPostgres(t.Context(), s, quick); err == nil || !strings.Contains(err.Error(), "it holds files and no PG_VERSION") {
			t.Errorf("got %v", err)
		}
		if err := os.Rename(version+".away", version); err != nil {
			t.Fatal(err)
		}
		stop(t, again(t))
	})

	t.Run("owner", func(t *testing.T) { // made as nobody; then an account postgres appears, or the opposite
		acct := ordinary(t)
		if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", acct.uid, acct.gid), data).CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
		stop(t, again(t))
		if out, err := exec.Command("chown", "-R", "54321", data).CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
		if _, err := StartPostgres(t.Context(), s, quick); err == nil || !strings.Contains(err.Error(), "belongs to user number 54321, who has no account here") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStalePIDFile(t *testing.T) {
	us := strconv.Itoa(os.Getpid())
	for text, want := range map[string]string{
		us + "\n/data\n1\n5432\n\n127.0.0.1\n     1         1\nready   \n": impossiblePID + "\n/data\n1\n5432\n\n127.0.0.1\n     1         1\nready   \n",
		us: impossiblePID, us + "\n": impossiblePID + "\n", "": impossiblePID, "0\n/data": impossiblePID + "\n/data", "1\n": impossiblePID + "\n", "-1\n": impossiblePID + "\n",
		"a text longer than the number\n\x00": impossiblePID + "\n\x00",
	} {
		data := t.TempDir()
		file := filepath.Join(data, "postmaster.pid")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, _, err := adopt(data, ""); p != nil || err != nil {
			t.Errorf("%q: adopted %+v, %v", text, p, err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
		link := filepath.Join(t.TempDir(), "postmaster.pid")
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		if _, _, err := adopt(filepath.Dir(link), ""); err == nil {
			t.Error("a link was followed")
		}
	}
	if p, _, err := adopt(t.TempDir(), ""); p != nil || err != nil {
		t.Errorf("without a file: %+v, %v", p, err)
	}
}

// halfMade leaves what an initdb that was killed leaves, and a link that the server's account may have put there.
func halfMade(t *testing.T, dir string) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "target")
	files(t, filepath.Join(dir, "new", "PG_VERSION"), filepath.Join(dir, "run", "x"), target)
	if err := errors.Join(os.Chmod(filepath.Join(dir, "run"), 0o700), os.Remove(filepath.Join(dir, "run", "x")), os.Symlink(target, filepath.Join(dir, "run", "password")), os.Mkdir(filepath.Join(dir, "data"), 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if info, err := os.Stat(target); err != nil || info.Size() != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) { //nolint:gosec // an account number
			t.Errorf("a link was followed: %+v, %v", info, err)
		}
	})
}

// sleeper starts a shell that runs a script, as the account of the data directory, with a command much like the server's.
func sleeper(t *testing.T, data, script string) *exec.Cmd {
	t.Helper()
	acct, err := chooseAccount(data)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", script, "postgres", "-D", data)
	cmd.SysProcAttr = attributes(acct)
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

func checkSecrets(t *testing.T, s *State, p *Postgres, data string) {
	t.Helper()
	acct, err := chooseAccount(data)
	if err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if acct != nil {
		uid = acct.uid
	}
	for name, mode := range map[string]fs.FileMode{data: 0o700, filepath.Join(data, "..", "run"): 0o700, s.file(): 0o600, p.log: 0o600, filepath.Join(s.Dir, "lock"): 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		owner := os.Getuid()
		if info.IsDir() {
			owner = uid
		}
		if info.Mode().Perm() != mode || info.Sys().(*syscall.Stat_t).Uid != uint32(owner) { //nolint:gosec // an account number
			t.Errorf("%s has mode %v and owner %d", name, info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		}
	}
	if left, err := os.ReadDir(filepath.Join(data, "..", "run")); err != nil || len(left) > 0 {
		t.Errorf("run holds %v, %v", left, err)
	}
	for _, file := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // not on Linux
		}
		for _, secret := range []string{s.Data.Password, s.Data.ReaderPassword, s.Data.SuperuserPassword, "HOME="} {
			if err != nil || secret == "" || bytes.Contains(text, []byte(secret)) {
				t.Errorf("the server's %s holds our environment or a password, %v", file, err)
			}
		}
	}
	if _, err := pgx.Connect(t.Context(), strings.Replace(p.URL(), s.Data.Password, "guess", 1)); err == nil {
		t.Error("it takes any password")
	}
}

// TestParentIsKilled kills the process that holds the server, and starts again at once.
func TestParentIsKilled(t *testing.T) {
	dir := stateDir(t)
	c := startChild(t, "postgres", dir, nil).ready(t)
	r, err := FindRunning(dir)
	if err != nil || r == nil {
		t.Fatal(r, err)
	}
	execute(t, r.Data.URL(), "CREATE TABLE kept AS SELECT 1 AS a")
	server := c.pid
	c.kill()
	s := open(t, dir)
	p := postgres(t, s) // adopts the server that is about to stop, or comes after it
	execute(t, p.URL(), "SELECT 1 / count(*) FROM kept")
	if p.pid == server && runtime.GOOS == "linux" {
		<-p.Done() // it was told to stop when its parent died
		p = postgres(t, s)
		execute(t, p.URL(), "SELECT 1 / count(*) FROM kept")
	}
	stop(t, p)
	until(t, "the server of before ends", func() bool { return !lives(server) })
	_ = s.Close()

	c = startChild(t, "postgres", dir, nil).ready(t)
	_ = syscall.Kill(c.pid, syscall.SIGKILL) // both, the server first
	c.kill()
	s = open(t, dir)
	p = postgres(t, s)
	execute(t, p.URL(), "SELECT 1 / count(*) FROM kept")
	stop(t, p)
	_ = s.Close()

	c = startChild(t, "postgres", dir, nil).ready(t)
	c.kill()
	s = open(t, dir)
	if err := s.Clear(); err != nil { // it does not delete under a server that stops
		t.Fatal(err)
	}
	if lives(c.pid) {
		t.Errorf("process %d serves deleted files", c.pid)
	}
}

func TestPostgresNeedsSpace(t *testing.T) {
	s := open(t, smallDisk(t, 64))
	_, err := StartPostgres(t.Context(), s, quick)
	if err == nil || !strings.Contains(err.Error(), "is full (") || !strings.Contains(err.Error(), "MiB free, 256 needed): free some space") {
		t.Fatalf("got %v", err)
	}
}

func TestPostgresOfAnotherMajorIsLeftAlone(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	file := filepath.Join(dir, "postgres", "data", "PG_VERSION")
	files(t, file)
	if err := os.WriteFile(file, []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), s, quick)
	if err == nil || !strings.Contains(err.Error(), "made by PostgreSQL 9") {
		t.Fatalf("got %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Fatalf("the data directory was touched: %v, %v", entries, err)
	}
}
