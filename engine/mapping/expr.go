package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// frame is what one record offers to its expressions.
type frame struct {
	values  []rawjson.Value // by slot of the compiler's tree
	key     []byte
	keyless bool // the key could not be computed: it is null
	slot    time.Time
	scratch []byte
	markets []map[string]market // by number of the lists, then by symbol
}

// eval is a compiled expression.
type eval func(f *frame) (value, error)

// compiler turns the expressions of one definition into closures over one tree.
type compiler struct {
	tree   *rawjson.Tree
	consts map[string]cty.Value // param, source
	lists  []string             // of market() calls, as they are written: each has a number
}

// compile never fails: what it does not know, HCL evaluates.
func (c *compiler) compile(expr hcl.Expression) eval {
	if !c.dynamic(expr) {
		return c.constant(expr)
	}
	switch e := expr.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		if out := c.traversal(e.Traversal); out != nil {
			return out
		}
	case *hclsyntax.ParenthesesExpr:
		return c.compile(e.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return c.compile(e.Wrapped)
	case *hclsyntax.RelativeTraversalExpr:
		if out := c.marketPart(e); out != nil {
			return out
		}
	case *hclsyntax.FunctionCallExpr:
		if out := c.call(e); out != nil {
			return out
		}
	case *hclsyntax.BinaryOpExpr:
		if out := c.binary(e); out != nil {
			return out
		}
	case *hclsyntax.UnaryOpExpr:
		return c.unary(e)
	case *hclsyntax.ConditionalExpr:
		return c.conditional(e)
	case *hclsyntax.TemplateExpr:
		return c.template(e)
	}
	return c.slow(expr)
}

// reads are the slots of the paths that an expression of a column that may be null takes its value from.
func (c *compiler) reads(expr hcl.Expression, null bool) (out []int) {
	for _, tr := range expr.Variables() {
		if null && tr.RootName() == "r" && len(tr) > 1 {
			out = append(out, c.tree.Add(pathOf(tr)))
		}
	}
	return out
}

// dynamic tells whether an expression reads the record.
func (c *compiler) dynamic(expr hcl.Expression) bool {
	for _, tr := range expr.Variables() {
		if _, fixed := c.consts[tr.RootName()]; !fixed {
			return true
		}
	}
	return false
}

func (c *compiler) constant(expr hcl.Expression) eval {
	v, err := evaluate(expr, c.consts)
	var out value
	if err == nil {
		out, err = fromCty(v)
	}
	return func(*frame) (value, error) { return out, err }
}

func (c *compiler) traversal(tr hcl.Traversal) eval {
	switch tr.RootName() {
	case "key":
		return func(f *frame) (value, error) {
			if f.keyless {
				return value{}, nil
			}
			return value{kind: text, raw: f.key}, nil
		}
	case "slot":
		return func(f *frame) (value, error) {
			if f.slot.IsZero() {
				return value{}, nil
			}
			return value{kind: instant, us: f.slot.UnixMicro()}, nil
		}
	case "r":
		slot := c.tree.Add(pathOf(tr))
		return func(f *frame) (value, error) { return fromJSON(f.values[slot], &f.scratch) }
	}
	return nil
}

func pathOf(tr hcl.Traversal) spec.Path {
	var out spec.Path
	for _, step := range tr[1:] {
		switch step := step.(type) {
		case hcl.TraverseAttr:
			out = append(out, step.Name)
		case hcl.TraverseIndex:
			if step.Key.Type() == cty.String {
				out = append(out, step.Key.AsString())
			} else {
				i, _ := step.Key.AsBigFloat().Int64()
				out = append(out, int(i))
			}
		default:
			return out
		}
	}
	return out
}

// slow evaluates with HCL over the paths that the expression reads.
func (c *compiler) slow(e hcl.Expression) eval {
	s := newSlow(c.tree, e, "r")
	return func(f *frame) (value, error) {
		vars := map[string]cty.Value{"key": cty.StringVal(string(f.key)), "slot": cty.NullVal(cty.String)}
		if f.keyless {
			vars["key"] = cty.NullVal(cty.String)
		}
		if !f.slot.IsZero() {
			vars["slot"] = cty.StringVal(f.slot.UTC().Format(expr.TimeFormat))
		}
		maps.Copy(vars, c.consts)
		v, err := s.value(f.values, vars)
		if err != nil {
			return value{}, err
		}
		return fromCty(v)
	}
}

// slowExpr is an expression that HCL evaluates, with the paths that it reads of one root.
type slowExpr struct {
	expr  hcl.Expression
	root  string
	paths []spec.Path
	slots []int
}

func newSlow(tree *rawjson.Tree, expr hcl.Expression, root string) *slowExpr {
	s := &slowExpr{expr: expr, root: root}
	for _, tr := range expr.Variables() {
		if tr.RootName() == root {
			p := pathOf(tr)
			s.paths, s.slots = append(s.paths, p), append(s.slots, tree.Add(p))
		}
	}
	return s
}

func (s *slowExpr) value(values []rawjson.Value, vars map[string]cty.Value) (cty.Value, error) {
	read := make([]cty.Value, len(s.slots))
	for i, slot := range s.slots {
		v, err := toCty(values[slot])
		if err != nil {
			return cty.NilVal, err
		}
		read[i] = v
	}
	vars[s.root] = object(s.paths, read)
	return evaluate(s.expr, vars)
}

func (c *compiler) call(e *hclsyntax.FunctionCallExpr) eval {
	if e.ExpandFinal {
		return nil
	}
	args := func() []eval {
		out := make([]eval, len(e.Args))
		for i, a := range e.Args {
			out[i] = c.compile(a)
		}
		return out
	}
	one := func(f func(value) (value, error)) eval {
		if len(e.Args) != 1 {
			return nil
		}
		arg := c.compile(e.Args[0])
		return func(fr *frame) (value, error) {
			v, err := arg(fr)
			if err != nil || v.missing() {
				return value{}, err
			}
			return f(v)
		}
	}
	switch e.Name {
	case "number":
		return one(toNumber)
	case "from_unix", "from_unix_ms", "from_unix_us", "from_unix_ns":
		return c.fromUnix(e, expr.UnixUnits[e.Name])
	case "from_rfc3339":
		return one(func(v value) (value, error) {
			us, ok := shortTime(v.raw)
			if v.kind != text || !ok {
				var err error
				if us, err = micros(v); err != nil {
					return value{}, err
				}
			}
			return value{kind: instant, us: us}, nil
		})
	case "text":
		return one(func(v value) (value, error) { return asText(v, nil) })
	case "upper":
		return one(func(v value) (value, error) { return asText(v, strings.ToUpper) })
	case "lower":
		return one(func(v value) (value, error) { return asText(v, strings.ToLower) })
	case "trim":
		return one(func(v value) (value, error) { return asText(v, strings.TrimSpace) })
	case "abs":
		return one(func(v value) (value, error) {
			f, err := v.float()
			return value{kind: number, f: math.Abs(f)}, err
		})
	case "coalesce":
		all := args()
		return func(f *frame) (value, error) {
			var found value
			for _, a := range all { // every argument is evaluated, as HCL does: an error in a later one counts
				v, err := a(f)
				if err != nil {
					return value{}, err
				}
				if found.missing() && !v.missing() {
					found = v
				}
			}
			return found, nil
		}
	case "lookup":
		return c.lookup(e)
	}
	return nil
}

// lookup compiles lookup(constant map, key, default).
func (c *compiler) lookup(e *hclsyntax.FunctionCallExpr) eval {
	if len(e.Args) != 3 || c.dynamic(e.Args[0]) {
		return nil
	}
	m, err := evaluate(e.Args[0], c.consts)
	if err != nil || m.IsNull() || !m.Type().IsMapType() || m.Type().ElementType() != cty.String {
		return nil
	}
	known := map[string]value{}
	for k, v := range m.AsValueMap() {
		known[k] = value{kind: text, raw: []byte(v.AsString())}
	}
	key, fallback := c.compile(e.Args[1]), c.compile(e.Args[2])
	return func(f *frame) (value, error) {
		k, err := key(f)
		if err != nil || k.kind == null {
			return value{}, err
		}
		raw, err := textOf(k)
		if err != nil {
			return value{}, err
		}
		if v, found := known[string(raw)]; found {
			return v, nil
		}
		return fallback(f)
	}
}

func asText(v value, f func(string) string) (value, error) {
	raw, err := textOf(v)
	if err != nil || f == nil {
		return value{kind: text, raw: raw}, err
	}
	return value{kind: text, raw: []byte(f(string(raw)))}, nil
}

func toNumber(v value) (value, error) {
	switch v.kind {
	case number:
		return v, nil
	case text:
		if !units.IsNumber(view(v.raw)) {
			return value{}, fmt.Errorf("%q is not a number", units.Clip(string(v.raw)))
		}
		return value{kind: number, raw: v.raw}, nil
	}
	return value{}, errNotNumber
}

func (c *compiler) binary(e *hclsyntax.BinaryOpExpr) eval {
	left, right := c.compile(e.LHS), c.compile(e.RHS)
	numbers := func(f func(a, b float64) value) eval {
		return func(fr *frame) (value, error) {
			a, err := left(fr)
			if err != nil {
				return value{}, err
			}
			b, err := right(fr)
			if err != nil || a.kind == null || b.kind == null {
				return value{}, err
			}
			x, err := a.float()
			if err != nil {
				return value{}, err
			}
			y, err := b.float()
			return f(x, y), err
		}
	}
	num := func(f float64) value { return value{kind: number, f: f} }
	yes := func(b bool) value { return value{kind: boolean, b: b} }
	switch e.Op {
	case hclsyntax.OpAdd:
		return numbers(func(a, b float64) value { return num(a + b) })
	case hclsyntax.OpSubtract:
		return numbers(func(a, b float64) value { return num(a - b) })
	case hclsyntax.OpMultiply:
		return numbers(func(a, b float64) value { return num(a * b) })
	case hclsyntax.OpDivide:
		return numbers(func(a, b float64) value { return num(a / b) })
	case hclsyntax.OpGreaterThan:
		return numbers(func(a, b float64) value { return yes(a > b) })
	case hclsyntax.OpGreaterThanOrEqual:
		return numbers(func(a, b float64) value { return yes(a >= b) })
	case hclsyntax.OpLessThan:
		return numbers(func(a, b float64) value { return yes(a < b) })
	case hclsyntax.OpLessThanOrEqual:
		return numbers(func(a, b float64) value { return yes(a <= b) })
	case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
		want := e.Op == hclsyntax.OpEqual
		return func(f *frame) (value, error) {
			a, err := left(f)
			if err != nil {
				return value{}, err
			}
			b, err := right(f)
			if err != nil {
				return value{}, err
			}
			same, err := equal(a, b)
			return yes(same == want), err
		}
	}
	return nil
}

// equal is HCL's ==: values of different types differ.
func equal(a, b value) (bool, error) {
	if a.kind == instant {
		raw, _ := textOf(a)
		a = value{kind: text, raw: raw}
	}
	if b.kind == instant {
		raw, _ := textOf(b)
		b = value{kind: text, raw: raw}
	}
	if a.kind != b.kind {
		return false, nil
	}
	switch a.kind {
	case text:
		return bytes.Equal(a.raw, b.raw), nil
	case boolean:
		return a.b == b.b, nil
	case number:
		if a.raw != nil && bytes.Equal(a.raw, b.raw) {
			return true, nil
		}
		if x, ok := shortFloat(a.raw); ok && len(a.raw) <= 15 && len(b.raw) <= 15 {
			if y, ok := shortFloat(b.raw); ok { // at most 15 digits: float64 tells any two apart
				return x == y, nil
			}
		}
		x, err := decimal(a)
		if err != nil {
			return false, err
		}
		y, err := decimal(b)
		return err == nil && x.Cmp(y) == 0, err
	}
	return true, nil
}

func truth(v value) (is, known bool, err error) {
	switch {
	case v.kind == null:
		return false, false, nil
	case v.kind == boolean:
		return v.b, true, nil
	case v.kind == text && (string(v.raw) == "true" || string(v.raw) == "false"):
		return string(v.raw) == "true", true, nil
	}
	return false, false, errors.New("not true or false")
}

func (c *compiler) unary(e *hclsyntax.UnaryOpExpr) eval {
	arg := c.compile(e.Val)
	if e.Op == hclsyntax.OpNegate {
		return func(f *frame) (value, error) {
			v, err := arg(f)
			if err != nil || v.kind == null {
				return value{}, err
			}
			x, err := v.float()
			return value{kind: number, f: -x}, err
		}
	}
	return func(f *frame) (value, error) {
		v, err := arg(f)
		if err != nil {
			return value{}, err
		}
		is, known, err := truth(v)
		if !known {
			return value{}, err
		}
		return value{kind: boolean, b: !is}, nil
	}
}

func (c *compiler) conditional(e *hclsyntax.ConditionalExpr) eval {
	cond, yes, no := c.compile(e.Condition), c.compile(e.TrueResult), c.compile(e.FalseResult)
	return func(f *frame) (value, error) {
		v, err := cond(f)
		if err != nil {
			return value{}, err
		}
		is, known, err := truth(v)
		switch {
		case !known:
			return value{}, err
		case is:
			return yes(f)
		}
		return no(f)
	}
}

func (c *compiler) template(e *hclsyntax.TemplateExpr) eval {
	parts := make([]eval, len(e.Parts))
	for i, p := range e.Parts {
		parts[i] = c.compile(p)
	}
	return func(f *frame) (value, error) {
		var out []byte
		for _, p := range parts {
			v, err := p(f)
			if err != nil || v.kind == null {
				return value{}, err
			}
			raw, err := textOf(v)
			if err != nil {
				return value{}, err
			}
			out = append(out, raw...)
		}
		return value{kind: text, raw: out}, nil
	}
}
