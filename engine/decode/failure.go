package decode

import (
	"fmt"
	"strconv"

	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// SourceError is a failure that the source itself reports, also inside an HTTP 200.
type SourceError struct {
	Message string
	Market  string // only this one failed; "": it is not said
	Effect  string // spec.EffectRetry or spec.EffectLog; "": the definition does not say
}

// Error gives the source's own words.
func (e *SourceError) Error() string { return "the source says: " + e.Message }

// failure is a compiled on_error block, or decode.error, which has no when.
type failure struct {
	name               string
	when, text, market *expr.Interpreted
	effect             string
}

func newFailures(body *rawjson.Tree, dec spec.Decode) (out []failure) {
	for _, on := range dec.OnError {
		f := failure{
			name: "decode.on_error", when: expr.Interpret(body, on.When, "body"),
			text: expr.Interpret(body, on.Text, "body"), effect: on.Effect,
		}
		if on.Market != nil {
			f.market = expr.Interpret(body, on.Market, "body")
		}
		out = append(out, f)
	}
	if dec.Error != nil {
		out = append(out, failure{name: "decode.error", text: expr.Interpret(body, dec.Error, "body")})
	}
	return out
}

// failure returns what the scanned reply reports, or nil: the first block whose when is true, else decode.error.
func (d *Decoder) failure() (*SourceError, error) {
	for _, f := range d.failures {
		if err := d.readable(f.when, f.text, f.market); err != nil {
			return nil, err
		}
		if f.when != nil {
			v, err := f.when.Value(d.values, d.vars())
			if err != nil {
				return nil, &ShapeError{f.name + ".when: " + err.Error()}
			}
			if !isTrue(v) {
				continue
			}
		}
		text, err := d.said(f.text)
		if err != nil {
			return nil, &ShapeError{f.name + ": " + err.Error()}
		}
		if text == "" {
			if f.when == nil {
				continue
			}
			text = "(no text)"
		}
		market, _ := d.said(f.market) // one that cannot be read is not said
		return &SourceError{Message: text, Market: market, Effect: f.effect}, nil
	}
	return nil, nil
}

// said is an expression's text; "" when there is none.
func (d *Decoder) said(e *expr.Interpreted) (string, error) {
	if e == nil {
		return "", nil
	}
	v, err := e.Value(d.values, d.vars())
	if err != nil {
		return "", err
	}
	msg, err := expr.FromCty(v)
	switch {
	case isEmpty(v): // as {"error": []}, which reports nothing
		return "", nil
	case err != nil || !msg.Missing() && msg.Kind != expr.Text && msg.Kind != expr.Number:
		name, at := d.src.Definition.Quote(e.Expr)
		return "", fmt.Errorf("%s (%s) gives %s, not a text: write CONDITION ? \"text\" : null", name, at, ctyName(v))
	case msg.Missing():
		return "", nil
	}
	raw, err := expr.TextOf(msg)
	return string(raw), err
}

// isEmpty tells whether v is false, or a list or an object of nothing.
func isEmpty(v cty.Value) bool {
	v, _ = v.Unmark()
	return !v.IsNull() && v.IsKnown() && (v.Type() == cty.Bool && v.False() || v.CanIterateElements() &&
		v.LengthInt() == 0)
}

// ctyName names the kind of what an expression gave.
func ctyName(v cty.Value) string {
	switch v, _ = v.Unmark(); {
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True())
	case v.Type().IsObjectType(), v.Type().IsMapType():
		return "an object"
	}
	return "a list"
}

func isTrue(v cty.Value) bool {
	v, _ = v.Unmark()
	return !v.IsNull() && v.Type() == cty.Bool && v.True()
}
