package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// separators may stand between the currencies of a symbol.
const separators = "/-_:"

// Pair is a market: what is traded, and what it is paid in. Both in capitals.
type Pair struct{ Base, Quote string }

// Markets tells the market of a symbol. Nothing is guessed: what could be two markets, or something else, is refused.
type Markets struct {
	listed bool              // false: no list is given, a separator must tell
	pairs  map[string][]Pair // by symbol, in capitals: the pairs of the list, however they may be joined
	quotes []string
}

// NewMarkets reads the lists of market(): "BASE/QUOTE" is a pair that was asked for, anything else a quote currency.
func NewMarkets(lists ...[]string) (*Markets, error) {
	m := &Markets{listed: len(lists) > 0, pairs: map[string][]Pair{}}
	for _, entry := range slices.Concat(lists...) {
		switch base, quote, isPair := strings.Cut(strings.ToUpper(entry), "/"); {
		case isPair && isCurrency(base) && isCurrency(quote):
			for _, between := range []string{"", "/", "-", "_", ":"} {
				if symbol, p := base+between+quote, (Pair{base, quote}); !slices.Contains(m.pairs[symbol], p) {
					m.pairs[symbol] = append(m.pairs[symbol], p)
				}
			}
		case isPair || !isCurrency(base):
			return nil, fmt.Errorf("%q is neither a pair, \"BTC/USD\", nor a quote currency, \"USD\"",
				units.Clip(entry))
		case !slices.Contains(m.quotes, base):
			m.quotes = append(m.quotes, base)
		}
	}
	return m, nil
}

// Split returns the market of a symbol. The error names the symbol and says what to write instead.
func (m *Markets) Split(symbol string) (Pair, error) {
	s := strings.TrimSpace(symbol)
	refuse := func(format string, args ...any) (Pair, error) {
		return Pair{}, fmt.Errorf("market %q "+format, append([]any{units.Clip(symbol)}, args...)...)
	}
	if asked := m.pairs[strings.ToUpper(s)]; len(asked) == 1 && oneCase(s) {
		return asked[0], nil
	} else if len(asked) > 1 {
		return refuse("may be %s", either(asked))
	}
	i := strings.IndexAny(s, separators)
	halves := []string{s}
	if i >= 0 {
		halves = []string{s[:i], s[i+1:]}
	}
	for _, half := range halves {
		switch {
		case half == "":
			return refuse("has an empty half")
		case strings.ContainsAny(half, separators):
			return refuse("has more than two parts")
		case strings.ContainsFunc(half, unicode.IsSpace):
			return refuse("has white space in it")
		case !isCurrency(half):
			return refuse("has something in it that is in no currency's name")
		case !oneCase(half):
			return refuse("has small letters beside capitals: it is no pair of currencies alone")
		}
	}
	switch {
	case len(halves) == 2:
		return m.separated(Pair{strings.ToUpper(halves[0]), strings.ToUpper(halves[1])}, refuse)
	case !m.listed:
		return refuse("has no separator: list what it may end in, market(…, [\"USDT\", \"USD\"]), or the pairs that " +
			"were asked for, market(…, param.pairs)")
	}
	return m.joined(strings.ToUpper(s), refuse)
}

func (m *Markets) separated(p Pair, refuse func(string, ...any) (Pair, error)) (Pair, error) {
	switch {
	case m.listed && !slices.Contains(m.quotes, p.Quote):
		return refuse("is none of the list, and %q is no quote currency of it", p.Quote)
	case !m.listed && !isQuote(p.Quote):
		return refuse("is no pair of two currencies: %q is none that something is paid in. If it is one, list it: "+
			"market(…, [%q])", p.Quote, p.Quote)
	}
	return p, nil
}

func (m *Markets) joined(s string, refuse func(string, ...any) (Pair, error)) (Pair, error) {
	var ways []Pair
	for _, q := range m.quotes {
		if base, ok := strings.CutSuffix(s, q); ok && base != "" {
			ways = append(ways, Pair{base, q})
		}
	}
	switch len(ways) {
	case 0:
		return refuse("is none of the list, and ends in no quote currency of it")
	case 1:
		return ways[0], nil
	}
	return refuse("may be %s: ask for the pair, market(…, [%q])", either(ways), ways[0].Base+"/"+ways[0].Quote)
}

func either(ways []Pair) string {
	names := make([]string, len(ways))
	for i, p := range ways {
		names[i] = p.Base + "/" + p.Quote
	}
	return strings.Join(names, " or ")
}

// isCurrency tells whether a text may name a currency: letters, digits, "." and "$".
func isCurrency(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '.' && r != '$'
	})
}

// oneCase tells whether a text has no small letters beside capitals.
func oneCase(s string) bool { return s == strings.ToUpper(s) || s == strings.ToLower(s) }

// notQuotes stand where a quote currency would, in the names of contracts.
var notQuotes = []string{
	"SPOT", "PERP", "SWAP", "FUT", "FUTS", "INDEX", "IDX", "MARK", "LAST", "MOVE", "OPT", "CALL", "PUT", "BULL", "BEAR",
	"HALF", "HEDGE", "LONG", "SHORT", "NEXT",
}

// isQuote tells whether the second half of a symbol may be a currency though no list names it: three to five letters,
// the last of which may be a digit. The names of contracts are none: BTC-PERP, BTCUSD_260327, PF_XBTUSD, BTC-27MAR26,
// XBT-M26.
func isQuote(q string) bool {
	letters := strings.TrimRightFunc(q, unicode.IsDigit)
	return len(q) >= 3 && len(q) <= 5 && len(q)-len(letters) <= 1 && !strings.ContainsFunc(letters, unicode.IsDigit) &&
		!slices.Contains(notQuotes, q)
}

// marketFunc is market() in HCL's own form. A list that is not constant is refused when the definition is read.
var marketFunc = function.New(&function.Spec{
	Params:   []function.Parameter{nullable},
	VarParam: &function.Parameter{Name: "lists", Type: cty.DynamicPseudoType, AllowDynamicType: true},
	Type:     function.StaticReturnType(cty.Object(map[string]cty.Type{"base": cty.String, "quote": cty.String})),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		markets, err := MarketsOf(args[1:])
		if err != nil {
			return cty.NilVal, err
		}
		if missing(args[0]) {
			return cty.ObjectVal(map[string]cty.Value{
				"base":  cty.NullVal(cty.String),
				"quote": cty.NullVal(cty.String),
			}), nil
		}
		s, err := toText(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		p, err := markets.Split(s)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.ObjectVal(map[string]cty.Value{"base": cty.StringVal(p.Base), "quote": cty.StringVal(p.Quote)}), nil
	},
})

// MarketsOf reads the lists of a call; they are constants.
func MarketsOf(lists []cty.Value) (*Markets, error) {
	texts := make([][]string, len(lists))
	for i, v := range lists {
		v, _ = v.UnmarkDeep()
		list, err := limits.Convert(v, cty.List(cty.String))
		if err != nil || list.IsNull() || !list.IsWhollyKnown() {
			return nil, errors.New("market() wants lists of texts after the symbol")
		}
		for _, e := range list.AsValueSlice() {
			if e.IsNull() {
				return nil, errors.New("a list of market() holds a null")
			}
			texts[i] = append(texts[i], e.AsString())
		}
	}
	return NewMarkets(texts...)
}
