package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Every block of both files is explained on 80 columns, but for its example, and under a name that means it alone.
func TestExplainAllBlocks(t *testing.T) {
	bundle, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	explain := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		world := IO{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) (string, bool) { return "", false }, Bundle: bundle, Version: "0.1.0"}
		if code := Main(context.Background(), append([]string{"explain"}, args...), world); code != 0 {
			t.Errorf("explain %v: %d, %s", args, code, &errs)
		}
		return out.String()
	}
	list := strings.Join(strings.Fields(explain()), " ") + " "
	e := &env{IO: IO{Bundle: bundle}}
	if len(e.definitions().Kinds()) < 6 {
		t.Fatalf("the program carries no reference of the definitions: %v", e.definitions().Kinds())
	}
	pages := map[string]string{}
	for file, kinds := range map[string][]string{"pipeline.hcl": spec.PipelineReference().Kinds(), "sources/*.hcl": e.definitionBlocks()} {
		for _, kind := range kinds {
			page := explain(kind)
			if !strings.HasPrefix(page, strings.TrimPrefix(kind, definition)+", in "+file+"\n\n") || !strings.Contains(list, " "+kind+", ") && !strings.Contains(list, " "+kind+" ") {
				t.Errorf("%s of %s: %.80s, listed in %s", kind, file, page, list)
			}
			if pages[page] != "" {
				t.Errorf("%s is %s, too", kind, pages[page])
			}
			pages[page] = kind
			for line := range strings.Lines(page) {
				if !strings.HasPrefix(line, "    ") { // of an example, or of a text that is folded as the rest is
					wide(t, kind, line)
				}
				if strings.HasPrefix(line, "|") || strings.HasPrefix(line, "#") {
					t.Errorf("%s: Markdown is left: %s", kind, line)
				}
			}
		}
	}
	for _, kind := range e.definitions().Kinds() {
		if page := explain(definition + kind); !strings.HasPrefix(page, kind+", in sources/*.hcl\n") {
			t.Errorf("%s%s: %.80s", definition, kind, page)
		}
	}
}
