package load

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

var functionForm = regexp.MustCompile("^\\| `(([a-z0-9_]+)\\([^`]*)` \\| .* \\| `(.+)` is `(.+)` \\|$")

// Each function of rows has a place, and gives what its example says.
func TestReferenceRowFunctions(t *testing.T) {
	r, functions := readReference(t, definitions), expr.RowFunctions()
	_, part, _ := strings.Cut(r.markdown, "\n### Functions\n")
	part, _, _ = strings.Cut(part, "\n## ")
	value := func(text string) cty.Value {
		expr, diags := hclsyntax.ParseExpression([]byte(text), "example", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", text, diags)
		}
		v, diags := expr.Value(&hcl.EvalContext{Functions: functions})
		if diags.HasErrors() {
			t.Errorf("%s: %v", text, diags)
			return cty.DynamicVal
		}
		return v
	}
	var have []string
	for line := range strings.Lines(part) {
		m := functionForm.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			if strings.HasPrefix(line, "| `") {
				t.Errorf("not a function with an example: %s", line)
			}
			continue
		}
		if have = append(have, m[2]); !strings.Contains(m[3], m[2]+"(") {
			t.Errorf("the example is of another function: %s", line)
		}
		got, want := value(m[3]), value(m[4])
		if want, err := convert.Convert(want, got.Type()); err != nil || !got.RawEquals(want) {
			t.Errorf("%s is %#v, not %s", m[3], got, m[4])
		}
		if f, parameters := functions[m[2]], strings.Split(m[1][:strings.Index(m[1], ")")], ","); f.VarParam() == nil && len(f.Params()) != len(parameters) {
			t.Errorf("%s has %d arguments", m[1], len(f.Params()))
		}
	}
	delete(functions, expr.MemberFunction)
	r.same("functions of rows", have, keys(functions))
}

// The names of a row are the table's columns, and skip.
func TestReferenceRow(t *testing.T) {
	r := readReference(t, definitions)
	_, d := r.load(r.with("row", "", nobodys+" = 1"))
	p, _ := r.load(r.base("row"))
	var columns []string
	for _, c := range p.Sources[0].Table.Columns {
		columns = append(columns, c.Name)
	}
	r.same("the row of the example", columns, r.known(d, "Unknown column"))
	r.same("row", []string{"COLUMN", "skip"}, keys(r.rows["row"]))
	for name, row := range r.rows["row"] {
		if name == "COLUMN" {
			name = "price"
		}
		if row.typ != "expression" {
			t.Errorf("row.%s is an expression, not %s", name, row.typ)
		}
		r.trySees("row", name, row)
	}
	for name, said := range map[string]bool{"volume": true, "price": false, "skip": true} { // volume may be null
		if _, d := r.load(r.with("row", name, "")); d.HasErrors() == said {
			t.Errorf("without %s: %s", name, report(d))
		}
	}
	_, d = r.load(append(slices.Clone(r.base("")), nobodys+" {}\n"...))
	if d.Errors() != 1 {
		t.Error(report(d))
	}
}

// The table of names says where each exists, as the rows do.
func TestReferenceNames(t *testing.T) {
	r := readReference(t, definitions)
	_, part, _ := strings.Cut(r.markdown, "\n| name | what it is | where |\n")
	part, _, _ = strings.Cut(part, "\n\n")
	var have []string
	where := map[string]string{}
	for line := range strings.Lines(part) {
		if cells := strings.Split(strings.Trim(line, "| \n"), " | "); strings.HasPrefix(cells[0], "`") {
			name := strings.TrimSuffix(strings.Trim(cells[0], "`"), ".NAME")
			have, where[name] = append(have, name), cells[2]
		}
	}
	places := map[string]bool{}
	for _, kind := range r.kinds {
		for name, row := range r.rows[kind] {
			if row.typ != "expression" {
				continue
			}
			place := "`" + name + "`"
			if kind == "row" {
				place = "`row`"
			}
			if name == "COLUMN" {
				name = "price"
			}
			_, d := r.load(r.with(kind, name, name+" = "+nobodys+".x"))
			exist := r.known(d, "Unknown name")
			for _, e := range exist {
				places[e] = true
			}
			for other, said := range where {
				if kind == "decode.html" && other == "key" { // the table says decode "json"
					continue
				}
				listed := strings.Contains(said, place) != strings.HasPrefix(said, "everywhere")
				if exists := slices.Contains(exist, other); exists != listed {
					t.Errorf("%s exists in %s.%s: %v; the table says %s", other, kind, name, exists, said)
				}
			}
		}
	}
	r.same("names", have, keys(places))
}

// What a decode block may be, and what a page's default is.
func TestReferenceDecode(t *testing.T) {
	r := readReference(t, definitions)
	src := r.base("decode.json")
	label := r.blocks["decode.json"].LabelRanges[0]
	copy(src[label.Start.Byte:], `"qqqq"`)
	_, d := r.load(src)
	if _, known, _ := strings.Cut(strings.Join(summaries(d), "\n"), " Known: "); !strings.HasPrefix(known, "html, json.") {
		t.Errorf("there are other formats: %s", report(d))
	}
	for kind, size := range map[string]string{"decode.json": r.rows["poll"]["max_body"].fallback, "decode.html": "`\"5MiB\"`"} {
		p, _ := r.load(r.base(kind))
		if want := "`\"" + units.FormatSize(p.Sources[0].Definition.Poll.MaxBody) + "\"`"; size != want || kind == "decode.html" && !strings.Contains(r.rows["poll"]["max_body"].text, want) {
			t.Errorf("max_body with %s: %s, want %s", kind, size, want)
		}
	}
	_, d = r.load(r.with("decode.html", "select", `select = "`+strings.Repeat("a", maxSelector+1)+`"`))
	if !strings.Contains(r.rows["decode.html"]["select"].text, "at most 1000 bytes") || !strings.Contains(report(d), "the limit is 1000") {
		t.Error(report(d))
	}
}
