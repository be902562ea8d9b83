package simulate

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestTimeForms(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 10, 1, 11, 59, 59, 250_000_000, time.UTC)
	now := time.Date(2026, 11, 24, 1, 2, 3, 456_789_999, time.UTC)
	for text, moved := range map[string]string{
		"1790855999": "1795482123", "1790855999.250": "1795482123.456", "1790855999250": "1795482123456", "1790855999250.5": "1795482123456.7",
		"1790855999250000": "1795482123456789", "1790855999250000000": "1795482123456789999",
		"2026-10-01T11:59:59Z": "2026-11-24T01:02:03Z", "2026-10-01T11:59:59.250000Z": "2026-11-24T01:02:03.456789Z",
		"2026-10-01T13:59:59.25+02:00": "2026-11-24T03:02:03.45+02:00", "2026-10-01T11:59:59": "2026-11-24T01:02:03",
		"2026-10-01 11:59:59.250": "2026-11-24 01:02:03.456", "2026-10-01 11:59:59 UTC": "2026-11-24 01:02:03 UTC", "2026-10-01": "2026-11-24",
		"Oct 1, 2026": "Nov 24, 2026", "Thu, 01 Oct 2026 11:59:59 GMT": "Tue, 24 Nov 2026 01:02:03 GMT",
		"": "", "0": "", "17": "", "NaN": "", "Inf": "", "1e400": "", "-1790855999": "", "now": "", "99999999999": "", "9999-99-99": "",
	} {
		form, at, ok := readTime(text)
		if ok != (moved != "") {
			t.Errorf("%q: %v", text, ok)
			continue
		}
		if !ok {
			continue
		}
		if got := string(form.append(nil, now)); got != moved {
			t.Errorf("%q becomes %q, want %q", text, got, moved)
		}
		if d := want.Sub(at); d < -time.Millisecond || d > 12*time.Hour {
			t.Errorf("%q is %s", text, at)
		}
		if got := string(form.append(nil, at)); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
}

func TestNumberForms(t *testing.T) {
	t.Parallel()
	for text, moved := range map[string]string{ // times 1.01
		"70123.10000000": "70824.30000000", "100.00000000": "101.00000000", "0.00001303": "0.00001316", "$70,123.10": "$70,824.30", "7e4": "70700",
		"1.5e-5": "0.000015", "0.00000001": "0.00000001", "-12.50 %": "-12.62 %", "31073": "31384", "999,999": "1,009,999", "12.": "12", "1,2": "1,2",
	} {
		n, ok := readNumber(text)
		if !ok {
			t.Errorf("%q is no number", text)
			continue
		}
		marks := round([]mark{{hole: hole{number: n}}})
		got := text[:n.from] + string(n.append(nil, n.value*1.01, marks[0].digits)) + text[n.to:]
		if got != moved {
			t.Errorf("%q becomes %q, want %q", text, got, moved)
		}
	}
	for _, text := range []string{"", "0", "0.00", "n/a", "-", "1e999"} {
		if n, ok := readNumber(text); ok {
			t.Errorf("%q is %v", text, n)
		}
	}
}

// TestWalk: pure, near 1, small steps, a day's swing like a market's, markets of one asset close together.
func TestWalk(t *testing.T) {
	t.Parallel()
	a, b := newWalk(7, "a", "BTC", "BTC/USD"), newWalk(7, "b", "BTC", "BTC/USDT")
	other := newWalk(8, "a", "BTC", "BTC/USD")
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var day, apart float64
	for i := range 365 * 24 {
		at := from.Add(time.Duration(i) * time.Hour)
		f := a.factor(at)
		if f < 0.4 || f > 2.5 {
			t.Fatalf("%s: %v", at, f)
		}
		if step := math.Abs(a.factor(at.Add(time.Second))/f - 1); step > 1e-3 {
			t.Errorf("%s: a step of %v in a second", at, step)
		}
		if d := math.Abs(b.factor(at)/f - 1); d > 3*venueSwing {
			t.Errorf("%s: venues are %v apart", at, d)
		}
		day += math.Abs(a.factor(at.Add(24*time.Hour))/f-1) / (365 * 24)
		apart = max(apart, math.Abs(other.factor(at)/f-1))
	}
	if day < 0.005 || day > 0.05 || apart < 0.01 {
		t.Errorf("mean swing of a day %v, seeds at most %v apart", day, apart)
	}
}

func FuzzForms(f *testing.F) {
	for _, s := range []string{"1790855999.25", "2026-10-01T11:59:59.250Z", "$70,123.10", "1e-5", strings.Repeat("9", 400), ".5", "-0,000"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 24, 1, 2, 3, 456_789_999, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if form, _, ok := readTime(s); ok {
			text := string(form.append(nil, now))
			if _, at, ok := readTime(text); !ok || at.After(now.Add(24*time.Hour)) || now.Sub(at) > 48*time.Hour {
				t.Errorf("%q becomes %q", s, text)
			}
		}
		if n, ok := readNumber(s); ok {
			text := string(n.append(nil, n.value, round([]mark{{hole: hole{number: n}}})[0].digits))
			if again, ok := readNumber(text); !ok || math.Signbit(again.value) != math.Signbit(n.value) {
				t.Errorf("%q becomes %q", s, text)
			}
		}
	})
}
