package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/andybalholm/cascadia"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Defaults and bounds of transports.
const (
	defaultTimeout    = 10 * time.Second
	defaultMaxBody    = 16 << 20
	defaultMaxMessage = 1 << 20
	maxBody           = 256 << 20
)

// definition reads a sources/*.hcl file for one source; at is where pipeline.hcl names it.
func (l *loader) definition(s *Source, file string, at hcl.Range, params cty.Value, paramsAt hcl.Range) *Definition {
	body, src := l.parse(file, &at)
	if body == nil {
		return nil
	}
	content, diags := body.Content(&hcl.BodySchema{
		Blocks: append(named("param"), append(plain("source", "poll", "stream", "row"), hcl.BlockHeaderSchema{Type: "decode", LabelNames: []string{"format"}})...),
	})
	l.add(diags...)
	blocks := content.Blocks.ByType()
	for _, kind := range []string{"source", "poll", "stream", "decode", "row"} {
		if len(blocks[kind]) > 1 {
			l.fail(blocks[kind][1].DefRange, "Declared twice", "A definition has one %s block; the first is at line %d.", kind, blocks[kind][0].DefRange.Start.Line)
		}
	}
	d := &Definition{File: file, Range: body.MissingItemRange()}
	ctx := &hcl.EvalContext{Functions: constantFunctions()}
	d.Params = l.params(blocks["param"], ctx, s, params, paramsAt)
	ctx.Variables = map[string]cty.Value{"param": d.Params, "source": cty.StringVal(s.Name)}
	for _, raw := range blocks["source"] {
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "description", "homepage", "attribution")}, ctx)
		d.Description, d.Homepage, d.Attribution = b.text("description", ""), b.text("homepage", ""), b.text("attribution", "")
	}
	switch {
	case len(blocks["poll"]) > 0 && len(blocks["stream"]) > 0:
		l.fail(blocks["stream"][0].DefRange, "poll and stream", "A definition gets its data by poll or by stream, not both.")
	case len(blocks["poll"]) > 0:
		d.Poll = l.poll(blocks["poll"][0], ctx)
	case len(blocks["stream"]) > 0:
		d.Stream = l.stream(blocks["stream"][0], ctx)
	default:
		l.fail(d.Range, "No transport", "%s needs a poll block (HTTP, HTML) or a stream block (WebSocket).", file)
	}
	if len(blocks["decode"]) == 0 {
		l.fail(d.Range, "No decode block", "%s needs decode \"json\" { records = body } or decode \"html\" { select = \"…\" }.", file)
	} else {
		d.Decode = l.decode(blocks["decode"][0], ctx, d)
	}
	if len(blocks["row"]) == 0 {
		l.fail(d.Range, "No row block", "%s needs a row block: for each column an expression over r, one record.", file)
	} else {
		d.Row = l.row(blocks["row"][0], ctx, s, d)
	}
	sum := sha256.New()
	sum.Write(src)
	if text, err := ctyjson.Marshal(d.Params, d.Params.Type()); err == nil {
		sum.Write(text)
	}
	d.Hash = hex.EncodeToString(sum.Sum(nil))[:16]
	return d
}

// params joins the declared parameters with the values that pipeline.hcl gives.
func (l *loader) params(blocks hcl.Blocks, ctx *hcl.EvalContext, s *Source, given cty.Value, at hcl.Range) cty.Value {
	values := map[string]cty.Value{}
	if given.Type().IsObjectType() || given.Type().IsMapType() {
		values = given.AsValueMap()
	} else {
		l.fail(at, "Not an object", "params = { name = value, … }.")
	}
	out, seen := map[string]cty.Value{}, map[string]hcl.Range{}
	for _, raw := range blocks {
		name, ok := l.name(raw, seen)
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "description", "type", "default")}, ctx)
		b.text("description", "")
		ty := cty.DynamicPseudoType
		if a := b.content.Attributes["type"]; a != nil {
			var diags hcl.Diagnostics
			ty, diags = typeexpr.TypeConstraint(a.Expr)
			l.add(diags...)
		}
		if !ok {
			continue
		}
		var value cty.Value
		where := at
		if v, found := values[name]; found {
			value = v
		} else if v, _, found := b.value("default", cty.DynamicPseudoType); found {
			value, where = v, b.rangeOf("default")
		} else {
			if !b.has("default") {
				l.fail(at, "Parameter missing", "source %q: %s needs the parameter %q: params = { %s = … }.", s.Name, b.rng.Filename, name, name)
			}
			continue
		}
		if c, err := convert.Convert(value, ty); err != nil || !c.IsWhollyKnown() {
			l.fail(where, "Wrong type", "The parameter %q must be a %s.", name, ty.FriendlyName())
		} else {
			out[name] = c
		}
	}
	for name := range values {
		if _, known := seen[name]; !known {
			l.fail(at, "Unknown parameter", "%q is no parameter of this source's definition.%s", Clip(name), suggest(name, keys(seen)))
		}
	}
	return cty.ObjectVal(out)
}

func (l *loader) endpoint(b *block, schemes ...string) string {
	text := b.text("url", "")
	if text == "" {
		if b.has("url") {
			l.fail(b.rangeOf("url"), "Not a URL", "The URL is empty.")
		}
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		l.fail(b.rangeOf("url"), "Not a URL", "Write a whole URL with %s:// and a host.", strings.Join(schemes, ":// or "))
	} else if u.User != nil {
		l.fail(b.rangeOf("url"), "Password in a URL", "Put credentials into headers, from a parameter that pipeline.hcl fills with env().")
	}
	return text
}

func (l *loader) poll(raw *hcl.Block, ctx *hcl.EvalContext) *Poll {
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs([]string{"url"}, "query", "headers", "timeout", "retries", "max_body", "allow_private"), Blocks: named("budget"),
	}, ctx)
	p := &Poll{
		URL: l.endpoint(b, "https", "http"), Query: b.textMap("query"), Headers: map[string]Secret{}, Timeout: b.duration("timeout", defaultTimeout, 100*time.Millisecond, 10*time.Minute),
		Retries: int(b.integer("retries", 3, 0, 20)), MaxBody: b.size("max_body", defaultMaxBody), AllowPrivate: b.texts("allow_private"), Range: b.rng,
	}
	if p.MaxBody < 1 || p.MaxBody > maxBody {
		l.fail(b.rangeOf("max_body"), "Size out of range", "max_body must be from 1B to 256MiB.")
	}
	for name, value := range b.textMap("headers") {
		p.Headers[name] = NewSecret(value)
	}
	for i, bb := range b.content.Blocks {
		if i > 0 {
			l.fail(bb.DefRange, "Declared twice", "A poll has at most one budget.")
			break
		}
		x := l.open(bb, &hcl.BodySchema{Attributes: attrs([]string{"limit", "per"}, "cost", "used")}, ctx)
		p.Budget = &Budget{
			Name: bb.Labels[0], Limit: int(x.integer("limit", 1, 1, 1e9)), Per: x.duration("per", time.Minute, time.Second, 24*time.Hour),
			Cost: int(x.integer("cost", 1, 1, 1e9)), Used: l.expression(x, "used", "header", "param"),
		}
		if p.Budget.Cost > p.Budget.Limit {
			l.fail(x.rangeOf("cost"), "Cost above the limit", "One request costs %d and the budget allows %d: it could never be sent.", p.Budget.Cost, p.Budget.Limit)
		}
	}
	return p
}

func (l *loader) stream(raw *hcl.Block, ctx *hcl.EvalContext) *Stream {
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"url"}, "subscribe", "ping", "ping_every", "silence", "max_message", "allow_private")}, ctx)
	s := &Stream{
		URL: l.endpoint(b, "wss", "ws"), Subscribe: b.texts("subscribe"), Ping: b.text("ping", ""), PingEvery: b.duration("ping_every", 0, time.Second, time.Hour),
		Silence: b.duration("silence", 60*time.Second, time.Second, time.Hour), MaxMessage: b.size("max_message", defaultMaxMessage), AllowPrivate: b.texts("allow_private"), Range: b.rng,
	}
	if s.MaxMessage < 1 || s.MaxMessage > maxBody {
		l.fail(b.rangeOf("max_message"), "Size out of range", "max_message must be from 1B to 256MiB.")
	}
	if s.Ping != "" && s.PingEvery == 0 {
		l.fail(b.rangeOf("ping"), "Ping without a rhythm", "Say how often: ping_every = \"20s\".")
	}
	return s
}

// expression returns an attribute's expression after checking the names that it uses; nil when it is absent.
func (l *loader) expression(b *block, name string, roots ...string) hcl.Expression {
	a := b.content.Attributes[name]
	if a == nil {
		return nil
	}
	l.checkRow(a.Expr, b.ctx, roots)
	return a.Expr
}

// checkRow checks the functions and the root names of an expression that runs for each record.
func (l *loader) checkRow(expr hcl.Expression, ctx *hcl.EvalContext, roots []string) {
	l.checkFunctions(expr, RowFunctions())
	for _, tr := range expr.Variables() {
		root := tr.RootName()
		if !slices.Contains(roots, root) {
			l.fail(tr.SourceRange(), "Unknown name", "%q does not exist here.%s", root, suggest(root, roots))
			continue
		}
		if root != "param" || len(tr) < 2 {
			continue
		}
		if step, ok := tr[1].(hcl.TraverseAttr); ok && !ctx.Variables["param"].Type().HasAttribute(step.Name) {
			var known []string
			for n := range ctx.Variables["param"].Type().AttributeTypes() {
				known = append(known, n)
			}
			l.fail(tr.SourceRange(), "Unknown parameter", "This definition has no parameter %q.%s", step.Name, suggest(step.Name, known))
		}
	}
}

func (l *loader) decode(raw *hcl.Block, ctx *hcl.EvalContext, d *Definition) Decode {
	out := Decode{Format: raw.Labels[0], Range: raw.DefRange}
	switch out.Format {
	case "json":
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "when", "error", "records", "keyed", "key")}, ctx)
		out.When = l.expression(b, "when", "body", "param")
		out.Error = l.expression(b, "error", "body", "param")
		out.Key = l.expression(b, "key", "r", "key", "body", "param", "source")
		out.Keyed = b.flag("keyed", false)
		if a := b.content.Attributes["records"]; a != nil {
			out.Records = l.path(a.Expr, "body")
		}
	case "html":
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"select"}, "key"), Blocks: named("field")}, ctx)
		out.Select = b.text("select", "")
		l.selector(b, "select", out.Select)
		out.Key = l.expression(b, "key", "r", "param", "source")
		seen := map[string]hcl.Range{}
		for _, fb := range b.content.Blocks {
			name, ok := l.name(fb, seen)
			f := l.open(fb, &hcl.BodySchema{Attributes: attrs(nil, "select", "attr")}, ctx)
			field := HTMLField{Name: name, Select: f.text("select", ""), Attr: f.text("attr", "")}
			if field.Select != "" {
				l.selector(f, "select", field.Select)
			}
			if ok {
				out.Fields = append(out.Fields, field)
			}
		}
		if d.Stream != nil {
			l.fail(raw.DefRange, "HTML from a stream", "decode \"html\" reads pages: it needs a poll block.")
		}
	default:
		l.fail(raw.LabelRanges[0], "Unknown format", "A decode block is \"json\" or \"html\".%s", suggest(out.Format, []string{"json", "html"}))
	}
	return out
}

func (l *loader) selector(b *block, attr, text string) {
	if !b.has(attr) {
		return
	}
	if _, err := cascadia.ParseGroup(text); err != nil {
		l.fail(b.rangeOf(attr), "Not a CSS selector", "%q: %v.", Clip(text), err)
	}
}

// path reads a traversal such as body.result or body.data[0].
func (l *loader) path(expr hcl.Expression, root string) Path {
	tr, diags := hcl.AbsTraversalForExpr(expr)
	if diags.HasErrors() || tr.RootName() != root {
		l.fail(expr.Range(), "Not a path", "Write a path into the reply, such as %s, %s.data or %s.data[0].", root, root, root)
		return nil
	}
	var out Path
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
			if i < 0 {
				l.fail(expr.Range(), "Not a path", "An index counts from 0.")
			}
			out = append(out, int(i))
		}
	}
	return out
}

func (l *loader) row(raw *hcl.Block, ctx *hcl.EvalContext, s *Source, d *Definition) Row {
	out := Row{Columns: map[string]hcl.Expression{}, Range: raw.DefRange}
	attributes, diags := raw.Body.JustAttributes()
	l.add(diags...)
	roots := []string{"r", "key", "slot", "param", "source"}
	for name, a := range attributes {
		l.checkRow(a.Expr, ctx, roots)
		l.checkFields(a.Expr, d)
		if name == "skip" {
			out.Skip = a.Expr
			continue
		}
		out.Columns[name] = a.Expr
		if s.Table == nil {
			continue
		}
		c := s.Table.Column(name)
		var known []string
		for _, k := range s.Table.Columns {
			if k.Generated == "" {
				known = append(known, k.Name)
			}
		}
		switch {
		case c == nil:
			l.fail(a.NameRange, "Unknown column", "table.%s has no column %q.%s", s.Table.Name, name, suggest(name, known))
		case c.Generated != "":
			l.fail(a.NameRange, "Generated column", "table.%s computes %q itself: leave it out.", s.Table.Name, name)
		}
	}
	if s.Table != nil {
		for _, c := range s.Table.Columns {
			if _, given := out.Columns[c.Name]; !given && !c.Null && c.Default == "" && c.Generated == "" {
				l.fail(raw.DefRange, "Column without a value", "table.%s.%s may not be null: give it an expression, or write null = true in the table.", s.Table.Name, c.Name)
			}
		}
	}
	return out
}

// checkFields checks r.NAME against the fields of an HTML definition, which are known; a JSON reply's are not.
func (l *loader) checkFields(expr hcl.Expression, d *Definition) {
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
			l.fail(tr.SourceRange(), "Unknown field", "The decode block has no field %q.%s", step.Name, suggest(step.Name, known))
		}
	}
}

// variables evaluates the variable blocks: --var, then --var-file, then CRYPTOVIZ_VAR_name, then the default.
func (l *loader) variables(blocks hcl.Blocks) cty.Value {
	fromFiles := map[string]*hcl.Attribute{}
	for _, file := range l.opt.VarFiles {
		body := l.parseSource(file.Name, file.Src)
		if body == nil {
			continue
		}
		attributes, diags := body.JustAttributes()
		l.add(diags...)
		maps.Copy(fromFiles, attributes)
	}
	out, seen := map[string]cty.Value{}, map[string]hcl.Range{}
	ctx := &hcl.EvalContext{Functions: l.ctx.Functions}
	for _, raw := range blocks {
		name, ok := l.name(raw, seen)
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "description", "type", "default", "sensitive")}, ctx)
		b.text("description", "")
		secret, ty := b.flag("sensitive", false), cty.DynamicPseudoType
		if a := b.content.Attributes["type"]; a != nil {
			var diags hcl.Diagnostics
			ty, diags = typeexpr.TypeConstraint(a.Expr)
			l.add(diags...)
		}
		if !ok {
			continue
		}
		value, marked, where, found := l.variable(name, b, ty, fromFiles)
		if !found {
			out[name] = cty.DynamicVal
			continue
		}
		c, err := convert.Convert(value, ty)
		if err != nil {
			l.fail(where, "Wrong type", "The variable %q must be a %s: %v.", name, ty.FriendlyName(), err)
			out[name] = cty.DynamicVal
			continue
		}
		if c.CanIterateElements() && c.LengthInt() > maxElements {
			l.fail(where, "List too long", "The variable %q has %d elements; the limit is %d.", name, c.LengthInt(), maxElements)
		}
		if secret || marked {
			c = c.Mark(sensitiveMark)
		}
		out[name] = c
	}
	for name, a := range fromFiles {
		if _, known := seen[name]; !known {
			l.fail(a.NameRange, "Unknown variable", "pipeline.hcl has no variable %q.%s", name, suggest(name, keys(seen)))
		}
	}
	for name := range l.opt.Vars {
		if _, known := seen[name]; !known {
			l.add(&hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Unknown variable", Detail: "--var " + strconv.Quote(Clip(name)) + ": pipeline.hcl has no such variable." + suggest(name, keys(seen))})
		}
	}
	return cty.ObjectVal(out)
}

func (l *loader) variable(name string, b *block, ty cty.Type, files map[string]*hcl.Attribute) (value cty.Value, sensitive bool, where hcl.Range, ok bool) {
	if text, given := l.opt.Vars[name]; given {
		v, good := l.outside("--var "+name, text, ty, b.rng)
		return v, false, b.rng, good
	}
	if a := files[name]; a != nil {
		v, diags := a.Expr.Value(nil)
		l.add(diags...)
		return v, false, a.Expr.Range(), !diags.HasErrors()
	}
	if l.opt.Env != nil {
		if text, given := l.opt.Env("CRYPTOVIZ_VAR_" + name); given {
			v, good := l.outside("CRYPTOVIZ_VAR_"+name, text, ty, b.rng)
			return v, true, b.rng, good
		}
	}
	if v, marked, given := b.value("default", cty.DynamicPseudoType); given {
		return v, marked, b.rangeOf("default"), true
	}
	if !b.has("default") {
		l.fail(b.rng, "Variable without a value", "Give it with --var %s=…, in a --var-file, as CRYPTOVIZ_VAR_%s, or write a default.", name, name)
	}
	return cty.NilVal, false, b.rng, false
}

// outside reads a value from the command line or the environment: a plain text for strings, else an HCL literal.
// Its own text never enters a message, because it may be a secret.
func (l *loader) outside(from, text string, ty cty.Type, where hcl.Range) (cty.Value, bool) {
	if ty == cty.String || ty == cty.DynamicPseudoType {
		return cty.StringVal(text), true
	}
	if Prescan([]byte(text), from).HasErrors() {
		l.fail(where, "Value not readable", "%s is too long or nested too deeply.", from)
		return cty.NilVal, false
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), from, hcl.InitialPos)
	if !diags.HasErrors() {
		var v cty.Value
		if v, diags = expr.Value(nil); !diags.HasErrors() {
			return v, true
		}
	}
	l.fail(where, "Value not readable", "%s must be a %s written as in HCL, such as '[\"BTC/USD\", \"ETH/USD\"]'.", from, ty.FriendlyName())
	return cty.NilVal, false
}
