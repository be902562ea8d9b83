package row

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// epoch2000 is PostgreSQL's zero of timestamptz, in microseconds since 1970.
const epoch2000 = 946_684_800_000_000

// encode appends one field: its length and its binary form.
func encode(dst []byte, typ spec.ColumnType, v expr.Value) ([]byte, error) {
	if v.Missing() {
		return append(dst, 0xff, 0xff, 0xff, 0xff), nil
	}
	switch typ {
	case spec.Double:
		f, err := v.Float()
		if err != nil {
			return dst, err
		}
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return dst, errors.New("not a finite number")
		}
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), nil
	case spec.Timestamptz:
		us, err := expr.MicrosOf(v)
		if err != nil {
			return dst, err
		}
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, uint64(us-epoch2000)), nil
	case spec.Text:
		b, err := expr.TextOf(v)
		if err != nil {
			return dst, err
		}
		if bytes.IndexByte(b, 0) >= 0 {
			return dst, errors.New("a NUL byte in a text")
		}
		if !utf8.Valid(b) {
			return dst, expr.ErrNotUTF8
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
		return append(dst, b...), nil
	case spec.Boolean:
		switch {
		case v.Kind == expr.Boolean && v.Bool, v.Kind == expr.Text && string(v.Raw) == "true":
			return append(dst, 0, 0, 0, 1, 1), nil
		case v.Kind == expr.Boolean, v.Kind == expr.Text && string(v.Raw) == "false":
			return append(dst, 0, 0, 0, 1, 0), nil
		}
		return dst, errors.New("not true or false")
	case spec.Bigint, spec.Integer:
		n, err := expr.IntegerOf(v)
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

// numericCodec is pgx's own codec: exact, and numeric is no column of the hot tables.
var numericPlan = pgtype.NewMap().PlanEncode(pgtype.NumericOID, pgtype.BinaryFormatCode, pgtype.Numeric{})

func appendNumeric(dst []byte, v expr.Value) ([]byte, error) {
	src := string(v.Raw)
	if v.Kind == expr.Number && v.Raw == nil {
		src = strconv.FormatFloat(v.Computed, 'f', -1, 64)
	} else if v.Kind != expr.Number && v.Kind != expr.Text {
		return dst, expr.ErrNotNumber
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
