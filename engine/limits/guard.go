package limits

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
)

// guarded is a part of an expression whose value is looked at before it is used. Nothing is evaluated any more once the
// work is used up: HCL goes on after an error, to the end of every loop and list.
type guarded struct {
	*hclsyntax.ParenthesesExpr // the walkers of HCL know it
	meter                      *Meter
	check                      func(cty.Value) error // nil: only the work is looked at
}

// Value evaluates the part and checks it.
func (g *guarded) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	err := error(errTooMuchWork)
	if g.meter.spent < maxWork {
		v, diags := g.Expression.Value(ctx)
		if diags.HasErrors() || g.check == nil {
			return v, diags
		}
		if err = g.check(v); err == nil {
			return v, diags
		}
	}
	return cty.DynamicVal, hcl.Diagnostics{diag.Problem(g.SrcRange, "Too large", "%s", diag.Sentence(err.Error()))}
}

// Guard puts guards into an expression that is evaluated once, wherever a value is copied, compared or gone through.
// They do not change its value.
func (m *Meter) Guard(node hclsyntax.Expression) {
	wrap := func(e *hclsyntax.Expression, check func(cty.Value) error) {
		switch (*e).(type) {
		case nil, *guarded:
			return
		}
		*e = &guarded{&hclsyntax.ParenthesesExpr{Expression: *e, SrcRange: (*e).Range()}, m, check}
	}
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.FunctionCallExpr:
			for i := range n.Args {
				wrap(&n.Args[i], m.Value)
			}
		case *hclsyntax.TemplateExpr:
			for i := range n.Parts {
				if _, literal := n.Parts[i].(*hclsyntax.LiteralValueExpr); !literal {
					wrap(&n.Parts[i], m.part)
				}
			}
		case *hclsyntax.BinaryOpExpr:
			check := m.number
			switch n.Op {
			case hclsyntax.OpEqual, hclsyntax.OpNotEqual, hclsyntax.OpLogicalAnd, hclsyntax.OpLogicalOr:
				check = m.Value
			}
			wrap(&n.LHS, check)
			wrap(&n.RHS, check)
		case *hclsyntax.UnaryOpExpr:
			wrap(&n.Val, m.number)
		case *hclsyntax.ConditionalExpr:
			wrap(&n.TrueResult, m.branch)
			wrap(&n.FalseResult, m.branch)
		case *hclsyntax.SplatExpr:
			wrap(&n.Source, m.loop(n.SrcRange))
		case *hclsyntax.IndexExpr:
			wrap(&n.Key, m.number)
		case *hclsyntax.ForExpr:
			wrap(&n.CollExpr, m.loop(n.SrcRange))
			wrap(&n.KeyExpr, nil)
			wrap(&n.ValExpr, nil)
			wrap(&n.CondExpr, nil)
		}
		return nil
	})
}

// part checks a piece of a text: it is copied a few times until the text is whole.
func (m *Meter) part(v cty.Value) error { return m.times(v, 4) }

// number checks an operand or an index, which may be a text of digits.
func (m *Meter) number(v cty.Value) error {
	if text, ok := PlainText(v); ok && hugeNumber(text) {
		return errHugeNumber
	}
	return m.Value(v)
}

// branch checks a result of a conditional: both are brought to one type, which takes the square of a list's length.
func (m *Meter) branch(v cty.Value) error {
	if ty := v.Type(); ty.IsTupleType() {
		if err := m.spend(ty.Length() * ty.Length()); err != nil {
			return err
		}
	}
	return m.Value(v)
}

// loop checks a collection; body is the text that is evaluated for each element.
func (m *Meter) loop(body hcl.Range) func(cty.Value) error {
	return func(v cty.Value) error {
		if err := m.Value(v); err != nil {
			return err
		}
		if v, _ = v.Unmark(); v.IsKnown() && !v.IsNull() && v.CanIterateElements() {
			return m.spend(v.LengthInt() * (body.End.Byte - body.Start.Byte) * 4)
		}
		return nil
	}
}
