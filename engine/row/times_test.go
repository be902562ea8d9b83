package row_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/row"
)

// timed compiles a definition whose time is an expression.
func timed(t testing.TB, expr string) func(value string) (time.Time, error) {
	src, _, prog := inline(t, "poll { url = \"https://example.com\" }\ndecode \"json\" {}\nrow {\n time = "+expr+"\n base = \"X\"\n}\n")
	return func(value string) (time.Time, error) {
		got, err := cell(t, src, prog, decode.Piece{Key: "k", Value: []byte(`{"t":` + value + `}`)}, "time")
		at, _ := got.(time.Time)
		return at, err
	}
}

// TestTimesAreExact: whatever the unit, the form and the arithmetic, the microsecond is the one that the digits say.
func TestTimesAreExact(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	type form struct {
		expr   string
		digits int  // behind the point of what is given, of seconds
		point  bool // they are behind a point
	}
	for _, f := range []form{
		{"from_unix(r.t)", 6, true},
		{"from_unix(r.t)", 9, true},
		{"from_unix(number(r.t))", 7, true},
		{"from_unix_ms(r.t)", 3, false},
		{"from_unix_us(r.t)", 6, false},
		{"from_unix_ns(r.t)", 9, false},
		{"from_unix(r.t / 1000000)", 6, false},
		{"from_unix(r.t / 1000000000)", 9, false},
		{"from_unix_ms(r.t / 1000)", 6, false},
		{"from_unix((r.t) / 1000 / 1000)", 6, false},
		{"from_unix_ms(r.t * 0.001)", 6, false},
		{"from_unix_us(1000 * r.t)", 3, false},
		{"from_unix_us(number(r.t) / 1000)", 9, false},
		{"from_unix(r.t > 0 ? r.t / 1000000 : 0)", 6, false},
		{"from_unix_us(r.t - 0)", 6, false},
		{"from_unix_us(abs(-r.t))", 6, false},
		{"from_unix((r.t + r.t) / 2000000)", 6, false},
		{"from_unix(coalesce(null, r.t / 1000000))", 6, false},
	} {
		read := timed(t, f.expr)
		for range 300 {
			us := int64(1_500_000_000_000_000) + random.Int64N(300_000_000_000_000)
			unscaled := new(big.Int).SetInt64(us)
			want := us
			if n := int64(1); f.digits > 6 {
				for range f.digits - 6 {
					n *= 10
				}
				unscaled.Mul(unscaled, big.NewInt(n)).Add(unscaled, big.NewInt(random.Int64N(n)))
			} else {
				for range 6 - f.digits {
					n *= 10
				}
				unscaled.Quo(unscaled, big.NewInt(n))
				want = us / n * n
			}
			text := unscaled.String()
			if f.point {
				text = text[:len(text)-f.digits] + "." + text[len(text)-f.digits:]
			}
			for _, written := range []string{text, `"` + text + `"`} {
				if got, err := read(written); err != nil || got.UnixMicro() != want {
					t.Fatalf("%s of %s is %s, %v; want %s", f.expr, written, got.Format(time.RFC3339Nano), err, time.UnixMicro(want).UTC().Format(time.RFC3339Nano))
				}
			}
		}
	}
}

// TestTimesThatAreOdd: forms of numbers, and what lies outside of any time that can be meant.
func TestTimesThatAreOdd(t *testing.T) {
	t.Parallel()
	const other = "is it in another unit"
	for _, c := range []struct{ expr, value, want string }{
		{"from_unix(r.t)", "1.700000000123456e9", "2023-11-14T22:13:20.123456Z"},
		{"from_unix(r.t)", `"17e8"`, "2023-11-14T22:13:20Z"},
		{"from_unix(r.t)", `"+1700000000.5"`, "2023-11-14T22:13:20.5Z"},
		{"from_unix(r.t)", `"0001700000000."`, "2023-11-14T22:13:20Z"},
		{"from_unix_ns(r.t)", `"1700000000123456999"`, "2023-11-14T22:13:20.123456Z"},
		{"from_unix(r.t)", "1700000000.99999999999999999999999999999999999999999", "2023-11-14T22:13:20.999999Z"},
		{"from_unix_us(r.t)", "170000000012345600000000e-8", "2023-11-14T22:13:20.123456Z"},
		{"from_unix_ms(r.t)", "1790856000", other},
		{"from_unix_us(r.t)", "1790856000000", other},
		{"from_unix_ns(r.t)", "1790856000000000", other},
		{"from_unix_us(r.t)", "1790856000", other},
		{"from_unix(r.t)", "1790856000000", other},
		{"from_unix_ms(r.t)", "1790856000000000", other},
		{"from_unix_us(r.t)", "1790856000000000000", other},
		{"from_unix(r.t)", "9e9999", other},
		{"from_unix(r.t)", "0", other},
		{"from_unix(r.t)", "-1790856000", other},
		{"from_unix(r.t)", "1e-9999", other},
		{"from_rfc3339(r.t)", `"1970-01-21T17:27:36Z"`, other},
		{"r.t", `"1970-01-21T17:27:36Z"`, other},
		{"from_unix(r.t)", `"0x10"`, "not a number"},
		{"from_unix(r.t / 1000)", `"n/a"`, "not a number"},
		{"from_unix(r.t)", "true", "not a number"},
		{"from_unix(r.t / 10)", `""`, "not a number"},
		{"from_unix(r.t)", `""`, "the value is missing"},
		{"from_unix(r.t / 1000)", "null", "the value is missing"},
	} {
		got, err := timed(t, c.expr)(c.value)
		said := got.Format(time.RFC3339Nano)
		if err != nil {
			said = err.Error()
		}
		if said != c.want && (err == nil || !strings.Contains(said, c.want)) {
			t.Errorf("%s of %s: %s, want %s", c.expr, c.value, said, c.want)
		}
	}
}

// FuzzUnix reads numbers both ways: the compiled program, and HCL's own evaluation.
func FuzzUnix(f *testing.F) {
	exprs := []string{"from_unix(r.t)", "from_unix_ms(r.t)", "from_unix_us(r.t / 1000)", "from_unix_ns(r.t * 10)", "from_unix((r.t - 1) / 1000000)", "from_unix_us(number(r.t) * 0.001)"}
	for _, s := range []string{`1790856000`, `"1790856000.000001"`, `1790856000250001`, `17908560e2`, `"-1"`, `""`, `null`, `true`, `"1e3"`} {
		f.Add(uint8(0), s)
	}
	var compares []func(t *testing.T, value string)
	for _, e := range exprs {
		src, _, prog := inline(f, "poll { url = \"https://example.com\" }\ndecode \"json\" {}\nrow {\n time = "+e+"\n base = \"X\"\n}\n")
		compares = append(compares, func(t *testing.T, value string) {
			compare(t, src, prog, row.Record{Key: "k", Value: fmt.Appendf(nil, `{"t":%s}`, value), Slot: noon})
		})
	}
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		raw := []byte(fmt.Sprintf(`{"t":%s}`, value))
		if len(value) > 60 || !plainJSON(raw) {
			return // more digits than HCL's numbers keep
		}
		compares[int(which)%len(compares)](t, value)
	})
}
