package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Pgbouncer starts a pooler in front of a database and returns the URL through it. Its mode is session or transaction.
// It ends with the test. Where it is not installed, the test is skipped.
func Pgbouncer(t testing.TB, url, mode string) string {
	t.Helper()
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		unavailable(t, "no pgbouncer: it is not installed")
	}
	to, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := reservePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
ignore_startup_parameters = lock_timeout,idle_in_transaction_session_timeout
`, to.Host, to.Port, to.User, to.Password, ports[0], mode)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // read by another account
		t.Fatal(err)
	}
	args := []string{file}
	if os.Geteuid() == 0 {
		args = []string{"-u", "nobody", file} // it refuses to run as root
	}
	Start(t, exec.Command(bin, args...))
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", to.User, loopback(ports[0]), to.Database)
}
