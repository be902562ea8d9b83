package load

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// every is the base with every block and attribute that lives in PostgreSQL and Grafana besides tables.
func every(t testing.TB) fstest.MapFS {
	t.Helper()
	return withEvery(t, base(t))
}

func withEvery(t testing.TB, from fstest.MapFS) fstest.MapFS {
	t.Helper()
	files, more := maps.Clone(from), os.DirFS("testdata/every")
	for _, name := range []string{"more.hcl", "dashboards/market.json", "dashboards/own.json"} {
		src, err := fs.ReadFile(more, name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "more.hcl" {
			name, src = "pipeline.hcl", slices.Concat(files["pipeline.hcl"].Data, []byte("\n"), src)
		}
		files[name] = &fstest.MapFile{Data: src}
	}
	return files
}

func canaryEnv(name string) (string, bool) { return canary, name == "CANARY" }

// revealed is what JSON does not show of a pipeline, and what it leaves out.
func revealed(p *spec.Pipeline) []string {
	out := []string{p.Grafana.URL, p.Grafana.Auth.Reveal(), units.FormatDuration(p.Grafana.Timeout)}
	for _, r := range p.Roles {
		out = append(out, r.Password.Reveal())
	}
	for _, d := range p.DataSources {
		out = append(out, d.Password.Reveal())
	}
	for _, d := range p.Dashboards {
		out = append(out, string(d.JSON))
	}
	return out
}

var places = regexp.MustCompile(`(?s)\s*"Range": \{.*?\}\s*\},?|\s*"JSON": "[^"]*",`)

// Every attribute arrives where it belongs.
func TestEveryBlock(t *testing.T) {
	p, d := Load(every(t), "pipeline.hcl", Options{Env: canaryEnv, Version: "0.1.0"})
	if len(d.Diags) > 0 {
		t.Fatal(report(d))
	}
	a := p.Alerts
	if p.Aggregates[0].From != p.Tables[len(p.Tables)-1] || p.Folders[1].Parent != p.Folders[0] || p.Dashboards[0].Folder != p.Folders[0] || p.Dashboards[0].DataSource != p.DataSources[0] || a[0].Folder != p.Folders[1] || a[1].DataSource != p.DataSources[1] {
		t.Error("a reference leads elsewhere")
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	table := p.Tables[len(p.Tables)-1]
	a[0].Query = strings.SplitN(a[0].Query, "\n", 2)[0]
	p.Aggregates[0].From = &spec.Table{Name: table.Name}
	for _, part := range []any{table, p.Views, p.Aggregates, p.Roles, p.Folders, p.DataSources, p.Dashboards, p.Alerts, p.Removed, revealed(p)} {
		if err := enc.Encode(part); err != nil {
			t.Fatal(err)
		}
	}
	got := places.ReplaceAllString(out.String(), "")
	const golden = "testdata/every/want.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Blocks stand in any order: a folder before the one that it is in, too.
func TestFolderBeforeItsParent(t *testing.T) {
	files := every(t)
	text, top := string(files["pipeline.hcl"].Data), "folder \"ops\" { title = \"Ops\" }\n"
	files["pipeline.hcl"].Data = []byte(strings.Replace(text, top, "", 1) + top)
	p, d := Load(files, "pipeline.hcl", Options{Env: canaryEnv, Version: "0.1.0"})
	if len(d.Diags) > 0 {
		t.Fatal(report(d))
	}
	if f := p.Folders; len(f) != 2 || f[0].Name != "alerts" || f[0].Parent != f[1] || f[1].Parent != nil {
		t.Errorf("%+v", f)
	}
}

// What a data source leaves out comes from the URL of the database.
func TestDataSourceFromTheDatabaseURL(t *testing.T) {
	const lacks = "Data source without a database"
	for url, want := range map[string]string{
		"postgres://me@db/market":                                     "db:5432 market me disable",
		"postgres://me:" + canary + "@db:6000/market":                 "db:6000 market me disable",
		"postgresql://me@db:6000/market?sslmode=require":              "db:6000 market me require",
		"postgres://me@db/market?sslmode=prefer":                      "db:5432 market me disable",
		"postgres://me@db/market?sslmode=allow":                       "db:5432 market me disable",
		"postgres://me@db/market?sslmode=verify-ca":                   "db:5432 market me verify-ca",
		"postgres://me@db/market?sslmode=verify-full":                 "db:5432 market me verify-full",
		"postgres://me@db/x?sslrootcert=/none.pem&sslmode=verify-ca":  "db:5432 x me verify-ca",
		"postgres://me@db/x?sslmode=verify-full&sslrootcert=/none":    "db:5432 x me verify-full",
		"postgres://me@[::1]:6000/market":                             "[::1]:6000 market me disable",
		"postgres://me@[2001:db8::1]/market?sslmode=require":          "[2001:db8::1]:5432 market me require",
		"postgres://me@one:1,two:2/market?sslmode=require":            "one:1 market me require",
		"postgres://me@one,two/market":                                "one:5432 market me disable",
		"postgres://a%40b:p%2Fw@db/a%20b":                             "db:5432 a b a@b disable",
		"postgres:///market?host=/run/postgresql&user=me":             "/run/postgresql market me disable",
		"postgres://me@%2Frun%2Fpostgresql/market":                    "Not a PostgreSQL URL",
		"host=db port=6000 dbname=market user=me sslmode=disable":     "db:6000 market me disable",
		"host=db dbname='a b' user='it\\'s' password='x y'":           "db:5432 a b it's disable",
		"host=one,two port=1,2 dbname=x user=me sslmode=verify-full":  "one:1 x me verify-full",
		"host=/run/postgresql dbname=x user=me sslmode=require":       "/run/postgresql x me disable",
		"host=::1 dbname=x user=me":                                   "[::1]:5432 x me disable",
		"host=db dbname=x user=me sslmode=verify-ca sslrootcert='/n'": "db:5432 x me verify-ca",
		"host=db dbname=x user=me connect_timeout=never":              lacks,
		"postgres://me@db:port/x":                                     "Not a PostgreSQL URL",
		"":                                                            "   disable", // said when something connects
	} {
		files := base(t)
		files["pipeline.hcl"].Data = append(bytes.Replace(files["pipeline.hcl"].Data, []byte(`env("DATABASE_URL", "postgres://cryptoviz@localhost/cryptoviz")`), []byte(`env("DATABASE_URL")`), 1), "grafana { url = \"http://localhost:3000\" }\ndatasource \"db\" {}\n"...)
		p, d := Load(files, "pipeline.hcl", Options{Env: func(name string) (string, bool) { return url, name == "DATABASE_URL" }})
		got := report(d)
		if s := p.DataSources[0]; !d.HasErrors() {
			got = strings.Join([]string{s.Host, s.Database, s.User, s.SSLMode}, " ")
		}
		if got != want && (d.Errors() != 1 || !strings.Contains(got, want)) || strings.Contains(got, canary) {
			t.Errorf("%s: %s\nwant %s", url, got, want)
		}
	}
}
