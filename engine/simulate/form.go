package simulate

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timeForm is how a fixture writes a time.
type timeForm struct {
	layout string         // text; "" for a number
	zone   *time.Location // text
	unit   time.Duration  // number: what 1 means
	digits int            // number: digits behind the point
}

// layouts of texts, without the fraction of the second.
var layouts = []string{
	"2006-01-02T15:04:05Z", "2006-01-02T15:04:05-07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z",
	"2006-01-02 15:04:05-07:00",
	"2006-01-02 15:04:05 UTC", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", time.RFC1123, time.RFC1123Z,
	"Jan 2, 2006", "January 2, 2006",
}

var fraction = regexp.MustCompile(`:\d\d\.(\d{1,9})`)

// readTime finds out how s writes a time: a number of seconds, milliseconds, microseconds or nanoseconds, or a text.
func readTime(s string) (form timeForm, at time.Time, ok bool) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		switch {
		case f >= 1e8 && f < 9e9:
			form.unit = time.Second
		case f >= 1e11 && f < 9e12:
			form.unit = time.Millisecond
		case f >= 1e14 && f < 9e15:
			form.unit = time.Microsecond
		case f >= 1e17 && f < 9e18:
			form.unit = time.Nanosecond
		default:
			return form, at, false
		}
		if _, behind, found := strings.Cut(s, "."); found {
			form.digits = min(len(behind), 9)
		}
		whole, part := math.Modf(f)
		n, err := strconv.ParseInt(s, 10, 64) // exact where a float is not
		if err != nil {
			n = int64(whole)
		}
		at = time.Unix(0, n*int64(form.unit)+int64(part*float64(form.unit)))
		return form, at.UTC(), true
	}
	zeros := ""
	if m := fraction.FindStringSubmatch(s); m != nil {
		zeros = "." + strings.Repeat("0", len(m[1]))
	}
	for _, layout := range layouts {
		layout = strings.Replace(layout, ":05", ":05"+zeros, 1)
		if at, err := time.Parse(layout, s); err == nil {
			return timeForm{layout: layout, zone: at.Location()}, at.UTC(), true
		}
	}
	return form, at, false
}

func (f timeForm) append(buf []byte, t time.Time) []byte {
	if f.layout != "" {
		return t.In(f.zone).AppendFormat(buf, f.layout)
	}
	ns := t.UnixNano()
	buf = strconv.AppendInt(buf, ns/int64(f.unit), 10)
	if f.digits > 0 { // cut, not rounded: a time is never later than now
		part := strconv.FormatInt(int64(time.Second)+ns%int64(f.unit)*int64(time.Second/f.unit), 10)
		buf = append(append(buf, '.'), part[1:1+f.digits]...)
	}
	return buf
}

// numberForm is how a fixture writes a price.
type numberForm struct {
	value    float64
	own      int // digits behind the point
	exact    int // … of which the last is not 0
	grouped  bool
	from, to int // where it stands in the text: "$70,123.10" is a price too
}

var decimalNumber = regexp.MustCompile(`-?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)`)

// readNumber finds the number in s. Zero is none: nothing moves it.
func readNumber(s string) (numberForm, bool) {
	at := decimalNumber.FindStringIndex(s)
	if at == nil {
		return numberForm{}, false
	}
	text := s[at[0]:at[1]]
	n := numberForm{from: at[0], to: at[1], grouped: strings.Contains(text, ",")}
	text = strings.ReplaceAll(text, ",", "")
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f == 0 || math.IsInf(f, 0) {
		return numberForm{}, false
	}
	n.value = f
	if strings.ContainsAny(text, "eE") {
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	_, behind, _ := strings.Cut(text, ".")
	n.own, n.exact = min(len(behind), 18), min(len(strings.TrimRight(behind, "0")), 18)
	return n, true
}

// append writes v rounded to digits behind the point, filled up with zeros to the fixture's own number of them.
func (n numberForm) append(buf []byte, v float64, digits int) []byte {
	start := len(buf)
	buf = strconv.AppendFloat(buf, v, 'f', digits, 64)
	if !strings.ContainsAny(string(buf[start:]), "123456789") { // a price does not become 0
		buf = strconv.AppendFloat(buf[:start], math.Copysign(math.Pow10(-digits), v), 'f', digits, 64)
	}
	if n.own > digits {
		if digits == 0 {
			buf = append(buf, '.')
		}
		for range n.own - digits {
			buf = append(buf, '0')
		}
	}
	if n.grouped {
		return append(buf[:start], group(string(buf[start:]))...)
	}
	return buf
}

func group(s string) string {
	whole, rest, _ := strings.Cut(s, ".")
	sign := strings.HasPrefix(whole, "-")
	whole = strings.TrimPrefix(whole, "-")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	if sign {
		whole = "-" + whole
	}
	return whole
}
