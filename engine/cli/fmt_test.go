package cli

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

func runMain(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	bundle, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = Main(t.Context(), args, IO{
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(string) (string, bool) { return "", false }, Bundle: bundle, Version: "0.1.0",
	})
	return out.String(), errs.String(), code
}

// untidy makes a file that is right look as bad as it may.
func untidy(src []byte) []byte {
	src = bytes.ReplaceAll(src, []byte(" = "), []byte("  =\t"))
	src = bytes.ReplaceAll(src, []byte("\n  "), []byte("\n\t    "))
	return bytes.ReplaceAll(src, []byte(", "), []byte("  ,"))
}

// Formatting twice is formatting once, loses no token, and the files of the repository are formatted already.
func TestFmtIsStable(t *testing.T) {
	files := map[string][]byte{
		"CRLF": []byte("a   =  1\r\nb {\r\nc= [ 1,\r\n2 ]\r\n}\r\n"), "heredoc": []byte("a= <<EOT\n   kept   as it is\nEOT\nbb   = <<-EOT\n  x\n  EOT\n"), "no newline": []byte("a   = 1"),
		"comments": []byte("#a\n   # b\na=1#c\n/* d\n   e */\nb   {//f\n}\n"), "empty": {}, "BOM": []byte("\ufeffa   = 1\n"), "wide": []byte("a   = \"日本\" # 🟢\nbbb = 1 # x\n"),
		"template": []byte("a=\"%{ if b  }${  c }%{endif}\"\n"), "operators": []byte("a=-1+ - 2*(3)\nb = !c&&d||e?f:g\nx={for a in b:a=>a...}\n"), "objects": []byte("a={b=1,c:2\n\"d\"=3}\n"),
	}
	for _, pattern := range []string{"../../*.hcl", "../../sources/*.hcl", "../load/testdata/base/*.hcl", "../load/testdata/base/sources/*.hcl"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, name := range names {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if out := hclwrite.Format(src); !bytes.Equal(out, src) && strings.HasPrefix(name, "../../") {
				t.Errorf("%s is not in the canonical form", name)
			}
			files[name], files[name+" untidy"] = src, untidy(src)
		}
	}
	for name, src := range files {
		once, errs, code := runMain(t, string(src), "fmt", "-")
		if code != 0 {
			t.Errorf("%s: %s", name, errs)
			continue
		}
		if twice, _, _ := runMain(t, once, "fmt", "-"); twice != once {
			t.Errorf("%s: the second time gives\n%s\nafter\n%s", name, twice, once)
		}
		if before, after := words(t, src), words(t, []byte(once)); before != after {
			t.Errorf("%s: the words change from\n%s\nto\n%s", name, before, after)
		}
		if out, _, code := runMain(t, once, "fmt", "--check", "-"); code != 0 || out != "" {
			t.Errorf("%s: --check says %d, %q after fmt", name, code, out)
		}
	}
}

// words are the tokens of a file, comments too, without the space between them.
func words(t *testing.T, src []byte) string {
	t.Helper()
	tokens, diags := hclsyntax.LexConfig(src, "x.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out strings.Builder
	for _, token := range tokens {
		out.WriteString(strings.TrimSpace(string(token.Bytes)) + "\n")
	}
	return out.String()
}

func TestFmtLeavesFilesAlone(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]string{"tidy.hcl": "a = 1\n", "broken.hcl": "a = [\n", "binary.hcl": "a = \x00", "large.hcl": "a  =  1 #" + strings.Repeat("x", 1<<20)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		_, errs, code := runMain(t, "", "fmt", path)
		after, err := os.Stat(path)
		if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s was written: %v", name, err)
		}
		if (code == 0) != (name == "tidy.hcl") || (errs == "") != (code == 0) {
			t.Errorf("%s: %d, %s", name, code, errs)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// The file is replaced in one step; its permissions stay whatever the umask is, and nothing is left behind.
func TestFmtReplaces(t *testing.T) {
	for _, perm := range []fs.FileMode{0o600, 0o640, 0o644, 0o666, 0o755} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.hcl")
		if err := os.WriteFile(path, []byte("a   = 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, perm); err != nil {
			t.Fatal(err)
		}
		// A file that looks like a leftover belongs to the user.
		if err := os.WriteFile(path+".new", []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs, code := runMain(t, "", "fmt", path); code != 0 {
			t.Fatal(errs)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != perm {
			t.Errorf("%o became %o, %v", perm, info.Mode().Perm(), err)
		}
		if mine, err := os.ReadFile(path + ".new"); err != nil || string(mine) != "mine" {
			t.Errorf("another file was changed: %q %v", mine, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("left behind: %v %v", entries, err)
		}
	}
}
