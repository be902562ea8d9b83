package expr

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// What HCL calls an error, a computed member that is not there, is missing in this language: null, as for a path that
// is written out. So each r[key] and split(":", s)[1] of an expression is read by a function that no file can name.
const (
	MemberFunction = "(member)"
	memberResult   = "member"
)

// ReadMembers rewrites an expression in place, once.
func ReadMembers(expr hcl.Expression) {
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return
	}
	literal := func(v cty.Value, r hcl.Range) hclsyntax.Expression {
		return &hclsyntax.LiteralValueExpr{Val: v, SrcRange: r}
	}
	read := func(r hcl.Range, args ...hclsyntax.Expression) hclsyntax.Expression {
		return &hclsyntax.FunctionCallExpr{
			Name: MemberFunction, Args: args, NameRange: r, OpenParenRange: r,
			CloseParenRange: r,
		}
	}
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		switch e := n.(type) {
		case *hclsyntax.IndexExpr:
			if call, done := e.Collection.(*hclsyntax.FunctionCallExpr); !done || call.Name != MemberFunction {
				e.Collection, e.Key = read(e.SrcRange, e.Collection, e.Key), literal(cty.StringVal(memberResult),
					e.SrcRange)
			}
		case *hclsyntax.RelativeTraversalExpr:
			if call, ok := e.Source.(*hclsyntax.FunctionCallExpr); ok && (call.Name == MemberFunction ||
				call.Name == "market") {
				return nil
			}
			args := []hclsyntax.Expression{e.Source}
			for _, step := range e.Traversal {
				switch step := step.(type) {
				case hcl.TraverseAttr:
					args = append(args, literal(cty.StringVal(step.Name), step.SrcRange))
				case hcl.TraverseIndex:
					args = append(args, literal(step.Key, step.SrcRange))
				default:
					return nil
				}
			}
			e.Source, e.Traversal = read(e.SrcRange, args...),
				hcl.Traversal{hcl.TraverseAttr{Name: memberResult, SrcRange: e.SrcRange}}
		}
		return nil
	})
}

// memberFunc goes from a value along names and positions.
var memberFunc = function.New(&function.Spec{
	Params:   []function.Parameter{nullable},
	VarParam: &nullable,
	Type:     function.StaticReturnType(cty.DynamicPseudoType),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		v := args[0]
		for _, step := range args[1:] {
			next, diags := hcl.Index(v, step, nil)
			if diags.HasErrors() {
				next = cty.NullVal(cty.DynamicPseudoType)
			}
			v = next
		}
		return cty.ObjectVal(map[string]cty.Value{memberResult: v}), nil
	},
})
