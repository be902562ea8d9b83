// Package testkit starts the real services that tests need. It is imported by tests only.
//
// No test skips for want of a service when CRYPTOVIZ_TEST_REQUIRE is set: it fails then.
package testkit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/embedded"
)

// Postgres returns the URL of a fresh, empty database on a real PostgreSQL; it is dropped when the test ends. The
// server is the one in CRYPTOVIZ_TEST_POSTGRES (a superuser's URL, or a text such as "host=/tmp user=me"), or a private
// one that the test binary starts once, from the bin folder in CRYPTOVIZ_TEST_POSTGRES_BIN, an installed PostgreSQL or
// the published binaries. It ends with the test binary. The URL has a parameter, so that more can be added with &.
func Postgres(t testing.TB) string {
	t.Helper()
	admin, how := os.Getenv("CRYPTOVIZ_TEST_POSTGRES"), ""
	if admin == "" {
		s, err := shared()
		if err != nil {
			noPostgres(t, err)
		}
		admin = s.pg.URL()
		if s.major >= 15 { // without fsync, files are copied faster than their pages are logged
			how = " STRATEGY file_copy"
		}
	}
	name := "t_" + strings.ToLower(rand.Text()[:12])
	execute(t, admin, "CREATE DATABASE "+name+how)
	t.Cleanup(func() { execute(t, admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	out, err := databaseURL(admin, name)
	if err != nil {
		t.Fatalf("read CRYPTOVIZ_TEST_POSTGRES: %v", err)
	}
	return out
}

// databaseURL is the URL of another database of a server.
func databaseURL(admin, name string) (string, error) {
	cfg, err := pgx.ParseConfig(admin)
	if err != nil {
		return "", errors.New("it is neither a URL nor a list of settings") // pgx's text may have the password
	}
	u := &url.URL{Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password)}
	if strings.HasPrefix(admin, "postgres://") || strings.HasPrefix(admin, "postgresql://") {
		if u, err = url.Parse(admin); err != nil {
			return "", errors.New("it is not a URL")
		}
	} else {
		more := url.Values{"host": {cfg.Host}, "port": {strconv.Itoa(int(cfg.Port))}}
		if cfg.TLSConfig == nil {
			more.Set("sslmode", "disable")
		}
		u.RawQuery = more.Encode()
	}
	u.Path = "/" + name
	if u.RawQuery == "" {
		u.RawQuery = "connect_timeout=30"
	}
	return u.String(), nil
}

func noPostgres(t testing.TB, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "could not be fetched") {
		unavailable(t, "no PostgreSQL: "+err.Error()+"; or set CRYPTOVIZ_TEST_POSTGRES to a superuser's URL")
	}
	t.Fatal(err)
}

func execute(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect to the test PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", sql, err))
	}
}

// shared is the test binary's own server. Nothing in it needs to outlive a crash, so it does not sync.
var shared = sync.OnceValues(func() (*PostgresServer, error) {
	return startPostgres(map[string]string{"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"})
})

// PostgresServer is a private server that a test may kill.
type PostgresServer struct {
	dir      string
	settings map[string]string
	state    *embedded.State
	pg       *embedded.Postgres
	major    int
	keeper   *keeper
}

// StartPostgres starts a server for one test, with more of postgresql.conf. It ends with the test.
func StartPostgres(t testing.TB, settings map[string]string) *PostgresServer {
	t.Helper()
	s, err := startPostgres(settings)
	if err != nil {
		noPostgres(t, err)
	}
	t.Cleanup(func() {
		_ = s.pg.Stop(context.Background())
		s.keeper.pid(0)
		s.keeper.close()
		_ = s.state.Close()
	})
	return s
}

func startPostgres(settings map[string]string) (*PostgresServer, error) {
	dir, err := os.MkdirTemp("", "cryptoviz-test-*")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the account that runs the server passes through
		return nil, err
	}
	// Plain PostgreSQL, also where TimescaleDB is installed: what a test sees must not depend on the machine.
	s := &PostgresServer{dir: dir, settings: map[string]string{
		"max_connections":          "200",
		"shared_preload_libraries": "",
	}}
	maps.Copy(s.settings, settings)
	if s.keeper, err = newKeeper("QUIT", dir); err != nil {
		return nil, err
	}
	ports, err := reservePorts(1)
	if err == nil {
		s.state, err = embedded.LockState(dir)
	}
	if err == nil {
		s.state.Data.PostgresPort = ports[0]
		err = s.start()
	}
	if err != nil {
		s.keeper.close()
		return nil, err
	}
	return s, nil
}

func (s *PostgresServer) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var err error
	if s.pg, err = embedded.StartPostgres(ctx, s.state, embedded.PostgresOptions{
		Settings: s.settings,
		Binaries: os.Getenv("CRYPTOVIZ_TEST_POSTGRES_BIN"),
	}); err != nil {
		return err
	}
	if s.major, err = promote(ctx, s.pg.SuperuserURL()); err != nil {
		return err
	}
	if !strings.HasPrefix(s.state.Data.PostgresDir, s.dir) { // the temporary folder is closed to the server's account
		_, _ = fmt.Fprintf(s.keeper.in, "dir %s\n", s.state.Data.PostgresDir)
	}
	pid, err := s.postmaster()
	s.keeper.pid(pid)
	return err
}

// promote makes the owner of a private server a superuser: tests make databases and roles. A standby has it of its
// primary.
func promote(ctx context.Context, superuser string) (major int, err error) {
	conn, err := pgx.Connect(ctx, superuser)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&major)
	if err != nil {
		return 0, err
	}
	_, err = conn.Exec(ctx,
		"DO $$ BEGIN IF NOT pg_is_in_recovery() THEN ALTER ROLE cryptoviz SUPERUSER; END IF; END $$")
	return major, err
}

// URL reaches the database cryptoviz as a superuser.
func (s *PostgresServer) URL() string { return s.pg.URL() }

func (s *PostgresServer) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.state.Data.PostgresDir, "data", "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("find the server's process: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(line)
}

// Kill ends the server as a crash does: SIGKILL of its first process. Restart it before anything else.
func (s *PostgresServer) Kill() error {
	pid, err := s.postmaster()
	if err != nil {
		return err
	}
	s.keeper.pid(0)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-s.pg.Done()
	return nil
}

// Restart starts the server again on the same data and port.
func (s *PostgresServer) Restart() error {
	if err := s.start(); err != nil {
		return fmt.Errorf("restart PostgreSQL: %w", err)
	}
	return nil
}
