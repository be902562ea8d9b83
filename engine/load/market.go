package load

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/limits"
)

// checkMarkets checks the market() calls of an expression: the lists, and whether one is there where symbols have no
// separator.
func (l *loader) checkMarkets(expr hcl.Expression, ctx *hcl.EvalContext) {
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return
	}
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && call.Name == "market" && len(call.Args) > 0 &&
			!call.ExpandFinal {
			l.checkMarket(call, ctx)
		}
		return nil
	})
}

func (l *loader) checkMarket(call *hclsyntax.FunctionCallExpr, ctx *hcl.EvalContext) {
	rows := &hcl.EvalContext{Functions: l.rows, Variables: map[string]cty.Value{
		"param":  ctx.Variables["param"],
		"source": ctx.Variables["source"],
	}}
	var lists []cty.Value
	entries, secret := 0, false
	for _, list := range call.Args[1:] {
		for _, tr := range list.Variables() {
			if root := tr.RootName(); root != "param" && root != "source" {
				l.fail(list.Range(), "List of each record",
					"What market() may give is the same for each record: a list written here, or a parameter, market(…, param.pairs).")
				return
			}
		}
		v, diags := list.Value(rows)
		_, hidden := limits.Unmark(v)
		secret = secret || hidden
		if v, _ = v.UnmarkDeep(); diags.HasErrors() || !v.IsWhollyKnown() {
			return // it is reported where it has its mistake
		}
		if !v.IsNull() && v.CanIterateElements() {
			entries += v.LengthInt()
		}
		lists = append(lists, v)
	}
	markets, err := expr.MarketsOf(lists)
	switch {
	case err != nil && secret:
		l.unseen(call.Args[1].Range(), "Not a list of markets",
			"An entry is a pair, \"BTC/USD\", or a quote currency, \"USD\".")
		return
	case err != nil:
		l.fail(call.Args[1].Range(), "Not a list of markets", "%s.", diag.Visible(err.Error()))
		return
	case len(lists) > 0 && entries == 0:
		l.fail(call.Range(), "Empty list",
			"The lists of this market() are empty: it would take no symbol. List quote currencies, [\"USDT\", \"USD\"], or pairs, [\"BTC/USD\"].")
		return
	}
	symbol := call.Args[0]
	if len(symbol.Variables()) == 0 {
		if v, diags := symbol.Value(rows); !diags.HasErrors() && v.IsKnown() && !v.IsNull() && v.Type() == cty.String &&
			v.AsString() != "" {
			if _, err := markets.Split(v.AsString()); err != nil {
				l.fail(symbol.Range(), "Not a market", "%s.", diag.Visible(err.Error()))
			}
		}
		return
	}
	if l.joins != nil && len(lists) == 0 && asReceived(symbol) {
		l.fail(call.Range(), "Market without a list",
			"The request joins the currencies of a pair (line %d), so no separator comes back: say which pairs it may be, market(…, param.pairs), or what it may end in, market(…, [\"USDT\", \"USD\"]).", l.joins.Start.Line)
	}
}

// asReceived tells whether an expression is the symbol as the source writes it, but for capitals and white space.
func asReceived(expr hclsyntax.Expression) bool {
	switch e := expr.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		return e.Traversal.RootName() == "r" || e.Traversal.RootName() == "key"
	case *hclsyntax.ParenthesesExpr:
		return asReceived(e.Expression)
	case *hclsyntax.FunctionCallExpr:
		return slices.Contains([]string{"upper", "lower", "trim", "text"}, e.Name) && len(e.Args) == 1 &&
			asReceived(e.Args[0])
	}
	return false
}

// joining finds where a block takes the separator out of a pair: replace(p, "/", "") or join("", split("/", p)). nil:
// nowhere.
func joining(blocks hcl.Blocks) (at *hcl.Range) {
	is := func(expr hclsyntax.Expression, one string) bool {
		v, diags := expr.Value(nil)
		return !diags.HasErrors() && v.Type() == cty.String && v.IsKnown() && !v.IsNull() && v.AsString() == one
	}
	for _, b := range blocks {
		body, ok := b.Body.(*hclsyntax.Body)
		if !ok {
			continue
		}
		_ = hclsyntax.VisitAll(body, func(n hclsyntax.Node) hcl.Diagnostics {
			call, ok := n.(*hclsyntax.FunctionCallExpr)
			if ok && (call.Name == "replace" && len(call.Args) == 3 && is(call.Args[1], "/") && is(call.Args[2], "") ||
				call.Name == "join" && len(call.Args) == 2 && is(call.Args[0], "") && splits(call.Args[1])) {
				r := call.Range()
				at = &r
			}
			return nil
		})
	}
	return at
}

func splits(expr hclsyntax.Expression) bool {
	call, ok := expr.(*hclsyntax.FunctionCallExpr)
	return ok && call.Name == "split"
}
