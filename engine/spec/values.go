package spec

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// block is one HCL block with its content, whose getters report mistakes and return the zero value.
type block struct {
	l       *loader
	content *hcl.BodyContent
	ctx     *hcl.EvalContext
	what    string // "topic \"binance\"", for messages
	rng     hcl.Range
}

func (l *loader) open(b *hcl.Block, schema *hcl.BodySchema, ctx *hcl.EvalContext) *block {
	content, diags := b.Body.Content(schema)
	l.add(diags...)
	what := b.Type
	if len(b.Labels) > 0 {
		what += " " + strconv.Quote(b.Labels[0])
	}
	return &block{l, content, ctx, what, b.DefRange}
}

func (b *block) has(name string) bool { return b.content.Attributes[name] != nil }

// rangeOf returns the range of an attribute's value, or of the block.
func (b *block) rangeOf(name string) hcl.Range {
	if a := b.content.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return b.rng
}

// value evaluates an attribute as ty; ok is false when it is absent or wrong. Marks are taken off.
func (b *block) value(name string, ty cty.Type) (v cty.Value, sensitive, ok bool) {
	a := b.content.Attributes[name]
	if a == nil {
		return cty.NilVal, false, false
	}
	if !b.l.checkFunctions(a.Expr, b.ctx.Functions) {
		return cty.NilVal, false, false
	}
	v, diags := a.Expr.Value(b.ctx)
	b.l.add(diags...)
	if diags.HasErrors() {
		return cty.NilVal, false, false
	}
	v, sensitive = unmark(v)
	if !v.IsWhollyKnown() { // it uses a variable whose own mistake is reported
		return cty.NilVal, sensitive, false
	}
	if v.IsNull() {
		b.l.fail(a.Expr.Range(), "Value missing", "%s.%s is null; give a value or leave the line out.", b.what, name)
		return cty.NilVal, sensitive, false
	}
	if ty == cty.Number && v.Type() == cty.String { // HCL would take "12": keep the language strict
		b.l.fail(a.Expr.Range(), "Wrong type", "%s.%s is a number: write it without quotes.", b.what, name)
		return cty.NilVal, sensitive, false
	}
	out, err := convert.Convert(v, ty)
	if err != nil {
		b.l.fail(a.Expr.Range(), "Wrong type", "%s.%s must be a %s, not %s.", b.what, name, ty.FriendlyName(), v.Type().FriendlyName())
		return cty.NilVal, sensitive, false
	}
	return out, sensitive, true
}

func unmark(v cty.Value) (cty.Value, bool) {
	v, marks := v.UnmarkDeep()
	_, found := marks[sensitiveMark]
	return v, found
}

func (b *block) text(name, fallback string) string {
	if v, _, ok := b.value(name, cty.String); ok {
		return v.AsString()
	}
	return fallback
}

func (b *block) flag(name string, fallback bool) bool {
	if v, _, ok := b.value(name, cty.Bool); ok {
		return v.True()
	}
	return fallback
}

func (b *block) integer(name string, fallback, low, high int64) int64 {
	v, _, ok := b.value(name, cty.Number)
	if !ok {
		return fallback
	}
	f, _ := v.AsBigFloat().Float64()
	if f != math.Trunc(f) || f < float64(low) || f > float64(high) {
		b.l.fail(b.rangeOf(name), "Number out of range", "%s.%s must be a whole number from %d to %d.", b.what, name, low, high)
		return fallback
	}
	return int64(f)
}

func (b *block) duration(name string, fallback time.Duration, low, high time.Duration) time.Duration {
	v, _, ok := b.value(name, cty.String)
	if !ok {
		return fallback
	}
	d, err := ParseDuration(v.AsString())
	if err != nil {
		b.l.fail(b.rangeOf(name), "Not a duration", "%s.%s: %v.", b.what, name, err)
		return fallback
	}
	if d < low || d > high {
		b.l.fail(b.rangeOf(name), "Duration out of range", "%s.%s must be from %s to %s.", b.what, name, FormatDuration(low), FormatDuration(high))
		return fallback
	}
	return d
}

func (b *block) size(name string, fallback int64) int64 {
	v, _, ok := b.value(name, cty.String)
	if !ok {
		return fallback
	}
	n, err := ParseSize(v.AsString())
	if err != nil {
		b.l.fail(b.rangeOf(name), "Not a size", "%s.%s: %v.", b.what, name, err)
		return fallback
	}
	return n
}

func (b *block) texts(name string) []string {
	v, _, ok := b.value(name, cty.List(cty.String))
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
	v, _, ok := b.value(name, cty.Map(cty.String))
	if !ok {
		return nil
	}
	out := map[string]string{}
	for k, e := range v.AsValueMap() {
		if e.IsNull() {
			b.l.fail(b.rangeOf(name), "Value missing", "%s.%s[%q] is null.", b.what, name, k)
			continue
		}
		out[k] = e.AsString()
	}
	return out
}

// refer reads a static reference such as topic.binance.
func refer[T any](b *block, name, kind string, known map[string]T) (out T, ok bool) {
	a := b.content.Attributes[name]
	if a == nil {
		return out, false
	}
	tr, diags := hcl.AbsTraversalForExpr(a.Expr)
	label := ""
	if !diags.HasErrors() && tr.RootName() == kind && len(tr) == 2 {
		switch step := tr[1].(type) {
		case hcl.TraverseAttr:
			label = step.Name
		case hcl.TraverseIndex:
			if step.Key.Type() == cty.String {
				label = step.Key.AsString()
			}
		}
	}
	if label == "" {
		b.l.fail(a.Expr.Range(), "Not a reference", "%s.%s names a %s block: write %s.NAME, without quotes.%s", b.what, name, kind, kind, suggest("", keys(known)))
		return out, false
	}
	if out, ok = known[label]; !ok {
		b.l.fail(a.Expr.Range(), "Unknown "+kind, "There is no %s block named %q.%s", kind, label, suggest(label, keys(known)))
	}
	return out, ok
}

func keys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// checkFunctions reports calls of functions that do not exist here; it runs before evaluation so that the message is ours.
func (l *loader) checkFunctions(expr hcl.Expression, known map[string]functionValue) bool {
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return true
	}
	good := true
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok {
			if _, exists := known[call.Name]; !exists {
				good = false
				detail := fmt.Sprintf("There is no function %q here.%s", call.Name, suggest(call.Name, keys(known)))
				if call.Name == "env" || call.Name == "file" {
					detail = call.Name + "() works in pipeline.hcl only: give the value to the source as a parameter, params = { … }."
				}
				l.add(problem(call.NameRange, "Unknown function", "%s", detail))
			}
		}
		return nil
	})
	return good
}

var (
	durationPart = regexp.MustCompile(`^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)`)
	sizeForm     = regexp.MustCompile(`^(\d{1,15})\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$`)
)

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

var sizeUnits = map[string]int64{
	"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// ParseDuration reads "1m", "90s", "1h30m", "7d" or "2w". A day has 24 hours: everything is UTC.
func ParseDuration(s string) (time.Duration, error) {
	rest, total := s, time.Duration(0)
	for rest != "" {
		m := durationPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, fmt.Errorf("%q is not a duration; write a number with ms, s, m, h, d or w, such as \"90s\", \"1h30m\" or \"7d\"", Clip(s))
		}
		n, _ := strconv.ParseFloat(m[1], 64)
		f := n * float64(durationUnits[m[2]])
		if f > float64(math.MaxInt64/4) || total > math.MaxInt64/4 {
			return 0, fmt.Errorf("%q is too long", Clip(s))
		}
		total += time.Duration(f)
		rest = rest[len(m[0]):]
	}
	if s == "" {
		return 0, fmt.Errorf("it is empty; write a duration such as \"1m\"")
	}
	return total, nil
}

// FormatDuration writes a duration as ParseDuration reads it: "7d", "1h30m".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var out strings.Builder
	for _, u := range []string{"d", "h", "m", "s", "ms"} {
		if n := d / durationUnits[u]; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u)
			d -= n * durationUnits[u]
		}
	}
	return out.String()
}

// ParseSize reads "10MiB", "1GB" or a number of bytes.
func ParseSize(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write a whole number with B, KiB, MiB, GiB (or kB, MB, GB), such as \"10MiB\"", Clip(s))
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	if n > math.MaxInt64/sizeUnits[m[2]] {
		return 0, fmt.Errorf("%q is too large", Clip(s))
	}
	return n * sizeUnits[m[2]], nil
}
