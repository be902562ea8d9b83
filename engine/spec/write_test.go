package spec

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// What WriteQuery writes is read as the same query, whatever is in it; and as lines where that can be.
func TestWriteQuery(t *testing.T) {
	for _, c := range []struct {
		query string
		lines bool
	}{
		{"SELECT 1", true},
		{" SELECT a,\n    b\n   FROM t", false},
		{"SELECT a,\n    b\n   FROM t", true},
		{"SELECT 'x\n\ny'", true},
		{"SELECT '\tx\n\t\ty'", true},
		{"SELECT 'x\n   \n\n y'", false},
		{"SELECT 'x\n\t\ny'", false},
		{"SELECT 'x\n ", false},
		{"SELECT 'x\n  \r\ny'", false},
		{"SELECT 'p\tq\r\nr'", true},
		{"", true},
		{"SELECT '${x} %{y} $${z} %%{a} SQL SQL_'", true},
		{"SELECT 'x\nSQL\ny'", true},
		{`SELECT E'\n \\ "q"'`, true},
		{"SELECT '€\u00a0'", true},
		{"SELECT 'x\n\u00a0\ny'", false},
	} {
		f := hclwrite.NewEmptyFile()
		WriteQuery(f.Body().AppendNewBlock("view", []string{"v"}).Body(), "query", c.query)
		src := hclwrite.Format(f.Bytes())
		file, d := hclsyntax.ParseConfig(src, "", hcl.InitialPos)
		if d.HasErrors() {
			t.Errorf("%q: %v\n%s", c.query, d, src)
			continue
		}
		v, d := file.Body.(*hclsyntax.Body).Blocks[0].Body.Attributes["query"].Expr.Value(nil)
		if have := v.AsString(); d.HasErrors() || strings.TrimSuffix(have, "\n") != strings.TrimSuffix(c.query, "\n") {
			t.Errorf("%q is read as %q\n%s", c.query, have, src)
		}
		if lines := strings.Contains(string(src), "<<-"); lines != c.lines {
			t.Errorf("%q as lines: %t\n%s", c.query, lines, src)
		}
	}
}
