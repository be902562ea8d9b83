package limits

import (
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
)

// SensitiveMark marks a value from the environment or of a sensitive variable.
const SensitiveMark = "sensitive"

// TypeName names a wanted type in the words of the language.
func TypeName(ty cty.Type) string {
	switch {
	case ty == cty.Bool:
		return "true or false"
	case ty.IsListType() && ty.ElementType() == cty.String:
		return `a list of texts, ["…", "…"]`
	case ty.IsMapType() && ty.ElementType() == cty.String:
		return `names with texts, { name = "…" }`
	case ty.IsPrimitiveType():
		return KindName(ty)
	}
	return "of the type " + typeexpr.TypeString(ty)
}

// KindName names the kind of a value.
func KindName(ty cty.Type) string {
	switch {
	case ty == cty.String:
		return "a text"
	case ty == cty.Number:
		return "a number"
	case ty == cty.Bool:
		return "true or false"
	case ty.IsTupleType(), ty.IsListType(), ty.IsSetType():
		return "a list"
	}
	return "names with values"
}

// Unmark takes the marks off a value and its parts, and tells whether one of them was SensitiveMark.
func Unmark(v cty.Value) (cty.Value, bool) {
	v, marks := v.UnmarkDeep()
	_, found := marks[SensitiveMark]
	return v, found
}
