package provision_test

import "github.com/cryptoviz/cryptoviz/provision/plan"

func timescaleSubjects() []subject {
	return []subject{
		{
			kind: "hypertable", address: "table.ticks", removed: "CV-T29",
			files: map[string]string{"pipeline.hcl": `
table "ticks" {
  description = "Prices."
  column "time" {
    type = "timestamptz"
  }
  column "at" {
    type = "timestamptz"
  }
  column "source" {
    type = "text"
  }
  column "price" {
    type = "double precision"
    null = true
  }
  primary_key = ["source", "at", "time"]
  hypertable {
    time           = "time"
    chunk_interval = "1d"
    retention      = "30d"
    columnstore {
      after      = "7d"
      segment_by = ["source"]
      order_by   = ["at", "time DESC"]
    }
  }
}
`},
			rows: "INSERT INTO ticks SELECT date_trunc('day', now()) - i * interval '1 day', now(), 'a', i FROM generate_series(0, 3) i",
			attributes: []attribute{
				{
					fields: "Hypertable.ChunkInterval", edit: []string{`"1d"`, `"12h"`}, shows: []string{"chunk_interval: 1d -> 12h"}, codes: "CV-T04",
					drift: sql("SELECT set_chunk_time_interval('ticks', interval '2 days')"), driftShows: []string{"chunk_interval: 2d -> 12h"}, driftCodes: "CV-T04",
				},
				{
					fields: "Hypertable.Retention", edit: []string{`"30d"`, `"60d"`}, shows: []string{"retention: 30d -> 60d"}, codes: "CV-T31",
					drift:      sql("SELECT remove_retention_policy('ticks')", "SELECT add_retention_policy('ticks', interval '90 days')"),
					driftShows: []string{"retention: 90d -> 60d"}, driftCodes: "CV-T31",
				},
				{
					fields: "Columnstore.After", edit: []string{`"7d"`, `"14d"`}, shows: []string{"columnstore: after 7d -> after 14d"},
					drift:      sql(`SELECT alter_job(job_id, config => jsonb_set(config, '{compress_after}', '"3 days"')) FROM timescaledb_information.jobs WHERE hypertable_name = 'ticks' AND proc_name = 'policy_compression'`),
					driftShows: []string{"columnstore: after 3d -> after 14d"},
				},
				{
					fields: "Columnstore.OrderBy", edit: []string{`["at", "time DESC"]`, `["at DESC", "time"]`},
					shows: []string{"columnstore order_by: at, time DESC -> at DESC, time"},
					drift: sql("ALTER TABLE ticks SET (timescaledb.orderby = 'time, at')"), driftShows: []string{"columnstore order_by: time, at -> at DESC, time"},
				},
				{
					fields: "Columnstore.SegmentBy", edit: []string{`["source"]`, `["source", "price"]`}, shows: []string{"columnstore segment_by: source -> source, price"},
					drift: sql("ALTER TABLE ticks SET (timescaledb.segmentby = 'source')"), driftShows: []string{"columnstore segment_by: source -> source, price"},
				},
				{
					fields: "Hypertable.Columnstore", edit: []string{"    columnstore {\n      after      = \"14d\"\n      segment_by = [\"source\", \"price\"]\n      order_by   = [\"at DESC\", \"time\"]\n    }\n", ""},
					shows: []string{"columnstore: after 14d -> ", "columnstore segment_by: source, price -> ", "columnstore order_by: at DESC, time -> "}, codes: "CV-T23",
				},
				{
					fields: "Hypertable.Columnstore", edit: []string{"    retention ", "    columnstore {\n      after = \"9d\"\n    }\n    retention "},
					shows:      []string{"columnstore:  -> after 9d"},
					drift:      sql("CALL remove_columnstore_policy('ticks')", "ALTER TABLE ticks SET (timescaledb.enable_columnstore = false)"),
					driftShows: []string{"columnstore:  -> after 9d"},
				},
				{
					fields: "Hypertable.Retention", edit: []string{"    retention      = \"60d\"\n", ""}, shows: []string{"retention: 60d -> "},
				},
				{fields: "Hypertable.Time", edit: []string{`= "time"`, `= "at"`}, shows: []string{"time: time -> at"}, codes: "CV-T08"},
				{
					fields: "Table.Hypertable", edit: []string{"  hypertable {\n    time           = \"time\"\n    chunk_interval = \"12h\"\n    columnstore {\n      after = \"9d\"\n    }\n  }\n", ""},
					shows: []string{"layout: hypertable -> plain table", "time: time -> ", "chunk_interval: 12h -> ", "columnstore: after 9d -> "}, codes: "CV-T22",
				},
				{
					fields: "Table.Columns Column.Name", edit: []string{"  primary_key", "  column \"note\" {\n    type = \"text\"\n    null = true\n  }\n  primary_key"},
					shows: []string{"column note:  -> text"},
					drift: sql("ALTER TABLE ticks DROP COLUMN note"), driftShows: []string{"column note:  -> text"},
				},
			},
		},
		{
			kind: "table beside TimescaleDB", address: "table.coins", removed: "CV-T29",
			files: map[string]string{"pipeline.hcl": coins}, rows: "INSERT INTO coins (id, name) SELECT i, 'c' || i FROM generate_series(1, 20) i",
			attributes: []attribute{
				{
					fields: "Table.Hypertable", edit: []string{"  primary_key", "  hypertable {\n    time = \"time\"\n  }\n  primary_key", `["id"]`, `["id", "time"]`},
					shows: []string{"layout: plain table -> hypertable", "time:  -> time", "chunk_interval:  -> 1d", "primary_key: id -> id, time"}, codes: "CV-T21 CV-T16",
				},
			},
		},
		{
			kind: "aggregate", address: "aggregate.daily",
			files: map[string]string{"pipeline.hcl": `
table "trades" {
  column "time" {
    type = "timestamptz"
  }
  column "price" {
    type = "double precision"
  }
  primary_key = ["time"]
  hypertable {
    time = "time"
  }
}
table "quotes" {
  column "time" {
    type = "timestamptz"
  }
  column "price" {
    type = "double precision"
  }
  primary_key = ["time"]
  hypertable {
    time = "time"
  }
}
aggregate "daily" {
  description = "By the day."
  from        = table.trades
  query       = "SELECT time_bucket('6 hours', time) AS bucket, max(price) AS high FROM trades GROUP BY 1"
  real_time   = true
  retention   = "200d"
  refresh {
    start = "3d"
    end   = "1h"
    every = "30m"
  }
}
`},
			rows: "INSERT INTO trades SELECT date_trunc('hour', now()) - i * interval '1 hour', i FROM generate_series(0, 48) i",
			attributes: []attribute{
				{
					fields: "Aggregate.Description", edit: []string{`"By the day."`, `"Days."`}, shows: []string{"description: By the day. -> Days."},
					drift: sql("COMMENT ON VIEW daily IS 'x'"), driftShows: []string{"description: x -> Days."},
				},
				{
					fields: "Aggregate.RealTime", edit: []string{"real_time   = true", "real_time   = false"}, shows: []string{"real_time: true -> false"},
					drift: sql("ALTER MATERIALIZED VIEW daily SET (timescaledb.materialized_only = false)"), driftShows: []string{"real_time: true -> false"},
				},
				{
					fields: "Aggregate.Retention", edit: []string{`"200d"`, `"300d"`}, shows: []string{"retention: 200d -> 300d"},
					drift:      sql("SELECT remove_retention_policy('daily')", "SELECT add_retention_policy('daily', interval '400 days')"),
					driftShows: []string{"retention: 400d -> 300d"},
				},
				{
					fields: "Refresh.Start", edit: []string{`"3d"`, `"4d"`}, shows: []string{"refresh.start: 3d -> 4d"},
					drift: refresh("9 days", "1 hour", "30 minutes"), driftShows: []string{"refresh.start: 9d -> 4d"},
				},
				{
					fields: "Refresh.End", edit: []string{`"1h"`, `"2h"`}, shows: []string{"refresh.end: 1h -> 2h"},
					drift: refresh("4 days", "5 hours", "30 minutes"), driftShows: []string{"refresh.end: 5h -> 2h"},
				},
				{
					fields: "Refresh.Every", edit: []string{`"30m"`, `"1h"`}, shows: []string{"refresh.every: 30m -> 1h"},
					drift: refresh("4 days", "2 hours", "3 hours"), driftShows: []string{"refresh.every: 3h -> 1h"},
				},
				{fields: "Refresh.Start", edit: []string{`"4d"`, `"8h"`}, shows: []string{"refresh.start: 4d -> 8h"}, codes: "CV-A04"},
				{
					fields: "Aggregate.Refresh", edit: []string{"  refresh {\n    start = \"4d\"\n    end   = \"2h\"\n    every = \"1h\"\n  }\n", ""},
					shows: []string{"refresh.start: 4d -> ", "refresh.end: 2h -> ", "refresh.every: 1h -> "},
				},
				{
					fields: "Aggregate.Refresh", edit: []string{"  retention ", "  refresh {\n    start = \"5d\"\n    every = \"1h\"\n  }\n  retention "},
					shows:      []string{"refresh.start:  -> 5d", "refresh.end:  -> 0s", "refresh.every:  -> 1h"},
					drift:      sql("SELECT remove_continuous_aggregate_policy('daily')"),
					driftShows: []string{"refresh.start:  -> 5d", "refresh.end:  -> 0s", "refresh.every:  -> 1h"},
				},
				{
					fields: "Aggregate.Refresh", edit: []string{"  refresh {\n    start = \"5d\"\n    every = \"1h\"\n  }\n", ""},
					shows: []string{"refresh.start: 5d -> ", "refresh.end: 0s -> ", "refresh.every: 1h -> "},
				},
				{fields: "Aggregate.Retention", edit: []string{"  retention   = \"300d\"\n", ""}, shows: []string{"retention: 300d -> "}},
				{fields: "Aggregate.Description", edit: []string{"  description = \"Days.\"\n", ""}, shows: []string{"description: Days. -> "}},
				{
					fields: "Aggregate.Query", edit: []string{"6 hours", "12 hours"}, action: plan.Replace, shows: []string{"query"}, codes: "CV-A03",
					drift: sql("DROP MATERIALIZED VIEW daily", `CREATE MATERIALIZED VIEW daily WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
						SELECT time_bucket('3 hours', time) AS bucket, max(price) AS high FROM trades GROUP BY 1 WITH NO DATA`),
					driftShows: []string{"query"}, driftCodes: "CV-A03",
				},
				{fields: "Aggregate.Query", edit: []string{"max(price)", "max(prise)"}, shows: []string{"query"}, codes: "CV-V02"},
				{
					fields: "Aggregate.From", edit: []string{"table.trades", "table.quotes", "FROM trades", "FROM quotes"}, action: plan.Replace,
					shows: []string{"query"}, codes: "CV-A03",
					fixed: "it is what the query reads",
				},
			},
		},
	}
}

// refresh gives the aggregate another refresh policy.
func refresh(start, end, every string) func(*conformance) {
	return sql("SELECT remove_continuous_aggregate_policy('daily')", "SELECT add_continuous_aggregate_policy('daily', interval '"+start+"', interval '"+end+"', interval '"+every+"')")
}
