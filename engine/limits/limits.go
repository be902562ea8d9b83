package limits

import (
	"errors"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Limits of evaluation. A short file can describe a value of any size, and work of any length; these end both.
const (
	maxText  = 1 << 20  // bytes of text in one value
	maxWork  = 64 << 20 // bytes that all evaluations of one Load may touch
	perValue = 16       // bytes that a value counts for besides its text
	maxBits  = 4096     // binary exponent of a number: beyond it, writing the number out takes long
)

// limitError is a limit that was reached.
type limitError string

func (e limitError) Error() string { return string(e) }

// Reached tells whether an error is a limit that was reached.
func Reached(err error) bool { return errors.As(err, new(limitError)) }

const (
	errTooMuchText = limitError("the value would have more than 1 MiB of text")
	errTooMuchWork = limitError("this asks for too much work; use shorter lists or texts")
	errHugeNumber  = limitError("the number is too large or too long")
	errLongList    = limitError("the list would have more than 10000 elements")
	errDeepValue   = limitError("the value is nested more than 64 deep")
)

// Meter counts the work of one Load.
type Meter struct{ spent int }

func (m *Meter) spend(n int) error {
	if n < 0 || n > maxWork-m.spent {
		m.spent = maxWork
		return errTooMuchWork
	}
	m.spent += n
	return nil
}

// Value counts what it takes to look at every part of a value once.
func (m *Meter) Value(v cty.Value) error {
	return m.times(v, 1)
}

// times counts n such looks.
func (m *Meter) times(v cty.Value, n int) error {
	size, err := sizeOf(v, 0)
	if err != nil {
		return err
	}
	return m.spend(n * size)
}

// sizeOf returns the size of a value, or an error when it is beyond the limits.
func sizeOf(v cty.Value, depth int) (int, error) {
	v, _ = v.Unmark()
	switch {
	case depth > MaxDepth:
		return 0, errDeepValue
	case v == cty.NilVal || !v.IsKnown() || v.IsNull():
		return perValue, nil
	case v.Type() == cty.String:
		if n := len(v.AsString()); n <= maxText {
			return perValue + n, nil
		}
		return 0, errTooMuchText
	case v.Type() == cty.Number:
		if f := v.AsBigFloat(); !f.IsInf() && (f.MantExp(nil) > maxBits || f.MantExp(nil) < -maxBits) {
			return 0, errHugeNumber
		}
	case v.CanIterateElements():
		if v.LengthInt() > MaxElements {
			return 0, errLongList
		}
		total := perValue
		add := func(element cty.Value) error {
			n, err := sizeOf(element, depth+1)
			if total += n; err == nil && total > maxText+perValue*MaxElements {
				err = errTooMuchText
			}
			return err
		}
		if ty := v.Type(); ty.IsObjectType() || ty.IsMapType() {
			for name, element := range v.AsValueMap() {
				total += len(name)
				if err := add(element); err != nil {
					return 0, err
				}
			}
			return total, nil
		}
		for _, element := range v.AsValueSlice() {
			if err := add(element); err != nil {
				return 0, err
			}
		}
		return total, nil
	}
	return perValue, nil
}

// Convert is convert.Convert within the limits, and in linear time for long lists.
func Convert(v cty.Value, ty cty.Type) (cty.Value, error) {
	if _, err := sizeOf(v, 0); err != nil {
		return cty.NilVal, err
	}
	v, marks := v.Unmark()
	if ty == cty.Number && v.Type() == cty.String && v.IsKnown() && !v.IsNull() && hugeNumber(v.AsString()) {
		return cty.NilVal, errHugeNumber
	}
	if ty.IsListType() && v.Type().IsTupleType() && v.IsKnown() && !v.IsNull() && v.LengthInt() > 0 {
		if of := elementType(ty, v.Type()); !of.HasDynamicTypes() {
			elements := v.AsValueSlice()
			for i, e := range elements {
				var err error
				if elements[i], err = Convert(e, of); err != nil {
					return cty.NilVal, err
				}
			}
			return cty.ListVal(elements).WithMarks(marks), nil
		}
	}
	out, err := convert.Convert(v, ty)
	if err != nil {
		return cty.NilVal, err
	}
	if _, err := sizeOf(out, 0); err != nil { // a text may have become a number
		return cty.NilVal, err
	}
	return out.WithMarks(marks), nil
}

// elementType is the type of the elements of a list made of a tuple: the wanted one, or the one that all have.
func elementType(list, tuple cty.Type) cty.Type {
	if want := list.ElementType(); want != cty.DynamicPseudoType {
		return want
	}
	types := tuple.TupleElementTypes()
	for _, ty := range types {
		if !ty.IsPrimitiveType() || ty != types[0] {
			return cty.DynamicPseudoType
		}
	}
	return types[0]
}
