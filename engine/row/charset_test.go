package row_test

import (
	"strings"
	"testing"

	"golang.org/x/net/html/charset"
)

// encoded writes a text in a charset of the Web.
func encoded(t *testing.T, name, text string) []byte {
	t.Helper()
	if order, ok := map[string]int{"utf-16le": 0, "utf-16be": 1}[name]; ok {
		var out []byte
		for _, r := range text {
			pair := [2]byte{byte(r), byte(r >> 8)}
			out = append(out, pair[order], pair[1-order])
		}
		return out
	}
	e, _ := charset.Lookup(name)
	out, err := e.NewEncoder().Bytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCharset: whatever says the charset, and in whatever it is written, the same text arrives.
func TestCharset(t *testing.T) {
	t.Parallel()
	page := func(head, name string) string {
		return head + `<table><tr class=m><td class=n>` + name + `</td><td class=p>1</td></tr></table>`
	}
	far := "<!doctype html><html><head><script>" + strings.Repeat("x", 3000) + "</script>"
	const html = `
poll { url = "https://example.com" }
decode "html" {
  select = "tr.m"
  field "n" { select = "td.n" }
}
row {
  time = slot
  base = r.n
}
`
	const json = `
poll { url = "https://example.com" }
decode "json" { key = r.n }
row {
  time = slot
  base = r.n
}
`
	for _, c := range []struct{ name, def, header, charset, before, text, want string }{
		{"header", html, "text/html; charset=ISO-8859-1", "iso-8859-1", "", page("", "Café"), "Café"},
		{"header, capitals and quotes", html, `Text/HTML; Charset="Windows-1251"`, "windows-1251", "", page("", "Биткоин"), "Биткоин"},
		{"meta", html, "text/html", "shift_jis", "", page(`<meta charset=Shift_JIS>`, "ビットコイン"), "ビットコイン"},
		{"meta http-equiv", html, "", "windows-1251", "", page(`<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">`, "Эфир"), "Эфир"},
		{"meta far behind", html, "", "windows-1251", "", page(far+`<meta charset="windows-1251">`, "Эфир"), "Эфир"},
		{"meta of UTF-8 far behind", html, "", "utf-8", "", page(far+`<meta charset="utf-8">`, "Эфир"), "Эфир"},
		{"XML declaration", html, "", "iso-8859-2", "", page(`<?xml version="1.0" encoding="ISO-8859-2"?>`, "Złoty"), "Złoty"},
		{"header before meta", html, "text/html; charset=windows-1251", "windows-1251", "", page(`<meta charset=koi8-r>`, "Эфир"), "Эфир"},
		{"mark before header", html, "text/html; charset=ISO-8859-1", "utf-8", "\xef\xbb\xbf", page("", "Café"), "Café"},
		{"UTF-16 page", html, "text/html", "utf-16le", "\xff\xfe", page("", "Café"), "Café"},
		{"UTF-16 by header", html, "text/html; charset=utf-16be", "utf-16be", "", page("", "Café"), "Café"},
		{"nothing said, UTF-8 behind the first kilobyte", html, "", "utf-8", "", page(far, "Café"), "Café"},
		{"nothing said, not UTF-8: HTML's default", html, "", "windows-1252", "", page("", "€"), "€"},
		{"unknown charset", html, "text/html; charset=klingon", "utf-8", "", page("", "Café"), "Café"},

		{"JSON", json, "application/json", "utf-8", "", `{"n":"Café"}`, "Café"},
		{"JSON with a mark", json, "application/json", "utf-8", "\xef\xbb\xbf", `{"n":"Café"}`, "Café"},
		{"UTF-16LE", json, "application/json", "utf-16le", "\xff\xfe", `{"n":"Café"}`, "Café"},
		{"UTF-16BE", json, "application/json; charset=utf-16", "utf-16be", "\xfe\xff", `{"n":"Café"}`, "Café"},
		{"UTF-16LE without a mark", json, "", "utf-16le", "", `{"n":"Café"}`, "Café"},
		{"UTF-16BE without a mark", json, "", "utf-16be", "", ` [{"n":"Café"}]`, "Café"},
		{"JSON by header", json, "application/json; charset=iso-8859-1", "iso-8859-1", "", `{"n":"Café"}`, "Café"},
		{"JSON that is UTF-8, whatever the header says", json, "application/json; charset=iso-8859-1", "utf-8", "", `{"n":"Café"}`, "Café"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dec, prog := inline(t, c.def)
			pieces, err := dec.Decode(c.header, append([]byte(c.before), encoded(t, c.charset, c.text)...))
			if err != nil || len(pieces) != 1 {
				t.Fatalf("%d pieces, %v", len(pieces), err)
			}
			got, err := cell(t, src, prog, pieces[0], "base")
			if err != nil || got != c.want {
				t.Errorf("%v, %v: %q", got, err, pieces[0].Value)
			}
			if !strings.Contains(string(pieces[0].Value), c.want) {
				t.Errorf("what goes to the topic is not UTF-8: %q", pieces[0].Value)
			}
		})
	}
}

// TestNotUTF8: a text with bytes that are none is no row, and the others are.
func TestNotUTF8(t *testing.T) {
	t.Parallel()
	src, dec, prog := inline(t, `
poll { url = "https://example.com" }
decode "json" {}
row {
  time = slot
  base = r.n
}
`)
	pieces, err := dec.Decode("", []byte("[{\"n\":\"Caf\xe9\"},{\"n\":\"Tea\"},{\"n\":\"Tea\",\"other\":\"\xe9\"}]"))
	if err != nil || len(pieces) != 3 {
		t.Fatal(pieces, err)
	}
	for i, want := range []string{"a text that is not UTF-8", "", ""} {
		if _, err := cell(t, src, prog, pieces[i], "base"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", pieces[i].Value, err)
		}
	}
}
