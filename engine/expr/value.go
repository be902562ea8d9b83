package expr

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Kind is the kind of a Value.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Number
	Text
	Boolean
	Instant // microseconds since 1970; HCL sees its RFC 3339 text
)

// Value is what a compiled expression returns. A number is its decimal text as the source wrote it, or a float that was
// computed.
type Value struct {
	Kind     Kind
	Bool     bool
	Raw      []byte // text; number as written, nil when computed
	Computed float64
	us       int64
}

// What a value can be wrong about.
var (
	ErrNotNumber = errors.New("not a number")
	ErrNotUTF8   = errors.New("a text that is not UTF-8, and the reply names no charset that it could be of")
)

// view reads bytes as a string for a call that does not keep it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Missing tells whether v is null or "".
func (v Value) Missing() bool { return v.Kind == Null || (v.Kind == Text && len(v.Raw) == 0) }

// Float returns v as a float64: a number, or a text that holds one.
func (v Value) Float() (float64, error) {
	switch v.Kind {
	case Number:
		if v.Raw == nil {
			return v.Computed, nil
		}
	case Text:
		if !units.IsNumber(view(v.Raw)) {
			return 0, fmt.Errorf("%q is not a number", units.Clip(string(v.Raw)))
		}
	default:
		return 0, ErrNotNumber
	}
	return parseFloat(v.Raw)
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

var pow10 = [...]float64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
	1e18, 1e19, 1e20, 1e21, 1e22,
}

// shortFloat is exact when the digits fit 53 bits and the divisor is a power of ten that a float64 holds exactly
// (Clinger).
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
func fromJSON(v rawjson.Value, scratch *[]byte) (Value, error) {
	switch v.Kind {
	case rawjson.Missing, rawjson.Null:
		return Value{}, nil
	case rawjson.Number:
		return Value{Kind: Number, Raw: v.Raw}, nil
	case rawjson.True, rawjson.False:
		return Value{Kind: Boolean, Bool: v.Kind == rawjson.True}, nil
	case rawjson.String:
		if !v.Escaped {
			return Value{Kind: Text, Raw: v.Raw}, nil
		}
		if !utf8.Valid(v.Raw) {
			return Value{}, ErrNotUTF8
		}
		*scratch = v.Text(*scratch)
		return Value{Kind: Text, Raw: append([]byte(nil), *scratch...)}, nil
	}
	return Value{}, errors.New("it is an object or a list, not a value")
}

// FromCty turns the result of an HCL evaluation into a value.
func FromCty(v cty.Value) (Value, error) {
	v, _ = v.Unmark()
	switch {
	case v.IsNull() || !v.IsKnown():
		return Value{}, nil
	case v.Type() == cty.String:
		return Value{Kind: Text, Raw: []byte(v.AsString())}, nil
	case v.Type() == cty.Bool:
		return Value{Kind: Boolean, Bool: v.True()}, nil
	case v.Type() == cty.Number:
		f := v.AsBigFloat()
		if f.IsInf() {
			return Value{}, errors.New("division by zero")
		}
		return Value{Kind: Number, Raw: []byte(bigText(f))}, nil
	}
	return Value{}, errors.New("it is an object or a list, not a value")
}

// bigText writes a big float as the shortest decimal that keeps float64 precision, whole numbers exactly.
func bigText(f *big.Float) string {
	if f.IsInt() {
		return f.Text('f', 0)
	}
	return f.Text('g', 40)
}

// MicrosOf returns a time in microseconds since 1970: an instant, or a text in RFC 3339.
func MicrosOf(v Value) (int64, error) {
	switch v.Kind {
	case Instant:
		return v.us, nil
	case Text:
		t, err := ParseTime(string(v.Raw))
		return t.UnixMicro(), err
	}
	return 0, errors.New("not a time; use from_unix, from_unix_ms, from_unix_us, from_unix_ns or from_rfc3339")
}

// TextOf returns the text of v; a number is written as HCL writes it.
func TextOf(v Value) ([]byte, error) {
	switch v.Kind {
	case Text:
		return v.Raw, nil
	case Boolean:
		return strconv.AppendBool(nil, v.Bool), nil
	case Instant:
		return time.UnixMicro(v.us).UTC().AppendFormat(nil, TimeFormat), nil
	case Number:
		f, err := decimal(v)
		if err != nil {
			return nil, err
		}
		return []byte(f.Text('f', -1)), nil
	}
	return nil, errors.New("not a text")
}

func decimal(v Value) (*big.Float, error) {
	if v.Kind == Number && v.Raw == nil {
		if math.IsInf(v.Computed, 0) || math.IsNaN(v.Computed) {
			return nil, errors.New("not a finite number")
		}
		return big.NewFloat(v.Computed), nil
	}
	if v.Kind != Number && v.Kind != Text {
		return nil, ErrNotNumber
	}
	return units.ParseNumber(string(v.Raw))
}

// IntegerOf returns a whole number.
func IntegerOf(v Value) (int64, error) {
	if v.Kind == Number || v.Kind == Text {
		if n, err := strconv.ParseInt(view(v.Raw), 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := decimal(v)
	if err != nil {
		return 0, err
	}
	n, acc := f.Int64()
	if acc != big.Exact {
		return 0, fmt.Errorf("%s is not a whole number in range", units.Clip(f.Text('g', 20)))
	}
	return n, nil
}
