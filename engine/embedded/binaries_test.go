package embedded

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fakeInstallation makes a bin folder that answers as PostgreSQL does.
func fakeInstallation(t *testing.T, root string, major int, timescale bool) string {
	t.Helper()
	share := filepath.Join(root, strconv.Itoa(major), "share")
	bin := filepath.Join(root, strconv.Itoa(major), "bin")
	for _, d := range []string{bin, filepath.Join(share, "extension")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		filepath.Join(bin, "postgres"):  fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %d.4 (Test)'\n", major),
		filepath.Join(bin, "pg_config"): fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --sharedir ] && echo '%s'\n", share),
		filepath.Join(bin, "initdb"):    "#!/bin/sh\nexit 1\n",
	}
	if timescale {
		files[filepath.Join(share, "extension", "timescaledb.control")] = ""
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	return bin
}

func TestChoose(t *testing.T) {
	root := stateDir(t)
	for major, timescale := range map[int]bool{13: true, 14: false, 15: true, 16: true, 17: false} {
		fakeInstallation(t, root, major, timescale)
	}
	empty := stateDir(t)
	elsewhere := fakeInstallation(t, stateDir(t), 16, false)
	all, plain := []string{root + "/*/bin"}, []string{root + "/14/bin", root + "/17/bin"}
	t.Setenv("PATH", "/nothing")
	_, refuses := mirror(t, nil, http.NotFound)
	for name, c := range map[string]struct {
		opt   PostgresOptions
		major int
		want  string // a folder, or part of the error
	}{
		"with TimescaleDB, the newest":   {PostgresOptions{folders: all}, 0, root + "/16/bin"},
		"the newest":                     {PostgresOptions{folders: plain}, 0, root + "/17/bin"},
		"that of the data directory":     {PostgresOptions{folders: all}, 14, root + "/14/bin"},
		"the explicit one":               {PostgresOptions{folders: all, Binaries: elsewhere}, 0, elsewhere},
		"the explicit one, of the data":  {PostgresOptions{folders: all, Binaries: elsewhere}, 16, elsewhere},
		"the explicit one, of another":   {PostgresOptions{folders: all, Binaries: elsewhere}, 15, "was made by PostgreSQL 15, and " + elsewhere + " holds 16"},
		"an explicit one that is none":   {PostgresOptions{folders: all, Binaries: empty}, 0, empty + " holds no PostgreSQL 14 or newer"},
		"an explicit one that is old":    {PostgresOptions{Binaries: root + "/13/bin"}, 0, "holds no PostgreSQL 14 or newer"},
		"data of one that is not here":   {PostgresOptions{folders: all}, 12, "was made by PostgreSQL 12, which is not installed here"},
		"data of one that is too old":    {PostgresOptions{folders: all}, 13, "was made by PostgreSQL 13, which is not installed here"},
		"none, and no download":          {PostgresOptions{folders: []string{empty}, Mirror: refuses, Cache: empty}, 0, "PostgreSQL is not installed here, and version 18.3.0 could not be fetched: read " + refuses},
		"data of 18, and no download":    {PostgresOptions{folders: all, Mirror: refuses, Cache: empty}, 18, "could not be fetched"},
		"the remedies without a network": {PostgresOptions{folders: []string{empty}, Mirror: refuses, Cache: empty}, 0, "Install postgresql 14 or newer, name its programs with --postgres-bin DIR or a mirror of Maven Central in CRYPTOVIZ_POSTGRES_MIRROR, or run `cryptoviz run` against a database of yours"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := choose(t.Context(), c.opt, nil, c.major)
			if err != nil {
				b.dir = err.Error()
			}
			if b.dir != c.want && (err == nil || !strings.Contains(b.dir, c.want)) {
				t.Errorf("got %s, want %s", b.dir, c.want)
			}
		})
	}
	t.Run("one on PATH", func(t *testing.T) {
		t.Setenv("PATH", elsewhere)
		if b, err := choose(t.Context(), PostgresOptions{folders: []string{empty}}, nil, 0); err != nil || b.dir != elsewhere {
			t.Errorf("got %s, %v", b.dir, err)
		}
	})
}

func TestChooseWhatTheAccountCanReach(t *testing.T) {
	root := stateDir(t)
	closed := filepath.Join(root, "closed")
	inside := fakeInstallation(t, closed, 17, true)
	reachable := fakeInstallation(t, filepath.Join(root, "open"), 15, false)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nothing")
	link := filepath.Join(root, "link")
	if err := os.Symlink(filepath.Dir(inside), link); err != nil {
		t.Fatal(err)
	}
	acct := &account{1, 1}
	opt := PostgresOptions{folders: []string{root + "/*/*/bin", link + "/bin"}}
	if b, err := choose(t.Context(), opt, acct, 0); err != nil || b.dir != reachable {
		t.Errorf("got %s, %v", b.dir, err)
	}
	for _, dir := range []string{inside, link + "/bin"} {
		_, err := choose(t.Context(), PostgresOptions{Binaries: dir}, acct, 0)
		if err == nil || !strings.Contains(err.Error(), "other accounts cannot reach") {
			t.Errorf("%s: %v", dir, err)
		}
		if _, err := choose(t.Context(), PostgresOptions{Binaries: dir}, nil, 0); err != nil {
			t.Errorf("%s for ourselves: %v", dir, err)
		}
	}
}

func TestMadeBy(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		major int
		want  string
	}{
		"none":            {nil, 0, ""},
		"good":            {map[string]string{"PG_VERSION": "15\n"}, 15, ""},
		"removed":         {map[string]string{"postgresql.conf": ""}, 0, "it holds files and no PG_VERSION"},
		"empty":           {map[string]string{"PG_VERSION": ""}, 0, `PG_VERSION is damaged: it holds ""`},
		"zeros":           {map[string]string{"PG_VERSION": "\x00\x00\x00"}, 0, `it holds "\x00\x00\x00"`},
		"of old times":    {map[string]string{"PG_VERSION": "9.6\n"}, 0, `it holds "9.6\n"`},
		"negative":        {map[string]string{"PG_VERSION": "-1"}, 0, "is damaged"},
		"zero":            {map[string]string{"PG_VERSION": "0"}, 0, "is damaged"},
		"a long new text": {map[string]string{"PG_VERSION": strings.Repeat("x", 1<<20)}, 0, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(data, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			major, err := madeBy(data)
			if major != c.major || (err == nil) != (c.want == "") || !strings.Contains(fmt.Sprint(err), c.want) || len(fmt.Sprint(err)) > 400 {
				t.Errorf("got %d, %v", major, err)
			}
			for file, text := range c.files {
				if is, err := os.ReadFile(filepath.Join(data, file)); err != nil || string(is) != text {
					t.Errorf("%s was changed", file)
				}
			}
		})
	}
	if major, err := madeBy(filepath.Join(t.TempDir(), "absent")); major != 0 || err != nil {
		t.Errorf("an absent directory: %d, %v", major, err)
	}
}
