package mapping

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

type kind uint8

const (
	null kind = iota
	number
	text
	boolean
	instant // microseconds since 1970; HCL sees its RFC 3339 text
)

// value is what a compiled expression returns. A number is its decimal text as the source wrote it, or a float that was computed.
type value struct {
	kind kind
	b    bool
	raw  []byte // text; number as written, nil when computed
	f    float64
	us   int64
}

var (
	errNotNumber = errors.New("not a number")
	errNotUTF8   = errors.New("a text that is not UTF-8, and the reply names no charset that it could be of")
)

// view reads bytes as a string for a call that does not keep it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// missing tells whether v is null or "".
func (v value) missing() bool { return v.kind == null || (v.kind == text && len(v.raw) == 0) }

// float returns v as a float64: a number, or a text that holds one.
func (v value) float() (float64, error) {
	switch v.kind {
	case number:
		if v.raw == nil {
			return v.f, nil
		}
	case text:
		if !units.IsNumber(view(v.raw)) {
			return 0, fmt.Errorf("%q is not a number", units.Clip(string(v.raw)))
		}
	default:
		return 0, errNotNumber
	}
	return parseFloat(v.raw)
}

// parseFloat is strconv.ParseFloat with a short cut for what exchanges send: at most 19 digits, no exponent.
func parseFloat(b []byte) (float64, error) {
	if f, ok := shortFloat(b); ok {
		return f, nil
	}
	f, err := strconv.ParseFloat(view(b), 64)
	if err != nil || math.IsInf(f, 0) {
		return 0, fmt.Errorf("%q is not a finite number", units.Clip(string(b)))
	}
	return f, nil
}

var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// shortFloat is exact when the digits fit 53 bits and the divisor is a power of ten that a float64 holds exactly (Clinger).
func shortFloat(b []byte) (float64, bool) {
	i, neg := 0, false
	if len(b) > 0 && b[0] == '-' {
		neg, i = true, 1
	}
	if i == len(b) || len(b) > 20 {
		return 0, false
	}
	var m uint64
	point := -1
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c-'0' <= 9:
			m = m*10 + uint64(c-'0')
		case c == '.' && point < 0:
			point = i
		default:
			return 0, false
		}
	}
	if m >= 1<<53 {
		return 0, false
	}
	f := float64(m)
	if point >= 0 {
		f /= pow10[len(b)-point-1]
	}
	if neg {
		f = -f
	}
	return f, true
}

// fromJSON turns a scanned value into a value; objects and arrays have none of their own.
func fromJSON(v rawjson.Value, scratch *[]byte) (value, error) {
	switch v.Kind {
	case rawjson.Missing, rawjson.Null:
		return value{}, nil
	case rawjson.Number:
		return value{kind: number, raw: v.Raw}, nil
	case rawjson.True, rawjson.False:
		return value{kind: boolean, b: v.Kind == rawjson.True}, nil
	case rawjson.String:
		if !v.Escaped {
			return value{kind: text, raw: v.Raw}, nil
		}
		if !utf8.Valid(v.Raw) {
			return value{}, errNotUTF8
		}
		*scratch = v.Text(*scratch)
		return value{kind: text, raw: append([]byte(nil), *scratch...)}, nil
	}
	return value{}, errors.New("it is an object or a list, not a value")
}

// fromCty turns the result of an HCL evaluation into a value.
func fromCty(v cty.Value) (value, error) {
	v, _ = v.Unmark()
	switch {
	case v.IsNull() || !v.IsKnown():
		return value{}, nil
	case v.Type() == cty.String:
		return value{kind: text, raw: []byte(v.AsString())}, nil
	case v.Type() == cty.Bool:
		return value{kind: boolean, b: v.True()}, nil
	case v.Type() == cty.Number:
		f := v.AsBigFloat()
		if f.IsInf() {
			return value{}, errors.New("division by zero")
		}
		return value{kind: number, raw: []byte(bigText(f))}, nil
	}
	return value{}, errors.New("it is an object or a list, not a value")
}

// bigText writes a big float as the shortest decimal that keeps float64 precision, whole numbers exactly.
func bigText(f *big.Float) string {
	if f.IsInt() {
		return f.Text('f', 0)
	}
	return f.Text('g', 40)
}
