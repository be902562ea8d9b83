package row_test

import (
	"strings"
	"testing"
)

// TestKeyThatFails: a record whose key cannot be computed says so, is like no other, and ends as a dead letter; unless the
// row is not wanted anyway.
func TestKeyThatFails(t *testing.T) {
	t.Parallel()
	const row = "row {\n time = slot\n base = coalesce(r.s, \"X\")\n skip = r.kind == \"other\"\n}\n"
	for _, c := range []struct{ name, decode, body, want string }{
		{
			"a member that is not there", `decode "json" { key = r.smybol }`, `{"symbol":"A","last":1}`,
			`decode.key: the value is missing; r.smybol (desk.hcl:2); r has no "smybol", it has symbol, last (did you mean "symbol"?)`,
		},
		{"empty", `decode "json" { key = r.s }`, `{"s":""}`, `r.s is ""`},
		{"deeper", `decode "json" { key = r.a.b[1].c }`, `{"a":{"b":[{},"x"]}}`, `r.a.b[1] has no "c": it is "x"`},
		{"beyond a list", `decode "json" { key = r.l[3] }`, `{"l":[1,2]}`, `r.l has no "3": it is a list of 2`},
		{"an object", `decode "json" { key = r.m }`, `{"m":{"id":1}}`, `it is an object or a list, not a value; r.m (desk.hcl:2); r.m is an object with id`},
		{"a function", `decode "json" { key = text(number(r.s)) }`, `{"s":"n/a"}`, `"n/a" is not a number; text(number(r.s)) (desk.hcl:2); r.s is "n/a"`},
		{"the member's name", "decode \"json\" {\n keyed = true\n key = number(key)\n}", `{"BTC":{"s":"A"}}`, `"BTC" is not a number; number(key) (desk.hcl:4); key is "BTC"`},
		{"a field", "decode \"html\" {\n select = \"p\"\n key = r.n\n field \"n\" { select = \"b\" }\n field \"s\" {}\n field \"kind\" { attr = \"x\" }\n}", `<p>x</p>`, `the value is missing; r.n (desk.hcl:4); r has no "n" in this element, it has s, kind`},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dec, prog := inline(t, "poll { url = \"https://example.com\" }\n"+c.decode+"\n"+row)
			pieces, err := dec.Records([]byte(c.body))
			if err != nil || len(pieces) != 1 || pieces[0].Key != "" || !strings.Contains(pieces[0].Fault, c.want) {
				t.Fatalf("%+v, %v\nwant %s", pieces, err, c.want)
			}
			if _, err := cell(t, src, prog, pieces[0], "base"); err == nil || err.Error() != pieces[0].Fault {
				t.Errorf("the dead letter says %v", err)
			}
		})
	}
	src, dec, prog := inline(t, "poll { url = \"https://example.com\" }\ndecode \"json\" { key = r.s }\n"+row)
	pieces, err := dec.Records([]byte(`{"kind":"other"}`))
	if err != nil || pieces[0].Fault == "" {
		t.Fatal(pieces, err)
	}
	if got, err := cell(t, src, prog, pieces[0], "base"); got != "skipped" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}
