package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Querier is a pool, a connection, or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Capabilities is what the database server can do.
type Capabilities struct {
	Server    string // PostgreSQL's version
	Number    int    // the same as a number: 170005
	Version   string // TimescaleDB's, "" when it is not installed in this database
	Available string // TimescaleDB's version that CREATE EXTENSION would install, "" for none
	Edition   string // "community", "apache" or ""
	ByRange   bool   // create_hypertable(table, by_range(…)): TimescaleDB 2.13 and later
	Columns   bool   // the names of the columnstore: TimescaleDB 2.18 and later; before, it was called compression
	Schema    string // where the extension's functions are
	Hidden    bool   // that schema is not in the search_path
	ReadOnly  string // why the session can plan and not apply, and what apply needs; "" when it can

	frozen   bool   // not even temporary objects can be made
	settings string // the view of columnstore settings, "" before TimescaleDB 2.14.1
}

// Hypertables tells whether tables can be, or after apply will be, hypertables.
func (c Capabilities) Hypertables() bool { return c.Version != "" || c.Available != "" }

// Community tells whether the server has policies, the columnstore and continuous aggregates, or will have them once
// its TimescaleDB is installed. An edition that is not known yet counts.
func (c Capabilities) Community() bool { return c.Hypertables() && c.Edition != "apache" }

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

// Function names a function of the extension in SQL: with its schema where the search_path lacks that.
func (c Capabilities) Function(name string) string {
	if !c.Hidden {
		return name
	}
	return pg.Ident(c.Schema) + "." + name
}

// ErrReadOnly means that nothing can be applied to this server.
var ErrReadOnly = errors.New("the server takes no changes")

// Writable is an error when the session can plan and not apply.
func (c Capabilities) Writable() error {
	if c.ReadOnly == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrReadOnly, c.ReadOnly)
}

// Detect reads the capabilities. A server on which TimescaleDB is broken is an error.
func Detect(ctx context.Context, db Querier) (Capabilities, error) {
	var c Capabilities
	var preloaded, standby, readOnly bool
	var settings *string
	var reader string
	// The settings of the library tell whether it is preloaded; shared_preload_libraries itself is for privileged users
	// only.
	err := db.QueryRow(ctx, `SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_version_num')::int,
		coalesce((SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), ''),
		coalesce((SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'), ''),
		CASE coalesce(current_setting('timescaledb.license', true), '') WHEN 'apache' THEN 'apache' WHEN '' THEN '' ELSE 'community' END,
		coalesce(current_setting('timescaledb.max_background_workers', true), current_setting('timescaledb.license', true)) IS NOT NULL,
		EXISTS (SELECT FROM pg_proc WHERE proname = 'by_range'), EXISTS (SELECT FROM pg_proc WHERE proname = 'add_columnstore_policy'),
		coalesce((SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'), ''),
		coalesce((SELECT n.nspname <> ALL (current_schemas(true)) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'), false),
		coalesce(to_regclass('timescaledb_information.hypertable_columnstore_settings'), to_regclass('timescaledb_information.hypertable_compression_settings'))::text,
		pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean,
		coalesce((SELECT current_user::text FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE n.nspname = 'cryptoviz' AND r.relname = 'managed' AND NOT has_table_privilege(r.oid, 'INSERT')), '')`).
		Scan(&c.Server, &c.Number, &c.Version, &c.Available, &c.Edition, &preloaded, &c.ByRange, &c.Columns, &c.Schema,
			&c.Hidden, &settings, &standby, &readOnly, &reader)
	switch {
	case err != nil:
		return c, fmt.Errorf("read the database's capabilities: %w", err)
	case c.Version != "" && !preloaded:
		return c, fmt.Errorf("TimescaleDB %s is installed in this database and the server does not load it: add "+
			"timescaledb to shared_preload_libraries and restart the server", c.Version)
	}
	c.frozen = standby || readOnly
	switch {
	case standby:
		c.ReadOnly = "it is a standby (in recovery); apply needs the primary, such as with " +
			"target_session_attrs=read-write in database.url"
	case readOnly:
		c.ReadOnly = "transactions are read-only for this user (default_transaction_read_only = on); apply needs a " +
			"user that may change tables"
	case reader != "":
		c.ReadOnly = reader + " may not write to cryptoviz.managed; apply needs the user that owns it"
	}
	if settings != nil {
		c.settings = *settings
	}
	if c.Version == "" && !preloaded {
		c.Available = "" // CREATE EXTENSION would end the connection: the library must be preloaded
	}
	if c.Version == "" && c.Available != "" {
		c.ByRange, c.Columns = true, true
	}
	return c, nil
}

// AtLeast tells whether TimescaleDB is of this version or later.
func (c Capabilities) AtLeast(major, minor int) bool {
	var have [2]int
	if _, err := fmt.Sscanf(c.Version, "%d.%d", &have[0], &have[1]); err != nil {
		return false
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}

// ReadOnlyServer is a standby, or a user whose transactions are read-only.
const ReadOnlyServer = "it is read-only"
