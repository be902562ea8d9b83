package simulate_test

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// mustLoad reads the shipped pipeline; edit changes pipeline.hcl first, more adds files beside it.
func mustLoad(t testing.TB, edit func(string) string, more fstest.MapFS) *spec.Pipeline {
	t.Helper()
	text, err := os.ReadFile(root + "/pipeline.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		text = []byte(edit(string(text)))
	}
	files := fstest.MapFS{"pipeline.hcl": {Data: text}}
	for _, dir := range []string{"sources", "sql", "dashboards"} {
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
	p, d := load.Load(files, "pipeline.hcl", load.Options{})
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
	dec  *decode.Decoder
	prog *row.Program
	conn *websocket.Conn
}

func connect(t testing.TB, s *simulate.Server, src *spec.Source) *client {
	t.Helper()
	dec, err := decode.NewDecoder(src)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := row.Compile(src)
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
	ctx, cancel := context.WithTimeout(c.t.Context(), testkit.Patience)
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

// storedRow is a mapped record.
type storedRow map[string]any

func (r storedRow) market() string {
	b, _ := r["base"].(string)
	q, _ := r["quote"].(string)
	return b + "/" + q
}

func (c *client) rows(body []byte, slot time.Time) []storedRow {
	c.t.Helper()
	pieces, err := c.dec.Records(body)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", c.src.Name, err, body)
	}
	var out []storedRow
	for _, p := range pieces {
		var rows row.Rows
		if err := c.prog.Append(&rows, row.Record{Key: p.Key, Value: p.Value, Slot: slot}, 0); err != nil {
			c.t.Fatalf("%s: %v\n%s", c.src.Name, err, p.Value)
		}
		if rows.Len() == 0 {
			continue
		}
		r, at := storedRow{}, 2
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
func (c *client) round(slot time.Time, markets int) map[string]storedRow {
	c.t.Helper()
	out := map[string]storedRow{}
	for begun := time.Now(); time.Since(begun) < testkit.Patience; {
		var body []byte
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

// near checks that a row is of the engine's day, as far as its clock has come: what is played was recorded at other times.
func near(t testing.TB, name string, r storedRow, now time.Time) {
	t.Helper()
	if at := r["time"].(time.Time); at.After(now) || now.Sub(at) > 24*time.Hour {
		t.Errorf("%s %s: time %s, now %s", name, r.market(), at, now)
	}
}

func sensible(t testing.TB, name string, r storedRow) {
	t.Helper()
	price, _ := r["price"].(float64)
	f := func(c string) float64 { // a source need not tell it
		if v, there := r[c].(float64); there {
			return v
		}
		return price
	}
	if price <= 0 || f("bid") > price || f("ask") < price || f("low_24h") > price || f("high_24h") < price {
		t.Errorf("%s: %v", name, r)
	}
}
