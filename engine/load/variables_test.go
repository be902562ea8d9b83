package load

import (
	"fmt"
	"strings"
	"testing"
)

// --var, then --var-file (the last one), then CRYPTOVIZ_VAR_x, then the default.
func TestVariablePrecedence(t *testing.T) {
	env := func(name string) (string, bool) { return `["env"]`, name == "CRYPTOVIZ_VAR_pairs" }
	flag := map[string]string{"pairs": `["flag"]`}
	files := []VarFile{{"a.hcl", []byte(`pairs = ["first"]`)}, {"b.hcl", []byte(`pairs = ["last"]`)}}
	for want, opt := range map[string]Options{
		"BTC%2FUSD": {}, // the default
		"env":       {Env: env},
		"first":     {Env: env, VarFiles: files[:1]},
		"last":      {Env: env, VarFiles: files},
		"flag":      {Env: env, VarFiles: files, Vars: flag},
	} {
		p, d := Load(swap(t, "sources/spot.hcl", `join(",", param.pairs)`, `urlencode(join(",", param.pairs))`), "pipeline.hcl", opt)
		if len(d.Diags) > 0 {
			t.Fatal(report(d))
		}
		if got := p.Sources[0].Definition.Poll.Query["symbols"]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A variable whose default is null leaves out what is set to it, until it is given.
func TestNullVariable(t *testing.T) {
	optional := "variable \"keep\" {\n  type    = string\n  default = null\n}\n\nvariable \"pairs\" {"
	for _, c := range []struct{ line, given, want string }{
		{"retention = var.keep", "", ""},
		{"retention = var.keep", "2d", "172800000"},
		{`retention = var.keep == null ? null : "3d"`, "", ""},
		{`retention = var.keep == null ? null : "3d"`, "x", "259200000"},
		{`retention = coalesce(var.keep, "4d")`, "", "345600000"},
		{`config = { "retention.ms" = var.keep }`, "", ""},
		{`config = { "retention.ms" = var.keep }`, "60000", "60000"},
		{`retention = "${var.keep}d"`, "", "error"},
		{`partitions = var.keep`, "3", "error"},
	} {
		files := base(t)
		files["pipeline.hcl"].Data = []byte(strings.NewReplacer("variable \"pairs\" {", optional, "retention  = \"7d\"", c.line).Replace(string(files["pipeline.hcl"].Data)))
		opt := Options{Vars: map[string]string{}}
		if c.given != "" {
			opt.Vars["keep"] = c.given
		}
		p, d := Load(files, "pipeline.hcl", opt)
		got := "error"
		if !d.HasErrors() {
			got = p.Topics[0].Config["retention.ms"]
		}
		if got != c.want {
			t.Errorf("%s with %q: %q, want %q\n%s", c.line, c.given, got, c.want, report(d))
		}
	}
}

func TestVariableTypes(t *testing.T) {
	for _, c := range []struct{ ty, given, want string }{
		{"string", `BTC "USD"`, `BTC "USD"`}, // a text is taken as it is
		{"string", `["a"]`, `["a"]`},
		{"number", "12.50", "12.5"},
		{"bool", "true", "true"},
		{"list(string)", `["a", "b"]`, `["a","b"]`},
		{"list(number)", `[1, 2]`, `[1,2]`},
		{"set(string)", `["b", "a", "b"]`, `["a","b"]`},
		{"map(string)", `{ a = 1 }`, `{"a":"1"}`},
		{"object({ a = bool })", `{ a = true }`, `{"a":true}`},
		{"any", "plain", "plain"},
		{"number", "twelve", "error"},
		{"number", "env(\"HOME\")", "error"},
		{"number", "var.token", "error"},
		{"list(string)", "a, b", "error"},
		{"list(string)", "[", "error"},
		{"bool", "yes", "error"},
		{"object({ a = bool })", `{ b = true }`, "error"},
	} {
		piece := "param.region"
		if strings.ContainsAny(c.ty, "(") {
			piece = "jsonencode(param.region)"
		}
		files := swap(t, "pipeline.hcl", "variable \"pairs\" {", fmt.Sprintf("variable \"region\" {\n  type = %s\n}\n\nvariable \"pairs\" {", c.ty))
		files["pipeline.hcl"].Data = []byte(strings.Replace(string(files["pipeline.hcl"].Data), "params     = {", "params     = { region = var.region,", 1))
		files["sources/spot.hcl"].Data = []byte(strings.Replace(string(files["sources/spot.hcl"].Data), `join(",", param.pairs)`, piece, 1) + "param \"region\" {}\n")
		p, d := Load(files, "pipeline.hcl", Options{Vars: map[string]string{"region": c.given}})
		got := "error"
		if !d.HasErrors() {
			got = p.Sources[0].Definition.Poll.Query["symbols"]
		}
		if got != c.want {
			t.Errorf("%s from %s: %s, want %s\n%s", c.ty, c.given, got, c.want, report(d))
		}
	}
}
