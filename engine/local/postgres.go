package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
)

// PostgresOptions says how the private server is started. The zero value works.
type PostgresOptions struct {
	Log      *slog.Logger
	Progress func(string)
	Binaries string            // bin folder of an installation to use
	Mirror   string            // of the Maven repository; default DefaultMirror
	Cache    string            // folder for downloaded binaries
	Settings map[string]string // more of postgresql.conf
}

// Postgres is a running private server.
type Postgres struct {
	url       string
	Timescale bool
	Version   int
	pid       int
	exited    chan struct{}
	err       error
}

// impossiblePID in postmaster.pid keeps a stale file from naming a living process; PostgreSQL itself then starts over it.
const impossiblePID = "2147483000"

// StartPostgres starts, or adopts, the private server of a state directory and makes the database cryptoviz.
func StartPostgres(ctx context.Context, s *State, opt PostgresOptions) (*Postgres, error) {
	// After a kill, the children of the server of before may hold its shared memory for a moment.
	p, err := backoff.Retry(ctx, func() (*Postgres, error) {
		p, err := startPostgres(ctx, s, opt)
		if err != nil && !strings.Contains(err.Error(), "shared memory block") {
			return nil, backoff.Permanent(err)
		}
		return p, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(200*time.Millisecond)), backoff.WithMaxElapsedTime(20*time.Second))
	if err != nil {
		return nil, fmt.Errorf("start the private PostgreSQL: %w", err)
	}
	return p, nil
}

func startPostgres(ctx context.Context, s *State, opt PostgresOptions) (*Postgres, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if free, _, err := FreeSpace(s.Dir); err == nil && free < 256<<20 {
		return nil, fmt.Errorf("the disk of %s is full (%d MiB free, 256 needed): free some space. Nothing was changed", s.Dir, free>>20)
	}
	acct, err := chooseAccount()
	if err != nil {
		return nil, err
	}
	dir := s.Data.PostgresDir
	if dir == "" {
		dir = filepath.Join(s.Dir, "postgres")
		if acct != nil && !passable(s.Dir) {
			dir = filepath.Join("/var/lib/cryptoviz", fmt.Sprintf("%x", hash(s.Dir)))
		}
		s.Data.PostgresDir = dir
	}
	if s.Data.Password == "" {
		s.Data.Password = rand.Text()
	}
	if err := s.Save(); err != nil {
		return nil, err
	}
	data, run := filepath.Join(dir, "data"), filepath.Join(dir, "run")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the server's account passes through
		return nil, err
	}
	for _, d := range []string{data, run} {
		if err := errors.Join(os.MkdirAll(d, 0o700), acct.own(d)); err != nil {
			return nil, err
		}
	}
	major := 0
	if text, err := os.ReadFile(filepath.Join(data, "PG_VERSION")); err == nil {
		if major, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return nil, fmt.Errorf("%s is damaged: it holds %q", filepath.Join(data, "PG_VERSION"), text)
		}
	}
	bin, err := choose(ctx, opt, major)
	if err != nil {
		return nil, err
	}
	p := &Postgres{Timescale: bin.timescale, Version: bin.major, exited: make(chan struct{})}
	if major == 0 {
		if opt.Progress != nil {
			opt.Progress("making a PostgreSQL " + strconv.Itoa(bin.major) + " database")
		}
		if err := initdb(ctx, bin, acct, data, run, s.Data.Password); err != nil {
			return nil, err
		}
	}
	port, adopted := p.adopt(data)
	if !adopted {
		if port, err = p.spawn(ctx, s, opt, bin, acct, data); err != nil {
			return nil, err
		}
	}
	s.Data.PostgresPort = port
	u := url.URL{Scheme: "postgres", User: url.UserPassword("cryptoviz", s.Data.Password), Host: "127.0.0.1:" + strconv.Itoa(port), Path: "/postgres", RawQuery: "sslmode=disable"}
	if err := p.ready(ctx, u.String(), filepath.Join(s.Dir, "postgres.log")); err != nil {
		_ = p.Stop(context.WithoutCancel(ctx))
		return nil, err
	}
	u.Path = "/cryptoviz"
	p.url = u.String()
	return p, s.Save()
}

// initdb makes the data directory. The password goes through a file, for initdb cannot read it from a pipe of another account.
func initdb(ctx context.Context, bin binaries, acct *account, data, run, password string) error {
	file := filepath.Join(run, "password")
	if err := errors.Join(os.WriteFile(file, []byte(password+"\n"), 0o600), acct.own(file)); err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }()
	cmd := exec.CommandContext(ctx, filepath.Join(bin.dir, "initdb"), "-D", data, "-U", "cryptoviz", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-k", "--no-sync", "--pwfile="+file)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + bin.dir + ":/usr/bin:/bin"}
	cmd.SysProcAttr = attributes(acct)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(tail(out)))
	}
	return nil
}

func tail(b []byte) []byte {
	if len(b) > 1500 {
		b = b[len(b)-1500:]
	}
	return b
}

// adopt takes over a server that a process of before left running on this data directory.
func (p *Postgres) adopt(data string) (port int, ok bool) {
	file := filepath.Join(data, "postmaster.pid")
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	lines := strings.Split(string(text), "\n")
	pid, _ := strconv.Atoi(lines[0])
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && pid > 1 && bytes.Contains(cmdline, []byte(data)) && len(lines) > 3 {
		port, _ = strconv.Atoi(lines[3])
		p.pid = pid
		return port, port > 0
	}
	lines[0] = impossiblePID // stale: its number may belong to anybody by now
	_ = os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600)
	return 0, false
}

// spawn starts the server as our child, in a group of its own so that Ctrl-C reaches us first.
func (p *Postgres) spawn(ctx context.Context, s *State, opt PostgresOptions, bin binaries, acct *account, data string) (int, error) {
	port := s.Data.PostgresPort
	if !portFree(ctx, port) {
		var err error
		if port, err = freePort(ctx); err != nil {
			return 0, err
		}
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, "postgres.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }()
	settings := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(port), "unix_socket_directories": "", "max_connections": "60", "shared_buffers": "64MB",
		"timezone": "UTC", "log_timezone": "UTC", "max_wal_size": "512MB", "log_min_messages": "warning",
	}
	if bin.timescale {
		settings["shared_preload_libraries"], settings["timescaledb.telemetry_level"] = "timescaledb", "off"
	}
	maps.Copy(settings, opt.Settings)
	args := []string{"-D", data}
	for k, v := range settings {
		args = append(args, "-c", k+"="+v)
	}
	cmd := exec.Command(filepath.Join(bin.dir, "postgres"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = "/", log, log, attributes(acct)
	if err := startBound(cmd, func(err error) {
		p.err = err
		close(p.exited)
	}); err != nil {
		return 0, err
	}
	p.pid = cmd.Process.Pid
	return port, nil
}

// ready waits until the server answers, and makes the database.
func (p *Postgres) ready(ctx context.Context, dsn, log string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			var there bool
			if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'cryptoviz')").Scan(&there); err != nil {
				return err
			}
			if !there {
				_, err = conn.Exec(ctx, "CREATE DATABASE cryptoviz")
			}
			return err
		}
		select {
		case <-p.exited:
			text, _ := os.ReadFile(log)
			return fmt.Errorf("the server stopped: %w: %s", p.err, bytes.TrimSpace(tail(text)))
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w (its log: %s)", err, log)
		case <-tick.C:
		}
	}
}

// URL reaches the database cryptoviz. It holds the password.
func (p *Postgres) URL() string { return p.url }

// Done is closed when the server ends by itself.
func (p *Postgres) Done() <-chan struct{} { return p.exited }

// Stop ends the server: fast, then at once.
func (p *Postgres) Stop(ctx context.Context) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, 10 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := syscall.Kill(p.pid, step.signal); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		deadline := time.NewTimer(step.wait)
		tick := time.NewTicker(20 * time.Millisecond)
		gone := false
		for waiting := true; waiting && !gone; {
			select {
			case <-p.exited:
				gone = true
			case <-deadline.C:
				waiting = false
			case <-ctx.Done():
				waiting = false
			case <-tick.C:
				gone = errors.Is(syscall.Kill(p.pid, 0), syscall.ESRCH)
			}
		}
		deadline.Stop()
		tick.Stop()
		if gone {
			return nil
		}
	}
	return fmt.Errorf("stop the private PostgreSQL: process %d does not end", p.pid)
}
