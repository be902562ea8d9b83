package testkit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func query(t testing.TB, url, sql string) (out string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), sql).Scan(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPostgresGivesEachTestItsDatabase(t *testing.T) {
	a, b := testkit.Postgres(t), testkit.Postgres(t)
	if query(t, a, "SELECT current_database()") == query(t, b, "SELECT current_database()") {
		t.Error("one database for two callers")
	}
}

// TestPostgresIsPlain: what tests see does not depend on what else is installed.
func TestPostgresIsPlain(t *testing.T) {
	if got := query(t, testkit.Postgres(t), "SHOW shared_preload_libraries"); got != "" {
		t.Errorf("it loads %s", got)
	}
}

func TestPostgresKilledKeepsWhatItCommitted(t *testing.T) {
	s := testkit.StartPostgres(t, nil)
	for i := range 3 {
		query(t, s.URL(), "SELECT lo_create("+strconv.Itoa(100_000+i)+")::text")
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		if got := query(t, s.URL(), "SELECT count(*)::text FROM pg_largeobject_metadata"); got != strconv.Itoa(i+1) {
			t.Fatalf("%s objects after kill %d", got, i+1)
		}
	}
}

func TestKafkaKilledKeepsItsTopics(t *testing.T) {
	b := testkit.Kafka(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(t.Context(), 2, 1, nil, "a"); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "a", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.Kill()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	if n != 1 {
		t.Errorf("%d records after the restart", n)
	}
}

// TestNothingOutlivesAKill kills a test binary that runs the services, and looks for what it leaves.
func TestNothingOutlivesAKill(t *testing.T) {
	if os.Getenv("CRYPTOVIZ_TESTKIT_CHILD") != "" {
		s := testkit.StartPostgres(t, nil)
		_, _ = os.Stdout.WriteString("\nurl " + s.URL() + "\nfolder " + query(t, s.URL(), "SHOW data_directory") + "\n")
		if os.Getenv("CRYPTOVIZ_TEST_KAFKA_LIB") != "" {
			b := testkit.Kafka(t)
			_, _ = os.Stdout.WriteString("broker " + b.Addr() + "\n")
		}
		_, _ = os.Stdout.WriteString("ready\n")
		time.Sleep(testkit.Patience)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingOutlivesAKill$")
	cmd.Env = append(os.Environ(), "CRYPTOVIZ_TESTKIT_CHILD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var url, folder string
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
		switch what, value, _ := strings.Cut(lines.Text(), " "); what {
		case "url":
			url = value
		case "folder":
			folder = value
		case "---":
			t.Skip(lines.Text())
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(line)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	testkit.Eventually(t, func() error {
		if _, err := os.Stat(filepath.Dir(filepath.Dir(folder))); runs(pid) || !os.IsNotExist(err) {
			return fmt.Errorf("process %d runs: %v; its folder: %w", pid, runs(pid), err)
		}
		return nil
	})
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the server still answers")
	}
}

// runs tells whether a process lives; one that ended and waits to be collected does not.
func runs(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !os.IsNotExist(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func TestTimescaleMakesHypertables(t *testing.T) {
	url := testkit.Timescale(t)
	query(t, url, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "CREATE TABLE h (t timestamptz NOT NULL); SELECT create_hypertable('h', by_range('t', interval '1 day')); INSERT INTO h VALUES ('2026-03-04'), ('2026-03-05')"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, url, "SELECT num_chunks::text FROM timescaledb_information.hypertables"); got != "2" {
		t.Errorf("%s chunks", got)
	}
}
