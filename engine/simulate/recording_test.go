package simulate_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// TestRecorded plays real traffic of two exchanges.
func TestRecorded(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(captures); err != nil {
		t.Skipf("the recordings are not here: %v", err)
	}
	p := mustLoad(t, nil, nil)
	c := clock.Fast(start, 60) // a round of 30 s in half a second
	s := serve(t, p, simulate.Options{Clock: c, Recorded: os.DirFS(captures)})
	for name, want := range map[string]int{"coinbase": 10, "okx": 1} {
		cl := connect(t, s, source(t, p, name))
		price := map[string]map[float64]bool{}
		for n := 0; n < 100; { // into the second round
			for _, r := range cl.rows(cl.read(), start) {
				near(t, name, r, c.Now())
				if price[r.market()] == nil {
					price[r.market()] = map[float64]bool{}
				}
				price[r.market()][r["price"].(float64)] = true
				n++
			}
		}
		if len(price) != want {
			t.Errorf("%s: %d markets: %v", name, len(price), price)
		}
		if name == "okx" && !price["BTC/USDT"][30243.5] {
			t.Errorf("recorded prices changed: %v", price["BTC/USDT"])
		}
	}
	for _, name := range []string{"binance", "kraken", "fear_greed"} {
		if s.Endpoint(source(t, p, name)) != "" {
			t.Errorf("%s is played without a recording of its own", name)
		}
	}
	if err := s.Silent("binance"); err == nil || !strings.Contains(err.Error(), ".ndjson does not fit sources/binance.hcl: ") {
		t.Error(err) // its recording is of another channel
	}
	if err := s.Silent("fear_greed"); err != nil {
		t.Error(err) // it has none
	}
}

// TestRecordedPoll plays replies and pages at their own times.
func TestRecordedPoll(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	reply := func(received, price string) string {
		return `{"received":` + received + `,"message":[{"symbol":"BTCUSDT","lastPrice":"` + price + `","closeTime":1600000000000,"count":1}]}` + "\n"
	}
	dir := fstest.MapFS{
		"binance.ndjson":      {Data: []byte(reply("1600000001", "1.5") + "\n" + reply("1600000061", "2.5") + reply("1600000050", "3.5"))},
		"fear_greed-a.ndjson": {Data: []byte(`{"received":1600000001,"message":"<div class=\"fng-value\"><b class=\"gray\">Now<\/b><b class=\"status\">Fear<\/b><b class=\"fng-circle\">12<\/b></div>"}`)},
		"kraken.txt":          {Data: []byte("not for us")},
	}
	c := clock.Fast(start, 300)
	s := serve(t, p, simulate.Options{Clock: c, Recorded: dir})
	src := source(t, p, "binance")
	cl, seen := connect(t, s, src), map[float64]bool{}
	testkit.Eventually(t, func() error {
		for _, r := range cl.rows(cl.get(), start) {
			near(t, "binance", r, c.Now())
			seen[r["price"].(float64)] = true
		}
		if !seen[1.5] || !seen[3.5] {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
	fng := connect(t, s, source(t, p, "fear_greed"))
	if r := fng.rows(fng.get(), start); len(r) != 1 || r[0]["value"] != 12.0 {
		t.Errorf("%v", r)
	}
	if s.Plays("kraken") {
		t.Error("kraken.txt is played")
	}
}

func TestBrokenRecording(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	good := `{"received": 1618677817.06, "message": {"type":"heartbeat"}}` + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":        {"", "read recording coinbase-x.ndjson: it is empty"},
		"blank":        {"\n \n", "it is empty"},
		"truncated":    {good + "\n" + good[:30], "read recording coinbase-x.ndjson, line 3: not JSON at byte"},
		"binary":       {good + "\x00\xff\n", "line 2: not JSON"},
		"no received":  {`{"message":{}}`, `line 1: "received" (unix seconds) is missing`},
		"text":         {`{"received":"now","message":{}}`, "line 1: want {"},
		"negative":     {`{"received":-1,"message":{}}`, "not unix seconds"},
		"huge":         {`{"received":1e300,"message":{}}`, "not unix seconds"},
		"no message":   {good + `{"received":1}`, `line 2: "message" is missing`},
		"null message": {`{"received":1,"message":null}`, `"message" is missing`},
		"list":         {`[]`, "line 1: want {"},
		"big":          {`{"received":1,"message":{"a":"` + strings.Repeat("x", 20<<20) + `"}}`, "the source takes at most"},
	} {
		_, err := simulate.New(p, simulate.Options{Recorded: fstest.MapFS{"coinbase-x.ndjson": {Data: []byte(c.text)}}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{good, `{"received":1,"message":"not JSON"}`, `{"received":1,"message":{"type":"ticker","product_id":"?"}}`, `{"received":1,"message":17}`} {
		s, err := simulate.New(p, simulate.Options{Recorded: fstest.MapFS{"coinbase.ndjson": {Data: []byte(text)}}})
		if err != nil || s.Plays("coinbase") { // whole lines, but nothing to make a row of
			t.Errorf("%s: %v", text, err)
		} else if why := s.Silent("coinbase"); why == nil || !strings.HasPrefix(why.Error(), "its recording coinbase.ndjson does not fit sources/coinbase.hcl: ") {
			t.Errorf("%s: %v", text, why)
		}
	}
	if _, err := simulate.New(p, simulate.Options{Recorded: os.DirFS("/nowhere/at/all")}); err == nil {
		t.Error("a missing folder is no error")
	}
}
