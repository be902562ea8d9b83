package run_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/run"
)

// TestMetricsAreDocumented: engine/README.md has a row for each metric with its labels, and for no other.
func TestMetricsAreDocumented(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(cryptoviz_\\w+)` \\| ([^|]*) \\| \\S.*\\|$").FindAllStringSubmatch(strings.ReplaceAll(string(readme), "| |", "|  |"), -1) {
		documented[m[1]] = strings.ReplaceAll(m[2], "`", "")
	}
	var names []string
	for _, d := range run.Metrics() {
		m := regexp.MustCompile(`fqName: "(\w+)", help: "(.*)", constLabels: \{\}, variableLabels: \{(.*?)\}`).FindStringSubmatch(d.String())
		if m == nil {
			t.Fatal(d)
		}
		names = append(names, m[1])
		labels, there := documented[m[1]]
		if want := strings.ReplaceAll(m[3], ",", ", "); !there || labels != want {
			t.Errorf("%s (%s) has no row, or one with the labels %q", m[1], want, labels)
		}
		if m[2] == "" || slices.Index(names, m[1]) != len(names)-1 {
			t.Errorf("%s is there twice, or without help", m[1])
		}
	}
	for name := range documented {
		if !slices.Contains(names, name) {
			t.Errorf("%s has a row, and does not exist", name)
		}
	}
}
