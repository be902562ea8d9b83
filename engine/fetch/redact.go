package fetch

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// redactor are the values that a request or a subscription carries and that may be keys. A source may repeat them, in
// capital or small letters; a message must not.
type redactor struct {
	values []string       // the longest first: one may be a part of another
	any    *regexp.Regexp // one of them; nil: there are none
}

// Shorter values hide nothing, and would maim every message.
const shortestKey = 8

// redacted stands where a value was.
const redacted = "(hidden)"

// newRedactor lists what is secret in a definition's parameters, what stands in headers and in the query, and what
// looks like a key in the path or in the messages of a stream.
func newRedactor(def *spec.Definition, target *url.URL) redactor {
	values := map[string]bool{}
	add := func(value string) {
		if len(value) < shortestKey {
			return
		}
		quoted, _ := json.Marshal(value)
		for _, form := range []string{
			value, url.QueryEscape(value), url.PathEscape(value),
			string(quoted[1 : len(quoted)-1]),
		} {
			values[form] = true
		}
	}
	for _, secret := range def.Secrets {
		add(secret.Reveal())
	}
	add(target.RawQuery)
	for _, given := range target.Query() {
		for _, value := range given {
			add(value)
		}
	}
	for part := range strings.SplitSeq(target.Path, "/") {
		if looksLikeKey(part) {
			add(part)
		}
	}
	if def.Poll != nil {
		for _, value := range def.Poll.Headers {
			add(value.Reveal())
			for part := range strings.FieldsSeq(value.Reveal()) { // Bearer KEY
				add(part)
			}
		}
	}
	if def.Stream != nil {
		for _, message := range append(slices.Clone(def.Stream.Subscribe), def.Stream.Ping) {
			for _, part := range strings.FieldsFunc(message, func(r rune) bool {
				return unicode.IsSpace(r) || strings.ContainsRune(`"',;{}[]()&?`, r)
			}) {
				if looksLikeKey(part) {
					add(part)
				}
			}
		}
	}
	var s redactor
	for value := range values {
		s.values = append(s.values, value)
	}
	slices.SortFunc(s.values, func(a, b string) int { return len(b) - len(a) })
	if len(s.values) > 0 {
		forms := make([]string, len(s.values))
		for i, value := range s.values {
			forms[i] = regexp.QuoteMeta(value)
		}
		s.any = regexp.MustCompile("(?i)" + strings.Join(forms, "|"))
	}
	return s
}

var (
	longWord = regexp.MustCompile(`[A-Za-z0-9]{16,}`)
	isUUID   = regexp.MustCompile(`[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}`)
)

// looksLikeKey tells whether a part of a path or message may be a key that was written into the definition: a long word
// of letters and digits. Names of markets have separators.
func looksLikeKey(text string) bool {
	return isUUID.MatchString(text) || slices.ContainsFunc(longWord.FindAllString(text, -1), func(word string) bool {
		return strings.ContainsAny(word, "0123456789") && strings.ContainsFunc(word, unicode.IsLetter)
	})
}

// quote is a short line.
func (s redactor) quote(text string) string { return units.Clip(s.line(text)) }

// line makes a source's own words fit for the log and the ledger: one line, printable, without what was sent.
func (s redactor) line(text string) string {
	const enough = 4 << 10
	text = s.redact(strings.ToValidUTF8(text[:min(len(text), enough)], ""))
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, text)
	return s.redact(strings.Join(strings.Fields(text), " ")) // again: what was taken out may have stood inside a value
}

// redact takes out what was sent, also the beginning of it at the end of a text that was cut.
func (s redactor) redact(text string) string {
	if s.any == nil {
		return text
	}
	text = s.any.ReplaceAllLiteralString(text, redacted)
	for _, value := range s.values {
		for n := min(len(value)-1, len(text)); n >= shortestKey; n-- {
			if strings.EqualFold(text[len(text)-n:], value[:n]) {
				return text[:len(text)-n] + redacted
			}
		}
	}
	return text
}
