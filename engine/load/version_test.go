package load

import (
	"strings"
	"testing"
)

func TestRequiredVersion(t *testing.T) {
	for _, c := range []struct {
		want, have string
		ok         bool
	}{
		{">= 0.1", "0.1.0", true},
		{">= 0.1", "0.1.0-dev", true},
		{">= 0.1", "v0.2.0", true},
		{">= 0.1", "1.0.0", true},
		{">=0.1", "0.1", true},
		{">= 0.1.2", "0.1.2", true},
		{">= 0.1.2", "0.1.10", true},
		{">= 0.1", "", true},
		{">= 0.1", "(devel)", true},
		{">= 0.1", "0.0.0-20261124202241-ff3df1d89bcf+dirty", true}, // what go build makes of a commit without a tag
		{">= 0.1", "0.0.9", false},
		{">= 0.2", "0.1.9", false},
		{">= 1.0", "0.9.9", false},
		{">= 0.1.3", "0.1.2", false},
		{">= 0.10", "0.9.0", false},
		{">= 99999999999999999999.0", "0.1.0", false},
		{"0.1", "0.1.0", false},
		{"= 0.1", "0.1.0", false},
		{">= 0.1, < 2", "0.1.0", false},
		{">= latest", "0.1.0", false},
	} {
		_, d := Load(swap(t, "pipeline.hcl", `">= 0.1"`, `"`+c.want+`"`), "pipeline.hcl", Options{Version: c.have})
		if d.HasErrors() == c.ok || d.Errors() > 1 {
			t.Errorf("%s with %s: %s", c.want, c.have, report(d))
		}
	}
}

// What a newer cryptoviz reads may be full of mistakes to this one: only the version is told.
func TestOldProgramSaysOnlyThat(t *testing.T) {
	files := swap(t, "pipeline.hcl", `">= 0.1"`, `">= 7.0"`)
	files["pipeline.hcl"].Data = append(files["pipeline.hcl"].Data, "wonder \"x\" {\n  y = z(1)\n}\n"...)
	_, d := Load(files, "pipeline.hcl", Options{Version: "0.1.0"})
	if text := report(d); d.Errors() != 1 || !strings.Contains(text, "needs >= 7.0") {
		t.Error(text)
	}
}
