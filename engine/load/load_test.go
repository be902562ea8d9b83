package load

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func bundle(t testing.TB) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	root := os.DirFS("../..")
	for _, name := range []string{"pipeline.hcl", "sources/binance.hcl", "sources/kraken.hcl", "sources/coinbase.hcl", "sources/okx.hcl", "sources/fear_greed.hcl", "sources/coingecko.hcl", "sql/rollup_hourly.sql", "dashboards/market_overview.json"} {
		f, err := root.Open(name)
		if err != nil {
			continue
		}
		var buf bytes.Buffer
		if _, err := buf.ReadFrom(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		out[name] = &fstest.MapFile{Data: buf.Bytes()}
	}
	return out
}

func TestShippedPipelineLoads(t *testing.T) {
	p, d := Load(bundle(t), "pipeline.hcl", Options{})
	if len(d.Diags) > 0 {
		t.Fatal(report(d))
	}
	if len(p.Sources) != 5 || len(p.Topics) != 5 || len(p.Tables) != 3 || len(p.Rollups) != 1 {
		t.Fatalf("got %d sources, %d topics, %d tables, %d rollups", len(p.Sources), len(p.Topics), len(p.Tables), len(p.Rollups))
	}
	s := p.Sources[0]
	if s.Name != "binance" || s.Interval != time.Minute || s.Topic.Config["retention.ms"] != "604800000" {
		t.Errorf("binance: %+v", s)
	}
	if got := s.Definition.Poll.Query["symbols"]; got != `["BTCUSDT","ETHUSDT","SOLUSDT"]` {
		t.Errorf("query: %s", got)
	}
	if got := p.Sources[2].Definition.Stream.Subscribe; len(got) != 1 || !strings.Contains(got[0], `"product_ids":["BTC-USD","ETH-USD","SOL-USD"]`) {
		t.Errorf("subscribe: %s", got)
	}
	if json, page := p.Sources[0].Definition.Poll.MaxBody, p.Sources[3].Definition.Poll.MaxBody; json != 16<<20 || page != 5<<20 {
		t.Errorf("a reply may have %d bytes, a page %d", json, page)
	}
	if got := p.Sources[1].Definition.Poll.Query["pair"]; got != "SOLUSD,XETHZUSD,XXBTZUSD" {
		t.Errorf("kraken: %s", got)
	}
}

// content is a pipeline without the places in its files.
func content(t *testing.T, p *spec.Pipeline) string {
	t.Helper()
	var polls []any
	for _, s := range p.Sources {
		if d := s.Definition; d.Poll != nil {
			polls = append(polls, d.Poll.URL, d.Poll.Query, d.Poll.Timeout, len(d.Row.Columns))
		}
	}
	text, err := json.Marshal([]any{p.Topics, p.Tables, p.Rollups, polls, p.Kafka.Brokers, p.Database.URL.Reveal()})
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"Range":\{.*?\}\}`).ReplaceAllString(string(text), "")
}

// The bytes around the text do not change what it says, nor where a mistake is.
func TestByteOrderMarkAndLineEnds(t *testing.T) {
	changes := map[string]func(string) string{
		"BOM": func(s string) string { return "\ufeff" + s }, "CRLF": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }, "no end": func(s string) string { return strings.TrimRight(s, "\n") },
		"BOM and CRLF": func(s string) string { return "\ufeff" + strings.ReplaceAll(s, "\n", "\r\n") },
	}
	p, _ := Load(base(t), "pipeline.hcl", Options{})
	want := content(t, p)
	wrong := func(s string) string { return strings.Replace(s, "var.pairs", "var.pears", 1) }
	_, d := Load(whole(t, wrong(string(base(t)["pipeline.hcl"].Data))), "pipeline.hcl", Options{})
	wantText := report(d)
	for name, change := range changes {
		files := base(t)
		for file, f := range files {
			if strings.HasSuffix(file, ".hcl") {
				f.Data = []byte(change(string(f.Data)))
			}
		}
		p, d := Load(files, "pipeline.hcl", Options{})
		if len(d.Diags) > 0 {
			t.Fatalf("%s: %s", name, report(d))
		}
		if got := content(t, p); got != want {
			t.Errorf("%s gives\n%s\nwant\n%s", name, got, want)
		}
		files["pipeline.hcl"].Data = []byte(wrong(string(files["pipeline.hcl"].Data)))
		if _, d := Load(files, "pipeline.hcl", Options{}); report(d) != wantText {
			t.Errorf("%s says\n%s\nwant\n%s", name, report(d), wantText)
		}
	}
}
