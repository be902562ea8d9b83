package load

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestColorIsOnlyOurs(t *testing.T) {
	_, d := Load(value(t, "[x\x1b[2J]"), "pipeline.hcl", Options{})
	var out bytes.Buffer
	if err := d.Write(&out, true, 80); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "[2J") && strings.Contains(text, "\x1b[2J") || !strings.Contains(text, "\x1b[31mError:\x1b[0m") {
		t.Errorf("%q", text)
	}
}

func TestDiagnosticsJSON(t *testing.T) {
	_, d := Load(swap(t, "pipeline.hcl", `retention  = "7d"`, "retention  = \"7 days <b>\u202e\""), "pipeline.hcl", Options{Vars: map[string]string{"nothing": "x"}})
	var out bytes.Buffer
	if err := d.JSON(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Valid       bool
		Errors      int
		Diagnostics []struct {
			Severity, Summary, Detail, File string
			Line, Column                    int
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Valid || got.Errors != 2 || len(got.Diagnostics) != 2 || got.Diagnostics[0].File != "" || got.Diagnostics[1].File != "pipeline.hcl" || got.Diagnostics[1].Line != 27 || got.Diagnostics[1].Column != 16 {
		t.Errorf("%+v", got)
	}
	if strings.Contains(out.String(), "\u202e") || !strings.Contains(out.String(), "<b>") {
		t.Errorf("%s", out.String())
	}
}
