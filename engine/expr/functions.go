package expr

import (
	"fmt"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// RowFunctions are the functions of row and decode expressions, in HCL's own form: the reference for the compiled one.
//
// "" and null are missing; a missing number or text stays null through every function, and becomes NULL in the table.
func RowFunctions() map[string]function.Function {
	return map[string]function.Function{
		MemberFunction: memberFunc,
		"abs":          numeric(func(x *big.Float) *big.Float { return new(big.Float).Abs(x) }),
		"floor": numeric(func(x *big.Float) *big.Float {
			i, acc := x.Int(nil)
			if acc == big.Above { // truncation went up: a negative fraction
				i.Sub(i, big.NewInt(1))
			}
			return new(big.Float).SetInt(i)
		}),
		"can": tryfunc.CanFunc, "coalesce": coalesceFunc, "contains": stdlib.ContainsFunc,
		"endswith": textTest(strings.HasSuffix), "startswith": textTest(strings.HasPrefix),
		"from_rfc3339": fromRFC3339Func, "from_unix": fromUnix(UnixUnits["from_unix"]),
		"from_unix_ms": fromUnix(UnixUnits["from_unix_ms"]), "from_unix_us": fromUnix(UnixUnits["from_unix_us"]),
		"from_unix_ns": fromUnix(UnixUnits["from_unix_ns"]),
		"join":         stdlib.JoinFunc, "length": LengthFunc, "lookup": stdlib.LookupFunc,
		"lower":  textMap(strings.ToLower),
		"market": marketFunc,
		"number": numeric(func(x *big.Float) *big.Float {
			return x
		}), "replace": stdlib.ReplaceFunc, "split": stdlib.SplitFunc,
		"text": textMap(func(s string) string {
			return s
		}), "trim": textMap(strings.TrimSpace), "try": tryfunc.TryFunc, "upper": textMap(strings.ToUpper),
	}
}

var nullable = function.Parameter{
	Name: "value", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true,
	AllowMarked: true,
}

// missing tells whether a value is null or "".
func missing(v cty.Value) bool {
	return v.IsNull() || (v.IsKnown() && v.Type() == cty.String && v.AsString() == "")
}

func toNumber(v cty.Value) (*big.Float, error) {
	switch v.Type() {
	case cty.Number:
		return v.AsBigFloat(), nil
	case cty.String:
		return units.ParseNumber(v.AsString())
	}
	return nil, fmt.Errorf("%s is not a number", v.Type().FriendlyName())
}

func toText(v cty.Value) (string, error) {
	s, err := convert.Convert(v, cty.String)
	if err != nil || s.IsNull() {
		return "", fmt.Errorf("%s is not a text", v.Type().FriendlyName())
	}
	return s.AsString(), nil
}

func numeric(f func(*big.Float) *big.Float) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if missing(args[0]) {
				return cty.NullVal(cty.Number), nil
			}
			x, err := toNumber(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			return cty.NumberVal(f(x)), nil
		},
	})
}

func textMap(f func(string) string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if missing(args[0]) {
				return cty.NullVal(cty.String), nil
			}
			s, err := toText(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(f(s)), nil
		},
	})
}

func textTest(f func(s, part string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable, {Name: "part", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if missing(args[0]) {
				return cty.False, nil
			}
			s, err := toText(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			return cty.BoolVal(f(s, args[1].AsString())), nil
		},
	})
}

// LengthFunc accepts null (0), so that a reply without the field is not an error of the expression.
var LengthFunc = function.New(&function.Spec{
	Params: []function.Parameter{nullable},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		v, _ := args[0].Unmark()
		switch {
		case v.IsNull():
			return cty.Zero, nil
		case v.Type() == cty.String:
			return cty.NumberIntVal(int64(utf8.RuneCountInString(v.AsString()))), nil
		case v.Type().IsObjectType():
			return cty.NumberIntVal(int64(len(v.Type().AttributeTypes()))), nil
		case v.CanIterateElements():
			return cty.NumberIntVal(int64(v.LengthInt())), nil
		}
		return cty.NilVal, fmt.Errorf("%s has no length", v.Type().FriendlyName())
	},
})

var coalesceFunc = function.New(&function.Spec{
	VarParam: &nullable,
	Type:     function.StaticReturnType(cty.DynamicPseudoType),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		for _, a := range args {
			if !missing(a) {
				return a, nil
			}
		}
		return cty.NullVal(cty.DynamicPseudoType), nil
	},
})

var fromRFC3339Func = function.New(&function.Spec{
	Params: []function.Parameter{nullable},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		if missing(args[0]) {
			return cty.NullVal(cty.String), nil
		}
		s, err := toText(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		t, err := ParseTime(s)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(t.Format(TimeFormat)), nil
	},
})

// ParseTime reads an RFC 3339 time with its zone, and cuts it to microseconds.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not an RFC 3339 time", units.Clip(s))
	}
	t = t.UTC().Truncate(time.Microsecond)
	return t, checkTime(t)
}
