package simulate_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/mapping"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	root     = "../.."
	captures = "../../../shared/captures"
)

var start = time.Date(2026, 11, 24, 23, 58, 30, 0, time.UTC)

// load reads the shipped pipeline; edit changes pipeline.hcl first, more adds files beside it.
func load(t testing.TB, edit func(string) string, more fstest.MapFS) *spec.Pipeline {
	t.Helper()
	text, err := os.ReadFile(root + "/pipeline.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		text = []byte(edit(string(text)))
	}
	files := fstest.MapFS{"pipeline.hcl": {Data: text}}
	for _, dir := range []string{"sources", "sql"} {
		entries, err := os.ReadDir(root + "/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(root + "/" + dir + "/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			files[dir+"/"+e.Name()] = &fstest.MapFile{Data: b}
		}
	}
	for name, f := range more {
		if f == nil {
			delete(files, name)
		} else {
			files[name] = f
		}
	}
	p, d := spec.Load(files, "pipeline.hcl", spec.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	return p
}

func serve(t testing.TB, p *spec.Pipeline, opt simulate.Options) *simulate.Server {
	t.Helper()
	s, err := simulate.New(p, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func source(t testing.TB, p *spec.Pipeline, name string) *spec.Source {
	t.Helper()
	for _, s := range p.Sources {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no source %s", name)
	return nil
}

// client maps what a source hears with the source's own decoder and program.
type client struct {
	t    testing.TB
	src  *spec.Source
	url  string
	dec  *mapping.Decoder
	prog *mapping.Program
	conn *websocket.Conn
}

func connect(t testing.TB, s *simulate.Server, src *spec.Source) *client {
	t.Helper()
	dec, err := mapping.NewDecoder(src)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := mapping.Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, src: src, url: s.Endpoint(src), dec: dec, prog: prog}
	if c.url == "" {
		t.Fatalf("%s has no endpoint", src.Name)
	}
	if st := src.Definition.Stream; st != nil {
		if c.conn, _, err = websocket.Dial(t.Context(), c.url, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.conn.CloseNow() })
		for _, text := range st.Subscribe {
			c.write(text)
		}
	}
	return c
}

func (c *client) write(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() []byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	_, frame, err := c.conn.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return frame
}

func (c *client) get() []byte {
	c.t.Helper()
	u := c.url
	if q := c.src.Definition.Poll.Query; len(q) > 0 {
		values := url.Values{}
		for k, v := range q {
			values.Set(k, v)
		}
		u += "?" + values.Encode()
	}
	resp, err := http.Get(u)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatal(resp.Status, err)
	}
	return body
}

// row is a mapped record.
type row map[string]any

func (r row) market() string {
	b, _ := r["base"].(string)
	q, _ := r["quote"].(string)
	return b + "/" + q
}

func (c *client) rows(body []byte, slot time.Time) []row {
	c.t.Helper()
	pieces, err := c.dec.Records(body)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", c.src.Name, err, body)
	}
	var out []row
	for _, p := range pieces {
		var rows mapping.Rows
		if err := c.prog.Append(&rows, mapping.Record{Key: p.Key, Value: p.Value, Slot: slot}, 0); err != nil {
			c.t.Fatalf("%s: %v\n%s", c.src.Name, err, p.Value)
		}
		if rows.Len() == 0 {
			continue
		}
		r, at := row{}, 2
		for _, name := range c.prog.Columns() {
			n := int(int32(binary.BigEndian.Uint32(rows.Data[at:])))
			at += 4
			if n < 0 {
				continue
			}
			field := rows.Data[at : at+n]
			at += n
			switch c.src.Table.Column(name).Type {
			case spec.Double:
				r[name] = math.Float64frombits(binary.BigEndian.Uint64(field))
			case spec.Timestamptz:
				r[name] = time.UnixMicro(int64(binary.BigEndian.Uint64(field)) + 946_684_800_000_000).UTC()
			case spec.Integer:
				r[name] = float64(int32(binary.BigEndian.Uint32(field)))
			default:
				r[name] = string(field)
			}
		}
		out = append(out, r)
	}
	return out
}

// round collects rows until each market came once: a poll's reply, or a stream's frames.
func (c *client) round(slot time.Time, markets int) map[string]row {
	c.t.Helper()
	out := map[string]row{}
	for begun := time.Now(); time.Since(begun) < 5*time.Second; {
		body := []byte(nil)
		if c.conn != nil {
			body = c.read()
		} else {
			body = c.get()
		}
		for _, r := range c.rows(body, slot) {
			out[r.market()] = r
		}
		if len(out) >= markets || c.conn == nil {
			return out
		}
	}
	c.t.Fatalf("%s: %d of %d markets came", c.src.Name, len(out), markets)
	return nil
}

func near(t testing.TB, name string, r row, now time.Time, within time.Duration) {
	t.Helper()
	if at := r["time"].(time.Time); at.After(now) || now.Sub(at) > within {
		t.Errorf("%s %s: time %s, now %s", name, r.market(), at, now)
	}
}

func sensible(t testing.TB, name string, r row) {
	t.Helper()
	f := func(c string) float64 { v, _ := r[c].(float64); return v }
	if f("price") <= 0 || f("bid") > f("price") || f("ask") < f("price") || f("low_24h") > f("price") || f("high_24h") < f("price") {
		t.Errorf("%s: %v", name, r)
	}
}

// TestShipped plays every shipped source over its socket, at two times, twice.
func TestShipped(t *testing.T) {
	p := load(t, nil, nil)
	for _, src := range p.Sources {
		t.Run(src.Name, func(t *testing.T) {
			markets, within := 3, time.Second
			if src.Name == "fear_greed" {
				markets = 1
			}
			play := func(at time.Time, seed uint64) map[string]row {
				slow := clock.Fast(at, 1e-6) // stands still
				s := serve(t, p, simulate.Options{Seed: seed, Clock: slow})
				rows := connect(t, s, src).round(at.Truncate(time.Microsecond), markets)
				if len(rows) != markets {
					t.Fatalf("%d markets", len(rows))
				}
				for _, r := range rows {
					near(t, src.Name, r, slow.Now(), within)
					if markets == 3 {
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
				if markets == 3 && (r["price"] == later[m]["price"] || r["price"] == other[m]["price"]) {
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
	p := load(t, nil, nil)
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
	p := load(t, nil, nil)
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
		if types[f.Type]++; time.Since(f.Time) > 3*time.Second || time.Since(f.Time) < 0 {
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
	p := load(t, nil, nil)
	s := serve(t, p, simulate.Options{})
	conn, _, err := websocket.Dial(t.Context(), s.Endpoint(source(t, p, "coinbase")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, frame, err := conn.Read(ctx); err == nil {
		t.Errorf("got %s", frame)
	}
}

// TestFastClock has a message of every market in each slot while a day passes in minutes.
func TestFastClock(t *testing.T) {
	p := load(t, nil, nil)
	c := clock.Fast(start, 600) // a slot in 100 ms
	s := serve(t, p, simulate.Options{Clock: c})
	src := source(t, p, "coinbase")
	cl := connect(t, s, src)
	seen := map[time.Time]map[string]bool{}
	for c.Now().Before(start.Add(10 * time.Minute)) {
		for _, r := range cl.rows(cl.read(), start) {
			near(t, "coinbase", r, c.Now(), time.Minute)
			slot := r["time"].(time.Time).Truncate(src.Interval)
			if seen[slot] == nil {
				seen[slot] = map[string]bool{}
			}
			seen[slot][r.market()] = true
		}
	}
	for slot := start.Add(time.Minute).Truncate(time.Minute); slot.Before(start.Add(9 * time.Minute)); slot = slot.Add(time.Minute) {
		if len(seen[slot]) != 3 {
			t.Errorf("slot %s: %v", slot, seen[slot])
		}
	}
}

// TestMarkets gives every market that is asked for a record, also one that the fixture lacks, and no other.
func TestMarkets(t *testing.T) {
	var log bytes.Buffer
	p := load(t, func(s string) string {
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
	p := load(t, func(s string) string {
		for _, n := range []string{"page", "deep", "mute"} {
			s += "\nsource \"" + n + "\" {\n definition = \"sources/" + n + ".hcl\"\n interval = \"1m\"\n topic = topic." + n + "\n table = table.raw_crypto_data\n}\ntopic \"" + n + "\" { partitions = 1 }\n"
		}
		return s
	}, more)
	s := serve(t, p, simulate.Options{Seed: 9})
	page := connect(t, s, source(t, p, "page"))
	body := page.get()
	r := page.rows(body, time.Now())[0]
	near(t, "page", r, time.Now(), 2*time.Second)
	if price := r["price"].(float64); price < 20_000 || price > 200_000 || price == 70123.1 || !bytes.Contains(body, []byte("+02:00")) || !bytes.Contains(body, []byte("> $")) && !bytes.Contains(body, []byte(">$")) {
		t.Errorf("%v %s", r, body)
	}
	deep := connect(t, s, source(t, p, "deep"))
	body = deep.get()
	r = deep.rows(body, time.Now())[0]
	near(t, "deep", r, time.Now(), 2*time.Second)
	if price, bid := r["price"].(float64), r["bid"].(float64); price <= bid || price == 70000.5 || !bytes.Contains(body, []byte(`, "active":true, "p":[`)) {
		t.Errorf("%v %s", r, body)
	}
	if mute := source(t, p, "mute"); s.Endpoint(mute) != "" || s.Plays("mute") || !s.Plays("page") {
		t.Error("a source without fixtures is played")
	}
}

func TestBrokenFixture(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"not JSON":  {"binance.reply.json", `[{"symbol":`, "sources/binance.reply.json of source binance: not JSON at byte 11: it is cut short"},
		"empty":     {"kraken.reply.json", ``, "sources/kraken.reply.json of source kraken: not JSON at byte 0: it is empty"},
		"line":      {"okx.frames.ndjson", "{\"event\":\"subscribe\"}\n\x00\x01", "sources/okx.frames.ndjson of source okx: line 2: not JSON"},
		"no record": {"coinbase.frames.ndjson", `{"type":"heartbeat"}`, "no frame holds a record"},
		"page":      {"fear_greed.reply.html", `<p>`, "the page has changed"},
		"deep":      {"kraken.reply.json", strings.Repeat("[", 1000), "nested deeper"},
	} {
		p := load(t, nil, fstest.MapFS{"sources/" + c.file: {Data: []byte(c.text)}})
		if _, err := simulate.New(p, simulate.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRecorded plays real traffic of two exchanges.
func TestRecorded(t *testing.T) {
	if _, err := os.Stat(captures); err != nil {
		t.Skipf("the recordings are not here: %v", err)
	}
	p := load(t, nil, nil)
	var log bytes.Buffer
	c := clock.Fast(start, 60) // a round of 30 s in half a second
	s := serve(t, p, simulate.Options{Clock: c, Recorded: os.DirFS(captures), Log: slog.New(slog.NewTextHandler(&log, nil))})
	for name, want := range map[string]int{"coinbase": 10, "okx": 3} {
		cl := connect(t, s, source(t, p, name))
		begun, price, n := c.Now(), map[string]map[float64]bool{}, 0
		for c.Now().Before(begun.Add(45 * time.Second)) { // into the second round
			for _, r := range cl.rows(cl.read(), start) {
				near(t, name, r, c.Now(), 10*time.Second)
				if price[r.market()] == nil {
					price[r.market()] = map[float64]bool{}
				}
				price[r.market()][r["price"].(float64)] = true
				n++
			}
		}
		if len(price) != want || n < 40 {
			t.Errorf("%s: %d rows of %d markets: %v", name, n, len(price), price)
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
	if !strings.Contains(log.String(), "recording_does_not_fit source=binance") {
		t.Error(log.String()) // its recording is of another channel
	}
}

// TestRecordedPoll plays replies and pages at their own times.
func TestRecordedPoll(t *testing.T) {
	p := load(t, nil, nil)
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
	for begun := time.Now(); len(seen) < 2 && time.Since(begun) < 3*time.Second; time.Sleep(5 * time.Millisecond) {
		for _, r := range cl.rows(cl.get(), start) {
			near(t, "binance", r, c.Now(), 30*time.Second)
			seen[r["price"].(float64)] = true
		}
	}
	if !seen[1.5] || !seen[3.5] {
		t.Errorf("%v", seen)
	}
	fng := connect(t, s, source(t, p, "fear_greed"))
	if r := fng.rows(fng.get(), start); len(r) != 1 || r[0]["value"] != 12.0 {
		t.Errorf("%v", r)
	}
	if s.Plays("kraken") {
		t.Error("kraken.txt is played")
	}
}

func TestBrokenRecording(t *testing.T) {
	p := load(t, nil, nil)
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
		}
	}
	if _, err := simulate.New(p, simulate.Options{Recorded: os.DirFS("/nowhere/at/all")}); err == nil {
		t.Error("a missing folder is no error")
	}
}

// TestClose ends while clients are connected, one of which does not read; goleak looks for what stays behind.
func TestClose(t *testing.T) {
	p := load(t, nil, nil)
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
	time.Sleep(200 * time.Millisecond) // sockets fill up
	begun, stacks := time.Now(), make([]byte, 4<<20)
	if err := s.Close(); err != nil {
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
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("closing took %s", d)
	}
	if s.Endpoint(src) != "" || s.Start(t.Context()) == nil {
		t.Error("alive after Close")
	}
}

// TestContextEnds stops serving with the context of Start.
func TestContextEnds(t *testing.T) {
	p := load(t, nil, nil)
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
	p := load(t, nil, nil)
	s := serve(t, p, simulate.Options{})
	base := s.Endpoint(source(t, p, "binance"))
	defer http.DefaultClient.CloseIdleConnections()
	for _, c := range []struct {
		method, url string
		want        int
	}{
		{"POST", base, 405}, {"HEAD", base, 200}, {"GET", base + "/../../etc/passwd", 404}, {"GET", base + "x", 404},
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
