package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpWithAStrangersPipeline: neither the file nor a query reaches beyond the data, and roles are made all the same.
func TestUpWithAStrangersPipeline(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	folder, dir, spoil := t.TempDir(), stateFolder(t), filepath.Join(t.TempDir(), "spoil")
	files, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(folder, files); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(spoil), 0o777); err != nil { //nolint:gosec // the server's account would have to write
		t.Fatal(err)
	}
	pipeline := filepath.Join(folder, "pipeline.hcl")
	text, err := os.ReadFile(pipeline)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(pipeline, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := []string{"--file", pipeline, "--state", dir}
	write(string(text) + `
role "grafana" {
  password  = env("GRAFANA_PASSWORD", "")
  read_only = true
  grant {
    privileges = ["select"]
    on         = [table.raw_crypto_data, cryptoviz]
  }
}
`)
	up := startUp(t, append(at, "--simulate")...)
	eventually(t, up, "a first row", func() bool { return strings.Contains(up.stderr.String(), "first row stored") })
	if !strings.Contains(up.stderr.String(), "role.grafana created") {
		t.Errorf("no role:\n%s", up.stderr)
	}
	if out, errs, code := command(t.Context(), append(at, "plan")...); code != 0 || !strings.Contains(out, "No changes") {
		t.Errorf("a plan after up: %d\n%s%s", code, out, errs)
	}
	for name, sql := range map[string]string{
		"a file":     "SELECT lo_export(1, '" + spoil + "')",
		"a program":  "COPY (SELECT 1) TO PROGRAM 'touch " + spoil + "'",
		"a signal":   "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'cryptoviz'",
		"a slot":     "SELECT pg_create_physical_replication_slot('held', true)",
		"a password": "SELECT rolpassword FROM pg_authid",
		"a lock":     "SELECT pg_advisory_lock(1)",
		"a row":      "WITH x AS (DELETE FROM raw_crypto_data RETURNING 1) SELECT * FROM x",
	} {
		if out, errs, code := command(t.Context(), append(at, "query", sql)...); code != 1 || !strings.Contains(errs, "permission denied") && !strings.Contains(errs, "must be superuser") && !strings.Contains(errs, "nothing else") && !strings.Contains(errs, "only reads") {
			t.Errorf("%s: %d, %s%s", name, code, out, errs)
		}
	}
	up.end(t)

	column := `column "time"`
	if !strings.Contains(string(text), column) {
		t.Fatal("the pipeline has no column to begin with")
	}
	write(strings.Replace(string(text), column, `column "spoil" {
    type    = "integer"
    default = "lo_export(1, '`+spoil+`')"
  }
  `+column, 1))
	up = startUp(t, append(at, "--simulate", "--fresh", "--yes")...)
	eventually(t, up, "a refusal", func() bool { return strings.Contains(up.stderr.String(), "permission denied for function lo_export") })
	if _, err := os.Stat(spoil); err == nil {
		t.Error("a file was written")
	}
}
