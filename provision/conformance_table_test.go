package provision_test

const coins = `
table "coins" {
  description = "Coins."
  column "id" {
    type = "bigint"
  }
  column "name" {
    type        = "text"
    description = "Its name."
  }
  column "rank" {
    type    = "integer"
    null    = true
    default = "0"
  }
  column "price" {
    type = "numeric"
    null = true
  }
  column "twice" {
    type      = "numeric"
    null      = true
    generated = "price * 2"
  }
  column "time" {
    type    = "timestamptz"
    default = "now()"
  }
  primary_key = ["id"]
  index {
    name    = "coins_by_name"
    columns = ["name"]
  }
}
`

func tableSubjects() []subject {
	return []subject{
		{
			kind: "table", address: "table.coins", removed: "CV-T29",
			files: map[string]string{"pipeline.hcl": coins},
			attributes: []attribute{
				{
					fields: "Table.Description", edit: []string{`"Coins."`, `"All coins."`}, shows: []string{"description: Coins. -> All coins."},
					drift: sql("COMMENT ON TABLE coins IS 'x'"), driftShows: []string{"description: x -> All coins."},
				},
				{
					fields: "Table.Description", edit: []string{"  description = \"All coins.\"\n", ""}, shows: []string{"description: All coins. -> "},
				},
				{
					fields: "Table.Columns", edit: []string{`  primary_key`, "  column \"note\" {\n    type = \"text\"\n    null = true\n  }\n  primary_key"},
					shows: []string{"column note:  -> text"},
					drift: sql("ALTER TABLE coins DROP COLUMN note"), driftShows: []string{"column note:  -> text"},
				},
				{
					fields: "Table.Columns", edit: []string{"  column \"note\" {\n    type = \"text\"\n    null = true\n  }\n", ""},
					shows: []string{"column note: text -> "}, codes: "CV-T06",
				},
				{
					fields: "Column.Type", edit: []string{`"integer"`, `"bigint"`},
					shows: []string{"column rank: integer default 0 -> bigint default (0)::bigint"}, codes: "CV-T09",
					drift:      sql("ALTER TABLE coins ALTER rank TYPE integer"),
					driftShows: []string{"column rank: integer default 0 -> bigint default (0)::bigint"}, driftCodes: "CV-T09",
				},
				{fields: "Column.Type", edit: []string{`"text"`, `"bigint"`}, shows: []string{"column name: text not null -> bigint not null"}, codes: "CV-T11"},
				{
					fields: "Column.Null", edit: []string{"    null    = true\n    default = \"0\"", "    default = \"0\""},
					shows: []string{"column rank: bigint default (0)::bigint -> bigint not null default (0)::bigint"}, codes: "CV-T14",
					drift:      sql("ALTER TABLE coins ALTER rank DROP NOT NULL"),
					driftShows: []string{"column rank: bigint default (0)::bigint -> bigint not null default (0)::bigint"}, driftCodes: "CV-T14",
				},
				{
					fields: "Column.Null", edit: []string{"    default = \"0\"", "    null    = true\n    default = \"0\""},
					shows:      []string{"column rank: bigint not null default (0)::bigint -> bigint default (0)::bigint"},
					drift:      sql("ALTER TABLE coins ALTER rank SET NOT NULL"),
					driftShows: []string{"column rank: bigint not null default (0)::bigint -> bigint default (0)::bigint"},
				},
				{
					fields: "Column.Default", edit: []string{`"0"`, `"7"`}, shows: []string{"column rank: bigint default (0)::bigint -> bigint default (7)::bigint"},
					drift: sql("ALTER TABLE coins ALTER rank SET DEFAULT 8"), driftShows: []string{"column rank: bigint default (8)::bigint -> bigint default (7)::bigint"},
				},
				{
					fields: "Column.Default", edit: []string{"    default = \"7\"\n", ""}, shows: []string{"column rank: bigint default (7)::bigint -> bigint"},
					drift: sql("ALTER TABLE coins ALTER rank SET DEFAULT 8"), driftShows: []string{"column rank: bigint default (8)::bigint -> bigint"}, driftCodes: "CV-T37",
				},
				{
					fields: "Column.Generated", edit: []string{"price * 2", "price * 3"}, shows: []string{"column twice"}, codes: "CV-T32",
					drift: sql("ALTER TABLE coins ALTER twice DROP EXPRESSION"), driftShows: []string{"column twice"}, driftCodes: "CV-T33",
				},
				{
					fields: "Column.Description", edit: []string{`"Its name."`, `"The name."`}, shows: []string{"column name description: Its name. -> The name."},
					drift: sql("COMMENT ON COLUMN coins.name IS NULL"), driftShows: []string{"column name description:  -> The name."},
				},
				{
					fields: "Column.Was Column.Name", edit: []string{"column \"rank\" {", "column \"place\" {\n    was = \"rank\""},
					shows: []string{"column place: named rank: bigint -> bigint"}, codes: "CV-T19",
					drift: sql("ALTER TABLE coins RENAME place TO rank"), driftShows: []string{"column place: named rank: bigint -> bigint"}, driftCodes: "CV-T19",
				},
				{
					fields: "Table.PrimaryKey", edit: []string{`["id"]`, `["id", "name"]`}, shows: []string{"primary_key: id -> id, name"}, codes: "CV-T16",
					drift:      sql("ALTER TABLE coins DROP CONSTRAINT coins_pkey", "ALTER TABLE coins ADD PRIMARY KEY (name)"),
					driftShows: []string{"primary_key: name -> id, name"}, driftCodes: "CV-T16",
				},
				{
					fields: "Table.Hypertable", edit: []string{"  primary_key", "  hypertable {\n    time = \"time\"\n  }\n  primary_key", `["id", "name"]`, `["id", "time"]`},
					shows: []string{"layout: plain table -> native partitions", "time:  -> time", "chunk_interval:  -> 1d", "primary_key: id, name -> id, time"}, codes: "CV-T22 CV-T16",
					fixed: "a table cannot become another kind of relation under its rows",
				},
				{
					fields: "Index.Columns", edit: []string{`columns = ["name"]`, `columns = ["name", "price"]`},
					shows: []string{"index coins_by_name: name -> name, price"}, codes: "CV-T18",
					drift:      sql("DROP INDEX coins_by_name", "CREATE INDEX coins_by_name ON coins (price)"),
					driftShows: []string{"index coins_by_name: price -> name, price"}, driftCodes: "CV-T18",
				},
				{
					fields: "Index.Unique", edit: []string{`["name", "price"]`, "[\"name\", \"price\"]\n    unique  = true"},
					shows: []string{"index coins_by_name: name, price -> unique name, price"}, codes: "CV-T18",
					drift:      sql("DROP INDEX coins_by_name", "CREATE INDEX coins_by_name ON coins (name, price)"),
					driftShows: []string{"index coins_by_name: name, price -> unique name, price"}, driftCodes: "CV-T18",
				},
				{
					fields: "Index.Name", edit: []string{`"coins_by_name"`, `"coins_named"`},
					shows: []string{"index coins_named: named coins_by_name: unique name, price -> unique name, price"},
					drift: sql("DROP INDEX coins_named"), driftShows: []string{"index coins_named:  -> unique name, price"}, driftCodes: "CV-T18",
				},
				{
					fields: "Table.Indexes", edit: []string{"  index {", "  index {\n    columns = [\"price\"]\n  }\n  index {"},
					shows: []string{"index coins_price_idx:  -> price"}, codes: "CV-T18",
					drift: sql("DROP INDEX coins_price_idx"), driftShows: []string{"index coins_price_idx:  -> price"}, driftCodes: "CV-T18",
				},
				{fields: "Table.Indexes", edit: []string{"  index {\n    columns = [\"price\"]\n  }\n", ""}, shows: []string{"index coins_price_idx: price -> "}},
			},
			rows: "INSERT INTO coins (id, name, price) SELECT i, 'c' || i, i FROM generate_series(1, 20) i",
		},
		{
			kind: "partitioned table", address: "table.trades", removed: "CV-T29",
			files: map[string]string{"pipeline.hcl": `
table "trades" {
  column "time" {
    type = "timestamptz"
  }
  column "at" {
    type = "timestamptz"
  }
  primary_key = ["time", "at"]
  hypertable {
    time           = "time"
    chunk_interval = "1d"
  }
}
`},
			attributes: []attribute{
				{
					fields: "Hypertable.ChunkInterval", edit: []string{`"1d"`, `"6h"`}, shows: []string{"chunk_interval: 1d -> 6h"}, codes: "CV-T04",
					drift:      sql("CREATE TABLE trades_later PARTITION OF trades FOR VALUES FROM ('2200-01-01') TO ('2200-01-08')"),
					driftShows: []string{"chunk_interval: 7d -> 6h"}, driftCodes: "CV-T04",
					left: sql("DROP TABLE IF EXISTS trades_later, trades_p22000108_0000"), // partitions that exist stay, as CV-T04 says
				},
				{
					fields: "Hypertable.Time", edit: []string{`= "time"`, `= "at"`},
					shows: []string{"time: time -> at"}, codes: "CV-T08", fixed: "the server cannot do it, either",
				},
				{
					fields: "Table.Hypertable", edit: []string{"  hypertable {\n    time           = \"time\"\n    chunk_interval = \"6h\"\n  }\n", ""},
					shows: []string{"layout: native partitions -> plain table", "time: time -> ", "chunk_interval: 6h -> "}, codes: "CV-T22",
				},
				{
					fields: "Table.PrimaryKey", edit: []string{`["time", "at"]`, `["at", "time"]`}, shows: []string{"primary_key: time, at -> at, time"},
					drift: sql("ALTER TABLE trades DROP CONSTRAINT trades_pkey"), driftShows: []string{"primary_key:  -> at, time"},
				},
			},
		},
	}
}
