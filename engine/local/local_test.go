package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cryptoviz-test-*") //nolint:usetesting // t.TempDir is closed to the account that runs the server
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
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

func postgres(t *testing.T, s *State) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), s, PostgresOptions{Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		if os.Getenv("CI") == "" && strings.Contains(err.Error(), "could not be fetched") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	return p
}

func TestPostgresKeepsDataAndAdopts(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	p := postgres(t, s)
	execute(t, p.URL(), "CREATE TABLE kept AS SELECT 1 AS a")

	// As after a kill of ours without a parent-death signal: the server runs on, and the next start adopts it.
	again := postgres(t, s)
	if again.pid != p.pid {
		t.Fatalf("a second start made process %d beside %d", again.pid, p.pid)
	}
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	third := postgres(t, s) // a stale postmaster.pid and a recovery
	execute(t, third.URL(), "INSERT INTO kept SELECT a + 1 FROM kept")
	if err := third.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	fourth := postgres(t, s)
	defer func() { _ = fourth.Stop(context.WithoutCancel(t.Context())) }()
	execute(t, fourth.URL(), "SELECT 1 / (count(*) - 1) FROM kept") // two rows
	if s.Data.PostgresPort == 0 || !strings.Contains(fourth.URL(), "127.0.0.1") {
		t.Errorf("port %d, url %s", s.Data.PostgresPort, fourth.URL())
	}
}

func TestPostgresOfAnotherMajorIsLeftAlone(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	data := filepath.Join(dir, "postgres", "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), s, PostgresOptions{})
	if err == nil || !strings.Contains(err.Error(), "made by PostgreSQL 9") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err != nil {
		t.Fatal("the data directory was touched")
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

func TestKafkaKeepsRecords(t *testing.T) {
	s := open(t, stateDir(t))
	for round := range 2 {
		k, err := StartKafka(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers()...), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("a"))
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, "a"); err != nil {
				t.Fatal(err)
			}
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: []byte("kept")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			cancel()
		} else {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			got := client.PollFetches(ctx).Records()
			cancel()
			if len(got) != 1 || string(got[0].Value) != "kept" {
				t.Fatalf("after a restart: %v", got)
			}
		}
		client.Close()
		k.Stop()
	}
}
