package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkValidate is the whole command on the shipped pipeline: five sources, seven files.
func BenchmarkValidate(b *testing.B) {
	for b.Loop() {
		code := Main(b.Context(), []string{"validate", "--file", "../../pipeline.hcl"}, IO{
			Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Version: "0.1.0", Getenv: func(string) (string, bool) { return "", false },
		})
		if code != 0 {
			b.Fatal(code)
		}
	}
}

func TestValidateExitCode(t *testing.T) {
	dir := t.TempDir()
	wrong := filepath.Join(dir, "pipeline.hcl")
	if err := os.WriteFile(wrong, []byte("kafka {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
	}{
		{"validate --file ../../pipeline.hcl", 0},
		{"validate --json --file ../../pipeline.hcl", 0},
		{"validate --file " + wrong, 1},
		{"validate --json --file " + wrong, 1},
		{"validate --file " + dir, 1},
		{"validate --json --file " + dir + "/none.hcl", 1},
		{"validate --nonsense", 1},
		{"validate x", 1},
	} {
		stdout, stderr, code := runMain(t, "", strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: %d\n%s", c.args, code, stderr)
		}
		if strings.Contains(c.args, "--json") && (!json.Valid([]byte(stdout)) || stderr != "") {
			t.Errorf("%s prints %q and %q", c.args, stdout, stderr)
		}
		if code != 0 && !strings.Contains(c.args, "--json") && (stdout != "" || stderr == "") {
			t.Errorf("%s prints %q and %q", c.args, stdout, stderr)
		}
	}
}

// The commands that need a pipeline refuse a wrong one alike, before they touch anything.
func TestWrongPipelineIsRefused(t *testing.T) {
	dir := t.TempDir()
	wrong := filepath.Join(dir, "pipeline.hcl")
	if err := os.WriteFile(wrong, bytes.Repeat([]byte("["), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"validate", "plan", "apply", "run", "status", "rollup hourly --day 2026-01-01"} {
		_, stderr, code := runMain(t, "", append(strings.Fields(command), "--file", wrong, "--state", filepath.Join(dir, "state"))...)
		if code != 1 || !strings.Contains(stderr, "pipeline.hcl:1:65") {
			t.Errorf("%s: %d\n%.500s", command, code, stderr)
		}
	}
}
