package plan

// queryCodes are findings about SQL that others run: panels, alert rules, rollups.
var queryCodes = []Code{
	{
		ID: "CV-Q01", Class: Risky, Title: "A panel or alert rule cannot be read after this",
		Text:    "PostgreSQL was asked to explain its SQL against the tables and views as they will be after apply, and refused. It would show an error, or never fire.",
		Choices: []string{"correct the SQL in the dashboard's file or the alert block", "keep what it reads"},
	},
	{
		ID: "CV-Q02", Class: Risky, Title: "A rollup cannot run after this",
		Text:    "PostgreSQL was asked to prepare the rollup's query against the tables as they will be after apply, and refused. The days would not be rolled up: their raw rows stay until the query is right.",
		Choices: []string{"correct the query", "keep what it reads"},
	},
}
