package provision_test

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// hostileTexts are 500 texts of which each has broken something somewhere.
func hostileTexts() []string {
	bases := []string{
		`'`, `"`, "`", `\`, `;`, `--`, `/*`, `*/`, `''`, `""`, `\'`, `\"`, `\\`, `$1`, `$$`, `$tag$`, `${x}`, `%{if true}`, `%s`, `%!d(`, `{{.}}`, `$(id)`, `|`, `&`, `<`, `>`, `#`, `@`, `!`, `?`, `*`, `~`, `^`, `=`, `+`,
		`,`, `.`, `..`, `/`, `../../etc/passwd`, `:`, `(`, `)`, `[`, `]`, `{`, `}`, `a b`, `'; DROP TABLE victim; --`, `"; DROP TABLE victim; --`, `'); DROP TABLE victim; --`, `$$; DROP TABLE victim; --`,
		`\'; DROP TABLE victim; --`, `E'\''; DROP ROLE victim`, `x" CASCADE; --`, `a.b`, `public.victim`, `pg_catalog`, `__consumer_offsets`, `'||(SELECT 1)||'`, `1; SELECT pg_sleep(9)`, `COPY x TO PROGRAM 'id'`,
		`</script><script>alert(1)</script>`, `" onload="x`, `{"a":1}`, `\u0027`, `&#39;`, `%27`, `%00`, `null`, `NULL`, `true`, `nan`, `0`, `-1`, `1e999`, "\t", "\n", "\r", "\r\n", "\v", "\f", "\b", "\a", "\x00", "\x01", "\x1b[31m", "\x7f",
		"\u0085", "\u00a0", "\u00ad", "\u061c", "\u200b", "\u200d", "\u200e", "\u202e", "\u2028", "\u2029", "\u2066", "\ufeff", "\ufffd", "\ufff9", "\U000e0001", "а", "ａ", "ı", "ſ", "K", "ß", "é", "é", "日本", "🙂", "👩‍👩‍👧", "﷽", "İ", "ǅ", "A",
		"Victim", strings.Repeat("a", 64), strings.Repeat("é", 40), strings.Repeat("日", 30), strings.Repeat("'", 70), strings.Repeat("a", 300), strings.Repeat("\\", 63), strings.Repeat("$", 64),
	}
	var out []string
	for _, form := range []string{"%s", "a%s", "%sa", "a%sb", "%[1]s%[1]s"} {
		for _, b := range bases {
			text := strings.ReplaceAll(strings.ReplaceAll(form, "%[1]s", b), "%s", b)
			if !slices.Contains(out, text) && len(out) < 500 {
				out = append(out, text)
			}
		}
	}
	return out
}

// places are where pipeline.hcl wants a name, or one of some words. TEXT is a quoted text.
var places = map[string]string{
	"topic":            "topic TEXT {\n}\n",
	"topic policy":     "topic \"x\" {\n  cleanup_policy = TEXT\n}\n",
	"topic retention":  "topic \"x\" {\n  retention = TEXT\n}\n",
	"table":            "table TEXT {\n  column \"a\" {\n    type = \"text\"\n  }\n  primary_key = [\"a\"]\n}\n",
	"column":           "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n  }\n  column TEXT {\n    type = \"text\"\n  }\n  primary_key = [\"a\"]\n}\n",
	"column type":      "table \"x\" {\n  column \"a\" {\n    type = TEXT\n  }\n  primary_key = [\"a\"]\n}\n",
	"column unit":      "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n    unit = TEXT\n  }\n  primary_key = [\"a\"]\n}\n",
	"column before":    "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n    was = TEXT\n  }\n  primary_key = [\"a\"]\n}\n",
	"key":              "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n  }\n  primary_key = [TEXT]\n}\n",
	"index":            "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n  }\n  primary_key = [\"a\"]\n  index {\n    name    = TEXT\n    columns = [\"a\"]\n  }\n}\n",
	"index column":     "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n  }\n  primary_key = [\"a\"]\n  index {\n    columns = [TEXT]\n  }\n}\n",
	"time":             "table \"x\" {\n  column \"a\" {\n    type = \"timestamptz\"\n  }\n  primary_key = [\"a\"]\n  hypertable {\n    time = TEXT\n  }\n}\n",
	"segment":          "table \"x\" {\n  column \"a\" {\n    type = \"timestamptz\"\n  }\n  primary_key = [\"a\"]\n  hypertable {\n    time = \"a\"\n    columnstore {\n      after      = \"1d\"\n      segment_by = [TEXT]\n    }\n  }\n}\n",
	"order":            "table \"x\" {\n  column \"a\" {\n    type = \"timestamptz\"\n  }\n  primary_key = [\"a\"]\n  hypertable {\n    time = \"a\"\n    columnstore {\n      after    = \"1d\"\n      order_by = [TEXT]\n    }\n  }\n}\n",
	"view":             "view TEXT {\n  query = \"SELECT 1 AS one\"\n}\n",
	"role":             "role TEXT {\n}\n",
	"privilege":        "table \"x\" {\n  column \"a\" {\n    type = \"text\"\n  }\n  primary_key = [\"a\"]\n}\nrole \"r\" {\n  grant {\n    privileges = [TEXT]\n    on         = [table.x]\n  }\n}\n",
	"granted":          "role \"r\" {\n  grant {\n    privileges = [\"select\"]\n    on         = [TEXT]\n  }\n}\n",
	"folder":           "folder TEXT {\n  title = \"x\"\n}\n",
	"data source":      "datasource TEXT {\n}\n",
	"data source uid":  "datasource \"x\" {\n  uid = TEXT\n}\n",
	"data source mode": "datasource \"x\" {\n  sslmode = TEXT\n}\n",
	"dashboard":        "dashboard TEXT {\n  file = \"board.json\"\n}\n",
	"alert":            "folder \"f\" {\n  title = \"f\"\n}\ndatasource \"d\" {\n}\nalert TEXT {\n  title      = \"x\"\n  folder     = folder.f\n  datasource = datasource.d\n  query      = \"SELECT 1\"\n  above      = 1\n}\n",
	"no data":          "folder \"f\" {\n  title = \"f\"\n}\ndatasource \"d\" {\n}\nalert \"a\" {\n  title      = \"x\"\n  folder     = folder.f\n  datasource = datasource.d\n  query      = \"SELECT 1\"\n  above      = 1\n  no_data    = TEXT\n}\n",
	"removed":          "removed {\n  object = topic[TEXT]\n}\n",
}

const hostileHead = "kafka {\n  brokers = [\"localhost:9092\"]\n}\ndatabase {\n  url        = \"postgres://x@x/x\"\n  on_missing = \"degrade\"\n}\ngrafana {\n  url  = env(\"GRAFANA_URL\")\n  auth = env(\"GRAFANA_AUTH\")\n}\n"

// loadText loads a pipeline with a text in one place, and looks at what is said of it: mistakes have a position, and are
// printed so that they can be read.
func loadText(t *testing.T, place, text string) (*spec.Pipeline, bool) {
	t.Helper()
	src := hostileHead + strings.ReplaceAll(place, "TEXT", quoted(text))
	p, d := load.Load(fstest.MapFS{"pipeline.hcl": &fstest.MapFile{Data: []byte(src)}, "board.json": &fstest.MapFile{Data: []byte(smallBoard)}}, "pipeline.hcl",
		load.Options{Env: func(string) (string, bool) { return "http://localhost:1", true }})
	good := true
	for _, diag := range d.Diags {
		if diag.Summary == "No source" || diag.Severity != hcl.DiagError {
			continue
		}
		if good = false; diag.Subject == nil || diag.Subject.Filename != "pipeline.hcl" || diag.Subject.Start.Line < 12 {
			t.Errorf("%q: %s: %s at %v", text, diag.Summary, diag.Detail, diag.Subject)
		}
	}
	var out bytes.Buffer
	if err := d.Write(&out, false, 100); err != nil {
		t.Error(err)
	}
	if i := strings.IndexFunc(out.String(), func(r rune) bool {
		return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029')
	}); i >= 0 {
		t.Errorf("%q: the message holds %q", text, out.String()[i:])
	}
	return p, good
}

// No hostile text is a name: each is a mistake with its place.
func TestHostileNames(t *testing.T) {
	names := map[string]*regexp.Regexp{ // what a name is in the end
		"data source uid": regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`),
		"order":           regexp.MustCompile(`^[\s\v\x{85}\x{a0}\x{2028}\x{2029}]*a[\s\v\x{85}\x{a0}\x{2028}\x{2029}]*$`),
	}
	for place, src := range places {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			name := cmp.Or(names[place], regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`))
			for _, text := range hostileTexts() {
				if _, good := loadText(t, src, text); good && !name.MatchString(text) {
					t.Errorf("%q is taken as it is", text)
				}
			}
		})
	}
}
