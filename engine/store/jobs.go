package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Job is one of TimescaleDB's own jobs: a policy on a table or an aggregate of the pipeline.
type Job struct {
	Name     string    `json:"name"` // retention, columnstore or refresh
	Table    string    `json:"table"`
	Failing  bool      `json:"failing"`
	Reason   string    `json:"reason,omitempty"` // why, as far as TimescaleDB knows
	At       time.Time `json:"at,omitzero"`      // start of its last run, UTC
	Failures int64     `json:"failures"`         // runs that failed, of all
}

// Jobs returns the policies of tables; none where TimescaleDB is not installed.
//
// One fails when its last run did, when that ended without a word (its process crashed), or when it is long overdue:
// then nothing runs jobs, as where timescaledb.max_background_workers are all in use.
func Jobs(ctx context.Context, db *pgxpool.Pool, tables []string) ([]Job, error) {
	var there bool
	if err := db.QueryRow(ctx, "SELECT to_regclass('timescaledb_information.job_stats') IS NOT NULL").
		Scan(&there); err != nil || !there {
		return nil, err
	}
	rows, err := db.Query(ctx, `SELECT name, table_name, reason IS NOT NULL, coalesce(reason, ''), last_run_started_at, failures
		FROM (SELECT CASE j.proc_name WHEN 'policy_retention' THEN 'retention' WHEN 'policy_compression' THEN 'columnstore' ELSE 'refresh' END AS name,
				coalesce(a.view_name, j.hypertable_name)::text AS table_name, s.last_run_started_at, coalesce(s.total_failures, 0) AS failures,
				CASE WHEN s.job_status = 'Running' OR NOT j.scheduled THEN NULL
					WHEN s.last_run_status = 'Failed' THEN coalesce((SELECT e.err_message FROM timescaledb_information.job_errors e WHERE e.job_id = j.job_id ORDER BY e.start_time DESC LIMIT 1), 'the server''s log says why')
					WHEN s.last_run_status IS NULL AND s.last_run_started_at BETWEEN '2000-01-01' AND clock_timestamp() - interval '10 minutes' THEN 'its last run ended without a result: see the server''s log'
					WHEN s.next_start BETWEEN '2000-01-01' AND clock_timestamp() - interval '1 hour' THEN 'it has not run since ' || to_char(s.next_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ', when it was due: are timescaledb.max_background_workers too few?'
				END AS reason
			FROM timescaledb_information.jobs j JOIN timescaledb_information.job_stats s USING (job_id)
			LEFT JOIN timescaledb_information.continuous_aggregates a ON (a.materialization_hypertable_schema, a.materialization_hypertable_name) = (j.hypertable_schema, j.hypertable_name)
			WHERE j.proc_name IN ('policy_retention', 'policy_compression', 'policy_refresh_continuous_aggregate')) p
		WHERE table_name = ANY($1) ORDER BY table_name, name`, tables)
	if err != nil {
		return nil, fmt.Errorf("read TimescaleDB's jobs: %w", err)
	}
	var out []Job
	var one Job
	var at *time.Time
	_, err = pgx.ForEachRow(rows, []any{&one.Name, &one.Table, &one.Failing, &one.Reason, &at, &one.Failures},
		func() error {
			one.At = time.Time{}
			if at != nil && at.Year() > 1 {
				one.At = at.UTC()
			}
			out = append(out, one)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read TimescaleDB's jobs: %w", err)
	}
	return out, nil
}
