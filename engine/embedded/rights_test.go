package embedded_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// TestRightsOnTimescale hands over what an older version made as the superuser: hypertables with their chunks, aggregates, and
// the policies, which TimescaleDB runs as their owner.
func TestRightsOnTimescale(t *testing.T) {
	cfg, err := pgx.ParseConfig(testkit.Timescale(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			t.Log(n.Message)
		}
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	roles, rights := embedded.Scripts()
	for _, sql := range []string{
		"CREATE TABLE ticks (time timestamptz NOT NULL, price float8)",
		"SELECT create_hypertable('ticks', by_range('time', INTERVAL '1 day'))",
		"INSERT INTO ticks SELECT '2026-03-01'::timestamptz + n * interval '6 hours', n FROM generate_series(1, 20) n",
		"ALTER TABLE ticks SET (timescaledb.compress)", "SELECT compress_chunk(c) FROM show_chunks('ticks') c LIMIT 1", "SELECT add_retention_policy('ticks', INTERVAL '9999 days')",
		"CREATE MATERIALIZED VIEW daily WITH (timescaledb.continuous) AS SELECT time_bucket('1 day', time) AS day, max(price) AS price FROM ticks GROUP BY 1 WITH NO DATA",
		"SELECT add_continuous_aggregate_policy('daily', NULL, INTERVAL '1 hour', INTERVAL '1 hour')",
		roles, rights, rights,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%.80s: %v", sql, err)
		}
	}
	var foreign string
	if err := conn.QueryRow(t.Context(), `SELECT coalesce(string_agg(what, ', '), '') FROM (
		SELECT c.oid::regclass::text AS what FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE (nspname = 'public' OR nspname = '_timescaledb_internal' AND relname ~ '^_(hyper|compressed|partial|direct|materialized)|^compress')
			AND relkind IN ('r', 'v', 'm') AND relowner <> 'cryptoviz'::regrole AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
		UNION ALL SELECT 'job ' || job_id || ' of ' || owner::text FROM timescaledb_information.jobs WHERE job_id >= 1000 AND owner::text <> 'cryptoviz') x`).Scan(&foreign); err != nil || foreign != "" {
		t.Errorf("not the owner's: %s, %v", foreign, err)
	}
	for _, sql := range []string{
		"SET ROLE cryptoviz", "INSERT INTO ticks VALUES ('2026-03-20', 1)", "CALL refresh_continuous_aggregate('daily', NULL, NULL)", "SELECT count(*) FROM daily",
		"SELECT remove_retention_policy('ticks')", "SELECT drop_chunks('ticks', older_than => '2026-03-03'::timestamptz)", "SET ROLE cryptoviz_reader", "SELECT count(*) FROM ticks, daily",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
