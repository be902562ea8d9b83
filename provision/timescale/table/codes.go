package table

import "github.com/cryptoviz/cryptoviz/provision/plan"

// Codes are the findings about tables.
var Codes = []plan.Code{
	codeNameTaken,
	codeColumnWithoutValue,
	codeColumnComputed,
	codeChunkInterval,
	codePartitionLength,
	codeColumnDropped,
	codeRetentionDrops,
	codeTimeColumn,
	codeTypeChanges,
	codeTypeLoses,
	codeTypeFails,
	codeColumnstoreBlocks,
	codeRowsWithoutValue,
	codeNotNullChecked,
	codeDuplicates,
	codePrimaryKeyBuilt,
	codeUniqueWithoutTime,
	codeIndexBuilt,
	codeColumnRenamed,
	codeReadByViews,
	codeBecomesHypertable,
	codeLayoutFixed,
	codeColumnstore,
	codeEdition,
	CodeNoTimescaleDB,
	codeRetentionInRefresh,
	codeRetentionBeforeRollup,
	CodeRejected,
	codeTableDropped,
	codeIndexNameTaken,
	codeRetentionSet,
	codeGeneratedComputed,
	codeStoredToGenerated,
	codeDependents,
	codeNoDefault,
	codeShorterRaw,
}

var (
	codeNameTaken = plan.Code{
		ID: "CV-T01", Class: plan.Impossible, Title: "The name is taken",
		Text: "Tables, views and aggregates share their names in PostgreSQL, and something that is not a table " +
			"has this one.",
		Choices: []string{"rename the block", "drop or rename what is there"},
	}
	codeColumnWithoutValue = plan.Code{
		ID: "CV-T02", Class: plan.Impossible, Title: "A new column without a value for the rows that exist",
		Text: "A column that is not null needs a value in every row. The table has rows, and the column has " +
			"no default.",
		Choices: []string{
			"null = true", "a default",
			"fill it in two steps: null = true, UPDATE, then take null = true away",
		},
	}
	codeColumnComputed = plan.Code{
		ID: "CV-T03", Class: plan.Slow, Title: "A new column is computed for every row",
		Text: "The column is generated, or its default differs from row to row: PostgreSQL rewrites the whole " +
			"table, and locks it for reads and writes meanwhile.",
		Choices: []string{
			"apply it in a quiet hour", "a constant default: that one is not written into the rows",
			"null = true without a default, and UPDATE in parts",
		},
	}
	codeChunkInterval = plan.Code{
		ID: "CV-T04", Class: plan.Future, Title: "New chunk interval",
		Text: "Only chunks or partitions that are made from now on have the new length. The ones that exist stay " +
			"as they are, until they are dropped. A rollup empties longer partitions day by day, and drops one when it is empty.",
		Choices: []string{"nothing: both lengths live side by side"},
	}
	codePartitionLength = plan.Code{
		ID: "CV-T05", Class: plan.Impossible, Title: "Partitions of another length",
		Text: "Partitions must not overlap: new ones follow those that exist, which stay as they are. One of this " +
			"table has no end, so none can follow.",
		Choices: []string{
			"keep the interval that the table has",
			"give that partition an end: DETACH it, ATTACH it again FOR VALUES FROM … TO …, then apply",
		},
	}
	codeColumnDropped = plan.Code{
		ID: "CV-T06", Class: plan.Destroys, Title: "A column is dropped",
		Text: "The last apply made this column and pipeline.hcl does not declare it any more. Its values are gone " +
			"at once and cannot be had back. A column that apply did not make is left alone.",
		Choices: []string{
			"declare the column again",
			"was = \"OLD\" in the column that takes its place: it is renamed, with its values",
			"copy the values first",
		},
	}
	codeRetentionDrops = plan.Code{
		ID: "CV-T07", Class: plan.Destroys, Title: "Retention drops chunks",
		Text: "A retention policy drops whole chunks that are older than retention allows. A new policy runs " +
			"within a minute of apply; a changed one at its next turn. Data inside the period never goes.",
		Choices: []string{"a longer retention", "copy the old chunks first", "lower it in steps"},
	}
	codeTimeColumn = plan.Code{
		ID: "CV-T08", Class: plan.Impossible, Title: "The time column is fixed",
		Text: "Chunks and partitions are cut by the time column: it cannot be dropped, be null, have another type, " +
			"or give its place to another column.",
		Choices: []string{"keep it", "a table of another name, then copy the rows"},
	}
	codeTypeChanges = plan.Code{
		ID: "CV-T09", Class: plan.Slow, Title: "The type of a column changes",
		Text: "PostgreSQL rewrites every row and every index with the column, or rebuilds only indexes, as the " +
			"finding says; no session reads or writes the table meanwhile. All values keep their meaning. A change that rewrites nothing, such as varchar to text, has no finding.",
		Choices: []string{"apply it in a quiet hour", "a new column next to the old one, filled in parts"},
	}
	codeTypeLoses = plan.Code{
		ID: "CV-T10", Class: plan.Destroys, Title: "The new type cannot hold all values",
		Text: "Converted to the new type and back, some values come out different: rounded, cut, or " +
			"written in another form. The old ones are gone after apply.",
		Choices: []string{"keep the type", "a new column next to the old one"},
	}
	codeTypeFails = plan.Code{
		ID: "CV-T11", Class: plan.Impossible, Title: "Values do not convert",
		Text: "PostgreSQL has no conversion between the types, or some values have no counterpart: a text that is " +
			"no number, a number that is too large.",
		Choices: []string{
			"correct the values first",
			"a new column next to the old one, filled by an UPDATE of your own",
		},
	}
	codeColumnstoreBlocks = plan.Code{
		ID: "CV-T12", Class: plan.Impossible, Title: "The columnstore stands in the way",
		Text: "TimescaleDB does not change a column's type or expression, or what else was found, while chunks are " +
			"in the columnstore; before 2.24 not even while it is on.",
		Choices: []string{"SELECT decompress_chunk(c, true) FROM show_chunks('TABLE') c, remove the columnstore " +
			"block, apply, and put it back", "a new column next to the old one"},
	}
	codeRowsWithoutValue = plan.Code{
		ID: "CV-T13", Class: plan.Impossible, Title: "Rows have no value",
		Text:    "The column is to be not null, and some rows have no value in it.",
		Choices: []string{"fill them: UPDATE TABLE SET COLUMN = … WHERE COLUMN IS NULL", "null = true"},
	}
	codeNotNullChecked = plan.Code{
		ID: "CV-T14", Class: plan.Slow, Title: "Not null is checked on every row",
		Text: "PostgreSQL reads the whole table to see that no row lacks a value; it is locked for " +
			"writes meanwhile.",
		Choices: []string{"apply it in a quiet hour"},
	}
	codeDuplicates = plan.Code{
		ID: "CV-T15", Class: plan.Impossible, Title: "Duplicate rows",
		Text:    "Some rows are equal in the columns that are to be unique.",
		Choices: []string{"delete the duplicates", "more columns in the key"},
	}
	codePrimaryKeyBuilt = plan.Code{
		ID: "CV-T16", Class: plan.Slow, Title: "The primary key is rebuilt",
		Text: "The old key goes and the new index is built over all rows; the table is locked for reads and writes " +
			"meanwhile. Writers that name the old columns in ON CONFLICT fail until they are changed.",
		Choices: []string{"apply it in a quiet hour", "stop the engine, apply, start it"},
	}
	codeUniqueWithoutTime = plan.Code{
		ID: "CV-T17", Class: plan.Impossible, Title: "A unique index without the time column",
		Text: "Uniqueness holds within a chunk or partition only, so a unique index or primary key must hold the " +
			"time column.",
		Choices: []string{"add the time column to it", "unique = false"},
	}
	codeIndexBuilt = plan.Code{
		ID: "CV-T18", Class: plan.Slow, Title: "An index is built",
		Text: "All rows are read. On an ordinary table that is large it is done CONCURRENTLY, and writers go on. " +
			"Hypertables and partitioned tables have no such way: writers wait until it is built.",
		Choices: []string{"apply it in a quiet hour"},
	}
	codeColumnRenamed = plan.Code{
		ID: "CV-T19", Class: plan.Risky, Title: "A column is renamed",
		Text: "It takes no time and keeps all values; views and aggregates follow by themselves. Whatever names " +
			"the column in a text does not: rollup queries, dashboards, alerts, programs.",
		Choices: []string{"change the queries with it, and restart the engine after apply"},
	}
	codeReadByViews = plan.Code{
		ID: "CV-T20", Class: plan.Impossible, Title: "Views or aggregates read it",
		Text: "PostgreSQL does not drop, or change the type of, what a view or an aggregate reads. Those that " +
			"pipeline.hcl declares or removes are dropped before and created again after the change, in one transaction. The ones in the finding are not declared, or their query is refused.",
		Choices: []string{"declare them, or drop them", "keep it"},
	}
	codeBecomesHypertable = plan.Code{
		ID: "CV-T21", Class: plan.Slow, Title: "A table with rows becomes a hypertable",
		Text: "All rows are moved into chunks; the table is locked for reads and writes meanwhile, and it needs " +
			"its size once more on disk.",
		Choices: []string{"apply it in a quiet hour", "a hypertable of another name, then copy the rows in parts"},
	}
	codeLayoutFixed = plan.Code{
		ID: "CV-T22", Class: plan.Impossible, Title: "The layout is fixed",
		Text: "Neither TimescaleDB nor PostgreSQL turns a hypertable or a partitioned table into a table of " +
			"another layout, or a plain table into a partitioned one.",
		Choices: []string{
			"declare the layout that the table has",
			"rename the table aside, apply, and copy the rows into the new one",
		},
	}
	codeColumnstore = plan.Code{
		ID: "CV-T23", Class: plan.Future, Title: "New columnstore settings",
		Text: "Only chunks that are converted from now on follow them. Chunks that are in the columnstore stay " +
			"as they are.",
		Choices: []string{"nothing", "decompress_chunk and compress_chunk for the chunks that should follow"},
	}
	codeEdition = plan.Code{
		ID: "CV-T24", Class: plan.Impossible, Title: "Not in this edition of TimescaleDB",
		Text: "The Apache edition has hypertables, but no policies, no columnstore and no continuous aggregates. " +
			"The engine's rollups drop finished days by themselves and need none.",
		Choices: []string{
			"a server with the Community edition (timescaledb.license = 'timescale')",
			"take retention and columnstore away; a rollup with keep_raw drops old days",
		},
	}
	// CodeNoTimescaleDB says that there is no TimescaleDB on the server.
	CodeNoTimescaleDB = plan.Code{
		ID: "CV-T25", Class: plan.Impossible, Title: "No TimescaleDB on the server",
		Text: "pipeline.hcl says on_missing = \"error\", and the server has no TimescaleDB, or does not preload it.",
		Choices: []string{
			"install TimescaleDB and add it to shared_preload_libraries",
			"on_missing = \"degrade\": native partitions, without policies and columnstore",
		},
	}
	codeRetentionInRefresh = plan.Code{
		ID: "CV-T26", Class: plan.Impossible, Title: "Retention inside an aggregate's refresh window",
		Text: "A refresh computes its whole window from the rows that are there. Rows that retention took make it " +
			"delete the history it had computed.",
		Choices: []string{
			"retention longer than the refresh's start",
			"a shorter start in the aggregate's refresh block",
		},
	}
	codeRetentionBeforeRollup = plan.Code{
		ID: "CV-T27", Class: plan.Risky, Title: "Retention may be faster than a rollup",
		Text: "A rollup needs a whole day's rows after the day has ended. Retention drops them whether they were " +
			"rolled up or not, so an engine that stands still too long loses them.",
		Choices: []string{
			"retention of at least two days more than keep_raw",
			"no retention: the rollup drops each day itself",
		},
	}
	// CodeRejected says that the server refuses the change.
	CodeRejected = plan.Code{
		ID: "CV-T28", Class: plan.Impossible, Title: "The server refuses it",
		Text: "The statements were tried in a transaction that was rolled back, and the server answered " +
			"with an error.",
		Choices: []string{"do what the server's message says"},
	}
	codeTableDropped = plan.Code{
		ID: "CV-T29", Class: plan.Destroys, Title: "A table is dropped",
		Text:    "All rows, chunks and policies go with it, at once.",
		Choices: []string{"take the removed block away: the table then stays, unmanaged", "copy the rows first"},
	}
	codeIndexNameTaken = plan.Code{
		ID: "CV-T30", Class: plan.Impossible, Title: "The index name is taken",
		Text:    "Index names are unique in a schema, and another table has an index of this name.",
		Choices: []string{"name = \"…\" in the index block"},
	}
	codeRetentionSet = plan.Code{
		ID: "CV-T31", Class: plan.Future, Title: "Retention is set",
		Text:    "No chunk is older than it today. From now on chunks go when they are.",
		Choices: []string{"nothing"},
	}
	codeGeneratedComputed = plan.Code{
		ID: "CV-T32", Class: plan.Slow, Title: "A generated column is recomputed",
		Text: "Its values follow from other columns: nothing is lost. Every row is rewritten; the table is locked " +
			"for reads and writes meanwhile.",
		Choices: []string{"apply it in a quiet hour"},
	}
	codeStoredToGenerated = plan.Code{
		ID: "CV-T33", Class: plan.Destroys, Title: "Stored values are replaced by generated ones",
		Text:    "A column becomes generated: what is stored in it goes, and every row gets a computed value.",
		Choices: []string{"a new column for the generated value", "copy the values first"},
	}
	codeDependents = plan.Code{
		ID: "CV-T36", Class: plan.Impossible, Title: "Something else needs it",
		Text: "PostgreSQL does not drop, or change the type of, a column that a policy, a trigger, a rule, a " +
			"function or a publication names; and it drops no table while a foreign key of another table, or a function, a policy or a column elsewhere, needs it. pipeline.hcl declares none of these, so apply leaves them alone.",
		Choices: []string{"drop what the finding names, apply, and make it again", "keep the column or the table"},
	}
	codeNoDefault = plan.Code{
		ID: "CV-T37", Class: plan.Risky, Title: "A column gets no value by itself any more",
		Text: "The column has an identity, a default or an expression that neither pipeline.hcl declares nor the " +
			"last apply set, so apply takes it off. Programs that add rows without a value for the column may rely on it: their inserts fail afterwards, or leave the column empty.",
		Choices: []string{"declare it: default = \"…\" or generated = \"…\"; for an identity, default = " +
			"\"nextval('SEQUENCE')\" with a sequence of your own", "let these programs give the value, then apply"},
	}
	codeShorterRaw = plan.Code{
		ID: "CV-T39", Class: plan.Destroys, Title: "Raw rows are kept shorter",
		Text: "A shorter keep_raw deletes the raw rows of the days between when the rollup runs next; what it made " +
			"of them stays. Until apply was allowed to, the engine goes on to keep them as long as before.",
		Choices: []string{
			"leave keep_raw as it is", "copy the raw rows first: cryptoviz query --format csv",
			"--allow CV-T39@table.NAME",
		},
	}
)
