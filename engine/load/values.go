package load

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// block is one HCL block with its content, whose getters report mistakes and return the zero value.
type block struct {
	l       *loader
	content *hcl.BodyContent
	ctx     *hcl.EvalContext
	what    string // "topic \"binance\"", for messages
	rng     hcl.Range
	needed  map[string]bool // attributes that may not be left out
	null    map[string]bool // attributes whose value is null: they count as left out
	good    map[string]bool // attributes that have a value of the right type
	secret  map[string]bool // attributes whose value came from a secret: no message shows it
	shown   bool            // a plan shows the attributes that are no passwords
}

func (l *loader) open(b *hcl.Block, schema *hcl.BodySchema, ctx *hcl.EvalContext) *block {
	what := b.Type
	if len(b.Labels) > 0 {
		what += " " + strconv.Quote(units.Clip(b.Labels[0]))
	}
	content, diags := b.Body.Content(schema)
	l.structure(what, b.DefRange, schema, diags)
	out := &block{
		l: l, content: content, ctx: ctx, what: what, rng: b.DefRange, needed: map[string]bool{},
		null: map[string]bool{}, good: map[string]bool{}, secret: map[string]bool{}, shown: l.shown,
	}
	for _, a := range schema.Attributes {
		out.needed[a.Name] = a.Required
		if found := content.Attributes[a.Name]; found != nil && !a.Required {
			// also where a reference is expected, which is not evaluated
			literal, ok := found.Expr.(*hclsyntax.LiteralValueExpr)
			out.null[a.Name] = ok && literal.Val.IsNull()
		}
	}
	return out
}

// has tells whether an attribute has a value. Ask when that has been read: an expression may turn out to be null.
func (b *block) has(name string) bool { return b.content.Attributes[name] != nil && !b.null[name] }

// rangeOf returns the range of an attribute's value, or of the block.
func (b *block) rangeOf(name string) hcl.Range {
	if a := b.content.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return b.rng
}

// show quotes an attribute's value for a message, unless it is a secret.
func (b *block) show(name, value string) string {
	if b.secret[name] {
		return spec.Sensitive
	}
	return strconv.Quote(units.Clip(value))
}

// suggest is the suggestion for an attribute's value; a secret gets none, which would tell of it. None is looked for
// once no more mistakes are taken.
func (b *block) suggest(name, value string, known []string) string {
	if b.l.full() {
		return ""
	}
	if b.secret[name] {
		value = ""
	}
	return diag.Suggest(value, known)
}

// marked evaluates an attribute; the value keeps its marks. ok is false when it is absent, null or wrong.
func (b *block) marked(name string) (v cty.Value, ok bool) {
	a := b.content.Attributes[name]
	if a == nil {
		return cty.NilVal, false
	}
	v, ok = b.l.evaluate(a.Expr, b.ctx)
	if !ok {
		return cty.NilVal, false
	}
	plain, marks := v.UnmarkDeep()
	_, b.secret[name] = marks[limits.SensitiveMark]
	_, declared := marks[declaredMark]
	switch {
	case !plain.IsWhollyKnown(): // it uses a value whose own mistake is reported
		return cty.NilVal, false
	case plain.IsNull():
		b.null[name] = !b.needed[name]
		if b.needed[name] {
			b.l.fail(a.Expr.Range(), "Value missing", "%s.%s is null: it needs a value.", b.what, name)
		}
		return cty.NilVal, false
	case b.shown && declared:
		b.l.fail(a.Expr.Range(), "Secret in a plan",
			"%s.%s is shown by plan, as by the server itself: it cannot come from a sensitive variable. Take sensitive = true away, if it is none.", b.what, name)
		return cty.NilVal, false
	}
	return v, true
}

// value evaluates an attribute as ty. Marks are taken off.
func (b *block) value(name string, ty cty.Type) (cty.Value, bool) {
	v, ok := b.marked(name)
	if !ok {
		return cty.NilVal, false
	}
	v, _ = limits.Unmark(v)
	r := b.rangeOf(name)
	// HCL would take "12" and "true": keep the language strict
	if ty.IsPrimitiveType() && ty != cty.String && v.Type() == cty.String {
		remedy := "write it without quotes"
		if !literal(b.content.Attributes[name].Expr) {
			remedy = fmt.Sprintf("make one of the text with %s(…), or give the variable type = %s",
				map[cty.Type]string{cty.Bool: "tobool", cty.Number: "tonumber"}[ty],
				map[cty.Type]string{cty.Bool: "bool", cty.Number: "number"}[ty])
		}
		b.l.fail(r, "Wrong type", "%s.%s is %s: %s.", b.what, name, limits.TypeName(ty), remedy)
		return cty.NilVal, false
	}
	out, err := limits.Convert(v, ty)
	if limits.Reached(err) {
		b.l.fail(r, "Too large", "%s.%s: %v.", b.what, name, err)
		return cty.NilVal, false
	}
	if err != nil {
		b.l.fail(r, "Wrong type", "%s.%s must be %s, not %s.", b.what, name, limits.TypeName(ty),
			limits.KindName(v.Type()))
		return cty.NilVal, false
	}
	if holdsNUL(out) {
		b.l.fail(r, "NUL in a text", "%s.%s holds the character NUL, which no PostgreSQL keeps. Take it out.", b.what,
			name)
		return cty.NilVal, false
	}
	b.good[name] = true
	return out, true
}

// holdsNUL tells whether a text in a value, or a name in it, has the character NUL.
func holdsNUL(v cty.Value) (found bool) {
	_ = cty.Walk(v, func(path cty.Path, v cty.Value) (bool, error) {
		for _, s := range path {
			if step, ok := s.(cty.IndexStep); ok && step.Key.Type() == cty.String &&
				strings.ContainsRune(step.Key.AsString(), 0) {
				found = true
			}
		}
		if v.Type() == cty.String && v.IsKnown() && !v.IsNull() && strings.ContainsRune(v.AsString(), 0) {
			found = true
		}
		return !found, nil
	})
	return found
}

func (b *block) text(name, fallback string) string {
	if v, ok := b.value(name, cty.String); ok {
		return v.AsString()
	}
	return fallback
}

// password reads a value that is never shown. One that stands in the file itself is refused; variable is where it could
// be.
func (b *block) password(name, variable string) spec.Secret {
	a := b.content.Attributes[name]
	if a == nil {
		return spec.Secret{}
	}
	if b.l.stands(a.Expr) {
		b.l.unseen(a.Expr.Range(), "Password in the file",
			"Take it from the environment: %s = env(%q). Change it, if this file was ever shared.", name, variable)
		return spec.Secret{}
	}
	if v, is := a.Expr.(*hclsyntax.LiteralValueExpr); is && v.Val.IsNull() {
		return spec.NullSecret()
	}
	return b.unsettable(name, a.Expr)
}

// unsettable reads a value that is never shown, and that may come from a variable which has none.
func (b *block) unsettable(name string, expr hcl.Expression) spec.Secret {
	shown, mistakes := b.shown, len(b.l.diags)
	b.shown, b.l.unset, b.l.optional = false, nil, true
	out := spec.NewSecret(b.text(name, ""))
	b.shown, b.l.optional = shown, false
	_, mixed := expr.(*hclsyntax.TemplateExpr) // "key-${env("KEY", "")}" is no key either
	if strings.TrimSpace(out.Value) == "" || mixed && len(b.l.unset) > 0 {
		out = spec.UnsetSecret(b.l.whyUnset(expr))
	}
	if len(b.l.diags) > mistakes {
		return spec.Secret{}
	}
	return out
}

// whyUnset says why the expression of a secret has no value.
func (l *loader) whyUnset(expr hcl.Expression) string {
	why := slices.Compact(slices.Sorted(slices.Values(l.unset)))
	for _, v := range expr.Variables() {
		if attr, ok := v[len(v)-1].(hcl.TraverseAttr); ok && len(v) == 2 && v.RootName() == "var" {
			why = append(why, fmt.Sprintf("variable %s has no value (CRYPTOVIZ_VAR_%s)", attr.Name, attr.Name))
		}
	}
	if len(why) == 0 {
		return "its value is empty"
	}
	return strings.Join(why, ", ")
}

// nothing tells whether an expression is "" or null.
func nothing(expr hcl.Expression) bool {
	switch expr := expr.(type) {
	case *hclsyntax.TemplateExpr:
		if !expr.IsStringLiteral() {
			return false
		}
		v, diags := expr.Value(nil)
		return !diags.HasErrors() && v.AsString() == ""
	case *hclsyntax.LiteralValueExpr:
		return expr.Val.IsNull()
	}
	return false
}

func (b *block) flag(name string, fallback bool) bool {
	if v, ok := b.value(name, cty.Bool); ok {
		return v.True()
	}
	return fallback
}

func (b *block) integer(name string, fallback, low, high int64) int64 {
	v, ok := b.value(name, cty.Number)
	if !ok {
		return fallback
	}
	f, _ := v.AsBigFloat().Float64()
	if f != math.Trunc(f) || f < float64(low) || f > float64(high) {
		b.l.fail(b.rangeOf(name), "Number out of range", "%s.%s must be a whole number from %d to %d.", b.what, name,
			low, high)
		return fallback
	}
	return int64(f)
}

func (b *block) duration(name string, fallback, low, high time.Duration) time.Duration {
	v, ok := b.value(name, cty.String)
	if !ok {
		return fallback
	}
	d, err := units.ParseDuration(v.AsString())
	if err != nil {
		b.failUnit(name, "duration", `"90s", "1h30m" or "7d"`, err)
		return fallback
	}
	if d < low || d > high {
		b.l.fail(b.rangeOf(name), "Duration out of range", "%s.%s must be from %s to %s.", b.what, name,
			units.FormatDuration(low), units.FormatDuration(high))
		return fallback
	}
	return d
}

func (b *block) size(name string, fallback, low, high int64) int64 {
	v, ok := b.value(name, cty.String)
	if !ok {
		return fallback
	}
	n, err := units.ParseSize(v.AsString())
	if err != nil {
		b.failUnit(name, "size", `"10MiB" or "1GB"`, err)
		return fallback
	}
	if n < low || n > high {
		b.l.fail(b.rangeOf(name), "Size out of range", "%s.%s must be from %s to %s.", b.what, name,
			units.FormatSize(low), units.FormatSize(high))
		return fallback
	}
	return n
}

func (b *block) failUnit(name, kind, examples string, err error) {
	if b.secret[name] {
		b.l.fail(b.rangeOf(name), "Not a "+kind,
			"%s.%s: the value, which is a secret and not shown, is not a %s such as %s.", b.what, name, kind, examples)
		return
	}
	b.l.fail(b.rangeOf(name), "Not a "+kind, "%s.%s: %v.", b.what, name, err)
}

func (b *block) texts(name string) []string {
	v, ok := b.value(name, cty.List(cty.String))
	if !ok {
		return nil
	}
	var out []string
	for _, e := range v.AsValueSlice() {
		if e.IsNull() {
			b.l.fail(b.rangeOf(name), "Value missing", "%s.%s holds a null.", b.what, name)
			continue
		}
		out = append(out, e.AsString())
	}
	return out
}

func (b *block) textMap(name string) map[string]string {
	v, ok := b.value(name, cty.Map(cty.String))
	if !ok {
		return nil
	}
	out := map[string]string{}
	for k, e := range v.AsValueMap() {
		if !e.IsNull() { // as an attribute that is null
			out[k] = e.AsString()
		}
	}
	return out
}
