package cli

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func queryText(t *testing.T, sql, form string) string {
	t.Helper()
	dsn := testkit.Postgres(t)
	var out, errs buffer
	code := Main(t.Context(), []string{"--file", "../../pipeline.hcl", "--state", "", "query", "--format", form, sql}, IO{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "0.1.0",
		Getenv: func(name string) (string, bool) { return dsn, name == "DATABASE_URL" },
	})
	if code != 0 {
		t.Fatalf("%s: %s", sql, errs.String())
	}
	return out.String()
}

// queryOn runs a query, and returns what it says besides the rows.
func queryOn(t *testing.T, dsn string, args ...string) (code int, errs string) {
	t.Helper()
	var said buffer
	code = Main(t.Context(), append([]string{"--file", "../../pipeline.hcl", "--state", "", "query"}, args...), IO{
		Stdin: strings.NewReader(""), Stdout: &buffer{}, Stderr: &said, Version: "0.1.0",
		Getenv: func(name string) (string, bool) { return dsn, name == "DATABASE_URL" },
	})
	return code, said.String()
}

func TestQueryRefuses(t *testing.T) {
	dsn := testkit.Postgres(t)
	const queries = "cryptoviz query runs SELECT, WITH, VALUES, TABLE, SHOW and EXPLAIN, and nothing else"
	file := filepath.Join(t.TempDir(), "written")
	for _, c := range []struct{ args, want string }{
		{"COPY (SELECT 1) TO PROGRAM 'cat > " + file + "'", queries},
		{"\n  COPY (SELECT 1) TO STDOUT", queries},
		{";COPY (SELECT 1) TO PROGRAM 'cat > " + file + "'", "syntax error"},
		{"/* SELECT */ COPY (SELECT 1) TO PROGRAM 'cat > " + file + "'", "syntax error"},
		{"EXPLAIN COPY (SELECT 1) TO PROGRAM 'cat > " + file + "'", "syntax error"},
		{"SELECT 1; COPY (SELECT 1) TO PROGRAM 'cat > " + file + "'", "cannot insert multiple commands"},
		{"DO $$ BEGIN END $$", queries},
		{"CREATE TABLE a (b int)", queries},
		{"SELECT set_config('transaction_read_only', 'off', true)", "must be set before any query"},
		{"--timeout=50ms SELECT pg_sleep(5)", "canceling statement due to statement timeout: it took longer than 50ms; give it more time with --timeout"},
		{"--timeout=-1s SELECT 1", "--timeout -1s is too short: at least 1ms, or 0 for no limit"},
		{"--timeout=10us SELECT 1", "--timeout 10µs is too short"},
		{"--format=json SELECT 1 AS a, 2 AS b, 3 AS a", `two columns are named "a"`},
	} {
		args := []string{c.args}
		if flag, sql, ok := strings.Cut(c.args, " "); ok && strings.HasPrefix(flag, "--") {
			args = []string{flag, sql}
		}
		if code, got := queryOn(t, dsn, args...); code != 1 || !strings.Contains(got, c.want) {
			t.Errorf("%q: exit %d, %q, want %q", c.args, code, got, c.want)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a program ran")
	}
	for _, sql := range []string{"VALUES (1)", "TABLE pg_class", "WITH a AS (SELECT 1) SELECT * FROM a", "(SELECT 1)", "show timezone", "EXPLAIN(ANALYZE) SELECT 1", "\n-- of a file\nSELECT 1;\n"} {
		if code, errs := queryOn(t, dsn, sql); code != 0 {
			t.Errorf("%q: %s", sql, errs)
		}
	}
}

// TestQueryTable: a cell is one line, and a long result is passed on with the widths of its first rows.
func TestQueryTable(t *testing.T) {
	want := "a        bb\nx\\ny\\tz  1\n         \n(2 rows)\n"
	if got := queryText(t, "SELECT * FROM (VALUES (E'x\\ny\\tz', 1), (NULL, NULL)) AS q (a, bb)", "table"); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	got := queryText(t, "SELECT i AS a, 'x' AS b FROM generate_series(1, 12000) AS i", "table")
	for _, line := range []string{"\n1     x\n", "\n1000  x\n", "\n1001  x\n", "\n12000  x\n(12000 rows)\n"} {
		if strings.Count(got, line) != 1 {
			t.Errorf("%q is there %d times", line, strings.Count(got, line))
		}
	}
	rows := &tableRows{w: bufio.NewWriter(io.Discard)}
	if err := rows.head(make([]pgconn.FieldDescription, 1)); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if err := rows.row(nil, [][]byte{[]byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if len(rows.kept) > 0 {
		t.Errorf("%d rows are kept", len(rows.kept))
	}
}

func TestQueryMistakeIsShownWhereItIs(t *testing.T) {
	dsn := testkit.Postgres(t)
	var out, errs buffer
	code := Main(t.Context(), []string{"--file", "../../pipeline.hcl", "--state", "", "query", "SELECT nope FROM pg_class"}, IO{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "0.1.0",
		Getenv: func(name string) (string, bool) { return dsn, name == "DATABASE_URL" },
	})
	want := "Error: run the query: column \"nope\" does not exist\n  SELECT nope FROM pg_class\n         ^\n"
	if code != 1 || errs.String() != want {
		t.Errorf("exit %d\n got %q\nwant %q", code, errs.String(), want)
	}
}
