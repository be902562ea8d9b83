package load

import (
	"slices"

	"github.com/andybalholm/cascadia"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

const maxSelector = 1000 // bytes: the CSS parser recurses

// expression returns an attribute's expression after checking the names that it uses; nil when it is absent.
func (l *loader) expression(b *block, name string, roots ...string) hcl.Expression {
	a := b.content.Attributes[name]
	if !b.has(name) {
		return nil
	}
	l.checkRow(a.Expr, b.ctx, roots)
	return a.Expr
}

// checkRow checks the functions and the root names of an expression that runs for each record.
func (l *loader) checkRow(e hcl.Expression, ctx *hcl.EvalContext, roots []string) {
	if l.checkFunctions(e, l.rows) {
		l.checkMarkets(e, ctx)
	}
	defer expr.ReadMembers(e)
	for _, tr := range e.Variables() {
		switch root := tr.RootName(); {
		case slices.Contains(roots, root):
			l.checkMember(tr, ctx.Variables[root])
		case root == "var":
			l.fail(tr.SourceRange(), "Unknown name",
				"var works in pipeline.hcl only: give the value to the source as a parameter, params = { … }.")
		case root == "body" && slices.Contains(roots, "r"):
			hint := ""
			if slices.Contains(roots, "slot") {
				hint = " For a time there is slot, too."
			}
			l.fail(tr.SourceRange(), "Unknown name",
				"body, the whole reply, exists only in when, error and records of decode \"json\". Here there is r, one record: "+
					"what stands beside several records is in none of them. When the reply is one record (records = body), r has all of it.%s", hint)
		case len(tr) == 1:
			l.fail(tr.SourceRange(), "Unknown name", "%q does not exist here. A text is written in quotes: %q.%s",
				units.Clip(root), units.Clip(root), diag.Suggest("", roots))
		default:
			l.fail(tr.SourceRange(), "Unknown name", "%q does not exist here.%s", units.Clip(root),
				diag.Suggest(root, roots))
		}
	}
}

func (l *loader) decode(raw *hcl.Block, ctx *hcl.EvalContext, d *spec.Definition) spec.Decode {
	out := spec.Decode{Format: raw.Labels[0], Range: raw.DefRange}
	switch out.Format {
	case "json":
		b := l.open(raw, &hcl.BodySchema{
			Attributes: attrs(nil, "when", "error", "records", "keyed", "key"),
			Blocks:     plain("on_error"),
		}, ctx)
		out.When = l.expression(b, "when", "body", "param")
		out.Error = l.expression(b, "error", "body", "param")
		for _, raw := range b.content.Blocks {
			out.OnError = append(out.OnError, l.onError(raw, ctx))
		}
		out.Key = l.expression(b, "key", "r", "key", "param", "source")
		out.Keyed = b.flag("keyed", false)
		if b.has("records") {
			out.Records = l.path(b.content.Attributes["records"].Expr, "body")
		}
	case "html":
		l.decodeHTML(raw, ctx, &out)
		if d.Stream != nil {
			l.fail(raw.DefRange, "HTML from a stream", "decode \"html\" reads pages: it needs a poll block.")
		}
	default:
		l.fail(raw.LabelRanges[0], "Unknown format", "A decode block is \"json\" or \"html\".%s",
			diag.Suggest(out.Format, []string{"json", "html"}))
	}
	return out
}

// onError reads a failure that the source reports. Of one market alone the others hear nothing, unless the block says
// so.
func (l *loader) onError(raw *hcl.Block, ctx *hcl.EvalContext) spec.OnError {
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"when", "text"}, "market", "effect")}, ctx)
	out := spec.OnError{
		When: l.expression(b, "when", "body", "param"), Text: l.expression(b, "text", "body", "param"),
		Market: l.expression(b, "market", "body", "param"), Effect: spec.EffectRetry,
	}
	if out.Market != nil {
		out.Effect = spec.EffectLog
	}
	for _, name := range []string{"when", "text"} {
		if a := b.content.Attributes[name]; a != nil && nothing(a.Expr) {
			l.fail(a.Expr.Range(), "Value missing", "on_error.%s has no value: it needs an expression.", name)
		}
	}
	words := []string{spec.EffectRetry, spec.EffectLog}
	if out.Effect = b.text("effect", out.Effect); !slices.Contains(words, out.Effect) {
		l.fail(b.rangeOf("effect"), "Unknown value", "effect is \"retry\" or \"log\".%s",
			b.suggest("effect", out.Effect, words))
	}
	return out
}

func (l *loader) decodeHTML(raw *hcl.Block, ctx *hcl.EvalContext, out *spec.Decode) {
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"select"}, "key"), Blocks: named("field")}, ctx)
	out.Select = b.text("select", "")
	l.selector(b, out.Select)
	out.Key = l.expression(b, "key", "r", "param", "source")
	seen := map[string]hcl.Range{}
	for _, fb := range b.content.Blocks {
		name, ok := l.name(fb, seen)
		f := l.open(fb, &hcl.BodySchema{Attributes: attrs(nil, "select", "attr")}, ctx)
		field := spec.HTMLField{Name: name, Select: f.text("select", ""), Attr: f.text("attr", "")}
		l.selector(f, field.Select)
		if ok {
			out.Fields = append(out.Fields, field)
		}
	}
}

func (l *loader) selector(b *block, text string) {
	if !b.good["select"] {
		return
	}
	if len(text) > maxSelector {
		l.fail(b.rangeOf("select"), "Not a CSS selector", "It has %d bytes; the limit is %d.", len(text), maxSelector)
		return
	}
	if _, err := cascadia.ParseGroup(text); err != nil {
		detail := diag.Sentence(units.Clip(err.Error()))
		if b.secret["select"] {
			detail = ""
		}
		l.fail(b.rangeOf("select"), "Not a CSS selector",
			"%s is not a selector such as \"div.price\" or \"td:nth-child(2)\". %s", b.show("select", text), detail)
	}
}

// path reads a traversal such as body.result or body.data[0].
func (l *loader) path(expr hcl.Expression, root string) spec.Path {
	tr, diags := hcl.AbsTraversalForExpr(expr)
	if diags.HasErrors() || tr.RootName() != root {
		l.fail(expr.Range(), "Not a path", "Write a path into the reply, such as %s, %s.data or %s.data[0].", root,
			root, root)
		return nil
	}
	var out spec.Path
	for _, step := range tr[1:] {
		switch step := step.(type) {
		case hcl.TraverseAttr:
			out = append(out, step.Name)
		case hcl.TraverseIndex:
			if step.Key.Type() == cty.String {
				out = append(out, step.Key.AsString())
				continue
			}
			i, _ := step.Key.AsBigFloat().Int64()
			if i < 0 || i > limits.MaxElements || !step.Key.AsBigFloat().IsInt() {
				l.fail(expr.Range(), "Not a path", "An index is a whole number from 0 to %d.", limits.MaxElements)
			}
			out = append(out, int(i))
		}
	}
	return out
}

func (l *loader) row(raw *hcl.Block, ctx *hcl.EvalContext, s *spec.Source, d *spec.Definition) spec.Row {
	out := spec.Row{Columns: map[string]hcl.Expression{}, Range: raw.DefRange}
	attributes, diags := raw.Body.JustAttributes()
	l.add(diags...)
	roots := []string{"r", "key", "slot", "param", "source"}
	var misspelt []string
	for _, name := range sortedKeys(attributes) {
		a := attributes[name]
		l.checkRow(a.Expr, ctx, roots)
		l.checkFields(a.Expr, d)
		if name == "skip" {
			out.Skip = a.Expr
			continue
		}
		out.Columns[name] = a.Expr
		if s.Table != nil {
			misspelt = append(misspelt, l.filled(a, s.Table))
		}
	}
	if s.Table == nil {
		return out
	}
	for _, c := range s.Table.Columns {
		if _, given := out.Columns[c.Name]; !given && !slices.Contains(misspelt, c.Name) && !c.Null &&
			c.Default == "" && c.Generated == "" {
			l.fail(raw.DefRange, "Column without a value",
				"table.%s.%s may not be null: give it an expression here, or write null = true in the table.",
				s.Table.Name, c.Name)
		}
	}
	if len(out.Columns) == 0 {
		l.fail(raw.DefRange, "Empty row", "The row block fills no column of table.%s.", s.Table.Name)
	}
	return out
}

// filled checks one line of a row block against the table; it returns the column that was probably meant.
func (l *loader) filled(a *hcl.Attribute, t *spec.Table) string {
	switch c := t.Column(a.Name); {
	case c == nil:
		var known []string
		for _, k := range t.Columns {
			if k.Generated == "" {
				known = append(known, k.Name)
			}
		}
		l.fail(a.NameRange, "Unknown column", "table.%s has no column %q.%s", t.Name, units.Clip(a.Name),
			diag.Suggest(a.Name, known))
		return diag.Nearest(a.Name, known)
	case c.Generated != "":
		l.fail(a.NameRange, "Generated column", "table.%s computes %q itself: leave it out.", t.Name, a.Name)
	}
	return ""
}

// checkFields checks r.NAME against the fields of an HTML definition, which are known; a JSON reply's are not.
func (l *loader) checkFields(expr hcl.Expression, d *spec.Definition) {
	if d.Decode.Format != "html" {
		return
	}
	var known []string
	for _, f := range d.Decode.Fields {
		known = append(known, f.Name)
	}
	for _, tr := range expr.Variables() {
		if tr.RootName() != "r" || len(tr) < 2 {
			continue
		}
		if step, ok := tr[1].(hcl.TraverseAttr); ok && !slices.Contains(known, step.Name) {
			l.fail(tr.SourceRange(), "Unknown field", "The decode block has no field %q.%s", units.Clip(step.Name),
				diag.Suggest(step.Name, known))
		}
	}
}
