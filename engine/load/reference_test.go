package load

import (
	"bytes"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// referenceText is a reference as a file of the language: its examples stand where they stand in the text, and the other lines
// are empty. So a mistake in an example is reported at its line.
type referenceText struct {
	t        *testing.T
	name     string // of the file
	markdown string
	src      []byte
	examples []string
	kinds    []string // of blocks, in their order: "table", "table.column", "decode.json"
	top      []string // those that stand in no other
	rows     map[string]map[string]referenceRow
	files    fstest.MapFS
	apart    fstest.MapFS                  // examples that are whole files: their first line is # NAME
	blocks   map[string]*hclsyntax.Block   // the first block of each kind in the examples
	all      map[string][]*hclsyntax.Block // every block that stands in no other
	instead  [][2]string                   // of two kinds a file has one: the first, unless the second is what it is about
	void     string                        // a null that is computed, …
	needs    string                        // … and what it needs
}

// referenceRow is the row of an attribute or a nested block.
type referenceRow struct{ typ, fallback, text string }

const (
	readme      = "../spec/README.md"
	definitions = "../../sources/README.md"
)

var (
	sectionForm = regexp.MustCompile("^## `([a-z]+)(?: \"([a-z]+)\")?`$")
	fileForm    = regexp.MustCompile(`^# (\S+\.hcl)\n`)
	codeForm    = regexp.MustCompile("^`([^`]+)`$")
)

// references are the texts on pipeline.hcl and on sources/*.hcl.
func references(t *testing.T) []*referenceText {
	t.Helper()
	return []*referenceText{readReference(t, readme), readReference(t, definitions)}
}

func readReference(t *testing.T, name string) *referenceText {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r := &referenceText{
		t: t, name: "README.md", markdown: string(text), rows: map[string]map[string]referenceRow{}, files: bundle(t), apart: fstest.MapFS{},
		blocks: map[string]*hclsyntax.Block{}, all: map[string][]*hclsyntax.Block{}, void: "var.void", needs: "\nvariable \"void\" { default = null }\n",
	}
	if name == definitions {
		r.name, r.void, r.needs = "sources/README.md", "[null][0]", "\n"
		r.instead = [][2]string{{"poll", "stream"}, {"decode.json", "decode.html"}}
	}
	var src, example strings.Builder
	section, inside := "", false
	for line := range strings.Lines(r.markdown) {
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "```hcl":
			inside = true
		case line == "```" && inside:
			inside = false
			r.examples = append(r.examples, example.String())
			if m := fileForm.FindStringSubmatch(example.String()); m != nil {
				r.apart[m[1]] = &fstest.MapFile{Data: []byte(example.String())}
			}
			example.Reset()
		case inside:
			example.WriteString(line + "\n")
			if !fileForm.MatchString(example.String()) {
				src.WriteString(line)
			}
		case strings.HasPrefix(line, "## "):
			if section = ""; sectionForm.MatchString(line) {
				m := sectionForm.FindStringSubmatch(line)
				section = strings.TrimSuffix(m[1]+"."+m[2], ".")
				r.kind(section)
				r.top = append(r.top, section)
			}
		case strings.HasPrefix(line, "| `") && section != "" && strings.Count(line, " | ") == 3:
			r.row(section, line)
		}
		src.WriteString("\n")
	}
	r.src = []byte(src.String())
	file, diags := hclsyntax.ParseConfig(r.src, r.name, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	r.collect("", file.Body.(*hclsyntax.Body))
	for _, kind := range r.kinds {
		if r.blocks[kind] == nil {
			t.Fatalf("no example has a block %s", kind)
		}
	}
	if r.instead != nil { // a definition is read with a pipeline, and it is the one of the example
		r.files = maps.Clone(r.apart)
		r.files["pipeline.hcl"] = &fstest.MapFile{Data: bytes.Replace(r.apart["pipeline.hcl"].Data, []byte("sources/desk.hcl"), []byte(r.name), 1)}
	}
	return r
}

func (r *referenceText) kind(name string) {
	r.t.Helper()
	if r.rows[name] != nil {
		r.t.Fatalf("%s is there twice", name)
	}
	r.kinds, r.rows[name] = append(r.kinds, name), map[string]referenceRow{}
}

// row reads "| `hypertable.time` | text | required | … |"; the row of a block comes before those of what is in it.
func (r *referenceText) row(section, line string) {
	r.t.Helper()
	cells := strings.Split(strings.Trim(line, "| "), " | ")
	path := section + "." + strings.Trim(cells[0], "`")
	dot := strings.LastIndex(path, ".")
	rows, name := r.rows[path[:dot]], path[dot+1:]
	if _, twice := rows[name]; twice || rows == nil || len(cells) != 4 {
		r.t.Fatalf("%s: a row that is there twice, or before that of its block, or that has not four cells: %s", path, line)
	}
	rows[name] = referenceRow{cells[1], cells[2], cells[3]}
	if cells[1] == "block" {
		r.kind(path)
	}
}

func (r *referenceText) collect(path string, body *hclsyntax.Body) {
	for _, b := range body.Blocks {
		kind := path + b.Type
		if b.Type == "decode" {
			kind += "." + b.Labels[0]
		}
		if r.blocks[kind] == nil {
			r.blocks[kind] = b
		}
		if path == "" {
			r.all[kind] = append(r.all[kind], b)
		}
		r.collect(kind+".", b.Body)
	}
}

// load reads the examples as they were changed.
func (r *referenceText) load(src []byte) (*spec.Pipeline, *diag.Diagnostics) {
	files, file := maps.Clone(r.files), r.name
	files[file] = &fstest.MapFile{Data: src}
	if r.instead != nil {
		file = "pipeline.hcl"
	}
	p, d := Load(files, file, Options{Version: "0.1.0"})
	p.FS = nil // two of them can be compared
	for _, s := range p.Sources {
		if s.Definition != nil {
			s.Definition.Hash, s.Definition.Text = "", nil
		}
	}
	return p, d
}

// base returns the examples that go with those of a kind.
func (r *referenceText) base(kind string) []byte {
	src := bytes.Clone(r.src)
	for _, pair := range r.instead {
		out := pair[1]
		if kind == pair[1] || strings.HasPrefix(kind, pair[1]+".") {
			out = pair[0]
		}
		for _, b := range r.all[out] {
			blank(src[b.TypeRange.Start.Byte:b.CloseBraceRange.End.Byte])
		}
	}
	return src
}

// with returns the examples with lines at the beginning of a block, and without an attribute of it; nothing else moves.
func (r *referenceText) with(kind, without, lines string) []byte {
	b, src := r.blocks[kind], r.base(kind)
	if a := b.Body.Attributes[without]; a != nil {
		blank(src[a.SrcRange.Start.Byte:a.SrcRange.End.Byte])
	}
	from, to := b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte
	return slices.Concat(src[:from], []byte("\n"+lines+"\n"), src[from:to], []byte("\n"), src[to:])
}

func blank(src []byte) {
	for i, c := range src {
		if c != '\n' {
			src[i] = ' '
		}
	}
}

func summaries(d *diag.Diagnostics) (out []string) {
	for _, x := range d.Diags {
		out = append(out, x.Summary+": "+x.Detail)
	}
	return out
}

// nobodys is a name that no reader knows, and that is like no other.
const nobodys = "qqqqqqqqq"

var knownForm = regexp.MustCompile(` Known: (.*)\.$`)

// known reads the list in a message about nobodys.
func (r *referenceText) known(d *diag.Diagnostics, summary string) []string {
	r.t.Helper()
	for _, x := range d.Diags {
		if x.Summary != summary || !strings.Contains(x.Detail, nobodys) {
			continue
		}
		m := knownForm.FindStringSubmatch(x.Detail)
		switch {
		case strings.HasSuffix(x.Detail, "It has none."):
			return nil
		case m == nil || strings.Contains(m[1], "…"):
			r.t.Fatalf("this message lists not all that there is: %s", x.Detail)
		}
		return strings.Split(m[1], ", ")
	}
	r.t.Fatalf("the reader says nothing of %s:\n%s", nobodys, report(d))
	return nil
}

func (r *referenceText) same(what string, have, want []string) {
	r.t.Helper()
	for _, name := range want {
		if !slices.Contains(have, name) {
			r.t.Errorf("%s: %s is accepted and has no place in the reference", what, name)
		}
	}
	for _, name := range have {
		if !slices.Contains(want, name) {
			r.t.Errorf("%s: %s stands in the reference and is not accepted", what, name)
		}
	}
}

func TestReferenceExamples(t *testing.T) {
	for _, r := range references(t) {
		for _, kind := range r.kinds {
			if _, d := r.load(r.base(kind)); len(d.Diags) > 0 {
				t.Errorf("with %s:\n%s", kind, report(d))
			}
		}
		for _, e := range r.examples {
			if got := string(hclwrite.Format([]byte(e))); got != e {
				t.Errorf("not in the canonical form:\n%s", e)
			}
		}
		if _, d := Load(r.apart, "pipeline.hcl", Options{Version: "0.1.0"}); len(r.apart) > 0 && len(d.Diags) > 0 {
			t.Errorf("the whole files:\n%s", report(d))
		}
	}
}

// What a block accepts is asked of its reader: the message about a name that nobody has lists the names that it knows. So
// there is no second list to keep, and nothing of the reader's inside is used.
func TestReferenceIsComplete(t *testing.T) {
	for _, r := range references(t) {
		_, d := r.load(append(r.base(""), nobodys+" {}\n"...))
		var top []string
		for _, kind := range r.top {
			if kind, _, _ = strings.Cut(kind, "."); !slices.Contains(top, kind) {
				top = append(top, kind)
			}
		}
		r.same(r.name, top, r.known(d, "Unknown block"))
		reference := spec.Reference(r.markdown)
		if got := reference.Kinds(); !slices.Equal(got, top) {
			t.Errorf("cryptoviz explain lists %v, want %v", got, top)
		}
		for _, kind := range top {
			if text := reference.Section(kind); !strings.Contains(text, "```hcl\n"+kind) || strings.Contains(text, "\n## ") {
				t.Errorf("the part on %s: %s", kind, text)
			}
		}
		for _, kind := range r.kinds {
			if kind == "row" { // its names are the table's
				continue
			}
			_, d := r.load(r.with(kind, "", nobodys+" = 1\n"+nobodys+" {}"))
			var attributes, blocks []string
			for name, row := range r.rows[kind] {
				if row.typ == "block" {
					blocks = append(blocks, name)
				} else {
					attributes = append(attributes, name)
				}
			}
			r.same(kind+", attributes", attributes, r.known(d, "Unknown attribute"))
			r.same(kind+", blocks", blocks, r.known(d, "Unknown block"))
		}
	}
	if got := spec.PipelineReference().Kinds(); len(got) == 0 || got[0] != "cryptoviz" {
		t.Errorf("the program carries another text: %v", got)
	}
}

// What must be there, a default and a limit are tried, too.
func TestReferenceIsTrue(t *testing.T) {
	missing := regexp.MustCompile(`(?: needs |, )(\w+) = `)
	for _, r := range references(t) {
		for _, kind := range r.kinds {
			if kind == "row" {
				continue
			}
			b, empty := r.blocks[kind], r.base(kind)
			blank(empty[b.OpenBraceRange.End.Byte:b.CloseBraceRange.Start.Byte])
			_, d := r.load(empty)
			for _, x := range d.Diags {
				if x.Summary != "Attribute missing" || x.Subject.Start.Byte != b.TypeRange.Start.Byte {
					continue
				}
				for _, m := range missing.FindAllStringSubmatch(x.Detail, -1) {
					if got := r.rows[kind][m[1]].fallback; got != "required" {
						t.Errorf("%s.%s is required; the reference says %q", kind, m[1], got)
					}
				}
			}
			for name, row := range r.rows[kind] {
				if row.typ != "block" {
					r.tryRow(kind, name, row)
				}
			}
		}
	}
}

// wrongType is what the readers say of [[]], by the type in the reference.
var wrongType = map[string]string{
	"text": "must be a text", "duration": "must be a text", "size": "must be a text", "number": "must be a number",
	"bool": "must be true or false", "texts": "must be a list of texts", "map": "must be names with texts", "object": "Not an object",
	"secret": "Password in the file", "reference": "Not a reference", "references": "Not a reference", "type": "Not a type", "path": "Not a path",
}

// beyond is too much for any limit, or a word that none of the known ones is, by type.
var beyond = map[string]string{
	"duration": `"50000d"`, "number": "10000000000", "size": `"4000TiB"`,
	"text": `"` + nobodys + `"`, "texts": `["` + nobodys + `"]`, "map": `{ mean = "` + nobodys + `" }`,
}

var limitForm = regexp.MustCompile(`must be (?:a whole number )?from (\S+ to \S+)\.$`)

func (r *referenceText) tryRow(kind, name string, row referenceRow) {
	set := func(value string) *diag.Diagnostics {
		_, d := r.load(r.with(kind, name, name+" = "+value))
		return d
	}
	if row.typ == "expression" {
		r.trySees(kind, name, row)
	} else if want := wrongType[row.typ]; row.typ != "any" && (want == "" || !strings.Contains(strings.Join(summaries(set("[[]]")), "\n"), want)) {
		r.t.Errorf("%s.%s is not of the type %s: of [[]] the reader says\n%s", kind, name, row.typ, report(set("[[]]")))
	}
	r.tryNull(kind, name, row)
	literal := codeForm.FindStringSubmatch(row.fallback)
	switch {
	case row.fallback == "required":
		if _, d := r.load(r.with(kind, name, "")); !slices.ContainsFunc(d.Diags, func(x *hcl.Diagnostic) bool { return x.Summary == "Attribute missing" || x.Summary == "No primary key" }) {
			r.t.Errorf("%s.%s is not required", kind, name)
		}
	case row.fallback == "none":
		if _, d := r.load(r.with(kind, name, "")); d.HasErrors() {
			r.t.Errorf("%s.%s cannot be left out: %s", kind, name, report(d))
		}
	case literal != nil:
		line := name + " = " + literal[1]
		without, d := r.load(r.with(kind, name, strings.Repeat(" ", len(line))))
		if len(d.Diags) > 0 {
			r.t.Errorf("%s without %s: %s", kind, name, report(d))
		}
		if with, d := r.load(r.with(kind, name, line)); len(d.Diags) > 0 || !reflect.DeepEqual(plainSecrets(with), plainSecrets(without)) {
			r.t.Errorf("%s.%s: the default is not %s %s", kind, name, literal[1], report(d))
		}
	}
	if beyond[row.typ] == "" {
		return
	}
	for _, x := range set(beyond[row.typ]).Diags {
		if m := limitForm.FindStringSubmatch(x.Detail); m != nil && !strings.Contains(row.text, m[1]) {
			r.t.Errorf("%s.%s: the reference does not say %s", kind, name, m[1])
		}
		m := knownForm.FindStringSubmatch(x.Detail)
		if m == nil || x.Summary == "Unknown column" {
			continue
		}
		for word := range strings.SplitSeq(m[1], ", ") {
			if !strings.Contains(row.text, "`"+word+"`") {
				r.t.Errorf("%s.%s: the reference does not name `%s`", kind, name, word)
			}
		}
	}
}

var seesForm = regexp.MustCompile("Sees (`[^.]*`)\\.?$|Sees (`[^.]*`)\\. ")

// trySees: which names an expression may use.
func (r *referenceText) trySees(kind, name string, row referenceRow) {
	r.t.Helper()
	_, d := r.load(r.with(kind, name, name+" = "+nobodys+".x"))
	var sees []string
	if m := seesForm.FindStringSubmatch(row.text); m != nil {
		for _, word := range strings.FieldsFunc(m[1]+m[2], func(c rune) bool { return c == ',' || c == ' ' }) {
			if word != "and" {
				sees = append(sees, strings.Trim(word, "`"))
			}
		}
	}
	r.same("names in "+kind+"."+name, sees, r.known(d, "Unknown name"))
}

// tryNull: null is the same as leaving the line out, and no value where one is required.
func (r *referenceText) tryNull(kind, name string, row referenceRow) {
	if name == "type" && row.typ == "type" || kind == "variable" && name == "default" { // a type is no value; a default may be null
		return
	}
	nulls := []string{"null", r.void}
	if kind == "cryptoviz" || kind == "variable" || slices.Contains([]string{"reference", "references", "path", "expression"}, row.typ) { // no variables there
		nulls = nulls[:1]
	}
	for _, null := range nulls {
		line := name + " = " + null
		load := func(line string) (*spec.Pipeline, *diag.Diagnostics) {
			return r.load(append(r.with(kind, name, line), r.needs...))
		}
		without, left := load(strings.Repeat(" ", len(line)))
		switch with, d := load(line); {
		case row.fallback == "required" && !d.HasErrors():
			r.t.Errorf("%s.%s is required and may be %s", kind, name, null)
		case row.fallback != "required" && (d.HasErrors() != left.HasErrors() || !reflect.DeepEqual(plainSecrets(with), plainSecrets(without))):
			r.t.Errorf("%s is not as left out: %s%s", kind+"."+line, report(d), report(left))
		}
	}
}

// plainSecrets is the pipeline without why a secret has no value: that one is unset, null or left out is for plan to tell.
func plainSecrets(p *spec.Pipeline) *spec.Pipeline {
	secrets := []*spec.Secret{&p.Kafka.SASLPassword}
	if p.Grafana != nil {
		secrets = append(secrets, &p.Grafana.Auth)
	}
	for _, r := range p.Roles {
		secrets = append(secrets, &r.Password)
	}
	for _, d := range p.DataSources {
		secrets = append(secrets, &d.Password)
	}
	for _, s := range secrets {
		*s = spec.NewSecret(s.Reveal())
	}
	return p
}

func TestReferenceFunctions(t *testing.T) {
	for _, r := range references(t) {
		_, part, _ := strings.Cut(r.markdown, "\n### Expressions\n")
		functions := pipelineFunctions(&loader{})
		if r.name != "README.md" {
			_, part, _ = strings.Cut(r.markdown, "may use these functions:\n")
			functions = constantFunctions()
		}
		part, _, _ = strings.Cut(part, "\n#")
		var have []string
		for _, m := range regexp.MustCompile("`([a-z]+)\\(").FindAllStringSubmatch(part, -1) {
			have = append(have, m[1])
		}
		r.same("functions", have, slices.Sorted(maps.Keys(functions)))
	}
}
