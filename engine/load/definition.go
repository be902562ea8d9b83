package load

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// definitionFile is a sources/*.hcl file that is read already.
type definitionFile struct {
	body *hclsyntax.Body // nil: it cannot be read, and that is reported
	hash []byte
}

var definitionSchema = &hcl.BodySchema{
	Blocks: append(named("param"), append(plain("source", "poll", "stream", "row"),
		hcl.BlockHeaderSchema{Type: "decode", LabelNames: []string{"format"}})...),
}

// given is the params attribute of a source.
type given struct {
	value cty.Value // an object; its parts may be marked
	known bool      // false: it has a mistake, which is reported
	at    hcl.Range
}

// definition reads a sources/*.hcl file for one source; at is where pipeline.hcl names it.
func (l *loader) definition(s *spec.Source, file string, at hcl.Range, params given) *spec.Definition {
	f, seen := l.bodies[file]
	if !seen {
		f.body = l.parse(file, &at)
		if f.body != nil {
			sum := sha256.Sum256(l.files[file].Bytes)
			f.hash = sum[:]
		}
		l.bodies[file] = f
	}
	if f.body == nil {
		return nil
	}
	content, diags := f.body.Content(definitionSchema)
	d := &spec.Definition{File: file, Range: f.body.MissingItemRange(), Text: l.files[file].Bytes}
	l.structure(file, d.Range, definitionSchema, diags)
	blocks := content.Blocks.ByType()
	for _, kind := range []string{"source", "poll", "stream", "decode", "row"} {
		l.once(blocks[kind], "A definition")
	}
	values := l.params(blocks["param"], &hcl.EvalContext{Functions: l.consts}, s, params)
	d.Params, d.Secrets = apart(values)
	ctx := &hcl.EvalContext{Functions: l.consts, Variables: map[string]cty.Value{
		"param":  values,
		"source": cty.StringVal(s.Name),
	}}
	if len(blocks["source"]) > 0 {
		b := l.open(blocks["source"][0], &hcl.BodySchema{Attributes: attrs(nil, "description", "homepage",
			"attribution")}, ctx)
		d.Description, d.Homepage, d.Attribution = b.text("description", ""), b.text("homepage", ""),
			b.text("attribution", "")
	}
	polls, streams := len(blocks["poll"]) > 0, len(blocks["stream"]) > 0
	if polls {
		d.Poll = l.poll(blocks["poll"][0], ctx)
	}
	if streams {
		d.Stream = l.stream(blocks["stream"][0], ctx)
	}
	switch {
	case polls && streams:
		l.fail(blocks["stream"][0].DefRange, "poll and stream",
			"A definition gets its data by poll or by stream, not both.")
	case !polls && !streams:
		l.absent(file, "No transport", "%s needs a poll block (HTTP, HTML) or a stream block (WebSocket).", file)
	}
	l.joins = joining(append(blocks["poll"], blocks["stream"]...))
	if len(blocks["decode"]) == 0 {
		l.absent(file, "No decode block",
			"%s needs decode \"json\" { records = body } or decode \"html\" { select = \"…\" }.", file)
	} else {
		d.Decode = l.decode(blocks["decode"][0], ctx, d)
		if d.Poll != nil && d.Poll.MaxBody == 0 {
			d.Poll.MaxBody = map[bool]int64{true: defaultMaxPage, false: defaultMaxBody}[d.Decode.Format == "html"]
		}
	}
	if len(blocks["row"]) == 0 {
		l.absent(file, "No row block", "%s needs a row block: for each column an expression over r, one record.", file)
	} else {
		d.Row = l.row(blocks["row"][0], ctx, s, d)
	}
	sum := sha256.New()
	sum.Write(f.hash)
	if text, err := ctyjson.Marshal(d.Params, d.Params.Type()); err == nil {
		sum.Write(text)
	}
	d.Hash = hex.EncodeToString(sum.Sum(nil))[:16]
	return d
}

// apart takes the marks off a value, and lists the texts and numbers in it that are secret.
func apart(v cty.Value) (plain cty.Value, secrets []spec.Secret) {
	plain, marked := v.UnmarkDeepWithPaths()
	for _, m := range marked {
		part, err := m.Path.Apply(plain)
		if _, secret := m.Marks[limits.SensitiveMark]; !secret || err != nil {
			continue
		}
		_ = cty.Walk(part, func(_ cty.Path, v cty.Value) (bool, error) {
			if v.IsKnown() && !v.IsNull() && v.Type().IsPrimitiveType() && v.Type() != cty.Bool {
				text, err := limits.Convert(v, cty.String)
				if err == nil {
					secrets = append(secrets, spec.NewSecret(text.AsString()))
				}
			}
			return true, nil
		})
	}
	return plain, secrets
}

// params joins the declared parameters with the values that pipeline.hcl gives. A parameter with a mistake is unknown.
func (l *loader) params(blocks hcl.Blocks, ctx *hcl.EvalContext, s *spec.Source, from given) cty.Value {
	values := map[string]cty.Value{}
	object, marks := from.value.Unmark()
	switch {
	case object.Type().IsObjectType() || object.Type().IsMapType():
		for name, v := range object.AsValueMap() {
			values[name] = v.WithMarks(marks)
		}
	default:
		from.known = false
		l.fail(from.at, "Not an object", "source %q: write params = { name = value, … }.", units.Clip(s.Name))
	}
	out, seen := map[string]cty.Value{}, map[string]hcl.Range{}
	for _, raw := range blocks {
		name, ok := l.name(raw, seen)
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "description", "type", "default")}, ctx)
		b.text("description", "")
		value, where := cty.DynamicVal, b.rangeOf("default")
		if v, found := b.marked("default"); found {
			value = v
		}
		if v, found := values[name]; found && !v.IsNull() {
			value, where = v, from.at
		} else if !b.has("default") && from.known && ok {
			l.fail(from.at, "Parameter missing", "source %q: %s needs the parameter %q: params = { %s = … }.",
				units.Clip(s.Name), b.rng.Filename, name, name)
		}
		out[name] = l.typed(value, l.typeOf(b), where, "parameter", name)
	}
	for _, name := range sortedKeys(values) {
		if _, known := seen[name]; !known {
			shown, hint := name, diag.Suggest(name, keys(seen))
			if _, secret := limits.Unmark(values[name]); secret && len(marks) > 0 {
				shown, hint = spec.Sensitive, diag.Suggest("", keys(seen))
			}
			l.fail(from.at, "Unknown parameter", "The definition has no parameter %q.%s", units.Clip(shown), hint)
		}
	}
	return cty.ObjectVal(out)
}

// typeOf reads the type of a variable or a parameter: string, number, bool, list(string), map(number), …
func (l *loader) typeOf(b *block) cty.Type {
	a := b.content.Attributes["type"]
	if a == nil {
		return cty.DynamicPseudoType
	}
	ty, diags := typeexpr.TypeConstraint(a.Expr)
	if diags.HasErrors() {
		l.fail(a.Expr.Range(), "Not a type",
			"A type is string, number, bool, list(string), map(string) and the like, without quotes.")
		return cty.DynamicPseudoType
	}
	return ty
}

// typed converts a value; what cannot be converted becomes unknown.
func (l *loader) typed(v cty.Value, ty cty.Type, at hcl.Range, what, name string) cty.Value {
	out, err := limits.Convert(v, ty)
	if err == nil {
		err = l.meter.Value(out)
	}
	_, secret := limits.Unmark(v)
	report := l.fail
	if secret {
		report = l.unseen
	}
	switch {
	case limits.Reached(err):
		report(at, "Too large", "The %s %q: %v.", what, name, err)
	case err != nil:
		report(at, "Wrong type", "The %s %q must be %s, not %s.", what, name, limits.TypeName(ty),
			limits.KindName(v.Type()))
	default:
		return out
	}
	return cty.DynamicVal
}
