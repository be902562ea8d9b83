package spec

import (
	_ "embed"
	"strings"
)

//go:embed README.md
var pipelineReference Reference

// PipelineReference is the reference of the language of pipeline.hcl. That of sources/*.hcl is sources/README.md, which
// goes with the pipeline that the program carries.
func PipelineReference() Reference { return pipelineReference }

// Reference is a reference of a language, in Markdown. A section on a kind of block has the heading ## `topic`, or,
// where the blocks of a kind differ by their label, ## `decode "json"`.
type Reference string

// sections calls f with the heading of each section on blocks, the kind, and the text.
func (r Reference) sections(f func(heading, kind, text string)) {
	for i, section := range strings.Split(string(r), "\n## ") {
		heading, text, _ := strings.Cut(section, "\n")
		if i > 0 && len(heading) > 2 && heading[0] == '`' {
			kind, _, _ := strings.Cut(strings.Trim(heading, "`"), " ")
			f(heading, kind, strings.TrimSpace(text))
		}
	}
}

// Section returns what is said about a kind of block: a text, an example, and a table of the attributes. It is "" for a
// kind that there is not.
func (r Reference) Section(kind string) string {
	var headings, texts []string
	r.sections(func(heading, of, text string) {
		if of == kind {
			headings, texts = append(headings, heading), append(texts, text)
		}
	})
	if len(texts) > 1 {
		for i := range texts {
			texts[i] = "### " + headings[i] + "\n\n" + texts[i]
		}
	}
	return strings.Join(texts, "\n\n")
}

// Kinds lists the kinds of blocks, in the order of the reference.
func (r Reference) Kinds() (kinds []string) {
	r.sections(func(_, kind, _ string) {
		if len(kinds) == 0 || kinds[len(kinds)-1] != kind {
			kinds = append(kinds, kind)
		}
	})
	return kinds
}
