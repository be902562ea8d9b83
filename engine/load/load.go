package load

import (
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Options is what a pipeline may depend on besides its files.
type Options struct {
	Env      func(string) (string, bool) // for env(); nil: nothing is set
	Vars     map[string]string           // --var name=value
	VarFiles []VarFile                   // --var-file; later ones win
	Version  string                      // of the program, for required_version; "" skips the check
}

// VarFile is a file of variable values, read by the caller: it may lie anywhere.
type VarFile struct {
	Name string // for messages
	Src  []byte
}

// maxBundle bounds all files of one pipeline together.
const maxBundle = 8 << 20

type loader struct {
	fsys   fs.FS
	opt    Options
	files  map[string]*hcl.File
	bodies map[string]definitionFile // definitions read already: sources may share one
	ready  map[hcl.Expression]bool   // expressions that have their guards; false: with a mistake that is reported
	read   int                       // bytes of files so far
	diags  hcl.Diagnostics
	said   map[said]bool
	shown  bool // what is read now is an object that plan shows
	meter  limits.Meter
	ctx    *hcl.EvalContext
	consts map[string]function.Function // of definitions
	rows   map[string]function.Function // of row and decode expressions
	// where the request of the definition that is read joins the currencies of a pair
	joins  *hcl.Range
	topics map[string]*spec.Topic
	tables map[string]*spec.Table

	optional bool     // what is read now is a secret, which may be unset
	unset    []string // why parts of it have no value

	folders     map[string]*spec.Folder
	defaults    map[string]bool // variables whose value is a default that stands in the file
	dataSources map[string]*spec.DataSource

	p *spec.Pipeline
}

// Load reads pipeline.hcl and everything that it names. All mistakes of all files come back at once; the pipeline is
// usable only when there is no error among them. It opens no connection.
func Load(fsys fs.FS, file string, opt Options) (*spec.Pipeline, *diag.Diagnostics) {
	l := &loader{
		fsys: fsys, opt: opt, files: map[string]*hcl.File{}, bodies: map[string]definitionFile{},
		ready:  map[hcl.Expression]bool{},
		topics: map[string]*spec.Topic{}, tables: map[string]*spec.Table{}, folders: map[string]*spec.Folder{},
		defaults: map[string]bool{}, dataSources: map[string]*spec.DataSource{},
		p: &spec.Pipeline{File: file, FS: fsys}, rows: expr.RowFunctions(), said: map[said]bool{},
	}
	l.consts = l.meter.Bound(constantFunctions())
	if body := l.parse(file, nil); body != nil {
		l.pipeline(body)
	}
	return l.p, &diag.Diagnostics{Diags: diag.Sorted(l.diags, file), Files: l.files}
}

// parse reads one file of the bundle; at is where it is named, nil for the pipeline itself.
func (l *loader) parse(name string, at *hcl.Range) *hclsyntax.Body {
	src, err := l.readFile(name)
	if err == nil {
		return l.parseSource(name, src)
	}
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Cannot read " + units.Clip(name),
		Detail: diag.Sentence(err.Error()), Subject: at,
	}
	if at == nil {
		d.Detail += " Run cryptoviz in the folder that holds pipeline.hcl, or name it: --file PATH. A new one: " +
			"cryptoviz init DIR."
	}
	l.add(d)
	return nil
}

func (l *loader) parseSource(name string, src []byte) *hclsyntax.Body {
	d := Syntax(src, name)
	l.files[name] = d.Files[name]
	l.add(d.Diags...)
	if d.HasErrors() {
		return nil
	}
	body, _ := d.Files[name].Body.(*hclsyntax.Body)
	return body
}

// Syntax reports what keeps one file from being read at all.
func Syntax(src []byte, name string) *diag.Diagnostics {
	d := &diag.Diagnostics{Diags: limits.Prescan(src, name), Files: map[string]*hcl.File{name: {Bytes: src}}}
	if d.HasErrors() {
		return d
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	d.Diags = syntax(src, diags)
	if f != nil {
		d.Files[name] = f
	}
	return d
}

// evaluate evaluates an expression that has one value; the value keeps its marks.
func (l *loader) evaluate(expr hcl.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	good, seen := l.ready[expr]
	if !seen {
		good = l.checkFunctions(expr, ctx.Functions)
		if node, ok := expr.(hclsyntax.Expression); ok && good {
			l.meter.Guard(node)
		}
		l.ready[expr] = good
	}
	if !good || !l.checkNames(expr, ctx) {
		return cty.NilVal, false
	}
	v, diags := expr.Value(ctx)
	if !l.optional || !onlyUnset(diags) {
		l.add(diags...)
	}
	return v, !diags.HasErrors()
}

// absent reports what a file as a whole lacks.
func (l *loader) absent(file, summary, format string, args ...any) {
	d := diag.Problem(hcl.Range{Filename: file, Start: hcl.InitialPos, End: hcl.InitialPos}, summary, format, args...)
	d.Extra = diag.WithoutLine{}
	l.add(d)
}

func attrs(required []string, optional ...string) []hcl.AttributeSchema {
	var out []hcl.AttributeSchema
	for _, n := range required {
		out = append(out, hcl.AttributeSchema{Name: n, Required: true})
	}
	for _, n := range optional {
		out = append(out, hcl.AttributeSchema{Name: n})
	}
	return out
}

func named(kinds ...string) []hcl.BlockHeaderSchema {
	var out []hcl.BlockHeaderSchema
	for _, k := range kinds {
		out = append(out, hcl.BlockHeaderSchema{Type: k, LabelNames: []string{"name"}})
	}
	return out
}

func plain(kinds ...string) []hcl.BlockHeaderSchema {
	var out []hcl.BlockHeaderSchema
	for _, k := range kinds {
		out = append(out, hcl.BlockHeaderSchema{Type: k})
	}
	return out
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// name checks the label of a block.
func (l *loader) name(b *hcl.Block, seen map[string]hcl.Range) (string, bool) {
	name := b.Labels[0]
	if !nameForm.MatchString(name) {
		l.fail(b.LabelRanges[0], "Not a name",
			"A name has small letters, digits and _, begins with a letter, and is at most 48 long.")
		return name, false
	}
	if first, twice := seen[name]; twice {
		l.fail(b.LabelRanges[0], "Declared twice", "There is %s %q already, at line %d. Rename one of them.",
			article(b.Type), name, first.Start.Line)
		return name, false
	}
	seen[name] = b.LabelRanges[0]
	return name, true
}

// once reports the second and further blocks of a kind that there is one of.
func (l *loader) once(blocks hcl.Blocks, what string) {
	for i, b := range blocks {
		if i > 0 {
			l.fail(b.DefRange, "Declared twice", "%s has one %s block, and there is one at line %d. Join them.", what,
				b.Type, blocks[0].DefRange.Start.Line)
		}
	}
}

func (l *loader) pipeline(body *hclsyntax.Body) {
	l.ctx = &hcl.EvalContext{Functions: l.meter.Bound(pipelineFunctions(l)), Variables: map[string]cty.Value{}}
	// The version comes first: what a newer cryptoviz reads may be full of mistakes to this one.
	header, _, _ := body.PartialContent(&hcl.BodySchema{Blocks: plain("cryptoviz")})
	own, ok := l.header(header.Blocks)
	if !ok {
		return
	}
	schema := &hcl.BodySchema{Blocks: append(named("variable", "topic", "source", "table", "rollup", "view",
		"aggregate", "role", "folder", "datasource", "dashboard", "alert"),
		plain("cryptoviz", "kafka", "database", "grafana", "removed")...)}
	content, diags := body.Content(schema)
	l.structure("pipeline.hcl", body.MissingItemRange(), schema, diags)
	blocks := content.Blocks.ByType()
	for _, kind := range []string{"cryptoviz", "kafka", "database"} {
		l.once(blocks[kind], "A pipeline")
	}
	l.ctx.Variables["var"] = l.variables(blocks["variable"])
	l.own(own)
	l.kafka(blocks["kafka"])
	l.database(blocks["database"])
	// References look back: topics and tables come before the sources, those before the rollups.
	each := func(kind string, read func(*hcl.Block, map[string]hcl.Range)) {
		seen := map[string]hcl.Range{}
		l.shown = kind != "source" // what a source is asked with is not
		for _, b := range blocks[kind] {
			if !l.full() {
				read(b, seen)
			}
		}
		l.shown = false
	}
	each("topic", l.topic)
	each("table", l.table)
	fed := map[*spec.Topic]string{}
	each("source", func(b *hcl.Block, seen map[string]hcl.Range) { l.source(b, seen, fed) })
	each("rollup", l.rollup)
	l.databaseObjects(each)
	l.relations()
	l.grafanaObjects(blocks, each)
	each("removed", l.removed)
	l.checkRemoved()
	if len(blocks["source"]) == 0 {
		l.absent(l.p.File, "No source",
			"A pipeline has at least one source block, with a topic and a table. The shipped pipeline.hcl has some: cryptoviz init DIR writes it.")
	}
}

var (
	versionForm = regexp.MustCompile(`^>=\s*(\d+)\.(\d+)(?:\.(\d+))?$`)
	releaseForm = regexp.MustCompile(`^v?(\d+)\.(\d+)(?:\.(\d+))?`)
	pseudoForm  = regexp.MustCompile(`^v?0\.0\.0-`) // what Go calls a build of a commit without a tag
)

// header reads the cryptoviz block, but for what may use variables; false means that this cryptoviz is too old.
func (l *loader) header(blocks hcl.Blocks) (b *block, ok bool) {
	for _, raw := range blocks {
		b = l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "name", "required_version", "keep_slots",
			"keep_dead_letters", "max_dead_letters", "keep_gaps")}, l.ctx)
		l.p.RequiredVersion = b.text("required_version", "")
		if l.p.RequiredVersion == "" {
			continue
		}
		want := versionForm.FindStringSubmatch(l.p.RequiredVersion)
		if want == nil {
			l.fail(b.rangeOf("required_version"), "Not a version",
				"Write the oldest version that the pipeline works with: \">= 0.1\".")
			continue
		}
		have := releaseForm.FindStringSubmatch(l.opt.Version)
		if have == nil || pseudoForm.MatchString(l.opt.Version) {
			continue // a development build
		}
		if older(have[1:], want[1:]) {
			l.fail(b.rangeOf("required_version"), "cryptoviz is too old",
				"This pipeline needs %s; this is cryptoviz %s. Install a newer one.", l.p.RequiredVersion,
				l.opt.Version)
			return b, false
		}
	}
	return b, true
}

// own reads the pipeline's name, and how much the engine's own tables keep.
func (l *loader) own(b *block) {
	const day = 24 * time.Hour
	l.p.Keep = spec.Keep{Slots: 90 * day, DeadLetters: 30 * day, DeadLettersSize: 1 << 30, Gaps: 365 * day}
	l.p.Name = spec.DefaultName
	if b == nil {
		return
	}
	if l.p.Name = b.text("name", l.p.Name); !nameForm.MatchString(l.p.Name) {
		l.fail(b.rangeOf("name"), "Not a name",
			"A pipeline's name has up to 48 lower-case letters, digits and underscores, and begins with a letter.")
	}
	l.p.Keep = spec.Keep{
		Slots: b.duration("keep_slots", l.p.Keep.Slots, 2*day, forever), DeadLetters: b.duration("keep_dead_letters",
			l.p.Keep.DeadLetters, day, forever),
		DeadLettersSize: b.size("max_dead_letters", l.p.Keep.DeadLettersSize, 1<<20, 1<<50),
		Gaps:            b.duration("keep_gaps", l.p.Keep.Gaps, day, forever),
	}
}

func older(have, want []string) bool {
	for i := range want {
		h, _ := strconv.ParseUint(have[i], 10, 64) // too large a number is the largest
		w, _ := strconv.ParseUint(want[i], 10, 64)
		if h != w {
			return h < w
		}
	}
	return false
}

// reference reads KIND.NAME or KIND["NAME"]; the name is empty when the expression is anything else.
func reference(expr hcl.Expression) (kind, name string) {
	tr, diags := hcl.AbsTraversalForExpr(expr)
	if diags.HasErrors() || len(tr) != 2 {
		return "", ""
	}
	switch step := tr[1].(type) {
	case hcl.TraverseAttr:
		name = step.Name
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String {
			name = step.Key.AsString()
		}
	}
	return tr.RootName(), name
}

// article puts the article before the word for a kind of block.
func article(kind string) string {
	if strings.ContainsAny(kind[:1], "aeiou") {
		return "an " + kind
	}
	return "a " + kind
}

// refer reads a static reference such as topic.binance.
func refer[T any](b *block, name, kind string, known map[string]T) (out T, ok bool) {
	a := b.content.Attributes[name]
	if !b.has(name) {
		return out, false
	}
	root, label := reference(a.Expr)
	if root != kind || label == "" {
		b.l.fail(a.Expr.Range(), "Not a reference", "%s.%s names %s block: write %s.NAME, without quotes.%s", b.what,
			name, article(kind), kind, diag.Suggest("", keys(known)))
		return out, false
	}
	if out, ok = known[label]; !ok {
		b.l.fail(a.Expr.Range(), "Unknown "+kind, "There is no %s %q.%s", kind, units.Clip(label),
			diag.Suggest(label, keys(known)))
	}
	return out, ok
}
