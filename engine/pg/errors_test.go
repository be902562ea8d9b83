package pg_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// states reads the table: a SQLSTATE, its condition name, its class, and who is at fault when one row brings it (store).
func states(t *testing.T) (out [][]string) {
	t.Helper()
	f, err := os.Open("testdata/sqlstates.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line := lines.Text(); line != "" && line[0] != '#' {
			out = append(out, strings.Split(line, "\t"))
		}
	}
	return out
}

func TestClassOfEachSQLSTATE(t *testing.T) {
	for _, s := range states(t) {
		err := fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: s[0]})
		if got := pg.ClassOf(err).String(); got != s[2] {
			t.Errorf("%s %s: %s, want %s", s[0], s[1], got, s[2])
		}
	}
}

// TestEachSQLSTATEIsListed: an error that a later PostgreSQL adds asks for an answer here.
func TestEachSQLSTATEIsListed(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "pg_config", "--sharedir").Output()
	if err != nil {
		t.Skip("no pg_config: the list of the installed PostgreSQL cannot be read")
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "errcodes.txt"))
	if err != nil {
		t.Skip("the installed PostgreSQL has no errcodes.txt")
	}
	known := map[string]bool{}
	for _, s := range states(t) {
		known[s[0]] = true
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "E" && !known[f[0]] {
			t.Errorf("%s %s is not in testdata/sqlstates.txt", f[0], f[len(f)-1])
		}
	}
}

func TestClassOfOtherErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want pg.Class
	}{
		{nil, pg.None},
		{errors.New("x"), pg.None},
		{&pgconn.PgError{Code: "CV001"}, pg.Raised},
		{&pgconn.PgError{Code: "45000"}, pg.Raised},
		{&pgconn.PgError{Code: "53100", Routine: "exec_stmt_raise"}, pg.Raised},
		{&pgconn.PgError{Code: "42501", Routine: "ExecWithCheckOptions"}, pg.BadData},
		{&pgconn.PgError{Code: "42501", Routine: "aclcheck_error"}, pg.NoPrivilege},
		{&pgconn.PgError{Code: "TS502"}, pg.Other},
	} {
		if got := pg.ClassOf(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
	if !pg.Is(&pgconn.PgError{Code: "55P03"}, pg.Conflict, pg.LockBusy) || pg.Is(nil, pg.LockBusy) {
		t.Error("Is")
	}
}
