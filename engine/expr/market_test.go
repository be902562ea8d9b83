package expr_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/load"
)

// TestMarket: each symbol is read exactly, or refused with its name.
func TestMarket(t *testing.T) {
	const refused = ""
	none := [][]string{}
	for _, c := range []struct {
		symbol string
		lists  [][]string
		want   string
		says   string // in the refusal
	}{
		{"BTC/USD", none, "BTC/USD", ""},
		{"btc-usdt", none, "BTC/USDT", ""},
		{"ETH_EUR", none, "ETH/EUR", ""},
		{"DUSK:USD", none, "DUSK/USD", ""},
		{" BTC/USD\n", none, "BTC/USD", ""},
		{"BTC/USD1", none, "BTC/USD1", ""},
		{"1INCH-USD", none, "1INCH/USD", ""},
		{"USDC.E/USDT", none, "USDC.E/USDT", ""},
		{"币安人生/USDT", none, "币安人生/USDT", ""},

		{"XRPRLUSD", none, refused, "has no separator"},
		{"BTC USD", none, refused, "white space"},
		{"BTC / USD", none, refused, "white space"},
		{"BTC\u00a0/USD", none, refused, "white space"},
		{"BTC//USD", none, refused, "more than two parts"},
		{"/USD", none, refused, "an empty half"},
		{"BTC-", none, refused, "an empty half"},
		{"-", none, refused, "an empty half"},
		{"FX_BTC_JPY", none, refused, "more than two parts"},
		{"BTC-USD-PERP", none, refused, "more than two parts"},
		{"ETH/USD-PERP", none, refused, "more than two parts"},
		{"BTC/USDT:USDT", none, refused, "more than two parts"},
		{"tDUSK:USD", none, refused, "small letters beside capitals"},
		{"tBTCUSD", [][]string{{"USD"}}, refused, "small letters beside capitals"},
		{"BTC.USD", none, refused, "has no separator"},
		{"BTC-PERP", none, refused, "PERP"},
		{"BTCUSD_PERP", none, refused, "PERP"},
		{"BTCUSDT_260327", none, refused, "260327"},
		{"PF_XBTUSD", none, refused, "XBTUSD"},
		{"BINANCE:BTCUSDT", none, refused, "BTCUSDT"},
		{"BTC-27MAR26", none, refused, "27MAR26"},
		{"BTC-MAR26", none, refused, "MAR26"},
		{"XBT-M26", none, refused, "M26"},
		{"BTC_CW", none, refused, "CW"},
		{"BTC/USD!", none, refused, "no currency's name"},
		{"???", none, refused, "no currency's name"},
		{"", none, refused, "an empty half"},

		{"BTCUSDT", [][]string{{"USDT", "USD"}}, "BTC/USDT", ""},
		{"btcusd", [][]string{{"usdt", "usd"}}, "BTC/USD", ""},
		{"USDTUSD", [][]string{{"USDT", "USD"}}, "USDT/USD", ""},
		{"DOTUSD", [][]string{{"TUSD", "USD"}}, refused, "DO/TUSD or DOT/USD"},
		{"DOTUSD", [][]string{{"USD", "TUSD"}}, refused, "DOT/USD or DO/TUSD"}, // an order is no reason
		{"DOTUSD", [][]string{{"DOT/USD"}, {"TUSD", "USD"}}, "DOT/USD", ""},
		{"DOTTUSD", [][]string{{"DOT/USD"}, {"TUSD", "USD"}}, refused, "DOT/TUSD or DOTT/USD"},
		{"USD", [][]string{{"USD"}}, refused, "ends in no quote currency"},
		{"BTCEUR", [][]string{{"USD"}}, refused, "ends in no quote currency"},
		{"BTCUSDTPERP", [][]string{{"USDT"}}, refused, "ends in no quote currency"},
		{"BTCUSD_PERP", [][]string{{"USD"}}, refused, `"PERP"`},
		{"PF_XBTUSD", [][]string{{"USD"}}, refused, `"XBTUSD"`},
		{"BTC-WSTETH", [][]string{{"WSTETH"}}, "BTC/WSTETH", ""},
		{"BTC-EUR", [][]string{{"USD"}}, refused, `"EUR"`},

		{"BTCUSD1", [][]string{{"BTC/USD1"}}, "BTC/USD1", ""},
		{"BTC-USD", [][]string{{"BTC/USD"}}, "BTC/USD", ""},
		{"btc_usd", [][]string{{"btc/usd"}}, "BTC/USD", ""},
		{"ETHUSD", [][]string{{"BTC/USD"}}, refused, "none of the list"},
		{"ABCD", [][]string{{"A/BCD", "AB/CD"}}, refused, "may be A/BCD or AB/CD"},
	} {
		m, err := expr.NewMarkets(c.lists...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Split(c.symbol)
		if c.want == refused {
			if err == nil || !strings.Contains(err.Error(), "market "+strconv.Quote(c.symbol)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q with %q: %v, %v, want %q", c.symbol, c.lists, got, err, c.says)
			}
			continue
		}
		if err != nil || got.Base+"/"+got.Quote != c.want {
			t.Errorf("%q with %q: %v, %v, want %s", c.symbol, c.lists, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "/", "BTC/", "A/B/C", "US D", "BTC-USD"} {
		if m, err := expr.NewMarkets([]string{bad}); err == nil {
			t.Errorf("%q is taken as an entry: %v", bad, m)
		}
	}
}

// shippedQuotes is the list of sources/binance.hcl.
func shippedQuotes(t *testing.T) (out []string) {
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	for _, v := range p.Sources[0].Definition.Params.GetAttr("quotes").AsValueSlice() {
		out = append(out, v.AsString())
	}
	return out
}

// TestMarketsOfExchanges reads the symbols of whole exchanges: not one wrong currency.
func TestMarketsOfExchanges(t *testing.T) {
	type market struct{ symbol, base, quote string }
	read := func(name string, into any) {
		f, err := os.Open("../../../shared/captures/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("there are no recordings of exchanges here: ../shared/captures")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		z, err := gzip.NewReader(f)
		if err == nil {
			err = json.NewDecoder(z).Decode(into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	exchanges := map[string][]market{}
	var binance struct {
		Symbols []struct{ Symbol, BaseAsset, QuoteAsset string }
	}
	read("binance-exchangeinfo.json.gz", &binance)
	for _, s := range binance.Symbols {
		exchanges["binance"] = append(exchanges["binance"], market{s.Symbol, s.BaseAsset, s.QuoteAsset})
	}
	var coinbase []struct {
		ID    string
		Base  string `json:"base_currency"`
		Quote string `json:"quote_currency"`
	}
	read("coinbase-products.json.gz", &coinbase)
	for _, s := range coinbase {
		exchanges["coinbase"] = append(exchanges["coinbase"], market{s.ID, s.Base, s.Quote})
	}
	var kraken struct {
		Result map[string]struct{ Altname, WSName string }
	}
	read("kraken-assetpairs.json.gz", &kraken)
	for name, s := range kraken.Result {
		base, quote, ok := strings.Cut(s.WSName, "/")
		if !ok || strings.HasSuffix(name, ".d") { // the dark pool: another market of the same pair
			continue
		}
		exchanges["kraken ws"] = append(exchanges["kraken ws"], market{s.WSName, base, quote})
		exchanges["kraken joined"] = append(exchanges["kraken joined"], market{s.Altname, base, quote})
	}
	for name, markets := range exchanges {
		var quotes, pairs []string
		for _, m := range markets {
			if !slices.Contains(quotes, m.quote) {
				quotes = append(quotes, m.quote)
			}
			pairs = append(pairs, m.base+"/"+m.quote)
		}
		cases := map[string][][]string{"no list": nil, "its quotes": {quotes}, "its pairs": {pairs}, "both": {pairs, quotes}}
		if name == "binance" {
			cases["what its definition lists"] = [][]string{shippedQuotes(t)}
		}
		for list, lists := range cases {
			m, err := expr.NewMarkets(lists...)
			if err != nil {
				t.Fatal(err)
			}
			exact, refused := 0, []string(nil)
			for _, k := range markets {
				switch p, err := m.Split(k.symbol); {
				case err != nil:
					refused = append(refused, k.symbol)
				case p != expr.Pair{k.base, k.quote}:
					t.Errorf("%s, %s: %s is read as %v, and is %s/%s", name, list, k.symbol, p, k.base, k.quote)
				default:
					exact++
				}
			}
			t.Logf("%s, %s: %d exact, %d refused: %.12q", name, list, exact, len(refused), refused)
			separated := name == "coinbase" || name == "kraken ws"
			if want := list == "both" || list == "its pairs" || separated; want && exact < len(markets)*99/100 {
				t.Errorf("%s, %s: only %d of %d are read", name, list, exact, len(markets))
			}
		}
	}
}
