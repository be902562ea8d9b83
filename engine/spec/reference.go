package spec

import (
	_ "embed"
	"strings"
)

//go:embed README.md
var readmeText string

// Reference returns what the language's reference says about a kind of block, in Markdown: a text, an example, and a table of
// the attributes. It is "" for a kind that there is not.
func Reference(kind string) string {
	_, section, _ := strings.Cut(readmeText, "\n## `"+kind+"`\n")
	section, _, _ = strings.Cut(section, "\n## ")
	return strings.TrimSpace(section)
}

// ReferenceKinds lists the kinds of blocks, in the order of the reference.
func ReferenceKinds() (kinds []string) {
	for line := range strings.Lines(readmeText) {
		if kind, found := strings.CutPrefix(line, "## `"); found {
			kinds = append(kinds, strings.TrimRight(kind, "`\n"))
		}
	}
	return kinds
}
