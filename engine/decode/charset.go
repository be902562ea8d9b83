package decode

import (
	"bytes"
	"mime"
	"regexp"
	"unicode/utf8"

	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
)

var (
	utf8BOM = []byte("\xef\xbb\xbf")
	// xmlEncoding is the declaration that a page may begin with; the library looks at meta alone.
	xmlEncoding = regexp.MustCompile(`^\s*<\?xml[^>]*\sencoding\s*=\s*["']([A-Za-z0-9._:-]+)["']`)
	// metaTag is where the library looks again: by itself it stops after the first kilobyte.
	metaTag = regexp.MustCompile(`(?i)<meta\s[^>]*charset`)
)

// Text returns a reply or frame in UTF-8, without a byte order mark. contentType is the reply's header, or "". The
// charset is told by the mark, the header, and what a page says of itself, in this order; JSON that is UTF-8 already is
// taken as such. Bytes that are wrong even so stay, where the charset is UTF-8: the row that reads them is refused.
func (d *Decoder) Text(contentType string, body []byte) ([]byte, error) {
	if rest, found := bytes.CutPrefix(body, utf8BOM); found {
		return rest, nil
	}
	from := wide(body)
	switch {
	case from != nil:
	case d.match == nil && utf8.Valid(body):
		return body, nil
	default:
		if from = named(contentType); from == nil && d.match != nil {
			from = ofPage(body)
		}
	}
	if from == nil || from == encoding.Nop {
		return body, nil
	}
	out, err := from.NewDecoder().Bytes(body)
	if err != nil {
		return nil, &ShapeError{"the reply's charset: " + err.Error()}
	}
	return bytes.TrimPrefix(out, utf8BOM), nil
}

// wide is UTF-16, by its byte order mark, or by where the zeros are: JSON and pages begin with ASCII.
func wide(body []byte) encoding.Encoding {
	if len(body) < 2 {
		return nil
	}
	ascii := func(c byte) bool { return c >= ' ' && c < 0x7f || c == '\n' || c == '\r' || c == '\t' }
	switch a, b := body[0], body[1]; {
	case a == 0xff && b == 0xfe, ascii(a) && b == 0:
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	case a == 0xfe && b == 0xff, a == 0 && ascii(b):
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	}
	return nil
}

// named is the charset of a Content-Type; nil: it names none that is known.
func named(contentType string) encoding.Encoding {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil
	}
	e, name := charset.Lookup(params["charset"])
	if name == "utf-8" {
		return encoding.Nop
	}
	return e
}

// ofPage is what a page says of itself; else UTF-8 if it is that, else HTML's own default.
func ofPage(body []byte) encoding.Encoding {
	head := body[:min(len(body), 64<<10)]
	if m := xmlEncoding.FindSubmatch(head); m != nil {
		if e := named("text/html; charset=" + string(m[1])); e != nil {
			return e
		}
	}
	e, name, _ := charset.DetermineEncoding(head, "")
	for _, at := range metaTag.FindAllIndex(head, 10) {
		if name == "windows-1252" { // the default, or meant
			e, name, _ = charset.DetermineEncoding(head[at[0]:], "")
		}
	}
	if name == "utf-8" || name == "windows-1252" && utf8.Valid(body) {
		return encoding.Nop
	}
	return e
}
