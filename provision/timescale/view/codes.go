package view

import "github.com/cryptoviz/cryptoviz/provision/plan"

// Codes are the findings about views and continuous aggregates.
var Codes = []plan.Code{
	codeNameTaken,
	codeQueryRejected,
	codeColumnsNeeded,
	codeViewRebuilt,
	codeViewNeeded,
	codeViewGranted,
	codeOtherOwner,
	codeNoAggregates,
	codeRebuildLoses,
	codeRebuild,
	codeAggregateRejected,
	codeRefreshReachesBack,
	codeColumnWithoutHistory,
	codeShorterRetention,
	codeAggregateDeleted,
	codeAggregateNeeded,
	codeFirstRefresh,
	codeSettingsLost,
}

var (
	codeNameTaken = plan.Code{
		ID: "CV-V01", Class: plan.Impossible, Title: "Name in use",
		Text: "Tables, views, aggregates, sequences and types of a schema share their names, and this one belongs " +
			"to another kind of object.",
		Choices: []string{"give the block another name", "rename or drop the object that has the name"},
	}
	codeQueryRejected = plan.Code{
		ID: "CV-V02", Class: plan.Impossible, Title: "Query refused",
		Text: "The server was asked to read the query, in a transaction that was rolled back, with the tables that " +
			"this plan makes. Its answer is the finding, with the place in the query.",
		Choices: []string{"correct the query"},
	}
	codeColumnsNeeded = plan.Code{
		ID: "CV-V03", Class: plan.Impossible, Title: "Columns of a view that others need",
		Text: "PostgreSQL replaces a view in place only when its columns stay as they are, with new ones after " +
			"them. Otherwise it must be dropped and created again. apply does that with everything that pipeline.hcl declares in one transaction, and the view keeps its grants, comments, options, triggers and rules. Something that depends on it and is not declared, or that does not fit the new columns, forbids it.",
		Choices: []string{
			"keep the columns, and put new ones at the end",
			"declare what depends on it: then it is created again, too", "drop what depends on it, then apply again",
			"a view of another name",
		},
	}
	codeViewRebuilt = plan.Code{
		ID: "CV-V04", Class: plan.Risky, Title: "View rebuilt",
		Text: "Columns go, or change their name, type or order, so the view is dropped and made again in one " +
			"transaction, with its owner, grants, comments and defaults. Programs that name these columns fail.",
		Choices: []string{"apply it, and change what reads the view", "keep the columns, and put new ones at the end"},
	}
	codeViewNeeded = plan.Code{
		ID: "CV-V05", Class: plan.Impossible, Title: "View that others need",
		Text: "PostgreSQL does not drop a view while another view, an aggregate, a function or a table with the " +
			"type of its rows depends on it; and apply drops none that has triggers or rules, which would go with it. What pipeline.hcl declares is changed first.",
		Choices: []string{"remove what depends on it, too"},
	}
	codeViewGranted = plan.Code{
		ID: "CV-V06", Class: plan.Risky, Title: "View that others may read",
		Text:    "A view holds no data, but roles were granted to read it: their programs fail without it.",
		Choices: []string{"make sure that no program reads it", "keep the view"},
	}
	codeOtherOwner = plan.Code{
		ID: "CV-V07", Class: plan.Impossible, Title: "Another's view",
		Text: "Only its owner, or a member of the owning role, changes or drops a view or an aggregate.",
		Choices: []string{
			"apply with the user that owns it",
			"make the user of database.url its owner: ALTER VIEW … OWNER TO …, ALTER MATERIALIZED VIEW … OWNER TO … of an aggregate",
		},
	}
	codeNoAggregates = plan.Code{
		ID: "CV-A01", Class: plan.Impossible, Title: "No continuous aggregates here",
		Text: "Continuous aggregates belong to the Community edition of TimescaleDB. Plain PostgreSQL and the " +
			"Apache edition have none.",
		Choices: []string{
			"a server with TimescaleDB Community",
			"on_missing = \"degrade\" in the database block: the aggregate is left out",
			"a view, or a rollup into a table",
		},
	}
	codeRebuildLoses = plan.Code{
		ID: "CV-A02", Class: plan.Destroys, Title: "Rebuild loses history",
		Text: "The query cannot be changed in place, so the aggregate is dropped and computed again from the data " +
			"that is still there. What it holds of older times cannot be computed any more.",
		Choices: []string{
			"an aggregate of another name, next to this one",
			"keep the query, and put the new columns at its end: TimescaleDB 2.28 and later add them in place",
			"agree to the loss",
		},
	}
	codeRebuild = plan.Code{
		ID: "CV-A03", Class: plan.Slow, Title: "Rebuild",
		Text: "The query cannot be changed in place, so the aggregate is dropped and computed again. The data that " +
			"it reads is all there. Writers of the source wait while it is dropped; readers find no rows until the refresh is through, or, with real_time, wait longer for them.",
		Choices: []string{"apply it at a quiet time", "an aggregate of another name, next to this one"},
	}
	codeAggregateRejected = plan.Code{
		ID: "CV-A04", Class: plan.Impossible, Title: "Aggregate refused",
		Text: "The server was asked to make the aggregate with its policies, in a transaction that was rolled " +
			"back. Its answer is the finding. Usual reasons: the query has no time_bucket on the time column, the refresh window covers less than two buckets.",
		Choices: []string{"correct the query, or widen the window: start at least two buckets before end"},
	}
	codeRefreshReachesBack = plan.Code{
		ID: "CV-A05", Class: plan.Risky, Title: "Refresh reaches further back than the source",
		Text: "When rows of the source go, a later refresh of that time computes its buckets again, from nothing: " +
			"the aggregate loses them. The refresh window starts before the time at which the source's rows go.",
		Choices: []string{
			"a shorter start of the refresh window", "keep the source's rows longer",
			"a rollup into a table, which has no retention",
		},
	}
	codeColumnWithoutHistory = plan.Code{
		ID: "CV-A06", Class: plan.Future, Title: "New column without history",
		Text: "TimescaleDB adds the column in place. It is computed where the source still has the data, by a " +
			"forced refresh after the change; before that it stays NULL.",
		Choices: []string{"apply it"},
	}
	codeShorterRetention = plan.Code{
		ID: "CV-A07", Class: plan.Destroys, Title: "Shorter retention of an aggregate",
		Text: "The policy drops what is older from the aggregate, chunk by chunk. Its first run comes within a " +
			"minute of apply, by itself.",
		Choices: []string{"a longer retention", "agree to the loss"},
	}
	codeAggregateDeleted = plan.Code{
		ID: "CV-A08", Class: plan.Destroys, Title: "Aggregate deleted",
		Text:    "What it holds of times that the source has no rows of any more cannot be computed again.",
		Choices: []string{"keep the aggregate", "copy it into a table first", "agree to the loss"},
	}
	codeAggregateNeeded = plan.Code{
		ID: "CV-A09", Class: plan.Impossible, Title: "Aggregate that others need",
		Text: "To delete or rebuild an aggregate it must be dropped, and something that pipeline.hcl does not " +
			"declare, or that could not be created again, depends on it. What is declared is dropped and created with it in one transaction; refreshes follow after it.",
		Choices: []string{
			"declare what depends on it: then it is created again, too",
			"remove it first, then apply again", "an aggregate of another name, next to this one",
		},
	}
	codeFirstRefresh = plan.Code{
		ID: "CV-A10", Class: plan.Slow, Title: "First refresh",
		Text: "After an aggregate is made, apply computes it once over all data of its source, outside of a " +
			"transaction; the policy only keeps its window up to date. Until then readers miss what is not computed. When it is interrupted, the next apply does it again.",
		Choices: []string{"apply it at a quiet time"},
	}
	codeSettingsLost = plan.Code{
		ID: "CV-A11", Class: plan.Risky, Title: "Settings of others go with a rebuild",
		Text: "The aggregate has something that pipeline.hcl does not declare and that is lost when it is rebuilt: " +
			"a columnstore with its policy, policies of refresh and retention, indexes.",
		Choices: []string{
			"note it down, and set it again after apply",
			"declare its refresh and retention in its block: they come back with it",
			"an aggregate of another name, next to this one",
		},
	}
)
