package load

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

func parseExpr(t testing.TB, src string) hclsyntax.Expression {
	t.Helper()
	expr, diags := hclsyntax.ParseExpression([]byte(src), "x.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", src, diags)
	}
	return expr
}

// Within the limits, an expression has the value that HCL gives it.
func TestGuardsChangeNothing(t *testing.T) {
	vars := map[string]cty.Value{
		"l": cty.ListVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b")}), "m": cty.MapVal(map[string]cty.Value{"a": cty.StringVal("1"), "b": cty.StringVal("2")}),
		"o": cty.ObjectVal(map[string]cty.Value{"x": cty.NumberIntVal(3), "y": cty.StringVal("z")}), "s": cty.StringVal("text"), "n": cty.NumberIntVal(7), "none": cty.NullVal(cty.String),
		"secret": cty.StringVal("hidden").Mark(limits.SensitiveMark), "later": cty.UnknownVal(cty.String),
	}
	for _, src := range []string{
		`"a"`, `"${s}"`, `"${s}-${n}"`, `"%{if n > 3}big%{else}small%{endif}"`, `"%{for x in l}${x},%{endfor}"`, `1 + 2 * 3`, `n % 2 == 1`, `-n`, `!(n > 3)`, `s == "text" ? 1 : 2`,
		`n > 3 ? l : ["c"]`, `none == null ? [] : [none]`, `[for x in l : upper(x)]`, `{ for k, v in m : k => v if v != "1" }`, `{ for x in l : x => x... }`, `[for i, x in l : "${i}${x}"]`,
		`l[*]`, `[o][*].x`, `l[0]`, `m["a"]`, `o.y`, `o["x"]`, `l[n - 7]`, `[1, "a", true]`, `{ a = 1, "b" = [2], (s) = 3 }`, `"1" + 1`, `split(",", "a,b")`, `join(",", l, ["c"])`,
		`join(",", [for x in l : x])`, `format("%s-%05d-%v-%q", s, n, l, s)`, `replace("a/b/c", "/", "")`, `replace(s, "", "-")`, `concat(l, l)`, `merge(m, { c = "3" })`, `distinct(["a", "b", "a"])`,
		`contains(l, "b")`, `length(l)`, `length(m)`, `length(none)`, `keys(o)`, `values(m)`, `lookup(m, "z", "0")`, `sort(["b", "a"])`, `reverse(l)`, `slice(["a", "b", "c"], 1, 2)`, `flatten([l, [l]])`,
		`jsonencode({ a = l, b = none })`, `jsondecode("{\"a\": [1, {\"b\": null}]}")`, `tolist(["a"])`, `toset(["a", "a"])`, `tonumber("12.5")`, `tostring(12)`, `substr(s, 1, 2)`, `trim("..a..", ".")`,
		`trimspace(" a ")`, `try(o.nothing, "else")`, `can(o.nothing)`, `coalesce(none, "x")`, `compact(["a", "", "b"])`, `abs(-1)`, `ceil(1.2)`, `floor(-1.2)`, `max(1, 3, 2)`, `min(l...)`, `max([1, 2]...)`, `upper(s)`, `lower("A")`,
		`urlencode("a b&c")`, `upper(secret)`, `"${secret}!"`, `[secret][0]`, `"${later}!"`, `upper(later)`, `s == secret`, `secret == "x" ? 1 : 2`, `1/0`, `none`, `upper(none)`, `1 + none`, `l[9]`, `o.q`, `"a" + 1`, `1 - "x"`, `[for x in n : x]`,
		`jsondecode("[")`, `tonumber("x")`, `lookup(o, "q", 1)`, `split(none, "a")`, `sort([{}])`, `format("%d", "x")`, `length(1)`, `flatten(1)`, `merge(1)`, `0/0`,
	} {
		var m limits.Meter
		plain, plainDiags := parseExpr(t, src).Value(&hcl.EvalContext{Variables: vars, Functions: constantFunctions()})
		expr := parseExpr(t, src)
		m.Guard(expr)
		m.Guard(expr) // twice is once
		guarded, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: m.Bound(constantFunctions())})
		if diags.HasErrors() != plainDiags.HasErrors() {
			t.Errorf("%s: %v, HCL says %v", src, diags, plainDiags)
		} else if !diags.HasErrors() && !guarded.RawEquals(plain) {
			t.Errorf("%s: %#v, HCL gives %#v", src, guarded, plain)
		}
	}
}

// Every function and every operator that can make much of little ends at the limit.
func TestEvaluationLimits(t *testing.T) {
	list := "[" + strings.Repeat(`"ab",`, 9_999) + `"b"]`
	used := cty.StringVal(strings.Repeat(" ", 1<<20)) // less is left than all of it: the end comes sooner
	for _, c := range []struct{ src, want string }{
		{`format("%1048576d", 1)`, ""},
		{`format("%1048577d", 1)`, "1 MiB"},
		{`format("%.2000000f", 1)`, "1 MiB"},
		{`format("%s%s", big, big)`, "1 MiB"},
		{`"${big}${big}"`, ""}, // two are still a value that can be looked at …
		{`upper("${big}${big}")`, "1 MiB"},
		{`[for x in list : big]`, "1 MiB"},
		{`[for x in list : "${big}"]`, "1 MiB"},
		{`[for x in list : "${big}."]`, "too much work"},
		{`join(big, list)`, "1 MiB"},
		{`join("", [big, big])`, "1 MiB"},
		{`replace("aaaa", "a", big)`, "1 MiB"},
		{`replace(big, "", "ab")`, "1 MiB"},
		{`replace(big, " ", "")`, ""},
		{`split("", big)`, "10000 elements"},
		{`split(",", "a,b")`, ""},
		{`concat(list, ["c"])`, "10000 elements"},
		{`distinct(list)`, "too much work"},
		{`sort(list)`, ""},
		{`[for x in list : sort(list)]`, "too much work"},
		{`[for x in list : contains(list, x)]`, "too much work"},
		{`[for x in short : contains(short, x)]`, ""},
		{`trim(big, big)`, "too much work"},
		{`jsonencode([big, big])`, "1 MiB"},
		{`jsondecode("` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `")`, "64 deep"},
		{`jsondecode("` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + `")`, ""},
		{`jsondecode("[` + strings.Repeat("{},", 70) + `[]]")`, ""},
		{`jsondecode("1e1000")`, "number is too"},
		{`tonumber("1e1000")`, "number is too"},
		{`tostring(1e999)`, ""},
		{`"${1e999 * 1e999 * 1e999}"`, "number is too"},
		{`"1e1000" * 1`, "number is too"},
		{`-"1e1000"`, "number is too"},
		{`1 > "1e1000"`, "number is too"},
		{`"1e1000" == "1e1000"`, ""},
		{`["a"][digits]`, "number is too"},
		{`max("1e1000", 1)`, "number is too"},
		{`true ? ["a"] : list`, ""},
		{`true ? ` + list + ` : ["a"]`, "too much work"},
	} {
		var m limits.Meter
		for range 52 {
			_ = m.Value(used)
		}
		vars := map[string]cty.Value{"big": cty.StringVal(strings.Repeat(" ", 900_000)), "digits": cty.StringVal(strings.Repeat("0", 200))}
		for name, n := range map[string]int{"list": 10_000, "short": 500} {
			var elements []cty.Value
			for i := range n {
				elements = append(elements, cty.StringVal(fmt.Sprint("m", i)))
			}
			vars[name] = cty.ListVal(elements)
		}
		expr := parseExpr(t, c.src)
		m.Guard(expr)
		began := cpuTime(t)
		v, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: m.Bound(constantFunctions())})
		err := m.Value(v)
		if !diags.HasErrors() && c.want == "1 MiB" && err != nil { // found where the value is used
			diags = hcl.Diagnostics{{Summary: err.Error()}}
		}
		if shown := units.Clip(c.src); (c.want == "") != (len(diags) == 0) || !strings.Contains(diags.Error(), c.want) && c.want != "" {
			t.Errorf("%s: %v, want %q", shown, diags, c.want)
		}
		if took := cpuTime(t) - began; took > hostileTime {
			t.Errorf("%s took %s", units.Clip(c.src), took)
		}
	}
}

func TestConvertTo(t *testing.T) {
	texts := make([]cty.Value, 10_000)
	for i := range texts {
		texts[i] = cty.StringVal("x")
	}
	for name, c := range map[string]struct {
		v    cty.Value
		ty   cty.Type
		want string
	}{
		"tuple to list":      {cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.NumberIntVal(1)}), cty.List(cty.String), `["a","1"]`},
		"long tuple to list": {cty.TupleVal(texts), cty.List(cty.String), "10000"},
		"empty tuple":        {cty.EmptyTupleVal, cty.List(cty.String), `[]`},
		"object to map":      {cty.ObjectVal(map[string]cty.Value{"a": cty.True}), cty.Map(cty.String), `{"a":"true"}`},
		"null":               {cty.NullVal(cty.DynamicPseudoType), cty.List(cty.String), "null"},
		"list in list":       {cty.TupleVal([]cty.Value{cty.TupleVal([]cty.Value{cty.StringVal("a")})}), cty.List(cty.List(cty.String)), `[["a"]]`},
		"unlike lists":       {cty.TupleVal([]cty.Value{cty.EmptyTupleVal, cty.TupleVal([]cty.Value{cty.StringVal("a")})}), cty.List(cty.List(cty.String)), `[[],["a"]]`},
		"lists of any":       {cty.TupleVal([]cty.Value{cty.TupleVal([]cty.Value{cty.StringVal("a")}), cty.TupleVal([]cty.Value{cty.True})}), cty.List(cty.List(cty.DynamicPseudoType)), `[["a"],["true"]]`},
		"list of any":        {cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b")}), cty.List(cty.DynamicPseudoType), `["a","b"]`},
		"mixed list of any":  {cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.True}), cty.List(cty.DynamicPseudoType), `["a","true"]`},
		"text to list":       {cty.StringVal("a"), cty.List(cty.String), "error"},
		"object in list":     {cty.TupleVal([]cty.Value{cty.EmptyObjectVal}), cty.List(cty.String), "error"},
		"huge text":          {cty.StringVal("1e1000"), cty.Number, "error"},
		"huge texts":         {cty.TupleVal([]cty.Value{cty.StringVal("1e1000")}), cty.List(cty.Number), "error"},
		"huge text in a map": {cty.ObjectVal(map[string]cty.Value{"a": cty.StringVal("1e100000")}), cty.Map(cty.Number), "error"},
		"secret":             {cty.StringVal("a").Mark(limits.SensitiveMark), cty.String, "secret"},
		"secret list":        {cty.TupleVal([]cty.Value{cty.StringVal("a")}).Mark(limits.SensitiveMark), cty.List(cty.String), "secret"},
		"secret in list":     {cty.TupleVal([]cty.Value{cty.StringVal("a").Mark(limits.SensitiveMark)}), cty.List(cty.String), "secret"},
		"unknown":            {cty.UnknownVal(cty.Tuple([]cty.Type{cty.String})), cty.List(cty.String), "unknown"},
		"unknown in list":    {cty.TupleVal([]cty.Value{cty.UnknownVal(cty.String)}), cty.List(cty.String), "unknown"},
	} {
		got, began := "error", cpuTime(t)
		v, err := limits.Convert(c.v, c.ty)
		if took := cpuTime(t) - began; took > hostileTime/10 {
			t.Errorf("%s took %s", name, took)
		}
		if err == nil {
			if v.Type().TestConformance(c.ty) != nil {
				t.Errorf("%s has the type %#v", name, v.Type())
			}
			got = describe(v)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func describe(v cty.Value) string {
	plain, secret := limits.Unmark(v)
	switch {
	case secret:
		return "secret"
	case !plain.IsWhollyKnown():
		return "unknown"
	case plain.IsNull():
		return "null"
	case plain.CanIterateElements() && plain.LengthInt() > 100:
		return fmt.Sprint(plain.LengthInt())
	}
	text, err := constantFunctions()["jsonencode"].Call([]cty.Value{plain})
	if err != nil {
		return err.Error()
	}
	return text.AsString()
}
