package expr

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// object builds the HCL value of a root name from the paths that are read of it: what is missing is null.
func object(paths []spec.Path, values []cty.Value) cty.Value {
	for i, p := range paths {
		if len(p) == 0 { // it is read as a whole: what the other paths do not find in it is null, too
			v := values[i]
			for _, p := range paths {
				v = fill(v, p)
			}
			return v
		}
	}
	names, elements := map[string][]int{}, map[int][]int{}
	last := -1
	for i, p := range paths {
		switch step := p[0].(type) {
		case string:
			names[step] = append(names[step], i)
		case int:
			elements[step] = append(elements[step], i)
			last = max(last, step)
		}
	}
	rest := func(group []int) cty.Value {
		var ps []spec.Path
		var vs []cty.Value
		for _, i := range group {
			ps, vs = append(ps, paths[i][1:]), append(vs, values[i])
		}
		return object(ps, vs)
	}
	if len(names) == 0 && len(elements) > 0 {
		tuple := make([]cty.Value, last+1)
		for i := range tuple {
			tuple[i] = cty.NullVal(cty.DynamicPseudoType)
		}
		for i, group := range elements {
			tuple[i] = rest(group)
		}
		return cty.TupleVal(tuple)
	}
	attrs := map[string]cty.Value{}
	for name, group := range names {
		attrs[name] = rest(group)
	}
	return cty.ObjectVal(attrs)
}

// fill returns v with null where the path leads nowhere.
func fill(v cty.Value, path spec.Path) cty.Value {
	if len(path) == 0 {
		return v
	}
	switch step := path[0].(type) {
	case string:
		members := map[string]cty.Value{}
		if !v.IsNull() && v.Type().IsObjectType() {
			maps.Copy(members, v.AsValueMap())
		}
		inner, found := members[step]
		if !found {
			inner = cty.NullVal(cty.DynamicPseudoType)
		}
		members[step] = fill(inner, path[1:])
		return cty.ObjectVal(members)
	case int:
		var elements []cty.Value
		if !v.IsNull() && v.Type().IsTupleType() {
			elements = v.AsValueSlice()
		}
		for len(elements) <= step {
			elements = append(elements, cty.NullVal(cty.DynamicPseudoType))
		}
		elements[step] = fill(elements[step], path[1:])
		return cty.TupleVal(elements)
	}
	return v
}

// toCty turns a scanned value into HCL's, whole.
func toCty(v rawjson.Value) (cty.Value, error) {
	switch v.Kind {
	case rawjson.Missing, rawjson.Null:
		return cty.NullVal(cty.DynamicPseudoType), nil
	case rawjson.True, rawjson.False:
		return cty.BoolVal(v.Kind == rawjson.True), nil
	case rawjson.String:
		if v.Escaped && !utf8.Valid(v.Raw) {
			return cty.NilVal, ErrNotUTF8
		}
		return cty.StringVal(string(v.Text(nil))), nil
	case rawjson.Number:
		f, err := units.ParseNumber(string(v.Raw))
		if err != nil {
			return cty.NilVal, err
		}
		return cty.NumberVal(f), nil
	}
	ty, err := ctyjson.ImpliedType(v.Raw)
	if err != nil {
		return cty.NilVal, err
	}
	return ctyjson.Unmarshal(v.Raw, ty)
}

// evaluate runs an expression with HCL and returns the reason of a failure in one line.
func evaluate(expr hcl.Expression, vars map[string]cty.Value) (cty.Value, error) {
	v, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: rowFunctions})
	if diags.HasErrors() {
		for _, d := range diags.Errs() {
			if hd, ok := d.(*hcl.Diagnostic); ok { //nolint:errorlint // hcl.Diagnostics holds them bare
				if nullOperand(hd) {
					return cty.NullVal(cty.DynamicPseudoType), nil
				}
				return cty.NilVal, errors.New(strings.TrimSuffix(units.Clip(hd.Detail), "."))
			}
		}
		return cty.NilVal, fmt.Errorf("evaluate: %w", diags)
	}
	return v, nil
}

// nullOperand recognises HCL's complaint about null in arithmetic or a template: in this language that is a missing
// value.
func nullOperand(d *hcl.Diagnostic) bool {
	return strings.Contains(d.Detail, "argument must not be null") || strings.Contains(d.Detail, "value is null")
}

var rowFunctions = RowFunctions()
