package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// childEnv makes the test binary do one thing in a process of its own.
const childEnv = "CRYPTOVIZ_LOCAL_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(what, os.Args[1]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child holds a state directory with a service until its input ends.
func child(what, dir string) error {
	ctx := context.Background()
	s, err := LockState(dir)
	if err != nil {
		return err
	}
	switch what {
	case "state":
	case "postgres":
		p, err := StartPostgres(ctx, s, quick)
		if err != nil {
			return err
		}
		fmt.Println("pid", p.pid)
		defer func() { _ = p.Stop(ctx) }()
	case "kafka":
		k, err := StartKafka(ctx, s, nil)
		if err != nil {
			return err
		}
		defer k.Stop()
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// running is such a process.
type running struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	pid  int // of its server
	last string
}

// startChild starts one, as another account if acct is not nil, and waits until it is ready or has failed.
func startChild(t *testing.T, what, dir string, acct *account) *running {
	t.Helper()
	program := os.Args[0]
	if acct != nil { // the folder of the test binary is closed to others
		program = filepath.Join(stateDir(t), "local.test")
		if err := exec.Command("cp", os.Args[0], program).Run(); err != nil {
			t.Fatal(err)
		}
	}
	c := &running{cmd: exec.Command(program, dir)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+what, "HOME=/")
	c.cmd.Dir, c.cmd.Stderr = "/", os.Stderr
	if acct != nil {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(acct.uid), Gid: uint32(acct.gid)}} //nolint:gosec // account numbers
	}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.in = in
	t.Cleanup(c.kill)
	for lines := bufio.NewScanner(out); c.last != "ready" && lines.Scan(); {
		c.last = lines.Text()
		if number, ok := strings.CutPrefix(c.last, "pid "); ok {
			c.pid, _ = strconv.Atoi(number)
		}
	}
	return c
}

func (c *running) ready(t *testing.T) *running {
	t.Helper()
	if c.last != "ready" {
		unlessOffline(t, c.last)
		t.Fatalf("the child ended: %s", c.last)
	}
	return c
}

func (c *running) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *running) stop(t *testing.T) {
	t.Helper()
	_ = c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// quick leaves out what matters only when the machine itself goes down.
var quick = PostgresOptions{Settings: map[string]string{"fsync": "off"}}

func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cryptoviz-test-*") //nolint:usetesting // t.TempDir is closed to the account that runs the server
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for that account
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func open(t *testing.T, dir string) *State {
	t.Helper()
	s, err := LockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// postgres starts the server; it ends with the test.
func postgres(t *testing.T, s *State) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), s, quick)
	if err != nil {
		unlessOffline(t, err.Error())
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(context.Background()) })
	return p
}

func unlessOffline(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CRYPTOVIZ_TEST_REQUIRE") == "" && strings.Contains(reason, "could not be fetched") {
		t.Skip(reason)
	}
}

func stop(t *testing.T, p *Postgres) {
	t.Helper()
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// longest is testkit.Patience, which cannot be imported from here.
const longest = 2 * time.Minute

// until waits for something that a process does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(longest); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, longest)
		}
	}
}

func umask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

// ordinary returns an account that is not root, for a child.
func ordinary(t *testing.T) *account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a child as another account; the other tests run as an ordinary one")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &account{uid, gid}
}

// smallDisk mounts a file system of some MiB.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := stateDir(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0755", mib), "cryptoviz-test", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk can be mounted here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return dir
}

// fill writes a file until the disk is full.
func fill(t *testing.T, dir string) (remove func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	_ = f.Close()
	return func() { _ = os.Remove(f.Name()) }
}

// logged collects a log.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
