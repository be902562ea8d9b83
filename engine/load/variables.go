package load

import (
	"maps"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// variables evaluates the variable blocks: --var, then --var-file, then CRYPTOVIZ_VAR_name, then the default.
func (l *loader) variables(blocks hcl.Blocks) cty.Value {
	fromFiles := hcl.Attributes{}
	for _, file := range l.opt.VarFiles {
		maps.Copy(fromFiles, l.variableFile(file))
	}
	out, seen := map[string]cty.Value{}, map[string]hcl.Range{}
	ctx := &hcl.EvalContext{Functions: l.ctx.Functions}
	for _, raw := range blocks {
		name, ok := l.name(raw, seen)
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "description", "type", "default", "sensitive")}, ctx)
		b.text("description", "")
		v := variable{b: b, name: name, ty: l.typeOf(b), secret: b.flag("sensitive", false)}
		out[name] = cty.DynamicVal // a mistake is reported once, not again where the variable is used
		if ok {
			out[name] = l.variable(v, fromFiles)
		}
	}
	for _, name := range sortedKeys(fromFiles) {
		if _, known := seen[name]; !known {
			l.fail(fromFiles[name].NameRange, "Unknown variable", "%s has no variable %q.%s", l.p.File,
				units.Clip(name), diag.Suggest(name, keys(seen)))
		}
	}
	for _, name := range sortedKeys(l.opt.Vars) {
		if _, known := seen[name]; !known {
			l.add(&hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Unknown variable",
				Detail: "--var " + strconv.Quote(units.Clip(name)) + ": " + l.p.File + " has no such variable." +
					diag.Suggest(name, keys(seen)),
			})
		}
	}
	return cty.ObjectVal(out)
}

// variableFile reads name = value lines. Its lines never appear in a message: they may hold secrets.
func (l *loader) variableFile(file VarFile) hcl.Attributes {
	body := l.parseSource(file.Name, file.Src)
	delete(l.files, file.Name)
	if body == nil {
		return nil
	}
	attributes, diags := body.JustAttributes()
	for _, d := range diags {
		d := *d
		if d.Subject != nil {
			d.Summary, d.Detail = "Not a value", "A variable file holds lines of the form name = value."
		}
		l.add(&d)
	}
	return attributes
}

type variable struct {
	b      *block
	name   string
	ty     cty.Type
	secret bool
}

func (l *loader) variable(v variable, files hcl.Attributes) cty.Value {
	value, at, ok := l.chosen(v, files)
	if !ok {
		return cty.DynamicVal
	}
	if v.secret {
		value = value.Mark(limits.SensitiveMark).Mark(declaredMark)
	}
	return l.typed(value, v.ty, at, "variable", v.name)
}

// chosen returns the value that comes first in the order of precedence. What comes from the environment is a secret.
func (l *loader) chosen(v variable, files hcl.Attributes) (value cty.Value, at hcl.Range, ok bool) {
	if text, given := l.opt.Vars[v.name]; given {
		value, ok = l.outside("--var "+v.name, text, v)
		return value, v.b.rng, ok
	}
	if a := files[v.name]; a != nil {
		value, ok = l.evaluate(a.Expr, &hcl.EvalContext{})
		return value, a.Expr.Range(), ok
	}
	if l.opt.Env != nil {
		if text, given := l.opt.Env("CRYPTOVIZ_VAR_" + v.name); given {
			value, ok = l.outside("CRYPTOVIZ_VAR_"+v.name, text, v)
			return value.Mark(limits.SensitiveMark), v.b.rng, ok
		}
	}
	if a := v.b.content.Attributes["default"]; a != nil {
		value, ok = v.b.marked("default")
		l.defaults[v.name] = l.stands(a.Expr)
		if v.b.null["default"] { // what is made of it counts as left out
			value, ok = cty.NullVal(v.ty), true
		}
		return value, v.b.rangeOf("default"), ok
	}
	l.fail(v.b.rng, "Variable without a value",
		"Give it with --var %s=…, in a --var-file, as CRYPTOVIZ_VAR_%s, or write a default.", v.name, v.name)
	return cty.DynamicVal, v.b.rng, false
}

// outside reads a value from the command line or the environment: a plain text for strings, else an HCL literal.
// Its own text never enters a message, because it may be a secret.
func (l *loader) outside(from, text string, v variable) (cty.Value, bool) {
	if v.ty == cty.String || v.ty == cty.DynamicPseudoType {
		return cty.StringVal(text), true
	}
	if !limits.Prescan([]byte(text), from).HasErrors() {
		expr, diags := hclsyntax.ParseExpression([]byte(text), from, hcl.InitialPos)
		if !diags.HasErrors() && len(expr.Variables()) == 0 {
			l.meter.Guard(expr)
			if value, diags := expr.Value(&hcl.EvalContext{}); !diags.HasErrors() {
				return value, true
			}
		}
	}
	example := ""
	if v.ty.IsListType() || v.ty.IsSetType() || v.ty.IsTupleType() {
		example = `, such as '["BTC/USD", "ETH/USD"]'`
	}
	l.fail(v.b.rng, "Value not readable", "%s must be %s, written as in HCL%s.", from, limits.TypeName(v.ty), example)
	return cty.DynamicVal, false
}
