package provision

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// A kind of object is known everywhere or nowhere: to the language and its reference, to plan, and here.
func TestKindsAgree(t *testing.T) {
	t.Parallel()
	reference := spec.PipelineReference().Kinds()
	var names []string
	for _, k := range kinds[1:] { // the first is the engine's own schema
		names = append(names, k.name)
		if plan.SystemOf(k.name) == "" || k.removed == nil || k.block == nil || !slices.Contains(reference, k.name) {
			t.Errorf("%s: on %q, can be removed %t, can be imported %t, in the reference %t",
				k.name, plan.SystemOf(k.name), k.removed != nil, k.block != nil, slices.Contains(reference, k.name))
		}
	}
	if !slices.Equal(names, spec.Kinds) {
		t.Errorf("%v, and package spec has %v", names, spec.Kinds)
	}
	if all := slices.Concat(plan.KindsOf(plan.Kafka), plan.KindsOf(plan.Postgres), plan.KindsOf(plan.Grafana)); len(all) != len(kinds)+1 { // and rollup
		t.Errorf("package plan has %v", all)
	}
}

// A code that a file declares is listed once, in order, and says what to do.
func TestCodes(t *testing.T) {
	t.Parallel()
	all, declared := Codes(), 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) != "codes.go" || err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		declared += strings.Count(string(text), "\t\tID: \"CV-")
		return err
	})
	if err != nil || declared != len(all) {
		t.Errorf("%d codes are declared, and %d listed: %v", declared, len(all), err)
	}
	for i, c := range all {
		if c.Class == "" || c.Title == "" || c.Text == "" {
			t.Errorf("%s is not complete", c.ID)
		}
		if (c.Class == plan.Destroys || c.Class == plan.Impossible) && len(c.Choices) == 0 {
			t.Errorf("%s leaves the user without a choice", c.ID)
		}
		if i > 0 && all[i-1].ID[:4] == c.ID[:4] && all[i-1].ID >= c.ID {
			t.Errorf("%s comes after %s", c.ID, all[i-1].ID)
		}
	}
}
