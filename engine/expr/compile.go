package expr

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

	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Frame is what one record offers to its expressions.
type Frame struct {
	Values  []rawjson.Value // by slot of the compiler's tree
	Key     []byte
	Keyless bool // the key could not be computed: it is null
	Slot    time.Time
	scratch []byte
	markets []map[string]market // by number of the lists, then by symbol
}

// Eval is a compiled expression.
type Eval func(f *Frame) (Value, error)

// Compiler turns the expressions of one definition into closures over one tree.
type Compiler struct {
	Tree   *rawjson.Tree
	Consts map[string]cty.Value // param, source
	lists  []string             // of market() calls, as they are written: each has a number
}

// Compile never fails: what it does not know, HCL evaluates.
func (c *Compiler) Compile(expr hcl.Expression) Eval {
	if !c.dynamic(expr) {
		return c.constant(expr)
	}
	switch e := expr.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		if out := c.traversal(e.Traversal); out != nil {
			return out
		}
	case *hclsyntax.ParenthesesExpr:
		return c.Compile(e.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return c.Compile(e.Wrapped)
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

// Reads are the slots of the paths that an expression of a column that may be null takes its value from.
func (c *Compiler) Reads(expr hcl.Expression, null bool) (out []int) {
	for _, tr := range expr.Variables() {
		if null && tr.RootName() == "r" && len(tr) > 1 {
			out = append(out, c.Tree.Add(PathOf(tr)))
		}
	}
	return out
}

// dynamic tells whether an expression reads the record.
func (c *Compiler) dynamic(expr hcl.Expression) bool {
	for _, tr := range expr.Variables() {
		if _, fixed := c.Consts[tr.RootName()]; !fixed {
			return true
		}
	}
	return false
}

func (c *Compiler) constant(expr hcl.Expression) Eval {
	v, err := evaluate(expr, c.Consts)
	var out Value
	if err == nil {
		out, err = FromCty(v)
	}
	return func(*Frame) (Value, error) { return out, err }
}

func (c *Compiler) traversal(tr hcl.Traversal) Eval {
	switch tr.RootName() {
	case "key":
		return func(f *Frame) (Value, error) {
			if f.Keyless {
				return Value{}, nil
			}
			return Value{Kind: Text, Raw: f.Key}, nil
		}
	case "slot":
		return func(f *Frame) (Value, error) {
			if f.Slot.IsZero() {
				return Value{}, nil
			}
			return Value{Kind: Instant, us: f.Slot.UnixMicro()}, nil
		}
	case "r":
		slot := c.Tree.Add(PathOf(tr))
		return func(f *Frame) (Value, error) { return fromJSON(f.Values[slot], &f.scratch) }
	}
	return nil
}

// PathOf is the path that a traversal of r takes into a record, as far as it is one.
func PathOf(tr hcl.Traversal) spec.Path {
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
func (c *Compiler) slow(e hcl.Expression) Eval {
	s := Interpret(c.Tree, e, "r")
	return func(f *Frame) (Value, error) {
		vars := map[string]cty.Value{"key": cty.StringVal(string(f.Key)), "slot": cty.NullVal(cty.String)}
		if f.Keyless {
			vars["key"] = cty.NullVal(cty.String)
		}
		if !f.Slot.IsZero() {
			vars["slot"] = cty.StringVal(f.Slot.UTC().Format(TimeFormat))
		}
		maps.Copy(vars, c.Consts)
		v, err := s.Value(f.Values, vars)
		if err != nil {
			return Value{}, err
		}
		return FromCty(v)
	}
}

// Interpreted is an expression that HCL evaluates, with the paths that it reads of one root.
type Interpreted struct {
	Expr  hcl.Expression
	root  string
	Paths []spec.Path
	Slots []int
}

// Interpret prepares an expression over one root name for HCL.
func Interpret(tree *rawjson.Tree, expr hcl.Expression, root string) *Interpreted {
	s := &Interpreted{Expr: expr, root: root}
	for _, tr := range expr.Variables() {
		if tr.RootName() == root {
			p := PathOf(tr)
			s.Paths, s.Slots = append(s.Paths, p), append(s.Slots, tree.Add(p))
		}
	}
	return s
}

// Value evaluates the expression over the values that were scanned.
func (s *Interpreted) Value(values []rawjson.Value, vars map[string]cty.Value) (cty.Value, error) {
	read := make([]cty.Value, len(s.Slots))
	for i, slot := range s.Slots {
		v, err := toCty(values[slot])
		if err != nil {
			return cty.NilVal, err
		}
		read[i] = v
	}
	vars[s.root] = object(s.Paths, read)
	return evaluate(s.Expr, vars)
}

func (c *Compiler) call(e *hclsyntax.FunctionCallExpr) Eval {
	if e.ExpandFinal {
		return nil
	}
	args := func() []Eval {
		out := make([]Eval, len(e.Args))
		for i, a := range e.Args {
			out[i] = c.Compile(a)
		}
		return out
	}
	one := func(f func(Value) (Value, error)) Eval {
		if len(e.Args) != 1 {
			return nil
		}
		arg := c.Compile(e.Args[0])
		return func(fr *Frame) (Value, error) {
			v, err := arg(fr)
			if err != nil || v.Missing() {
				return Value{}, err
			}
			return f(v)
		}
	}
	switch e.Name {
	case "number":
		return one(asNumber)
	case "from_unix", "from_unix_ms", "from_unix_us", "from_unix_ns":
		return c.fromUnix(e, UnixUnits[e.Name])
	case "from_rfc3339":
		return one(func(v Value) (Value, error) {
			us, ok := shortTime(v.Raw)
			if v.Kind != Text || !ok {
				var err error
				if us, err = MicrosOf(v); err != nil {
					return Value{}, err
				}
			}
			return Value{Kind: Instant, us: us}, nil
		})
	case "text":
		return one(func(v Value) (Value, error) { return asText(v, nil) })
	case "upper":
		return one(func(v Value) (Value, error) { return asText(v, strings.ToUpper) })
	case "lower":
		return one(func(v Value) (Value, error) { return asText(v, strings.ToLower) })
	case "trim":
		return one(func(v Value) (Value, error) { return asText(v, strings.TrimSpace) })
	case "abs":
		return one(func(v Value) (Value, error) {
			f, err := v.Float()
			return Value{Kind: Number, Computed: math.Abs(f)}, err
		})
	case "coalesce":
		all := args()
		return func(f *Frame) (Value, error) {
			var found Value
			for _, a := range all { // every argument is evaluated, as HCL does: an error in a later one counts
				v, err := a(f)
				if err != nil {
					return Value{}, err
				}
				if found.Missing() && !v.Missing() {
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
func (c *Compiler) lookup(e *hclsyntax.FunctionCallExpr) Eval {
	if len(e.Args) != 3 || c.dynamic(e.Args[0]) {
		return nil
	}
	m, err := evaluate(e.Args[0], c.Consts)
	if err != nil || m.IsNull() || !m.Type().IsMapType() || m.Type().ElementType() != cty.String {
		return nil
	}
	known := map[string]Value{}
	for k, v := range m.AsValueMap() {
		known[k] = Value{Kind: Text, Raw: []byte(v.AsString())}
	}
	key, fallback := c.Compile(e.Args[1]), c.Compile(e.Args[2])
	return func(f *Frame) (Value, error) {
		k, err := key(f)
		if err != nil || k.Kind == Null {
			return Value{}, err
		}
		raw, err := TextOf(k)
		if err != nil {
			return Value{}, err
		}
		if v, found := known[string(raw)]; found {
			return v, nil
		}
		return fallback(f)
	}
}

func asText(v Value, f func(string) string) (Value, error) {
	raw, err := TextOf(v)
	if err != nil || f == nil {
		return Value{Kind: Text, Raw: raw}, err
	}
	return Value{Kind: Text, Raw: []byte(f(string(raw)))}, nil
}

func asNumber(v Value) (Value, error) {
	switch v.Kind {
	case Number:
		return v, nil
	case Text:
		if !units.IsNumber(view(v.Raw)) {
			return Value{}, fmt.Errorf("%q is not a number", units.Clip(string(v.Raw)))
		}
		return Value{Kind: Number, Raw: v.Raw}, nil
	}
	return Value{}, ErrNotNumber
}

func (c *Compiler) binary(e *hclsyntax.BinaryOpExpr) Eval {
	left, right := c.Compile(e.LHS), c.Compile(e.RHS)
	numbers := func(f func(a, b float64) Value) Eval {
		return func(fr *Frame) (Value, error) {
			a, err := left(fr)
			if err != nil {
				return Value{}, err
			}
			b, err := right(fr)
			if err != nil || a.Kind == Null || b.Kind == Null {
				return Value{}, err
			}
			x, err := a.Float()
			if err != nil {
				return Value{}, err
			}
			y, err := b.Float()
			return f(x, y), err
		}
	}
	num := func(f float64) Value { return Value{Kind: Number, Computed: f} }
	yes := func(b bool) Value { return Value{Kind: Boolean, Bool: b} }
	switch e.Op {
	case hclsyntax.OpAdd:
		return numbers(func(a, b float64) Value { return num(a + b) })
	case hclsyntax.OpSubtract:
		return numbers(func(a, b float64) Value { return num(a - b) })
	case hclsyntax.OpMultiply:
		return numbers(func(a, b float64) Value { return num(a * b) })
	case hclsyntax.OpDivide:
		return numbers(func(a, b float64) Value { return num(a / b) })
	case hclsyntax.OpGreaterThan:
		return numbers(func(a, b float64) Value { return yes(a > b) })
	case hclsyntax.OpGreaterThanOrEqual:
		return numbers(func(a, b float64) Value { return yes(a >= b) })
	case hclsyntax.OpLessThan:
		return numbers(func(a, b float64) Value { return yes(a < b) })
	case hclsyntax.OpLessThanOrEqual:
		return numbers(func(a, b float64) Value { return yes(a <= b) })
	case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
		want := e.Op == hclsyntax.OpEqual
		return func(f *Frame) (Value, error) {
			a, err := left(f)
			if err != nil {
				return Value{}, err
			}
			b, err := right(f)
			if err != nil {
				return Value{}, err
			}
			same, err := equal(a, b)
			return yes(same == want), err
		}
	}
	return nil
}

// equal is HCL's ==: values of different types differ.
func equal(a, b Value) (bool, error) {
	if a.Kind == Instant {
		raw, _ := TextOf(a)
		a = Value{Kind: Text, Raw: raw}
	}
	if b.Kind == Instant {
		raw, _ := TextOf(b)
		b = Value{Kind: Text, Raw: raw}
	}
	if a.Kind != b.Kind {
		return false, nil
	}
	switch a.Kind {
	case Text:
		return bytes.Equal(a.Raw, b.Raw), nil
	case Boolean:
		return a.Bool == b.Bool, nil
	case Number:
		if a.Raw != nil && bytes.Equal(a.Raw, b.Raw) {
			return true, nil
		}
		if x, ok := shortFloat(a.Raw); ok && len(a.Raw) <= 15 && len(b.Raw) <= 15 {
			if y, ok := shortFloat(b.Raw); ok { // at most 15 digits: float64 tells any two apart
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

// Truth reads a condition.
func Truth(v Value) (is, known bool, err error) {
	switch {
	case v.Kind == Null:
		return false, false, nil
	case v.Kind == Boolean:
		return v.Bool, true, nil
	case v.Kind == Text && (string(v.Raw) == "true" || string(v.Raw) == "false"):
		return string(v.Raw) == "true", true, nil
	}
	return false, false, errors.New("not true or false")
}

func (c *Compiler) unary(e *hclsyntax.UnaryOpExpr) Eval {
	arg := c.Compile(e.Val)
	if e.Op == hclsyntax.OpNegate {
		return func(f *Frame) (Value, error) {
			v, err := arg(f)
			if err != nil || v.Kind == Null {
				return Value{}, err
			}
			x, err := v.Float()
			return Value{Kind: Number, Computed: -x}, err
		}
	}
	return func(f *Frame) (Value, error) {
		v, err := arg(f)
		if err != nil {
			return Value{}, err
		}
		is, known, err := Truth(v)
		if !known {
			return Value{}, err
		}
		return Value{Kind: Boolean, Bool: !is}, nil
	}
}

func (c *Compiler) conditional(e *hclsyntax.ConditionalExpr) Eval {
	cond, yes, no := c.Compile(e.Condition), c.Compile(e.TrueResult), c.Compile(e.FalseResult)
	return func(f *Frame) (Value, error) {
		v, err := cond(f)
		if err != nil {
			return Value{}, err
		}
		is, known, err := Truth(v)
		switch {
		case !known:
			return Value{}, err
		case is:
			return yes(f)
		}
		return no(f)
	}
}

func (c *Compiler) template(e *hclsyntax.TemplateExpr) Eval {
	parts := make([]Eval, len(e.Parts))
	for i, p := range e.Parts {
		parts[i] = c.Compile(p)
	}
	return func(f *Frame) (Value, error) {
		var out []byte
		for _, p := range parts {
			v, err := p(f)
			if err != nil || v.Kind == Null {
				return Value{}, err
			}
			raw, err := TextOf(v)
			if err != nil {
				return Value{}, err
			}
			out = append(out, raw...)
		}
		return Value{Kind: Text, Raw: out}, nil
	}
}

// Constants are the names that have one value for all records of a source.
func Constants(src *spec.Source) map[string]cty.Value {
	return map[string]cty.Value{"param": src.Definition.Params, "source": cty.StringVal(src.Name)}
}
