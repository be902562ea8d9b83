package ddl

import (
	"fmt"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// AggregateSQL makes an aggregate without data and with its policies; name is quoted. The first statement makes it.
func AggregateSQL(name, query string, a *spec.Aggregate, caps catalog.Capabilities) []string {
	out := []string{fmt.Sprintf(createAggregate+
		"%s WITH (timescaledb.continuous, timescaledb.materialized_only = %t) AS\n%s\nWITH NO DATA", name, !a.RealTime,
		query)}
	if a.Refresh != nil {
		out = append(out, AddRefreshSQL(name, a.Refresh, caps))
	}
	if a.Retention > 0 {
		out = append(out, RetainSQL(name, a.Retention, caps))
	}
	if a.Description != "" {
		out = append(out, ViewCommentSQL(name, a.Description))
	}
	return out
}

// AddRefreshSQL adds the refresh policy of an aggregate.
func AddRefreshSQL(name string, r *spec.Refresh, caps catalog.Capabilities) string {
	return fmt.Sprintf("SELECT %s(%s, start_offset => %s, end_offset => %s, schedule_interval => %s, "+
		"if_not_exists => true)",
		caps.Function("add_continuous_aggregate_policy"), pg.Literal(name), pg.Interval(r.Start), pg.Interval(r.End),
		pg.Interval(r.Every))
}

// RetainSQL adds the retention policy of an aggregate.
func RetainSQL(name string, keep time.Duration, caps catalog.Capabilities) string {
	return fmt.Sprintf("SELECT %s(%s, drop_after => %s, if_not_exists => true)", caps.Function("add_retention_policy"),
		pg.Literal(name), pg.Interval(keep))
}

// DeleteJobSQL deletes a policy's job, if it is still there.
func DeleteJobSQL(j *catalog.Job, caps catalog.Capabilities) string {
	return fmt.Sprintf("SELECT %s(job_id) FROM timescaledb_information.jobs WHERE job_id = %d",
		caps.Function("delete_job"), j.ID)
}

// RefreshSQL computes an aggregate from a time, "" for the beginning, up to where its policy ends. force computes again
// what is computed already.
func RefreshSQL(name, from string, r *spec.Refresh, force bool, caps catalog.Capabilities) string {
	start, end, more := "NULL", "now()", ""
	if from != "" {
		start = pg.Literal(from)
	}
	if r != nil && r.End > 0 {
		end += " - " + pg.Interval(r.End)
	}
	if force {
		more = ", force => true"
	}
	return fmt.Sprintf("CALL %s(%s, %s, %s%s)", caps.Function("refresh_continuous_aggregate"), pg.Literal(name), start,
		end, more)
}
