package cli

import (
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func queryText(t *testing.T, sql, form string) string {
	t.Helper()
	dsn := testkit.Postgres(t)
	var out, errs buffer
	code := Main(t.Context(), []string{"--file", "../../pipeline.hcl", "--state", "", "query", "--format", form, sql}, World{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "0.1.0",
		Getenv: func(name string) (string, bool) { return dsn, name == "DATABASE_URL" },
	})
	if code != 0 {
		t.Fatalf("%s: %s", sql, errs.String())
	}
	return out.String()
}

func TestQueryMistakeIsShownWhereItIs(t *testing.T) {
	dsn := testkit.Postgres(t)
	var out, errs buffer
	code := Main(t.Context(), []string{"--file", "../../pipeline.hcl", "--state", "", "query", "SELECT nope FROM pg_class"}, World{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "0.1.0",
		Getenv: func(name string) (string, bool) { return dsn, name == "DATABASE_URL" },
	})
	want := "Error: run the query: column \"nope\" does not exist\n  SELECT nope FROM pg_class\n         ^\n"
	if code != 1 || errs.String() != want {
		t.Errorf("exit %d\n got %q\nwant %q", code, errs.String(), want)
	}
}
