package row_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/row"
)

// TestComputedMembers: a member whose name is computed, and is not there, is as missing as one that is written out; the
// compiled program and HCL agree.
func TestComputedMembers(t *testing.T) {
	for _, c := range []struct {
		expr, record string
		want         any
	}{
		{"r[key]", `{"k":5}`, 5.0},
		{"r[key]", `{"j":5}`, nil},
		{"r[key]", `[1,2]`, nil},
		{"r[r.name]", `{"name":"p","p":"7"}`, 7.0},
		{"r[r.name]", `{"p":"7"}`, nil},
		{"r[lower(r.name)].last", `{"name":"P","p":{"last":7}}`, 7.0},
		{"r[lower(r.name)].last", `{"name":"P","p":7}`, nil},
		{"r[lower(r.name)].last", `{"name":"Q","p":{}}`, nil},
		{"r.list[r.i]", `{"list":[1,2],"i":1}`, 2.0},
		{"r.list[r.i]", `{"list":[1,2],"i":2}`, nil},
		{"r.list[r.i]", `{"list":[1,2],"i":0.5}`, nil},
		{"r.list[r.i]", `{"list":null,"i":0}`, nil},
		{"coalesce(r[key], r.other, 3)", `{"j":5}`, 3.0},
		{"coalesce(r[key], r.other.deep, r.j)", `{"j":5}`, 5.0},
		{`number(split(":", r.s)[1])`, `{"s":"a:8"}`, 8.0},
		{`number(split(":", r.s)[1])`, `{"s":"a"}`, nil},
		{`{ a = 1 }[r.s]`, `{"s":"a"}`, 1.0},
		{`{ a = 1 }[r.s]`, `{"s":"b"}`, nil},
		{`number(r.a[key]) + 1`, `{"a":{"k":1}}`, 2.0},
		{`number(r.a[key]) + 1`, `{}`, nil},
		{`try(r[key].x.y, 1)`, `{}`, nil}, // as try(r.k.x.y, 1): missing is no error
	} {
		src, _, prog := inline(t, "poll { url = \"https://example.com\" }\ndecode \"json\" {}\nrow {\n time = slot\n base = \"X\"\n price = "+c.expr+"\n}\n")
		got, err := cell(t, src, prog, decode.Piece{Key: "k", Value: []byte(c.record)}, "price")
		if err != nil || got != c.want {
			t.Errorf("%s of %s is %v, %v; want %v", c.expr, c.record, got, err, c.want)
		}
		compare(t, src, prog, row.Record{Key: "k", Value: []byte(c.record), Slot: noon})
	}
}

// TestWholeElements: elements that a page has by itself are records, too.
func TestWholeElements(t *testing.T) {
	const page = `<!doctype html><html lang="en"><head><title>Prices</title></head><body class="b"><h1>BTC</h1><p id=p>7</p></body></html>`
	for _, c := range []struct{ selected, field, attr, want string }{
		{"body", "h1", "", "BTC"},
		{"body", "", "class", "b"},
		{"html", "title", "", "Prices"},
		{"html", "", "lang", "en"},
		{"head", "title", "", "Prices"},
		{":root", "h1", "", "BTC"},
		{"body.b", "#p", "", "7"},
		{"h1", "", "", "BTC"},
	} {
		field := ""
		if c.field != "" {
			field = "select = \"" + c.field + "\""
		}
		src, dec, prog := inline(t, `
poll { url = "https://example.com" }
decode "html" {
  select = "`+c.selected+`"
  key    = r.f
  field "f" {
    `+field+`
    attr   = "`+c.attr+`"
  }
}
row {
  time = slot
  base = r.f
}
`)
		pieces, err := dec.Decode("text/html", []byte(page))
		if err != nil || len(pieces) != 1 || pieces[0].Key != c.want {
			t.Errorf("%s: %+v, %v", c.selected, pieces, err)
			continue
		}
		if got, err := cell(t, src, prog, pieces[0], "base"); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.selected, got, err)
		}
	}
}

// TestExpressionThatFails: the dead letter names the expression, what it met, and what is there; its kind is without values.
func TestExpressionThatFails(t *testing.T) {
	for _, c := range []struct{ row, record, want, Kind string }{
		{
			"time = from_unix_ms(r.tm)\n base = \"X\"", `{"ts":1790856000000,"last":1}`,
			`column time: the value is missing; from_unix_ms(r.tm) (desk.hcl:4); r has no "tm", it has ts, last (did you mean "ts"?)`, "column time",
		},
		{"time = from_unix(r.ts)\n base = \"X\"", `{"ts":1790856000000}`, `in another unit, seconds, milliseconds, microseconds or nanoseconds?; from_unix(r.ts) (desk.hcl:4); r.ts is 1790856000000`, "column time"},
		{"time = slot\n base = r.m.id", `{"m":["a"]}`, `r.m has no "id": it is a list of 1`, "column base"},
		{"time = slot\n base = r.m", `{"m":{"id":1}}`, `it is an object or a list, not a value; r.m (desk.hcl:5); r.m is an object with id`, "column base"},
		{"time = slot\n base = \"X\"\n price = number(r.p) * r.f", `{"p":"7","f":"n/a"}`, `"n/a" is not a number; number(r.p) * r.f (desk.hcl:6); r.p is "7"; r.f is "n/a"`, "column price"},
		{"time = slot\n base = market(r.s).base", `{"s":"BTCUSD"}`, `market "BTCUSD" has no separator`, "column base"},
		{"time = slot\n base = \"X\"\n skip = r.n", `{"n":3}`, `column skip: not true or false; r.n (desk.hcl:6); r.n is 3`, "skip"},
	} {
		src, _, prog := inline(t, "poll { url = \"https://example.com\" }\ndecode \"json\" {}\nrow {\n "+c.row+"\n}\n")
		_, err := cell(t, src, prog, decode.Piece{Key: "k", Value: []byte(c.record)}, "base")
		var e *row.Error
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &e) || e.Kind != c.Kind {
			t.Errorf("%s of %s: %v\nwant %s", c.row, c.record, err, c.want)
		}
	}
	long := `{"` + strings.Repeat("x", 300) + `":1,"s":"` + strings.Repeat("é", 3000) + `"` + strings.Repeat(`,"`+strings.Repeat("y", 90)+`":1`, 50) + `}`
	src, _, prog := inline(t, "poll { url = \"https://example.com\" }\ndecode \"json\" {}\nrow {\n time = slot\n base = r.q\n price = r.s\n}\n")
	if _, err := cell(t, src, prog, decode.Piece{Key: "k", Value: []byte(long)}, "base"); err == nil || len(err.Error()) > 520 || !strings.HasSuffix(err.Error(), "…") {
		t.Errorf("%v", err)
	}
}

// TestErrorThatIsNoText: neither stored nor silent.
func TestErrorThatIsNoText(t *testing.T) {
	for _, c := range []struct{ decode, body, want string }{
		{"error = body.error", `{"error":{"code":1}}`, "decode.error: body.error (desk.hcl:3) gives an object, not a text"},
		{"error = body.error", `{"error":["down"]}`, "gives a list, not a text"},
		{"error = body.ok == false", `{"ok":false}`, "gives true, not a text"},
		{"error = body.error", `{"error":[]}`, ""},
		{"error = body.error", `{"error":{}}`, ""},
		{"error = body.ok == false", `{"ok":true}`, ""},
		{"when = body.kind", `{"kind":"tick"}`, "decode.when: body.kind (desk.hcl:3) is neither true nor false"},
		{"error = body.error", `{"error":""}`, ""},
		{"error = body.error", `{"error":null}`, ""},
		{"error = body.error", `{}`, ""},
		{"when = body.kind", `{}`, ""},
	} {
		_, dec, _ := inline(t, "poll { url = \"https://example.com\" }\ndecode \"json\" {\n "+c.decode+"\n}\nrow {\n time = slot\n base = \"X\"\n}\n")
		if _, err := dec.Records([]byte(c.body)); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s: %v, want %s", c.decode, c.body, err, c.want)
		}
	}
}
