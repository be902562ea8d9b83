package limits

import (
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Bound returns the functions within the limits.
func (m *Meter) Bound(functions map[string]function.Function) map[string]function.Function {
	out := map[string]function.Function{}
	for name, f := range functions {
		if out[name] = f; name != "try" && name != "can" { // these two evaluate their argument themselves
			out[name] = m.limit(name, f)
		}
	}
	return out
}

// limit wraps one function: the arguments are converted in linear time, what it would make is bounded before it is
// made, and an error about a secret says nothing of it.
func (m *Meter) limit(name string, f function.Function) function.Function {
	open := func(p function.Parameter) function.Parameter {
		p.Type, p.AllowUnknown, p.AllowDynamicType, p.AllowMarked = cty.DynamicPseudoType, true, true, true
		return p
	}
	s := &function.Spec{Description: f.Description()}
	for _, p := range f.Params() {
		s.Params = append(s.Params, open(p))
	}
	if p := f.VarParam(); p != nil {
		last := open(*p)
		s.VarParam = &last
	}
	s.Type = func(args []cty.Value) (cty.Type, error) {
		args, err := arguments(f, args)
		if err != nil {
			return cty.NilType, err
		}
		if err := m.estimateCost(name, args); err != nil {
			return cty.NilType, err
		}
		ty, err := f.ReturnTypeForValues(args)
		return ty, redactError(err, args)
	}
	s.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		args, err := arguments(f, args)
		if err != nil {
			return cty.NilVal, err
		}
		v, err := f.Call(args)
		if err != nil {
			return cty.NilVal, redactError(err, args)
		}
		return v, m.Value(v)
	}
	return function.New(s)
}

func arguments(f function.Function, args []cty.Value) ([]cty.Value, error) {
	out := make([]cty.Value, len(args))
	for i, v := range args {
		p := f.VarParam()
		if i < len(f.Params()) {
			p = &f.Params()[i]
		}
		var err error
		if out[i], err = Convert(v, p.Type); err != nil {
			if !Reached(err) {
				err = function.NewArgErrorf(i, "it must be %s, not %s", TypeName(p.Type), KindName(v.Type()))
			}
			return nil, err
		}
	}
	return out, nil
}

// redactError hides an error that may quote a secret argument.
func redactError(err error, args []cty.Value) error {
	if err == nil {
		return nil
	}
	if Reached(err) {
		return err
	}
	for _, v := range args {
		if _, secret := Unmark(v); secret {
			return errors.New("it cannot use this value; the value is a secret and not shown")
		}
	}
	if panicked := (function.PanicError{}); errors.As(err, &panicked) {
		return errors.New("it cannot use this value")
	}
	return err
}

var digits = regexp.MustCompile(`\d+`)

// estimateCost bounds what a function makes of its arguments, and the work that its length does not show.
func (m *Meter) estimateCost(name string, args []cty.Value) error {
	text := func(i int) string {
		if i >= len(args) {
			return ""
		}
		s, _ := PlainText(args[i])
		return s
	}
	made := 0
	switch name {
	case "replace":
		if old := text(1); len(text(2)) > len(old) {
			made = len(text(0)) + strings.Count(text(0), old)*(len(text(2))-len(old))
		}
	case "join":
		for _, list := range args[1:] {
			n, _ := sizeOf(list, 0)
			made += n / perValue * len(text(0))
		}
	case "format":
		for _, width := range digits.FindAllString(text(0), -1) {
			n, err := strconv.Atoi(width)
			if made += n; err != nil || made > maxText {
				return errTooMuchText
			}
		}
		longest := 0
		for _, v := range args[1:] {
			n, _ := sizeOf(v, 0)
			longest = max(longest, n-perValue)
		}
		made += strings.Count(text(0), "%") * longest
	case "split":
		if n := strings.Count(text(1), text(0)); n >= MaxElements {
			return errLongList
		}
	case "trim":
		return m.spend(len(text(0)) * len(text(1)) / 8)
	case "distinct":
		n, _ := sizeOf(args[0], 0)
		n /= perValue
		return m.spend(n * n * 8)
	case "sort":
		return m.times(args[0], 8)
	case "jsondecode":
		return checkJSON(text(0))
	case "tonumber":
		if hugeNumber(text(0)) {
			return errHugeNumber
		}
	}
	if made > maxText {
		return errTooMuchText
	}
	return nil
}

// checkJSON bounds depth and numbers; that the text is JSON at all is not its business.
func checkJSON(text string) error {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return nil //nolint:nilerr // jsondecode says it better
		}
		switch t := t.(type) {
		case json.Delim:
			if depth++; t == ']' || t == '}' {
				depth -= 2
			}
			if depth > MaxDepth {
				return errDeepValue
			}
		case json.Number:
			if hugeNumber(t.String()) {
				return errHugeNumber
			}
		}
	}
}

// PlainText returns a text that is known.
func PlainText(v cty.Value) (string, bool) {
	v, _ = v.Unmark()
	if v.Type() != cty.String || !v.IsKnown() || v.IsNull() {
		return "", false
	}
	return v.AsString(), true
}
