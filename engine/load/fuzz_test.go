package load

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// seeds are the small hostile files.
func seeds(t testing.TB, add func(pipeline, definition string)) {
	n := 0
	allHostile(t, otherBundles, func(h hostile) {
		if n++; h.small && n%7 != 0 {
			return
		}
		pipeline, definition := h.files["pipeline.hcl"].Data, h.files["sources/spot.hcl"].Data
		if len(pipeline)+len(definition) < 8<<10 {
			add(string(pipeline), string(definition))
		}
	})
}

// treeDepth is how deep the recursion over an expression goes.
func treeDepth(n hclsyntax.Node) int {
	w := &depth{}
	_ = hclsyntax.Walk(n, w)
	return w.most
}

type depth struct{ now, most int }

func (d *depth) Enter(hclsyntax.Node) hcl.Diagnostics {
	d.now++
	d.most = max(d.most, d.now)
	return nil
}

func (d *depth) Exit(hclsyntax.Node) hcl.Diagnostics {
	d.now--
	return nil
}

func FuzzPrescan(f *testing.F) {
	seeds(f, func(pipeline, _ string) { f.Add([]byte(pipeline)) })
	f.Fuzz(func(t *testing.T, src []byte) {
		began := time.Now()
		diags := limits.Prescan(src, "x.hcl")
		for _, d := range diags {
			checkPosition(t, d, src)
		}
		if !diags.HasErrors() { // then the parser is safe
			file, _ := hclsyntax.ParseConfig(src, "x.hcl", hcl.InitialPos)
			if n := treeDepth(file.Body.(*hclsyntax.Body)); n > limits.MaxDepth*(limits.MaxOperators+4) {
				t.Errorf("the tree is %d deep", n)
			}
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

func checkPosition(t *testing.T, d *hcl.Diagnostic, src []byte) {
	t.Helper()
	if d.Subject == nil {
		t.Fatalf("no position: %s", d)
	}
	r := *d.Subject
	if lines := strings.Count(string(src), "\n") + 1; r.Start.Line < 1 || r.Start.Line > lines+1 || r.Start.Column < 1 || r.Start.Byte < 0 || r.Start.Byte > len(src) || r.End.Byte < r.Start.Byte {
		t.Errorf("%s: %#v in %d lines, %d bytes", d.Summary, r, lines, len(src))
	}
}

func FuzzLoad(f *testing.F) {
	seeds(f, func(pipeline, definition string) { f.Add(pipeline, definition) })
	for _, file := range []string{"sources/feed.hcl", "sources/page.hcl"} {
		files := base(f)
		f.Add(string(files["pipeline.hcl"].Data), string(files[file].Data))
	}
	f.Add(string(every(f)["pipeline.hcl"].Data), string(base(f)["sources/spot.hcl"].Data))
	files := every(f)
	f.Fuzz(func(t *testing.T, pipeline, definition string) {
		began := time.Now()
		bundle := fstest.MapFS{"sql/hourly.sql": files["sql/hourly.sql"], "sources/feed.hcl": files["sources/feed.hcl"], "sources/page.hcl": files["sources/page.hcl"]}
		for _, name := range []string{"dashboards/market.json", "dashboards/own.json"} {
			bundle[name] = files[name]
		}
		bundle["pipeline.hcl"], bundle["sources/spot.hcl"] = &fstest.MapFile{Data: []byte(pipeline)}, &fstest.MapFile{Data: []byte(definition)}
		env := func(name string) (string, bool) {
			return canary, name != "CRYPTOVIZ_VAR_pairs" && name != "DATABASE_URL"
		}
		if strings.Contains(strings.ToLower(pipeline+definition), canary) {
			t.Skip("the secret is in the file")
		}
		p, d := Load(bundle, "pipeline.hcl", Options{Env: env, Version: "0.1.0"})
		text := everything(p, d)
		if seesCanary(text) {
			t.Errorf("shows the secret:\n%s", text)
		}
		for _, diag := range d.Diags {
			if file := bundle[diag.Subject.Filename]; file != nil {
				checkPosition(t, diag, file.Data)
			}
		}
		if !d.HasErrors() {
			for _, s := range p.Sources {
				if s.Topic == nil || s.Table == nil || s.Definition == nil || (s.Definition.Poll == nil) == (s.Definition.Stream == nil) || s.Interval <= 0 || len(s.Definition.Row.Columns) == 0 {
					t.Errorf("a source without its parts: %+v", s)
				}
			}
			checkObjects(t, p)
			for _, r := range p.Rollups {
				if r.From == nil || r.Into == nil || r.From.Hypertable == nil || r.Query == "" {
					t.Errorf("a rollup without its parts: %+v", r)
				}
			}
		}
		plain := report(d)
		if i := strings.IndexFunc(plain, func(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) }); i >= 0 || !utf8.ValidString(plain) {
			t.Errorf("the text has what no terminal should get: %q", plain)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

// checkObjects checks what every usable pipeline promises of its objects in PostgreSQL and Grafana.
func checkObjects(t *testing.T, p *spec.Pipeline) {
	t.Helper()
	for _, a := range p.Aggregates {
		if a.From == nil || a.From.Hypertable == nil || a.Query == "" {
			t.Errorf("an aggregate without its parts: %+v", a)
		}
	}
	for _, d := range p.Dashboards {
		if !json.Valid(d.JSON) || !uidForm.MatchString(d.UID) {
			t.Errorf("a dashboard without its parts: %+v", d)
		}
	}
	for _, a := range p.Alerts {
		if a.Folder == nil || a.DataSource == nil || (a.Above == nil) == (a.Below == nil) || a.Every <= 0 || a.Query == "" {
			t.Errorf("an alert without its parts: %+v", a)
		}
	}
	if len(p.Folders)+len(p.DataSources)+len(p.Dashboards)+len(p.Alerts) > 0 && p.Grafana == nil {
		t.Error("objects of Grafana without Grafana")
	}
}
