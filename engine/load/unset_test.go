package load

import (
	"bytes"
	"testing"
	"testing/fstest"
)

// A secret that the file declares and that has no value is unset, for whatever reason, and says which variable or file is
// missing. Only a written null is null.
func TestUnsetSecret(t *testing.T) {
	t.Parallel()
	const notSet = "the environment variable RP is not set"
	for _, c := range []struct {
		expr         string
		env          string // of RP
		value, unset string
		null, fails  bool
	}{
		{expr: `env("RP")`, env: "x", value: "x"},
		{expr: `env("RP")`, unset: notSet},
		{expr: `env("RP", "")`, unset: notSet},
		{expr: `env("RP", null)`, fails: true},
		{expr: `trimspace(env("RP"))`, unset: notSet},
		{expr: `"${env("RP")}"`, unset: notSet},
		{expr: `"key-${env("RP", "")}"`, unset: notSet},
		{expr: `"key-${env("RP")}"`, env: "x", value: "key-x"},
		{expr: `try(env("RP"), env("OTHER"))`, value: "other"},
		{expr: `env("RP", env("OTHER"))`, value: "other"},
		{expr: `file("empty.txt")`, unset: `the file "empty.txt" is empty`},
		{expr: `trimspace(file("empty.txt"))`, unset: `the file "empty.txt" is empty`},
		{expr: `var.given`, unset: "variable given has no value (CRYPTOVIZ_VAR_given)"},
		{expr: `var.nothing`, unset: "variable nothing has no value (CRYPTOVIZ_VAR_nothing)"},
		{expr: `""`, unset: "its value is empty"},
		{expr: `null`, null: true},
		{expr: `true ? null : env("OTHER")`, unset: "its value is empty"},
		{expr: `"in the file"`, fails: true},
		{expr: `env("RP") + 1`, fails: true, env: "x"},
		{expr: `upper(env("RP"), nowhere)`, fails: true},
	} {
		files := base(t)
		files["pipeline.hcl"].Data = append(files["pipeline.hcl"].Data, "\nvariable \"given\" { default = \"\" }\nvariable \"nothing\" { default = null }\n"+
			"role \"reader\" {\n  password = "+c.expr+"\n}\n"...)
		files["empty.txt"] = &fstest.MapFile{Data: []byte("\n")}
		p, d := Load(files, "pipeline.hcl", Options{Version: "0.1.0", Env: func(name string) (string, bool) {
			switch name {
			case "RP":
				return c.env, c.env != ""
			case "OTHER":
				return "other", true
			}
			return "", false
		}})
		if d.HasErrors() != c.fails {
			t.Errorf("password = %s: %s", c.expr, report(d))
		}
		if d.HasErrors() {
			continue
		}
		s := p.Roles[len(p.Roles)-1].Password
		if s.Reveal() != c.value || s.Unset() != c.unset || s.Null() != c.null {
			t.Errorf("password = %s: value %q, unset %q, null %v; want %q, %q, %v", c.expr, s.Reveal(), s.Unset(), s.Null(), c.value, c.unset, c.null)
		}
	}
}

// What needs no database is read without its URL: that it has none is said by what connects.
func TestUnsetDatabaseURL(t *testing.T) {
	t.Parallel()
	files := base(t)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data,
		[]byte(`env("DATABASE_URL", "postgres://cryptoviz@localhost/cryptoviz")`), []byte(`env("DATABASE_URL")`), 1)
	p, d := Load(files, "pipeline.hcl", Options{Env: func(string) (string, bool) { return "", false }})
	if d.HasErrors() || p.Database.URL.Unset() != "the environment variable DATABASE_URL is not set" {
		t.Errorf("%q %s", p.Database.URL.Unset(), report(d))
	}
}
