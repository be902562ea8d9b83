package store_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestJobsWithoutTimescale(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	if jobs, err := store.Jobs(t.Context(), b.Pool(), []string{"raw_crypto_data"}); err != nil || jobs != nil {
		t.Errorf("%v, %v", jobs, err)
	}
}

// Whatever a policy can come to is told, with the reason that TimescaleDB keeps.
func TestJobsThatFail(t *testing.T) {
	t.Parallel()
	cfg, err := pgxpool.ParseConfig(testkit.Timescale(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	exec := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE m (time timestamptz NOT NULL, v int)")
	exec("SELECT create_hypertable('m', 'time')")
	exec("CREATE TABLE other (time timestamptz NOT NULL)")
	exec("SELECT create_hypertable('other', 'time')")
	exec("CREATE MATERIALIZED VIEW hours WITH (timescaledb.continuous) AS SELECT time_bucket('1 hour', time) AS h, count(*) FROM m GROUP BY 1 WITH NO DATA")
	exec("SELECT add_retention_policy('m', interval '30 days'), add_retention_policy('other', interval '1 day')")
	exec("ALTER TABLE m SET (timescaledb.compress)")
	exec("SELECT add_compression_policy('m', interval '7 days')")
	exec("SELECT add_continuous_aggregate_policy('hours', interval '3 days', interval '1 hour', interval '1 hour')")
	exec("SELECT add_retention_policy('hours', interval '90 days')")
	look := func() []store.Job {
		t.Helper()
		jobs, err := store.Jobs(t.Context(), db, []string{"m", "hours", "missing"})
		if err != nil {
			t.Fatal(err)
		}
		return jobs
	}
	var names []string
	for _, j := range look() {
		names = append(names, j.Table+" "+j.Name)
		if j.Failing || j.Reason != "" || !j.At.IsZero() {
			t.Errorf("before its first run: %+v", j)
		}
	}
	if !slices.Equal(names, []string{"hours refresh", "hours retention", "m columnstore", "m retention"}) {
		t.Errorf("%q", names)
	}
	// There is no background process here that would run them: what one writes down is put there.
	stat := func(proc, table, start, finish, next string, success bool, failures int) {
		t.Helper()
		exec("DELETE FROM _timescaledb_internal.bgw_job_stat")
		if _, err := db.Exec(t.Context(), `INSERT INTO _timescaledb_internal.bgw_job_stat SELECT job_id, `+start+`, `+finish+`, `+next+`, '-infinity', $3, 9, '0', '0', 0, $4, 0, 0, 0
			FROM timescaledb_information.jobs WHERE proc_name = $1 AND hypertable_name = $2`, proc, table, success, failures); err != nil {
			t.Fatal(err)
		}
	}
	failing := func() (out []string) {
		t.Helper()
		for _, j := range look() {
			if j.Failing {
				out = append(out, j.Table+" "+j.Name+": "+j.Reason)
			}
		}
		return out
	}
	exec(`INSERT INTO _timescaledb_internal.bgw_job_stat_history (job_id, pid, execution_start, execution_finish, succeeded, data)
		SELECT job_id, 1, now() - n * interval '1 minute', now(), false, jsonb_build_object('job', '{}'::jsonb, 'error_data', jsonb_build_object('message', 'could not load library ' || n))
		FROM timescaledb_information.jobs, generate_series(1, 3) n WHERE proc_name IN ('policy_compression', 'policy_retention')`)
	for name, c := range map[string]struct {
		proc, table, start, finish, next string
		success                          bool
		want                             []string
	}{
		"well":                    {"policy_compression", "m", "now() - interval '1 minute'", "now()", "now() + interval '1 hour'", true, nil},
		"failed":                  {"policy_compression", "m", "now() - interval '1 minute'", "now()", "now()", false, []string{"m columnstore: could not load library 1"}},
		"of an aggregate":         {"policy_refresh_continuous_aggregate", "hours", "now() - interval '1 minute'", "now()", "now()", false, []string{"hours refresh: the server's log says why"}},
		"of a table of no source": {"policy_retention", "other", "now() - interval '1 minute'", "now()", "now()", false, nil},
		"crashed":                 {"policy_retention", "m", "now() - interval '1 hour'", "'-infinity'", "'-infinity'", false, []string{"m retention: its last run ended without a result: see the server's log"}},
		"under way":               {"policy_retention", "m", "now() - interval '1 minute'", "'-infinity'", "'-infinity'", false, nil},
		"overdue":                 {"policy_retention", "m", "'2026-01-01'", "'2026-01-01'", "'2026-01-02 03:04Z'", true, []string{"m retention: it has not run since 2026-01-02 03:04, when it was due: are timescaledb.max_background_workers too few?"}},
	} {
		t.Run(name, func(t *testing.T) {
			stat(c.proc, c.table, c.start, c.finish, c.next, c.success, 4)
			if got := failing(); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
