package spec

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// WriteQuery sets an attribute to a query: as lines, where these say it exactly, else in quotes. A line of blanks
// alone, such as in a literal, does not survive the indent.
func WriteQuery(b *hclwrite.Body, name, query string) {
	lines := heredoc(query)
	if !says(lines, query) {
		b.SetAttributeValue(name, cty.StringVal(query))
		return
	}
	b.SetAttributeRaw(name, lines)
}

// heredoc writes a text as lines inside of a block.
func heredoc(text string) hclwrite.Tokens {
	end := "SQL"
	for strings.Contains(text, end) {
		end += "_"
	}
	text = strings.NewReplacer("${", "$${", "%{", "%%{").Replace(text)
	var lines strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" {
			line = "    " + line
		}
		lines.WriteString(line + "\n")
	}
	return hclwrite.Tokens{
		{Type: hclsyntax.TokenOHeredoc, Bytes: []byte("<<-" + end + "\n")},
		{Type: hclsyntax.TokenStringLit, Bytes: []byte(lines.String())},
		{Type: hclsyntax.TokenCHeredoc, Bytes: []byte("  " + end)},
	}
}

// says tells whether lines are read as a text, and the line feed at their end.
func says(lines hclwrite.Tokens, text string) bool {
	file, d := hclsyntax.ParseConfig(append([]byte("x = "), append(lines.Bytes(), '\n')...), "", hcl.InitialPos)
	if d.HasErrors() {
		return false
	}
	attrs, d := file.Body.JustAttributes()
	if d.HasErrors() || attrs["x"] == nil {
		return false
	}
	v, d := attrs["x"].Expr.Value(nil)
	return !d.HasErrors() && v.Type() == cty.String && v.AsString() == text+"\n"
}

// BlockName is what a name of a block may be.
var BlockName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Texts is a list of texts.
func Texts(list []string) cty.Value {
	values := make([]cty.Value, len(list))
	for i, s := range list {
		values[i] = cty.StringVal(s)
	}
	return cty.TupleVal(values)
}

// Remark writes a comment line.
func Remark(b *hclwrite.Body, format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	b.AppendUnstructuredTokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte("# " + text + "\n")}})
}
