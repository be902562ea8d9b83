package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// everything is all that may be printed of a pipeline and its diagnostics.
func everything(p *spec.Pipeline, d *diag.Diagnostics) string {
	var out bytes.Buffer
	_ = d.Write(&out, true, 80)
	_ = d.JSON(&out)
	fmt.Fprintf(&out, "%v %+v %#v %s", d, d, d, d.Diags)
	values := []any{p, *p, p.Kafka, &p.Kafka, p.Database, p.Database.URL, p.Kafka.SASLPassword}
	if g := p.Grafana; g != nil {
		values = append(values, g, *g, g.Auth)
	}
	for _, r := range p.Roles {
		values = append(values, r.Password)
	}
	for _, d := range p.DataSources {
		values = append(values, d.Password)
	}
	for _, s := range p.Sources {
		if def := s.Definition; def != nil {
			values = append(values, def, *def)
			if def.Poll != nil {
				values = append(values, def.Poll, *def.Poll)
			}
			if def.Stream != nil {
				values = append(values, def.Stream, *def.Stream)
			}
		}
	}
	asText, asJSON := slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range values {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			fmt.Fprint(&out, err)
		}
		asText.Info("x", "v", v)
		asJSON.Info("x", "v", v)
	}
	return out.String()
}

func seesCanary(text string) bool {
	low, hexed := strings.ToLower(text), fmt.Sprintf("%x", canary)
	return strings.Contains(low, canary) || strings.Contains(low, hexed)
}

// uses are ways to use a secret, right and wrong; # is the secret.
var uses = []string{
	`#`, `[#]`, `[[#]]`, `{ a = # }`, `{ (#) = # }`, `upper(#)`, `"x${#}"`, `"${#}"`, `-#`, `1 + #`, `!#`, `# ? 1 : 2`, `# == "x"`, `[for x in # : x]`, `{ for x in [#] : x => x... }`,
	`[#][1]`, `["a"][#]`, `{ a = 1 }[#]`, `#.x`, `#[0]`, `#[*]`, `tonumber(#)`, `tolist(#)`, `jsondecode(#)`, `jsonencode(#)`, `format("%d", #)`, `format(#, 1)`, `lookup({}, #, 1)`, `lookup({ a = 1 }, #, "x")`,
	`split(#, 1)`, `split(",", [#])`, `join(#, #)`, `substr(#, 0, 99)`, `substr(#, "x", 1)`, `slice([1], #, 1)`, `max(#)`, `abs(#)`, `replace(#, "c", "c")`, `urlencode(#)`, `contains(#, #)`, `merge(#, {})`,
	`keys(#)`, `try(#.x, #)`, `try(#.x)`, `can(#)`, `coalesce(null, #)`, `concat(#, [])`, `sort(#)`, `length(#)`, `trim(#, 1)`, `null`,
}

func attributes(t *testing.T, name string, src []byte) []*hclsyntax.Attribute {
	t.Helper()
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out []*hclsyntax.Attribute
	_ = hclsyntax.VisitAll(f.Body.(*hclsyntax.Body), func(n hclsyntax.Node) hcl.Diagnostics {
		if a, ok := n.(*hclsyntax.Attribute); ok {
			out = append(out, a)
		}
		return nil
	})
	return out
}

// A secret in any attribute of any block, used in any way, is in no text.
func TestSecretsStaySecret(t *testing.T) {
	files := base(t)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`["localhost:9092"]`), []byte(`["localhost:9092"]
  tls            = true
  sasl_mechanism = "plain"
  sasl_user      = "me"
  sasl_password  = env("CANARY")
  group_prefix   = "x."`), 1)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`retention  = "7d"`), []byte(`retention = "7d"
  replication     = 1
  retention_bytes = "1GiB"
  cleanup_policy  = "delete"
  compression     = "zstd"
  config          = { "min.insync.replicas" = "1" }`), 1)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`interval   = "1h"`), []byte(`interval = "1h"
  offset  = "1m"
  jitter  = "1s"
  enabled = true`), 1)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`keep_raw = "0d"`), []byte(`keep_raw = "0d"
  late = "merge"
  wait = "1m"`), 1)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`primary_key = ["time"]`), []byte(`primary_key = ["time"]
  description = "x"
  index {
    columns = ["value"]
    name    = "x"
    unique  = false
  }`), 1)
	tokened := []byte(`token = env("CANARY")`)
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`token = var.token`), tokened, 1)
	feed := bytes.Replace(files["pipeline.hcl"].Data, []byte("topic      = topic.feed"), []byte("topic = topic.feed\n  params = { token = env(\"CANARY\") }"), 1)
	files["pipeline.hcl"].Data = bytes.Replace(feed, []byte("topic      = topic.page"), []byte("topic = topic.page\n  params = { token = env(\"CANARY\") }"), 1)
	for _, name := range []string{"sources/feed.hcl", "sources/page.hcl"} {
		files[name].Data = append(files[name].Data, "param \"token\" {}\n"...)
	}
	files["sources/spot.hcl"].Data = bytes.Replace(files["sources/spot.hcl"].Data, []byte(`timeout = "10s"`), []byte(`timeout = "10s"
  retries       = 3
  max_body      = "1MiB"
  allow_private = ["10.0.0.5:80"]`), 1)
	files["sources/feed.hcl"].Data = bytes.Replace(files["sources/feed.hcl"].Data, []byte(`silence   = "15s"`), []byte(`silence = "15s"
  ping        = "x"
  ping_every  = "10s"
  max_message = "1MiB"`), 1)
	files["sources/page.hcl"].Data = bytes.Replace(files["sources/page.hcl"].Data, []byte(`field "value" { select = ".circle" }`), []byte(`field "value" {
    select = ".circle"
    attr   = "title"
  }`), 1)

	load := func(files fstest.MapFS) string {
		p, d := Load(files, "pipeline.hcl", Options{Env: func(name string) (string, bool) { return canary, name == "CANARY" || name == "CRYPTOVIZ_VAR_token" }, Version: "0.1.0"})
		return everything(p, d)
	}
	all := withEvery(t, files)
	if text := load(all); seesCanary(text) || strings.Contains(text, "Error:") {
		t.Fatalf("the start is wrong:\n%s", text)
	}
	share, least := 44, 300 // each use in so small a share of the attributes
	if full {
		share, least = 11, 1000
	}
	n := 0
	for name, secrets := range map[string][]string{
		"pipeline.hcl": {`env("CANARY")`, `var.token`}, "sources/spot.hcl": {"param.token"}, "sources/feed.hcl": {"param.token"}, "sources/page.hcl": {"param.token"},
	} {
		bundle := files
		if name == "pipeline.hcl" {
			bundle = all
		}
		src := bundle[name].Data
		for k, a := range attributes(t, name, src) {
			for i, use := range uses {
				if i >= 2 && (i+k)%share != 0 {
					continue
				}
				n++
				r := a.Expr.Range()
				expr := strings.ReplaceAll(use, "#", secrets[i%len(secrets)])
				changed := maps.Clone(bundle)
				changed[name] = &fstest.MapFile{Data: []byte(string(src[:r.Start.Byte]) + expr + string(src[r.End.Byte:]))}
				if text := load(changed); seesCanary(text) {
					at := strings.Index(strings.ToLower(text), canary)
					t.Errorf("%s line %d: %s = %s shows the secret: …%s…", name, r.Start.Line, a.Name, expr, text[max(0, at-200):max(0, at)+50])
				}
			}
		}
	}
	t.Logf("%d uses", n)
	if n < least {
		t.Errorf("only %d uses", n)
	}
}

// A sensitive variable stays secret, wherever its value comes from, also when the value is wrong.
func TestSensitiveVariables(t *testing.T) {
	for name, opt := range map[string]Options{
		"flag":  {Vars: map[string]string{"token": canary}},
		"file":  {VarFiles: []VarFile{{"vars.hcl", []byte(`token = "` + canary + `"`)}}},
		"env":   {Env: func(name string) (string, bool) { return canary, name == "CRYPTOVIZ_VAR_token" }},
		"value": {},
	} {
		for _, ty := range []string{"string", "number", "list(string)", "object({ a = string })", "wrong"} {
			for _, use := range []string{`var.token`, `"${var.token}ms"`, `tonumber(var.token)`} {
				files := swap(t, "pipeline.hcl", "type      = string\n  default   = \"\"", "type = "+ty+"\n  default = \"\"")
				if name == "value" {
					files = swap(t, "pipeline.hcl", "type      = string\n  default   = \"\"", "type = "+ty+"\n  default = \""+canary+"\"")
				}
				files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`interval   = "1h"`), []byte("interval = "+use), 1)
				p, d := Load(files, "pipeline.hcl", opt)
				if text := everything(p, d); seesCanary(text) || !d.HasErrors() {
					t.Errorf("%s, %s, %s: shows the secret\n%s", name, ty, use, report(d))
				}
			}
		}
	}
	// What comes from the environment is a secret, whether the file says so or not.
	files := swap(t, "pipeline.hcl", `interval   = "1h"`, "interval = var.every")
	files["pipeline.hcl"].Data = append(files["pipeline.hcl"].Data, "variable \"every\" { type = string }\n"...)
	p, d := Load(files, "pipeline.hcl", Options{Env: func(name string) (string, bool) { return canary, name == "CRYPTOVIZ_VAR_every" }})
	if text := everything(p, d); seesCanary(text) || !d.HasErrors() {
		t.Errorf("the environment: %s", text)
	}
	// A file of variables that cannot be read shows none of its lines.
	for _, src := range []string{`token = "` + canary, `token = "` + canary + `" "` + canary + `"`, `token = ` + canary, `token = "` + canary + `" + 1`, `token = [` + `"` + canary + `"]`, `t = "` + canary + `"`} {
		p, d := Load(base(t), "pipeline.hcl", Options{VarFiles: []VarFile{{"vars.hcl", []byte(src)}}})
		if text := everything(p, d); seesCanary(text) || !d.HasErrors() {
			t.Errorf("%s: %s", src, text)
		}
	}
}

// A password may come through a variable or env(), as long as it does not stand in the file.
func TestPasswordsFromOutside(t *testing.T) {
	files := base(t)
	files["pipeline.hcl"].Data = append(files["pipeline.hcl"].Data, `
variable "own" { default = "in the file" }
variable "env" { default = env("OWN") }
variable "none" { default = "" }
role "a" { password = var.own }
role "b" { password = var.env }
role "c" { password = var.none }
role "d" { password = env("UNSET", var.own) }
topic "t" {
  cleanup_policy = "delete,compact"
  partitions     = tonumber(env("PARTITIONS"))
}
`...)
	env := map[string]string{"OWN": "from env", "PARTITIONS": "3"}
	p, d := Load(files, "pipeline.hcl", Options{Vars: map[string]string{"own": "from outside"}, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if d.HasErrors() {
		t.Fatal(report(d))
	}
	for i, want := range []string{"from outside", "from env", "", "from outside"} {
		if got := p.Roles[i].Password.Reveal(); got != want {
			t.Errorf("%s: %q, want %q", p.Roles[i].Name, got, want)
		}
	}
	if last := p.Topics[len(p.Topics)-1]; last.Partitions != 3 || last.Config["cleanup.policy"] != "compact,delete" {
		t.Errorf("%+v", last)
	}
}
