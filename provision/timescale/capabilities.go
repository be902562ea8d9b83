// Package timescale makes tables and the engine's own schema match pipeline.hcl, on TimescaleDB or plain PostgreSQL.
package timescale

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Capabilities is what the database server can do.
type Capabilities struct {
	Server    string // PostgreSQL's version
	Version   string // TimescaleDB's, "" when it is not installed in this database
	Available string // TimescaleDB's version that CREATE EXTENSION would install, "" for none
	Edition   string // "community", "apache" or ""
	ByRange   bool   // create_hypertable(table, by_range(…)): TimescaleDB 2.13 and later
}

// Hypertables tells whether tables can be, or after apply will be, hypertables.
func (c Capabilities) Hypertables() bool { return c.Version != "" || c.Available != "" }

// Name describes the backend in a few words.
func (c Capabilities) Name() string {
	switch {
	case c.Version != "":
		return fmt.Sprintf("TimescaleDB %s (%s) on PostgreSQL %s", c.Version, c.Edition, c.Server)
	case c.Available != "":
		return fmt.Sprintf("PostgreSQL %s, TimescaleDB %s to be installed", c.Server, c.Available)
	}
	return "PostgreSQL " + c.Server + " without TimescaleDB"
}

// Detect reads the capabilities.
func Detect(ctx context.Context, db *pgxpool.Pool) (Capabilities, error) {
	var c Capabilities
	var preloaded bool
	err := db.QueryRow(ctx, `SELECT current_setting('server_version'),
		coalesce((SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), ''),
		coalesce((SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'), ''),
		CASE coalesce(current_setting('timescaledb.license', true), '') WHEN 'apache' THEN 'apache' WHEN '' THEN '' ELSE 'community' END,
		coalesce(current_setting('shared_preload_libraries', true), '') LIKE '%timescaledb%',
		EXISTS (SELECT FROM pg_proc WHERE proname = 'by_range')`).Scan(&c.Server, &c.Version, &c.Available, &c.Edition, &preloaded, &c.ByRange)
	if err != nil {
		return c, fmt.Errorf("read the database's capabilities: %w", err)
	}
	if c.Version == "" && !preloaded {
		c.Available = "" // CREATE EXTENSION would be refused: the library must be preloaded
	}
	return c, nil
}

func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }
