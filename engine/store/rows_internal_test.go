package store

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestWhoIsAtFault: each SQLSTATE has an answer.
func TestWhoIsAtFault(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../pg/testdata/sqlstates.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, n := []string{table: "table", oneRow: "row", either: "either"}, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		s := strings.Split(lines.Text(), "\t")
		if len(s) != 4 {
			continue
		}
		n++
		if got := names[blames(&pgconn.PgError{Code: s[0]})]; got != s[3] {
			t.Errorf("%s %s: %s, want %s", s[0], s[1], got, s[3])
		}
	}
	if n < 250 {
		t.Errorf("only %d SQLSTATEs", n)
	}
}
