package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// TimeFormat is how a time looks as a row value: RFC 3339, UTC, microseconds.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// MaxTime and MinTime bound every time that a row may hold. A number that is read in a wrong unit lies outside: seconds
// as milliseconds are January 1970, and the other way round the year 50000.
var (
	MinTime = time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)
	MaxTime = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// checkTime refuses what lies outside of MinTime to MaxTime.
func checkTime(t time.Time) error {
	if t.Before(MinTime) {
		return fmt.Errorf("the time %s lies outside 1971 to 2261: is it in another unit, seconds, milliseconds, "+
			"microseconds or nanoseconds?", t.UTC().Format(time.RFC3339))
	}
	if !t.Before(MaxTime) {
		return errTooLate
	}
	return nil
}

var errTooLate = errors.New("the time lies outside 1971 to 2261: is it in another unit, seconds, milliseconds, " +
	"microseconds or nanoseconds?")

// UnixUnits are the functions from_unix…, and how many digits each is from microseconds.
var UnixUnits = map[string]int{"from_unix": 6, "from_unix_ms": 3, "from_unix_us": 0, "from_unix_ns": -3}

// UnixMicros returns the microseconds since 1970 of a decimal number, shifted by so many digits and cut towards zero: a
// sample is never later than it says. It reads the digits, and no float.
func UnixMicros(text string, shift int) (int64, error) {
	if !units.IsNumber(text) {
		return 0, fmt.Errorf("%q is not a number", units.Clip(text))
	}
	digits, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		exponent, _ = strconv.Atoi(text[i+1:]) // at most four digits
		digits = text[:i]
	}
	negative := digits[0] == '-'
	digits = strings.TrimLeft(digits, "+-")
	point := strings.IndexByte(digits, '.')
	if point < 0 {
		point = len(digits)
	}
	us, taken, wanted := int64(0), 0, point+exponent+shift // so many digits from the left are microseconds
	for i := 0; i < len(digits) && taken < wanted; i++ {
		if digits[i] == '.' {
			continue
		}
		if us = us*10 + int64(digits[i]-'0'); us >= MaxTime.UnixMicro() {
			return 0, errTooLate
		}
		taken++
	}
	for ; taken < wanted && us > 0; taken++ {
		if us *= 10; us >= MaxTime.UnixMicro() {
			return 0, errTooLate
		}
	}
	if negative {
		us = -us
	}
	return us, checkTime(time.UnixMicro(us))
}

// unixDigits writes a number with as many digits as it was read with: 512 bits are 154.
const unixDigits = 150

func fromUnix(shift int) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if missing(args[0]) {
				return cty.NullVal(cty.String), nil
			}
			var text string
			switch args[0].Type() {
			case cty.String:
				text = args[0].AsString()
			case cty.Number:
				text = args[0].AsBigFloat().Text('g', unixDigits)
			default:
				return cty.NilVal, fmt.Errorf("%s is not a number", args[0].Type().FriendlyName())
			}
			us, err := UnixMicros(text, shift)
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(time.UnixMicro(us).UTC().Format(TimeFormat)), nil
		},
	})
}
