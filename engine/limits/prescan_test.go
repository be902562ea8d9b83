package limits

import (
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func TestPrescan(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"64 deep":               {"a = " + strings.Repeat("[", 64) + strings.Repeat("]", 64), ""},
		"65 deep":               {"a = " + strings.Repeat("[", 65), "1:69 Nested too deeply"},
		"blocks count":          {strings.Repeat("a {\n", 60) + "b = [[[[[1]]]]]" + strings.Repeat("}\n", 60), "61:9 Nested too deeply"},
		"brackets in a text":    {`a = "` + strings.Repeat("[", 1000) + `"`, ""},
		"brackets in a comment": {"# " + strings.Repeat("[", 1000), ""},
		"256 operators":         {"a = 1" + strings.Repeat("+1", 256), ""},
		"257 operators":         {"a = 1" + strings.Repeat("+1", 257), "1:518 Expression too long"},
		"lines of operators":    {strings.Repeat("a = 1 + 1 + 1\n", 300), ""},
		"commented lines":       {strings.Repeat("a = b.c.d # x\n", 300), ""},
		"operators over lines":  {"a = (1\n" + strings.Repeat("+1\n", 257) + ")", "258:1 Expression too long"},
		"indexes":               {"a = b" + strings.Repeat("[c]", 257), "1:774 Expression too long"},
		"elements with dots":    {"a = [" + strings.Repeat("b.c.d, ", 1000) + "]", ""},
		"10,000 elements":       {"a = [" + strings.Repeat("1,", 9_999) + "1]", ""},
		"10,001 elements":       {"a = [" + strings.Repeat("1,", 10_000) + "1]", "1:20005 List too long"},
		"two loops in a row":    {"a = [for x in b : x]\nc = [for x in b : x]", ""},
		"a loop in a loop":      {"a = [for x in b : [for y in x : y]]", "1:20 Loop inside a loop"},
		"loops over lines":      {"a = [\nfor x in b : {\n for y in x : y => y}]", "3:2 Loop inside a loop"},
		"a loop in its list":    {"a = [for x in [for y in b : y] : x]", "1:16 Loop inside a loop"},
		"a template loop in it": {`a = [for x in b : "%{ for y in x }y%{ endfor }"]`, "1:23 Loop inside a loop"},
		"template loops":        {`a = "%{for x in b}%{for y in b}x%{endfor}%{endfor}"`, "1:21 Loop inside a loop"},
		"template loops in row": {`a = "%{for x in b}x%{endfor}%{for x in b}x%{endfor}"`, ""},
		"64 directives":         {`a = "` + strings.Repeat("%{if b}", 62) + strings.Repeat("%{endif}", 62) + `"`, ""},
		"many directives":       {`a = "` + strings.Repeat("%{if b}", 65) + `"`, "1:442 Nested too deeply"},
		"directives in a row":   {`a = "` + strings.Repeat("%{if b}x%{endif}", 200) + `"`, ""},
		"a key named for":       {"a = { x = r.for, for2 = [for y in b : y] }", ""},
		"400 digits":            {"a = " + strings.Repeat("9", 101), "1:5 Number too long"},
		"an exponent":           {"a = 1e1000", "1:5 Number too long"},
		"a small exponent":      {"a = 1e-999", ""},
		"a long name":           {strings.Repeat("a", 257) + " = 1", "1:1 Name too long"},
		"Cyrillic":              {"а = 1", "1:1 Not an ASCII name"},
		"NUL":                   {"a = 1\nb = \x00", "2:5 Not a text file"},
		"not UTF-8":             {"a = 1\nb = \xff", "2:5 Not UTF-8"},
	} {
		got := ""
		if diags := Prescan([]byte(c.src), "x.hcl"); len(diags) > 0 {
			got = fmt.Sprintf("%d:%d %s", diags[0].Subject.Start.Line, diags[0].Subject.Start.Column, diags[0].Summary)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// The columns are HCL's: what a reader sees as one character counts once, whatever its bytes.
func TestPrescanColumns(t *testing.T) {
	for _, before := range []string{"", "a", "ä", "日本", "🟢", "👩‍🚀", "e\u0301", "\t", "\u200b", "🇩🇪"} {
		for _, lines := range []string{"", "# x\n", "# ä\r\n# 日本\r\n"} {
			src := lines + "a = \"" + before + "\" # " + before
			tokens, _ := hclsyntax.LexConfig([]byte(src+"\n["), "x.hcl", hcl.InitialPos)
			want := tokens[len(tokens)-2].Range.Start // of the bracket, on the next line
			for _, bad := range []string{"\n\x00", "\n\xff", "\n" + strings.Repeat("9", 200)} {
				got := Prescan([]byte(src+bad), "x.hcl")[0].Subject.Start
				if got != want {
					t.Errorf("%q: %v, HCL has %v", src+bad, got, want)
				}
			}
			// Behind the comment, on its line.
			tokens, _ = hclsyntax.LexConfig([]byte(src), "x.hcl", hcl.InitialPos)
			if got, want := Prescan([]byte(src+"\x00"), "x.hcl")[0].Subject.Start, tokens[len(tokens)-1].Range.Start; got != want {
				t.Errorf("%q and NUL: %v, HCL has %v", src, got, want)
			}
		}
	}
}

// Without the pre-scan a file of 200 KB ends the process: recover does not help against a stack that is full.
func TestPrescanIsNeeded(t *testing.T) {
	src := []byte("a = " + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000))
	if os.Getenv("CRYPTOVIZ_TEST_NO_PRESCAN") != "" {
		debug.SetMaxStack(256 << 20) // a quarter of what a process has: it ends sooner, not otherwise
		defer func() { _ = recover() }()
		f, _ := hclsyntax.ParseConfig(src, "x.hcl", hcl.InitialPos)
		fmt.Println("parsed", f != nil)
		return
	}
	if !Prescan(src, "x.hcl").HasErrors() {
		t.Fatal("the pre-scan lets it through")
	}
	child := exec.Command(os.Args[0], "-test.run=^TestPrescanIsNeeded$")
	child.Env = append(os.Environ(), "CRYPTOVIZ_TEST_NO_PRESCAN=1")
	out, err := child.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "stack overflow") {
		t.Errorf("the parser survives it: is the pre-scan of use any more? %v\n%.500s", err, out)
	}
}
