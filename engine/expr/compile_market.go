package expr

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// market is a symbol already split.
type market struct{ base, quote []byte }

// maxMarkets bounds the memory of symbols already split; past it the memory starts anew.
const maxMarkets = 20_000

// marketPart compiles market(x, lists…).base and .quote.
func (c *Compiler) marketPart(e *hclsyntax.RelativeTraversalExpr) Eval {
	call, ok := e.Source.(*hclsyntax.FunctionCallExpr)
	if !ok || call.Name != "market" || len(call.Args) == 0 || call.ExpandFinal || len(e.Traversal) != 1 {
		return nil
	}
	part, ok := e.Traversal[0].(hcl.TraverseAttr)
	if !ok || (part.Name != "base" && part.Name != "quote") {
		return nil
	}
	markets, number := c.markets(call.Args[1:])
	if markets == nil {
		return nil
	}
	symbol, base := c.Compile(call.Args[0]), part.Name == "base"
	return func(f *Frame) (Value, error) {
		v, err := symbol(f)
		if err != nil || v.Missing() {
			return Value{}, err
		}
		raw, err := TextOf(v)
		if err != nil {
			return Value{}, err
		}
		for len(f.markets) <= number {
			f.markets = append(f.markets, nil)
		}
		m, known := f.markets[number][string(raw)]
		if !known {
			p, err := markets.Split(string(raw))
			if err != nil {
				return Value{}, err
			}
			if m = (market{[]byte(p.Base), []byte(p.Quote)}); f.markets[number] == nil ||
				len(f.markets[number]) >= maxMarkets {
				f.markets[number] = map[string]market{}
			}
			f.markets[number][string(raw)] = m
		}
		if base {
			return Value{Kind: Text, Raw: m.base}, nil
		}
		return Value{Kind: Text, Raw: m.quote}, nil
	}
}

// markets reads constant lists; calls with the same ones share a number, and so what they remember. nil: HCL reads
// them.
func (c *Compiler) markets(lists []hclsyntax.Expression) (*Markets, int) {
	var values []cty.Value
	for _, list := range lists {
		if c.dynamic(list) {
			return nil, 0
		}
		v, err := evaluate(list, c.Consts)
		if err != nil {
			return nil, 0
		}
		values = append(values, v)
	}
	markets, err := MarketsOf(values)
	if err != nil {
		return nil, 0
	}
	written := cty.TupleVal(values).GoString()
	number := slices.Index(c.lists, written)
	if number < 0 {
		number = len(c.lists)
		c.lists = append(c.lists, written)
	}
	return markets, number
}

// MarketOf returns how a source's row block reads a name of a market, by its first market() call; without one, by the
// separator in it.
func MarketOf(src *spec.Source) func(name string) (Pair, error) {
	c := &Compiler{Consts: Constants(src)}
	markets, _ := NewMarkets()
	var symbol hclsyntax.Expression
	for _, column := range slices.Sorted(maps.Keys(src.Definition.Row.Columns)) {
		node, ok := src.Definition.Row.Columns[column].(hclsyntax.Expression)
		if !ok {
			continue
		}
		_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
			if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && call.Name == "market" && len(call.Args) > 0 &&
				symbol == nil {
				if m, _ := c.markets(call.Args[1:]); m != nil {
					markets, symbol = m, call.Args[0]
				}
			}
			return nil
		})
	}
	return func(name string) (Pair, error) {
		if symbol != nil { // such as lookup(param.markets, key, key)
			vars := maps.Clone(c.Consts)
			vars["key"] = cty.StringVal(name)
			if v, err := evaluate(symbol, vars); err == nil && v.IsKnown() && !v.IsNull() && v.Type() == cty.String {
				name = v.AsString()
			}
		}
		return markets.Split(name)
	}
}
