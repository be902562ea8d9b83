package mapping

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// epoch2000 is PostgreSQL's zero of timestamptz, in microseconds since 1970.
const epoch2000 = 946_684_800_000_000

// encode appends one field: its length and its binary form.
func encode(dst []byte, typ spec.ColumnType, v value) ([]byte, error) {
	if v.missing() {
		return append(dst, 0xff, 0xff, 0xff, 0xff), nil
	}
	switch typ {
	case spec.Double:
		f, err := v.float()
		if err != nil {
			return dst, err
		}
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return dst, errors.New("not a finite number")
		}
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), nil
	case spec.Timestamptz:
		us, err := micros(v)
		if err != nil {
			return dst, err
		}
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, uint64(us-epoch2000)), nil
	case spec.Text:
		b, err := textOf(v)
		if err != nil {
			return dst, err
		}
		if bytes.IndexByte(b, 0) >= 0 {
			return dst, errors.New("a NUL byte in a text")
		}
		if !utf8.Valid(b) {
			return dst, errNotUTF8
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
		return append(dst, b...), nil
	case spec.Boolean:
		switch {
		case v.kind == boolean && v.b, v.kind == text && string(v.raw) == "true":
			return append(dst, 0, 0, 0, 1, 1), nil
		case v.kind == boolean, v.kind == text && string(v.raw) == "false":
			return append(dst, 0, 0, 0, 1, 0), nil
		}
		return dst, errors.New("not true or false")
	case spec.Bigint, spec.Integer:
		n, err := integer(v)
		if err != nil {
			return dst, err
		}
		if typ == spec.Bigint {
			dst = append(dst, 0, 0, 0, 8)
			return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
		}
		if n != int64(int32(n)) {
			return dst, fmt.Errorf("%d does not fit an integer", n)
		}
		dst = append(dst, 0, 0, 0, 4)
		return binary.BigEndian.AppendUint32(dst, uint32(int32(n))), nil
	case spec.Numeric:
		return appendNumeric(dst, v)
	}
	return dst, fmt.Errorf("column type %q is not known", typ)
}

// micros returns a time in microseconds since 1970: an instant, or a text in RFC 3339.
func micros(v value) (int64, error) {
	switch v.kind {
	case instant:
		return v.us, nil
	case text:
		t, err := expr.ParseTime(string(v.raw))
		return t.UnixMicro(), err
	}
	return 0, errors.New("not a time; use from_unix, from_unix_ms, from_unix_us, from_unix_ns or from_rfc3339")
}

// textOf returns the text of v; a number is written as HCL writes it.
func textOf(v value) ([]byte, error) {
	switch v.kind {
	case text:
		return v.raw, nil
	case boolean:
		return strconv.AppendBool(nil, v.b), nil
	case instant:
		return time.UnixMicro(v.us).UTC().AppendFormat(nil, expr.TimeFormat), nil
	case number:
		f, err := decimal(v)
		if err != nil {
			return nil, err
		}
		return []byte(f.Text('f', -1)), nil
	}
	return nil, errors.New("not a text")
}

func decimal(v value) (*big.Float, error) {
	if v.kind == number && v.raw == nil {
		if math.IsInf(v.f, 0) || math.IsNaN(v.f) {
			return nil, errors.New("not a finite number")
		}
		return big.NewFloat(v.f), nil
	}
	if v.kind != number && v.kind != text {
		return nil, errNotNumber
	}
	return units.ParseNumber(string(v.raw))
}

func integer(v value) (int64, error) {
	if v.kind == number || v.kind == text {
		if n, err := strconv.ParseInt(view(v.raw), 10, 64); err == nil {
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

// numericCodec is pgx's own codec: exact, and numeric is no column of the hot tables.
var numericPlan = pgtype.NewMap().PlanEncode(pgtype.NumericOID, pgtype.BinaryFormatCode, pgtype.Numeric{})

func appendNumeric(dst []byte, v value) ([]byte, error) {
	src := string(v.raw)
	if v.kind == number && v.raw == nil {
		src = strconv.FormatFloat(v.f, 'f', -1, 64)
	} else if v.kind != number && v.kind != text {
		return dst, errNotNumber
	}
	if !units.IsNumber(src) {
		return dst, fmt.Errorf("%q is not a number", units.Clip(src))
	}
	f, ok := new(big.Rat).SetString(src)
	if !ok {
		return dst, fmt.Errorf("%q is not a number", units.Clip(src))
	}
	digits, _ := f.FloatPrec()
	if digits > 16383 || len(src) > 20000 {
		return dst, errors.New("too many digits for numeric")
	}
	unscaled := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)
	unscaled.Div(unscaled.Mul(unscaled, f.Num()), f.Denom())
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	out, err := numericPlan.Encode(pgtype.Numeric{Int: unscaled, Exp: int32(-digits), Valid: true}, dst)
	if err != nil {
		return dst[:start], err
	}
	binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	return out, nil
}
