package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// impossiblePID in postmaster.pid keeps a stale file from naming a living process; PostgreSQL itself then starts over
// it.
const impossiblePID = "2147483000"

// adopt takes over a server that a process of before left running on this data directory, and returns its port; nil
// means that there is none. A stale postmaster.pid is changed so that a process which has its number by now does no
// harm.
func adopt(data, log string) (*Postgres, int, error) {
	// The folder is the account's: follow no link in it.
	f, err := os.OpenFile(filepath.Join(data, "postmaster.pid"), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	text := make([]byte, 4096)
	n, _ := f.Read(text)
	lines := strings.Split(string(text[:n]), "\n")
	pid, _ := strconv.Atoi(lines[0])
	if pid < 2 || !serves(pid, data) {
		// The other lines stay: with them PostgreSQL sees whether children of that server still live.
		lines[0] = impossiblePID
		return nil, 0, rewrite(f, strings.Join(lines, "\n"))
	}
	port := 0
	if len(lines) > 3 {
		port, _ = strconv.Atoi(lines[3])
	}
	if port == 0 {
		return nil, 0, fmt.Errorf("process %d serves %s, and %s is damaged: stop that process", pid, data, f.Name())
	}
	p := &Postgres{pid: pid, adopted: true, log: log, exited: make(chan struct{})}
	go p.watch() // ends with the server
	return p, port, nil
}

// watch looks whether a server that is not our child still lives.
func (p *Postgres) watch() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for lives(p.pid) {
		<-tick.C
	}
	close(p.exited)
}

// spawn starts the server as our child, in a group of its own so that Ctrl-C reaches us first. It takes the port if
// that is free, else another one unless it must have it, and returns the one that it took.
func spawn(ctx context.Context, port int, opt PostgresOptions, bin binaries, acct *account, data,
	logFile string,
) (*Postgres, int, error) {
	if !portFree(ctx, port) {
		if opt.KeepPort {
			return nil, 0, &PortError{Port: port}
		}
		var err error
		if port, err = freePort(ctx); err != nil {
			return nil, 0, err
		}
	}
	p := &Postgres{exited: make(chan struct{}), log: logFile}
	log, err := p.openLog()
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = log.Close() }()
	settings := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(port), "unix_socket_directories": "",
		"max_connections": "60", "shared_buffers": "64MB",
		"timezone": "UTC", "log_timezone": "UTC", "max_wal_size": "512MB", "log_min_messages": "warning",
	}
	if bin.timescale {
		settings["shared_preload_libraries"], settings["timescaledb.telemetry_level"] = "timescaledb", "off"
	}
	maps.Copy(settings, opt.Settings)
	args := []string{"-D", data} // first: serves looks for it
	for k, v := range settings {
		args = append(args, "-c", k+"="+v)
	}
	cmd := exec.Command(filepath.Join(bin.dir, "postgres"), args...)
	confine(cmd, bin, acct)
	cmd.Stdout, cmd.Stderr = log, log
	if err := startBound(cmd, func(err error) {
		p.err = err
		close(p.exited)
	}); err != nil {
		return nil, 0, err
	}
	p.pid = cmd.Process.Pid
	return p, port, nil
}

// openLog goes on with the server's log, which may say why the earlier server stopped.
func (p *Postgres) openLog() (*os.File, error) {
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := log.Stat()
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	p.logged = info.Size()
	return log, nil
}

// Done is closed when the server ends.
func (p *Postgres) Done() <-chan struct{} { return p.exited }

// Stop ends the server: fast, then at once. When ctx ends, it goes to the next step without waiting.
func (p *Postgres) Stop(ctx context.Context) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, 10 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		select {
		case <-p.exited: // its number may belong to anybody by now
			return nil
		default:
		}
		if err := syscall.Kill(p.pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the private PostgreSQL: process %d: %w", p.pid, err)
		}
		hurry := ctx.Done()
		if step.signal == syscall.SIGKILL {
			hurry = nil // nothing follows
		}
		waited := time.NewTimer(step.wait)
		select {
		case <-p.exited:
			waited.Stop()
			return nil
		case <-hurry:
			waited.Stop()
		case <-waited.C:
		}
	}
	return fmt.Errorf("stop the private PostgreSQL: process %d does not end", p.pid)
}

func portFree(ctx context.Context, port int) bool {
	if port == 0 {
		return false
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
