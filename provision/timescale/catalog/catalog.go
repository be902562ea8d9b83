package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Catalog is what the database holds: one snapshot for all resources, read on first use in a few queries, whatever the
// number of objects. Safe for any number of goroutines.
type Catalog struct {
	DB       *pgxpool.Pool
	RolePool *pgxpool.Pool  // reads and makes roles; nil: DB does
	Pipeline *spec.Pipeline // what is declared: lets one request serve all tables; nil is slower, and nothing else

	mu       sync.Mutex // guards requests, seconds and kept
	requests int
	seconds  float64
	kept     map[string]*cell
}

// NewCatalog returns a catalog that has not read anything yet.
func NewCatalog(db *pgxpool.Pool) *Catalog { return &Catalog{DB: db} }

// Reset forgets everything that was read: the next use reads again.
func (c *Catalog) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = nil
}

// Describe tells what was read, where, and in how many requests.
func (c *Catalog) Describe() plan.Read {
	c.mu.Lock()
	r := plan.Read{System: "PostgreSQL", Requests: c.requests, Seconds: c.seconds}
	cell := c.kept["snapshot"]
	c.mu.Unlock()
	host := c.DB.Config().ConnConfig
	r.Text = fmt.Sprintf("%s@%s:%d/%s", host.User, host.Host, host.Port, host.Database)
	if cell == nil {
		return r
	}
	cell.mu.Lock()
	defer cell.mu.Unlock()
	if s, loaded := cell.value.(*Snapshot); loaded {
		r.Text += fmt.Sprintf(", %s: %s, %s, %s", s.Caps.Name(), english.Plural(s.count("r", "p"), "table", ""),
			english.Plural(s.count("v", "m")-len(s.Aggregates), "view", ""), english.Plural(len(s.Aggregates),
				"aggregate", ""))
		if s.Caps.ReadOnly != "" {
			r.Text += "; read-only: " + s.Caps.ReadOnly + ". Whether the server would make the changes is not checked"
		}
	}
	return r
}

// Capabilities tells what the server can do.
func (c *Catalog) Capabilities(ctx context.Context) (Capabilities, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return Capabilities{}, err
	}
	return s.Caps, nil
}

// Unmanaged lists the addresses of all tables, views and aggregates, and of roles where the pipeline declares some, so
// that the caller takes off what is declared. The
// engine's own tables, chunks and partitions are none.
func (c *Catalog) Unmanaged(ctx context.Context) ([]string, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, r := range s.Relations {
		switch {
		case s.Aggregates[name] != nil:
			out = append(out, "aggregate."+name)
		case r.Kind == "r" || r.Kind == "p":
			out = append(out, "table."+name)
		case r.Kind == "v":
			out = append(out, "view."+name)
		}
	}
	if c.Pipeline != nil && len(c.Pipeline.Roles) > 0 {
		roles, err := c.UnmanagedRoles(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, roles...)
	}
	slices.Sort(out)
	return out, nil
}

// Snapshot returns the snapshot, and reads it the first time.
func (c *Catalog) Snapshot(ctx context.Context) (*Snapshot, error) {
	return Cached(ctx, c, "snapshot", c.read)
}

// cell is something read once. Its mutex lets the second caller wait for the first.
type cell struct {
	mu    sync.Mutex
	value any
}

// Cached returns what load read for a key since the last Reset; an error is not kept. The time of load counts as
// reading.
func Cached[T any](ctx context.Context, c *Catalog, key string, load func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	if c.kept == nil {
		c.kept = map[string]*cell{}
	}
	if c.kept[key] == nil {
		c.kept[key] = &cell{}
	}
	cell := c.kept[key]
	c.mu.Unlock()

	cell.mu.Lock()
	defer cell.mu.Unlock()
	if v, there := cell.value.(T); there {
		return v, nil
	}
	started := time.Now()
	v, err := load(ctx)
	c.mu.Lock()
	c.seconds += time.Since(started).Seconds()
	c.mu.Unlock()
	if err == nil {
		cell.value = v
	}
	return v, err
}

// Count counts a request.
func (c *Catalog) Count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
}

// Query runs one query, and counts it.
func (c *Catalog) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.Count()
	return c.DB.Query(ctx, sql, args...)
}

// QueryRow runs one query with one row, and counts it.
func (c *Catalog) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	c.Count()
	return c.DB.QueryRow(ctx, sql, args...)
}

// errRollback ends a dry run.
var errRollback = errors.New("roll back")

// DryRun runs f in a transaction that is always rolled back: planning asks the server, and changes nothing. It waits
// for no lock longer than a moment, and for no statement longer than 15 seconds.
func (c *Catalog) DryRun(ctx context.Context, f func(pgx.Tx) error) error {
	return c.trialOn(ctx, c.DB, f)
}

// DryRunRoles is a dry run as the user that makes roles.
func (c *Catalog) DryRunRoles(ctx context.Context, f func(pgx.Tx) error) error {
	return c.trialOn(ctx, c.RoleDB(), f)
}

// RoleDB is whose connections read and make roles.
func (c *Catalog) RoleDB() *pgxpool.Pool {
	if c.RolePool != nil {
		return c.RolePool
	}
	return c.DB
}

func (c *Catalog) trialOn(ctx context.Context, db *pgxpool.Pool, f func(pgx.Tx) error) error {
	c.Count()
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		counted := &countedTx{tx, c}
		if err := pg.SetLocal(ctx, counted, "lock_timeout", "500ms", "statement_timeout", "15s", "TimeZone", "UTC",
			"jit", "off"); err != nil {
			return err
		}
		if err := f(counted); err != nil {
			return err
		}
		c.Count()
		return errRollback
	})
	if errors.Is(err, errRollback) {
		return nil
	}
	return err
}

// countedTx counts its requests.
type countedTx struct {
	pgx.Tx
	catalog *Catalog
}

func (t *countedTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	t.catalog.Count()
	return t.Tx.Exec(ctx, sql, args...)
}

func (t *countedTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	t.catalog.Count()
	return t.Tx.Query(ctx, sql, args...)
}

func (t *countedTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	t.catalog.Count()
	return t.Tx.QueryRow(ctx, sql, args...)
}

func (t *countedTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	t.catalog.Count()
	return t.Tx.SendBatch(ctx, b)
}

// Managed is what the last apply set, for resources that need more of it than their own part.
func (c *Catalog) Managed(ctx context.Context) (map[string]plan.State, error) {
	return Cached(ctx, c, "managed", func(ctx context.Context) (map[string]plan.State, error) {
		c.Count()
		return (&ledger.Ledger{DB: c.DB}).All(ctx)
	})
}

// Temporary tells whether planning may make temporary tables and views, which show how the server writes things.
func (c *Catalog) Temporary(ctx context.Context) (bool, error) {
	caps, err := c.Capabilities(ctx)
	if err != nil || caps.frozen {
		return false, err
	}
	s, err := c.Session(ctx)
	return s.Temporary, err
}
