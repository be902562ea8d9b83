package simulate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	root     = "../.."
	captures = "../../../shared/captures"
)

var start = time.Date(2026, 11, 24, 23, 58, 30, 0, time.UTC)

// promised counts the markets of a source's rows (see engine/row), and tells whether they have prices.
func promised(t *testing.T, source string) (markets int, priced bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "sources", source+".rows.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Base, Quote string
		Price       float64
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range rows {
		names[r.Base+"/"+r.Quote], priced = true, priced || r.Price > 0
	}
	return len(names), priced
}

// TestShipped plays every shipped source over its socket, at two times, twice.
func TestShipped(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	for _, src := range p.Sources {
		t.Run(src.Name, func(t *testing.T) {
			markets, priced := promised(t, src.Name)
			play := func(at time.Time, seed uint64) map[string]storedRow {
				slow := clock.Fast(at, 1e-6) // stands still
				s := serve(t, p, simulate.Options{Seed: seed, Clock: slow})
				rows := connect(t, s, src).round(at.Truncate(time.Microsecond), markets)
				if len(rows) != markets {
					t.Fatalf("%d markets", len(rows))
				}
				for m, r := range rows {
					near(t, src.Name, r, slow.Now())
					if old := slow.Now().Sub(r["time"].(time.Time)); old > time.Second { // its clock stands still
						t.Errorf("%s is of %s before", m, old)
					}
					if priced {
						sensible(t, src.Name, r)
					}
				}
				return rows
			}
			first, again, later, other := play(start, 1), play(start, 1), play(start.Add(time.Minute), 1), play(start, 2)
			for m, r := range first {
				if r["price"] != again[m]["price"] || r["low_24h"] != again[m]["low_24h"] {
					t.Errorf("%s: %v and %v for one seed and time", m, r, again[m])
				}
				if priced && (r["price"] == later[m]["price"] || r["price"] == other[m]["price"]) {
					t.Errorf("%s: stays at %v: %v, %v", m, r["price"], later[m]["price"], other[m]["price"])
				}
				if a, b := r["change_24h_pct"], other[m]["change_24h_pct"]; a != nil && math.Abs(a.(float64)-b.(float64)) > 0.1 {
					t.Errorf("%s: the day's change is %v, or %v at another price", m, a, b) // its open moves with it
				}
			}
		})
	}
}

// TestForm compares a reply with its fixture: only times and prices differ, and in nothing but their digits.
func TestForm(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	s := serve(t, p, simulate.Options{Seed: 3})
	shape := func(b []byte) string { // digits are all alike
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return '#'
			}
			return r
		}, string(b))
	}
	for name, file := range map[string]string{"binance": "binance.reply.json", "kraken": "kraken.reply.json", "fear_greed": "fear_greed.reply.html"} {
		want, err := os.ReadFile(root + "/sources/" + file)
		if err != nil {
			t.Fatal(err)
		}
		got := connect(t, s, source(t, p, name)).get()
		if name == "kraken" { // in the order of the query
			if len(got) != len(want) || !bytes.Contains(got, []byte(`"v":["5041.15226000","15123.45678000"]`)) || bytes.Contains(got, []byte(`"70123.10000"`)) {
				t.Errorf("kraken: %s", got)
			}
			continue
		}
		if shape(got) != shape(want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestStreams hears the acknowledgement first and once, heartbeats with it, and pongs.
func TestStreams(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	s := serve(t, p, simulate.Options{})
	c := connect(t, s, source(t, p, "coinbase"))
	if first := c.read(); !bytes.Contains(first, []byte(`"subscriptions"`)) {
		t.Errorf("first %s", first)
	}
	c.write(c.src.Definition.Stream.Subscribe[0]) // again: nothing new
	types := map[string]int{}
	for range 12 {
		var f struct {
			Type string
			Time time.Time
		}
		if err := json.Unmarshal(c.read(), &f); err != nil {
			t.Fatal(err)
		}
		if types[f.Type]++; time.Since(f.Time) > time.Hour || time.Since(f.Time) < 0 {
			t.Errorf("%s at %s", f.Type, f.Time)
		}
	}
	if types["ticker"] != 6 || types["heartbeat"] != 6 {
		t.Errorf("two rounds: %v", types)
	}
	go func() { _, _, _ = c.conn.Read(context.WithoutCancel(t.Context())) }() // pongs arrive while reading
	if err := c.conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	o := connect(t, s, source(t, p, "okx"))
	o.write("ping")
	for n := 0; string(o.read()) != "pong"; n++ {
		if n > 20 {
			t.Fatal("no pong")
		}
	}
}

// TestSilentUntilSubscribed sends nothing to a client that asks for nothing.
func TestSilentUntilSubscribed(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	s := serve(t, p, simulate.Options{})
	conn, _, err := websocket.Dial(t.Context(), s.Endpoint(source(t, p, "coinbase")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) //nolint:forbidigo // nothing may come
	defer cancel()
	if _, frame, err := conn.Read(ctx); err == nil {
		t.Errorf("got %s", frame)
	}
}

// TestFastClock has a message of every market in each slot while a day passes in minutes: five slots in a row, since a busy
// machine may let one pass.
func TestFastClock(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	c := clock.Fast(start, 200) // a slot in 300 ms
	s := serve(t, p, simulate.Options{Clock: c})
	src := source(t, p, "coinbase")
	cl := connect(t, s, src)
	seen := map[time.Time]map[string]bool{}
	whole := func(at time.Time) bool { return len(seen[at]) == 3 }
	testkit.Eventually(t, func() error {
		for _, r := range cl.rows(cl.read(), start) {
			near(t, "coinbase", r, c.Now())
			slot := r["time"].(time.Time).Truncate(src.Interval)
			if seen[slot] == nil {
				seen[slot] = map[string]bool{}
			}
			seen[slot][r.market()] = true
			if whole(slot) && whole(slot.Add(-src.Interval)) && whole(slot.Add(-2*src.Interval)) && whole(slot.Add(-3*src.Interval)) && whole(slot.Add(-4*src.Interval)) {
				return nil
			}
		}
		return fmt.Errorf("slots: %v", seen)
	})
}

// TestMarkets gives every market that is asked for a record, also one that the fixture lacks, and no other.
func TestMarkets(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	p := mustLoad(t, func(s string) string {
		s = strings.Replace(s, `["BTC/USDT", "ETH/USDT", "SOL/USDT"]`, `["ETH/USDT", "ADA/USDT", "DOGE/USDT", "ETH/BTC"]`, 1)
		return strings.Replace(s, `["BTC/USD", "ETH/USD", "SOL/USD"]`, `["ADA/USD", "BTC/EUR", "XRP/USD"]`, 1)
	}, nil)
	s := serve(t, p, simulate.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for name, want := range map[string][]string{
		"binance": {"ADA/USDT", "DOGE/USDT", "ETH/BTC", "ETH/USDT"}, "okx": {"ADA/USDT", "DOGE/USDT", "ETH/BTC", "ETH/USDT"},
		"coinbase": {"ADA/USD", "BTC/EUR", "XRP/USD"}, "kraken": {"ADA/USD", "BTC/EUR", "XRP/USD"},
	} {
		rows := connect(t, s, source(t, p, name)).round(time.Now(), len(want))
		var got []string
		for m, r := range rows {
			got = append(got, m)
			sensible(t, name, r)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
}

// TestNewSource simulates a definition that was never seen: its own time forms and price texts, HTML and nested JSON.
func TestNewSource(t *testing.T) {
	t.Parallel()
	more := fstest.MapFS{
		"sources/page.hcl": {Data: []byte(`
source { description = "a page" }
poll { url = "https://example.com/prices" }
decode "html" {
  select = "tr.m"
  key    = r.name
  field "name" { select = ".n" }
  field "price" { select = ".p" }
  field "at" {
    select = "time"
    attr   = "datetime"
  }
}
row {
  time   = from_rfc3339(r.at)
  source = source
  base   = market(r.name).base
  quote  = market(r.name).quote
  price  = number(join("", split(",", replace(r.price, "$", ""))))
}`)},
		"sources/page.reply.html": {Data: []byte(`<table><tr class="m"><td class="n">BTC/USD</td><td class="p"> $70,123.10 </td><td><time datetime="2026-10-01T10:00:00+02:00">old</time></td></tr></table>`)},
		"sources/deep.hcl": {Data: []byte(`
source { description = "seconds with a fraction, numbers, one object" }
poll { url = "https://example.com/deep" }
decode "json" {
  records = body.list[0]
}
row {
  time   = from_unix(r.t.at)
  source = source
  base   = "BTC"
  quote  = "USD"
  price  = r.active ? r.p[1] : null
  bid    = r.p[0]
}`)},
		"sources/deep.reply.json": {Data: []byte(`{"list":[{"t":{"at": 1790855999.25}, "active":true, "p":[7e4, 70000.5 ]}]}`)},
		"sources/mute.hcl":        {Data: []byte("source { description = \"no fixture\" }\npoll { url = \"https://example.com\" }\ndecode \"json\" { records = body }\nrow {\n time = slot\n source = source\n base = \"A\"\n quote = \"B\"\n price = r.p\n}")},
	}
	p := mustLoad(t, func(s string) string {
		for _, n := range []string{"page", "deep", "mute"} {
			s += "\nsource \"" + n + "\" {\n definition = \"sources/" + n + ".hcl\"\n interval = \"1m\"\n topic = topic." + n + "\n table = table.raw_crypto_data\n}\ntopic \"" + n + "\" { partitions = 1 }\n"
		}
		return s
	}, more)
	s := serve(t, p, simulate.Options{Seed: 9})
	page := connect(t, s, source(t, p, "page"))
	body := page.get()
	r := page.rows(body, time.Now())[0]
	near(t, "page", r, time.Now())
	if price := r["price"].(float64); price < 20_000 || price > 200_000 || price == 70123.1 || !bytes.Contains(body, []byte("+02:00")) || !bytes.Contains(body, []byte("> $")) && !bytes.Contains(body, []byte(">$")) {
		t.Errorf("%v %s", r, body)
	}
	deep := connect(t, s, source(t, p, "deep"))
	body = deep.get()
	r = deep.rows(body, time.Now())[0]
	near(t, "deep", r, time.Now())
	if price, bid := r["price"].(float64), r["bid"].(float64); price <= bid || price == 70000.5 || !bytes.Contains(body, []byte(`, "active":true, "p":[`)) {
		t.Errorf("%v %s", r, body)
	}
	if mute := source(t, p, "mute"); s.Endpoint(mute) != "" || s.Plays("mute") || !s.Plays("page") {
		t.Error("a source without fixtures is played")
	}
}

func TestBrokenFixture(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, want string }{
		"not JSON":  {"binance.reply.json", `[{"symbol":`, "sources/binance.reply.json of source binance: not JSON at byte 11: it is cut short"},
		"empty":     {"kraken.reply.json", ``, "sources/kraken.reply.json of source kraken: not JSON at byte 0: it is empty"},
		"line":      {"okx.frames.ndjson", "{\"event\":\"subscribe\"}\n\x00\x01", "sources/okx.frames.ndjson of source okx: line 2: not JSON"},
		"no record": {"coinbase.frames.ndjson", `{"type":"heartbeat"}`, "no frame holds a record"},
		"page":      {"fear_greed.reply.html", `<p>`, "the page has changed"},
		"deep":      {"kraken.reply.json", strings.Repeat("[", 1000), "nested deeper"},
	} {
		p := mustLoad(t, nil, fstest.MapFS{"sources/" + c.file: {Data: []byte(c.text)}})
		if _, err := simulate.New(p, simulate.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClose ends while clients are connected, one of which does not read; goleak looks for what stays behind.
func TestClose(t *testing.T) {
	// Alone: it looks for goroutines of servers.
	p := mustLoad(t, nil, nil)
	s, err := simulate.New(p, simulate.Options{Clock: clock.Fast(start, 100_000)})
	if err != nil {
		t.Fatal(err)
	}
	src := source(t, p, "coinbase")
	if s.Endpoint(src) != "" {
		t.Error("an endpoint before Start")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	for range 40 {
		connect(t, s, src).read()
	}
	connect(t, s, source(t, p, "okx"))
	time.Sleep(200 * time.Millisecond) //nolint:forbidigo // sockets fill up, unseen from here
	stacks, closed := make([]byte, 4<<20), make(chan error, 1)
	go func() { closed <- s.Close() }()
	if err := testkit.Receive(t, closed, "end of Close"); err != nil {
		t.Error(err)
	}
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, f := range []string{"simulate.(*Server).stream", "simulate.(*Server).listen", "simulate.(*Server).play"} {
		if bytes.Contains(stacks, []byte(f)) {
			t.Errorf("%s outlives Close", f)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s.Endpoint(src) != "" || s.Start(t.Context()) == nil {
		t.Error("alive after Close")
	}
}

// TestContextEnds stops serving with the context of Start.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	s, err := simulate.New(p, simulate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s, source(t, p, "okx"))
	cancel()
	for range 50 {
		if _, _, err = c.conn.Read(t.Context()); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("still connected")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestHTTP refuses what no source asks.
func TestHTTP(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, nil, nil)
	s := serve(t, p, simulate.Options{})
	base := s.Endpoint(source(t, p, "binance"))
	defer http.DefaultClient.CloseIdleConnections()
	for _, c := range []struct {
		method, url string
		want        int
	}{
		{"POST", base, 405},
		{"HEAD", base, 200},
		{"GET", base + "/../../etc/passwd", 404},
		{"GET", base + "x", 404},
		{"GET", strings.Replace(s.Endpoint(source(t, p, "okx")), "ws:", "http:", 1), 426},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %s, want %d", c.method, c.url, resp.Status, c.want)
		}
	}
}
