package plan

import (
	"slices"
	"strings"
)

// Class says what a change means for data and service.
type Class string

// The classes, from harmless to worst.
const (
	Safe       Class = "safe"       // at once, and nothing else happens
	Future     Class = "future"     // only what is written from now on
	Slow       Class = "slow"       // rewrites, locks or moves data
	Risky      Class = "risky"      // the meaning of data or of running programs changes
	Destroys   Class = "destroys"   // data is lost; needs consent of its own
	Impossible Class = "impossible" // the server cannot do it
)

var severity = map[Class]int{Safe: 0, Future: 1, Slow: 2, Risky: 3, Destroys: 4, Impossible: 5}

// Finding is what is to be known about a change before it is made.
type Finding struct {
	Code  string `json:"code"`
	Class Class  `json:"class"`
	Attr  string `json:"attr,omitempty"` // "": the whole object
	Text  string `json:"text"`
	Loss  *Loss  `json:"loss,omitempty"` // destroys: how much
}

// Code explains one kind of finding. Codes are stable: scripts and consents name them.
type Code struct {
	ID      string
	Class   Class
	Title   string
	Text    string   // what happens and why
	Choices []string // what the user can do
}

// Codes are the findings about objects of every kind.
var Codes = []Code{CodeForeign, CodeOtherPipeline}

var (
	// CodeForeign says that an object that cryptoviz did not create is deleted.
	CodeForeign = Code{
		ID: "CV-F01", Class: Destroys, Title: "An object that cryptoviz did not create is deleted",
		Text: "A removed block names an object that no apply has set, or one that was made after the object of the " +
			"last apply was deleted. It may belong to others, with all its data. destroy never deletes such an object.",
		Choices: []string{
			"drop the removed block: the object stays",
			"declare the object and apply: that adopts it, and a removed block deletes it later",
			"--allow CV-F01@KIND.NAME",
		},
	}
	// CodeOtherPipeline says that another pipeline manages an object.
	CodeOtherPipeline = Code{
		ID: "CV-F02", Class: Risky, Title: "Another pipeline manages an object",
		Text: "The last apply that set it was one of another pipeline of this database: cryptoviz { name = … } " +
			"distinguishes them. Apply makes it an object of this pipeline, and the next apply of the other one takes it back. Of two pipelines with a source of one name, the later one also continues the slots and positions of the other.",
		Choices: []string{
			"give the object or the source another name",
			"the pipeline was renamed, or the block moved from its pipeline.hcl to this one: apply",
		},
	}
)

// FindCode finds a code by its ID; case does not matter.
func FindCode(codes []Code, id string) (Code, bool) {
	i := slices.IndexFunc(codes, func(c Code) bool { return strings.EqualFold(c.ID, id) })
	if i < 0 {
		return Code{}, false
	}
	return codes[i], true
}
