package cli

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func cryptoviz(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Main(context.Background(), args, IO{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) (string, bool) { return "", false }, Version: "0.1.0",
	})
	return code, out.String(), errs.String()
}

// Every code is explained on a page of 80 columns, with what can be done; the list has each once.
func TestExplainAllCodes(t *testing.T) {
	code, list, stderr := cryptoviz("explain")
	if code != 0 || stderr != "" {
		t.Fatal(code, stderr)
	}
	wide(t, "the list", list)
	if n := strings.Count(list, "\nCV-") + 1; n != len(provision.Codes()) {
		t.Errorf("%d lines for %d codes", n, len(provision.Codes()))
	}
	for _, c := range provision.Codes() {
		if n := strings.Count(list, c.ID+"  "); n != 1 {
			t.Errorf("%s is listed %d times", c.ID, n)
		}
		code, text, stderr := cryptoviz("explain", c.ID)
		if code != 0 || stderr != "" {
			t.Errorf("%s: %d, %s", c.ID, code, stderr)
		}
		wide(t, c.ID, text)
		for _, want := range append([]string{c.Title, string(c.Class)}, c.Choices...) {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(want), " ")) {
				t.Errorf("%s: the page lacks %q:\n%s", c.ID, want, text)
			}
		}
		if agree := strings.Contains(text, "--allow "+c.ID+"@"); agree != (c.Class == plan.Destroys) {
			t.Errorf("%s is %s; the page tells how to agree: %v", c.ID, c.Class, agree)
		}
	}
}

func wide(t *testing.T, what, text string) {
	t.Helper()
	for line := range strings.SplitSeq(text, "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%s: %d columns: %s", what, n, line)
		}
	}
}

// What plan, apply, show and destroy print in the scripts fits on 80 columns.
func TestPlanTextsFit(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if text := string(f.Data); strings.HasSuffix(f.Name, ".txt") && !strings.HasPrefix(text, "Error: ") && !strings.HasPrefix(text, "Note: ") && f.Name != "blocks.txt" {
				wide(t, name+": "+f.Name, text)
			}
		}
	}
}

// Every command says what it does, with an example of each use.
func TestHelpTeaches(t *testing.T) {
	e := &env{}
	for _, c := range e.root().Commands() {
		if c.GroupID == "" { // those that cobra adds
			continue
		}
		if c.Long == "" || c.Example == "" {
			t.Errorf("%s: no text, or no example", c.Name())
		}
		for line := range strings.SplitSeq(c.Long+"\n"+c.Example, "\n") {
			if utf8.RuneCountInString(line) > 120 {
				t.Errorf("%s: a line of more than 120 columns: %s", c.Name(), line)
			}
		}
		code, help, _ := cryptoviz(c.Name(), "--help")
		if code != 0 || !strings.Contains(help, c.Example) {
			t.Errorf("%s --help: %d, %s", c.Name(), code, help)
		}
	}
}

// TestArchitectureNamesEveryPackage: the table of ARCHITECTURE.md has a row for each package, and for no other.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:engine|provision)[a-z/]*)` \\|").FindAllSubmatch(text, -1) {
		named[string(m[1])] = true
	}
	found := 0
	for _, half := range []string{"engine", "provision"} {
		err := filepath.WalkDir("../../"+half, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			if files, err := filepath.Glob(filepath.Join(path, "*.go")); err != nil || len(files) == 0 {
				return err
			}
			found++
			if name := filepath.ToSlash(path[len("../../"):]); !named[name] {
				t.Errorf("%s has no row", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found != len(named) {
		t.Errorf("%d rows for %d packages", len(named), found)
	}
}
