package spec

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func bundle(t testing.TB) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	root := os.DirFS("../..")
	for _, name := range []string{"pipeline.hcl", "sources/binance.hcl", "sources/kraken.hcl", "sources/coinbase.hcl", "sources/okx.hcl", "sources/fear_greed.hcl", "sources/coingecko.hcl", "sql/rollup_hourly.sql"} {
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

func report(d *Diagnostics) string {
	var buf bytes.Buffer
	_ = d.Write(&buf, false, 100)
	return buf.String()
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
	if got := p.Sources[1].Definition.Poll.Query["pair"]; got != "SOLUSD,XETHZUSD,XXBTZUSD" {
		t.Errorf("kraken: %s", got)
	}
}
