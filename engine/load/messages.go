package load

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// said is what makes two diagnostics the same.
type said struct {
	summary, detail, file string
	at                    int
}

// add collects diagnostics in the words of the language; after maxDiags it takes no more.
func (l *loader) add(diags ...*hcl.Diagnostic) {
	for _, d := range diags {
		if l.full() {
			return
		}
		d = l.plain(d)
		k := said{d.Summary, d.Detail, "", 0}
		if d.Subject != nil {
			k.file, k.at = d.Subject.Filename, d.Subject.Start.Byte
		}
		if l.said[k] { // a loop says it for each element, and two sources may share a definition
			continue
		}
		l.said[k] = true
		switch {
		case len(l.diags) < diag.Max:
			l.diags = append(l.diags, d)
		case len(l.diags) == diag.Max:
			l.diags = append(l.diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Too many mistakes",
				Detail:  fmt.Sprintf("Only the first %d are shown. Is this the right file?", diag.Max),
				Subject: d.Subject,
			})
		}
	}
}

// full tells that reading on is of no use.
func (l *loader) full() bool { return len(l.diags) > diag.Max }

func (l *loader) fail(r hcl.Range, summary, format string, args ...any) {
	l.add(diag.Problem(r, summary, format, args...))
}

// plain says in our words what HCL says in its own, and takes off the values, which could show a secret.
func (l *loader) plain(given *hcl.Diagnostic) *hcl.Diagnostic {
	d := *given
	d.EvalContext, d.Expression, d.Context = nil, nil, nil
	if call, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](&d); ok && call.FunctionCallError() != nil {
		d.Summary, d.Detail = callFailed(call.CalledFunctionName(), call.FunctionCallError())
	}
	if len(d.Summary) > 200 {
		d.Summary = units.Clip(d.Summary)
	}
	if len(d.Detail) > 2000 {
		d.Detail = strings.ToValidUTF8(d.Detail[:2000], "") + " …"
	}
	return &d
}

func callFailed(name string, err error) (summary, detail string) {
	detail = diag.Sentence(err.Error())
	if arg, ok := err.(function.ArgError); ok { //nolint:errorlint // the function's own, never wrapped
		detail = fmt.Sprintf("Argument %d: %s", arg.Index+1, strings.TrimSuffix(arg.Error(), ".")+".")
	}
	return "Error in " + name + "()", detail
}

var (
	unknownAttribute = regexp.MustCompile(`^An argument named "(.*?)" is not expected`)
	unknownBlock     = regexp.MustCompile(`^Blocks of type "(.*?)" are not expected`)
	missingAttribute = regexp.MustCompile(`^The argument "(.*?)" is required`)
	setTwice         = regexp.MustCompile(`^The argument "(.*?)" was already set at .*:(\d+),`)
)

// structure reports attributes and blocks that are unknown, missing or twice; what is the block that they are in.
func (l *loader) structure(what string, at hcl.Range, schema *hcl.BodySchema, diags hcl.Diagnostics) {
	var attributes, blocks, missing []string
	for _, a := range schema.Attributes {
		attributes = append(attributes, a.Name)
	}
	for _, b := range schema.Blocks {
		blocks = append(blocks, b.Type)
	}
	for _, d := range diags {
		d := *d
		switch name := ""; {
		case match(missingAttribute, d.Detail, &name):
			missing = append(missing, name+" = "+cmp.Or(examples[strings.Fields(what)[0]+"."+name], examples[name],
				"…"))
			continue
		case match(unknownAttribute, d.Detail, &name):
			d.Summary, d.Detail = "Unknown attribute", unknownMember(what, "attribute", name, attributes)
			if slices.Contains(blocks, name) {
				d.Detail = fmt.Sprintf("%s is a block: write %s { … }, without the equals sign.", name,
					header(name, schema))
			}
		case match(unknownBlock, d.Detail, &name):
			d.Summary, d.Detail = "Unknown block", unknownMember(what, "block", name, blocks)
			if slices.Contains(attributes, name) {
				d.Detail = fmt.Sprintf("%s is an attribute: write %s = { … }.", name, name)
			}
		case strings.HasPrefix(d.Summary, "Missing ") && strings.Contains(d.Summary, " for "):
			d.Summary, d.Detail = "Name missing", fmt.Sprintf("Write %s { … }.",
				header(d.Summary[strings.LastIndex(d.Summary, " ")+1:], schema))
		case strings.HasPrefix(d.Summary, "Extraneous label for "):
			d.Summary, d.Detail = "Too many names", fmt.Sprintf("Write %s { … }.",
				header(d.Summary[strings.LastIndex(d.Summary, " ")+1:], schema))
		}
		l.add(&d)
	}
	if len(missing) > 0 {
		l.fail(at, "Attribute missing", "%s needs %s.", what, strings.Join(missing, ", "))
	}
}

func match(form *regexp.Regexp, text string, name *string) bool {
	m := form.FindStringSubmatch(text)
	if m != nil {
		*name = m[1]
	}
	return m != nil
}

func unknownMember(what, kind, name string, known []string) string {
	hint := diag.Suggest(name, known)
	if len(known) == 0 {
		hint = " It has none."
	}
	return fmt.Sprintf("%s has no %s %q.%s", what, kind, units.Clip(name), hint)
}

// header writes the head of a block as it must be.
func header(kind string, schema *hcl.BodySchema) string {
	for _, b := range schema.Blocks {
		if b.Type == kind && len(b.LabelNames) > 0 {
			return kind + ` "` + strings.ToUpper(b.LabelNames[0]) + `"`
		}
	}
	return kind
}

// examples are values of the attributes that must be there.
var examples = map[string]string{
	"brokers": `["localhost:9092"]`, "database.url": `env("DATABASE_URL")`, "poll.url": `"https://…"`,
	"stream.url": `"wss://…"`, "type": `"text"`,
	"index.columns": `["…"]`, "columns": "{ … }", "time": `"time"`, "definition": `"sources/NAME.hcl"`,
	"interval": `"1m"`, "topic": "topic.NAME", "table": "table.NAME",
	"grafana.url": `env("GRAFANA_URL")`, "title": `"…"`, "folder": "folder.NAME", "datasource": "datasource.NAME",
	"file": `"dashboards/NAME.json"`, "object": "topic.NAME",
	"after": `"7d"`, "start": `"3h"`, "every": `"30m"`, "privileges": `["select"]`, "on": "[table.NAME]",
	"from": "table.NAME", "into": "table.NAME", "query": `file("sql/NAME.sql")`, "limit": "100", "per": `"1m"`,
	"select": `"…"`,
}

// checkNames reports names that do not exist where an expression stands; HCL has no suggestions for them.
func (l *loader) checkNames(expr hcl.Expression, ctx *hcl.EvalContext) bool {
	dotted := dottedKeys(expr)
	for r, key := range dotted {
		l.fail(r, "Key without quotes", "A name with dots is written in quotes: %q = ….", units.Clip(key))
	}
	good := len(dotted) == 0
	for _, tr := range expr.Variables() {
		if _, said := dotted[tr.SourceRange()]; said {
			continue
		}
		scope, found := ctx.Variables[tr.RootName()]
		if !found {
			good = false
			l.fail(tr.SourceRange(), "Unknown name", "%s", unknownName(tr, ctx))
			continue
		}
		good = l.checkMember(tr, scope) && good
	}
	return good
}

// dottedKeys finds names such as retention.ms = 1 in a map, which HCL takes for references.
func dottedKeys(expr hcl.Expression) map[hcl.Range]string {
	out := map[hcl.Range]string{}
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return out
	}
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		key, ok := n.(*hclsyntax.ObjectConsKeyExpr)
		if !ok || key.ForceNonLiteral {
			return nil
		}
		name, ok := key.Wrapped.(*hclsyntax.ScopeTraversalExpr)
		if !ok || len(name.Traversal) < 2 {
			return nil
		}
		words := []string{name.Traversal.RootName()}
		for _, step := range name.Traversal[1:] {
			attr, ok := step.(hcl.TraverseAttr)
			if !ok {
				return nil
			}
			words = append(words, attr.Name)
		}
		out[name.Traversal.SourceRange()] = strings.Join(words, ".")
		return nil
	})
	return out
}

func (l *loader) checkMember(tr hcl.Traversal, scope cty.Value) bool {
	what := map[string]string{"var": "variable", "param": "parameter"}[tr.RootName()]
	if what == "" || len(tr) < 2 {
		return true
	}
	step, ok := tr[1].(hcl.TraverseAttr)
	if !ok || scope.Type().HasAttribute(step.Name) {
		return true
	}
	l.fail(hcl.RangeBetween(tr[0].SourceRange(), tr[1].SourceRange()), "Unknown "+what, "There is no %s %q.%s", what,
		step.Name, diag.Suggest(step.Name, keys(scope.Type().AttributeTypes())))
	return false
}

// repliesHave tells where the names are that exist for a reply or a record of it.
var repliesHave = map[string]string{
	"body": "when, error and records of decode", "r": "row and the key of decode", "key": "row and the key of decode",
	"slot": "row", "header": "used of budget",
}

func unknownName(tr hcl.Traversal, ctx *hcl.EvalContext) string {
	root := tr.RootName()
	_, inDefinition := ctx.Variables["param"]
	switch {
	case len(ctx.Functions) == 0: // a variable file: its words may be secrets
		return "A variable file holds plain values. A text is written in quotes."
	case slices.Contains([]string{"topic", "table", "folder", "datasource"}, root):
		return fmt.Sprintf("%s.NAME is a reference: it stands alone, as in %s = %s.NAME.", root, root, root)
	case root == "var" && inDefinition:
		return "var works in pipeline.hcl only: give the value to the source as a parameter, params = { … }."
	case root == "var":
		return "Variables do not work here: neither in a variable block nor in required_version."
	case root == "param":
		return "param works in the definition of a source only; in pipeline.hcl use var.NAME."
	case repliesHave[root] != "":
		return fmt.Sprintf("%q exists only when a reply is read: in %s, not here.", root, repliesHave[root])
	case len(tr) == 1:
		return fmt.Sprintf("%q does not exist here. A text is written in quotes: %q.", units.Clip(root),
			units.Clip(root))
	}
	return fmt.Sprintf("%q does not exist here.%s", units.Clip(root), diag.Suggest(root, keys(ctx.Variables)))
}

// checkFunctions reports calls of functions that do not exist here; it runs before evaluation so that the message is
// ours.
func (l *loader) checkFunctions(expr hcl.Expression, known map[string]function.Function) bool {
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return true
	}
	good := true
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		call, ok := n.(*hclsyntax.FunctionCallExpr)
		if !ok {
			return nil
		}
		f, exists := known[call.Name]
		switch {
		case !exists && len(known) == 0:
			good = false
			l.fail(call.NameRange, "Unknown function", "A variable file holds plain values: no function works in it.")
		case !exists && (call.Name == "env" || call.Name == "file"):
			good = false
			l.fail(call.NameRange, "Unknown function",
				"%s() works in pipeline.hcl only: give the value to the source as a parameter, params = { … }.",
				call.Name)
		case !exists:
			good = false
			l.fail(call.NameRange, "Unknown function", "There is no function %q here.%s", units.Clip(call.Name),
				suggestFunction(call.Name, keys(known)))
		case !call.ExpandFinal && (len(call.Args) < len(f.Params()) || f.VarParam() == nil &&
			len(call.Args) > len(f.Params())):
			good = false
			l.fail(call.Range(), "Wrong number of arguments", "%s takes %s, not %d.", usage(call.Name, f),
				count(len(f.Params()), f.VarParam() != nil), len(call.Args))
		}
		return nil
	})
	return good
}

// suggestFunction prefers a function that the name goes on from: from_unix_s means from_unix, though from_unix_ms is
// spelt more like it.
func suggestFunction(name string, known []string) string {
	known = slices.DeleteFunc(known, func(k string) bool { return k == expr.MemberFunction })
	best := ""
	for _, k := range known {
		if len(k) > len(best) && strings.HasPrefix(strings.ToLower(name), k+"_") {
			best = k
		}
	}
	if best == "" {
		return diag.Suggest(name, known)
	}
	hint := fmt.Sprintf(" Did you mean %q?", best)
	if best == "from_unix" {
		hint += " It reads seconds, from_unix_ms milliseconds; microseconds are from_unix(… / 1000000)."
	}
	return hint
}

// usage writes a function with the names of its parameters: split(separator, str).
func usage(name string, f function.Function) string {
	var params []string
	for _, p := range f.Params() {
		params = append(params, p.Name)
	}
	if p := f.VarParam(); p != nil {
		params = append(params, p.Name+"…")
	}
	return name + "(" + strings.Join(params, ", ") + ")"
}

func count(n int, orMore bool) string {
	out := fmt.Sprintf("%d argument", n)
	if n != 1 {
		out += "s"
	}
	if orMore {
		out += " or more"
	}
	return out
}

func keys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
