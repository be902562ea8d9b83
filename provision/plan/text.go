package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cryptoviz/cryptoviz/engine/terminal"
)

// String says how much is lost: "118,000 records, 41 GiB, 2026-01-03 to 2026-01-08, at once".
func (l *Loss) String() string {
	if l == nil {
		return ""
	}
	return strings.Join(slices.DeleteFunc(append(l.amounts(), l.span(), l.When), func(p string) bool {
		return p == ""
	}), ", ")
}

func (l *Loss) amounts() []string {
	var parts []string
	add := func(n int64, one, many string) {
		if n > 0 {
			parts = append(parts, Amount(n)+" "+map[bool]string{true: one, false: many}[n == 1])
		}
	}
	if l.Unit != Objects { // those are named
		add(l.Count, l.Unit, l.Unit+"s")
	}
	add(int64(l.Chunks), "chunk", "chunks")
	if l.Bytes > 0 {
		parts = append(parts, Bytes(l.Bytes))
	}
	return parts
}

// span is the time of what is lost.
func (l *Loss) span() string {
	switch {
	case l.From != "" && l.To != "":
		return moment(l.From) + " to " + moment(l.To)
	case l.To != "":
		return "up to " + moment(l.To)
	}
	return ""
}

// beside is what a text does not say already of a loss: how much, and when.
func (l *Loss) beside(text string) (amount, when string) {
	if l == nil {
		return "", ""
	}
	parts := slices.DeleteFunc(l.amounts(), func(p string) bool { return strings.Contains(" "+text, " "+p) })
	if span := l.span(); span != "" && !strings.Contains(text, span) && !strings.Contains(text, l.To) {
		parts = append(parts, span)
	}
	if l.When != "" && !strings.Contains(text, l.When) {
		when = ", " + l.When
	}
	return strings.Join(parts, ", "), when
}

// moment shortens an RFC 3339 time to the minute, UTC, or to the day at midnight.
func moment(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return text
	case t.UTC().Truncate(24 * time.Hour).Equal(t):
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// wrap writes text behind a head, at the page's width; further lines begin with indent + hang.
func (o *printer) wrap(indent, head, hang, text string) {
	line := indent + head
	used := utf8.RuneCountInString(indent) + width(head)
	started := false
	for word := range strings.FieldsSeq(Visible(text)) {
		n := utf8.RuneCountInString(word)
		switch {
		case !started:
		case used+1+n > o.Width:
			o.WriteString(line + "\n")
			line, used = indent+hang, utf8.RuneCountInString(indent+hang)
		default:
			line, used = line+" ", used+1
		}
		line, used, started = line+word, used+n, true
	}
	o.WriteString(strings.TrimRight(line, " ") + "\n")
}

// width is the number of columns of a head, its colours left out.
func width(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == 0x1b:
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n++
		}
	}
	return n
}

// Visible replaces what a terminal would obey in a text that comes from outside.
func Visible(s string) string { return terminal.Visible(s) }

// Amount writes a number with separators: 1,440,000.
func Amount(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bytes writes a size in binary units: 41 GiB.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 || f >= 10 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// Counted writes how many there are of something: 1 panel, 1,440 panels.
func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Amount(int64(n)) + " " + what + "s"
}
