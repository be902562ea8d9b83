package timescale

import "github.com/cryptoviz/cryptoviz/provision/plan"

// Codes are the findings about the engine's own tables.
var Codes = []plan.Code{
	codeNewerSchema,
	codeEngineDropped,
	codeTopicReassigned,
}

var (
	codeNewerSchema = plan.Code{
		ID: "CV-T34", Class: plan.Impossible, Title: "The database was prepared by a newer cryptoviz",
		Text:    "The engine's own tables are of a later version than this program knows.",
		Choices: []string{"use the newer cryptoviz"},
	}
	codeEngineDropped = plan.Code{
		ID: "CV-T35", Class: plan.Destroys, Title: "The engine's own tables are dropped",
		Text: "With them goes how far each source is stored, the ledger of slots and days, the dead letters, and " +
			"what apply knows about the objects that it made. A later apply starts from nothing, and adopts what it finds.",
		Choices: []string{"destroy single objects with --target", "copy cryptoviz.dead_letter first"},
	}
	codeTopicReassigned = plan.Code{
		ID: "CV-T38", Class: plan.Risky, Title: "A topic is stored again under another source",
		Text: "How far a topic is stored is known by source. A source with a new name begins at the start of the " +
			"topic: what is still in it comes into the table again under the new name, also rows of days that are rolled up and dropped already.",
		Choices: []string{
			"keep the name of the source",
			"give it a topic of its own",
			"while nothing runs, after apply: UPDATE cryptoviz.position SET source = 'NEW' WHERE source = 'OLD'; it goes on where the old one ended",
		},
	}
)
