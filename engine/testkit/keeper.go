package testkit

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// keeper ends one server and removes its folder when the test process is gone, however that ended: a panic, the timeout
// of go test and SIGKILL included. It is a shell that waits for the end of a pipe which only this process holds open.
type keeper struct {
	in io.WriteCloser
}

// keep reads "pid N" (empty: none runs) and "dir PATH"; at the end of input it stops the last of each: with signal $1,
// and five seconds later with SIGKILL.
const keep = `
trap '' INT TERM HUP
pid= dir=
while read -r what value; do
  case $what in pid) pid=$value ;; dir) dir=$value ;; esac
done
if [ -n "$pid" ]; then
  kill -"$1" "$pid"
  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
    kill -0 "$pid" || break
    sleep 0.2
  done
  kill -KILL -"$pid"
fi
if [ -n "$dir" ]; then rm -rf "$dir"; fi
`

func newKeeper(signal, dir string) (*keeper, error) {
	cmd := exec.Command("/bin/sh", "-c", keep, "keep", signal)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C ends us, and then it has work to do
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }() // ends after close, or outlives us by design
	k := &keeper{in: in}
	if dir != "" {
		_, err = fmt.Fprintf(in, "dir %s\n", dir)
	}
	return k, err
}

// pid names the process to end; 0 for none.
func (k *keeper) pid(n int) {
	text := ""
	if n > 0 {
		text = strconv.Itoa(n)
	}
	_, _ = fmt.Fprintf(k.in, "pid %s\n", text)
}

func (k *keeper) close() { _ = k.in.Close() }

// Process is a child that ends with the test, or when the test process is gone.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	keeper *keeper
}

// Start starts a command in a process group of its own. It is killed when the test ends.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	k, err := newKeeper("KILL", "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(cmd, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		k.close()
	})
	return p
}

func start(cmd *exec.Cmd, k *keeper) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, exited: make(chan struct{}), keeper: k}
	k.pid(cmd.Process.Pid)
	go func() { // ends with the process; Kill waits for it
		_ = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.exited }

// Signal sends a signal to the process, and an error when it has ended.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process group with SIGKILL and waits for it.
func (p *Process) Kill() {
	p.keeper.pid(0)
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// Main runs the tests of a package that share PostgreSQL or a broker: several at once for each core, since they wait
// for servers more than they compute, and with a look for goroutines that are left. -parallel on the command line is
// kept.
func Main(m *testing.M, opts ...goleak.Option) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	}
	const module = "github.com/cryptoviz/cryptoviz/engine/" // the shared server has goroutines until the process ends
	goleak.VerifyTestMain(m, append(opts, goleak.IgnoreAnyFunction(module+"testkit.newKeeper.func1"),
		goleak.IgnoreAnyFunction(module+"embedded.startBound.func1"))...)
}

// unavailable skips the test because a service cannot be had on this machine; with CRYPTOVIZ_TEST_REQUIRE it fails.
func unavailable(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CRYPTOVIZ_TEST_REQUIRE") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
