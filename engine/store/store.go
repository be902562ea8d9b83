package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/schema"
)

// Store is the engine's access to the database. Safe for any number of goroutines.
type Store struct {
	pool        *pgxpool.Pool
	clock       clock.Clock
	log         *slog.Logger
	owner       string
	ended       func(source string, kind schedule.Kind, n int)
	idleTimeout time.Duration // of Commit
}

// Options of Open. The zero value works.
type Options struct {
	Clock clock.Clock
	Log   *slog.Logger
	Owner string // names this instance in the slot ledger
	// Ended is called with the slots that this instance ended in the ledger, each time after it was written.
	Ended func(source string, kind schedule.Kind, n int)
	// Patience is how long a commit may stand still; default one minute.
	IdleTimeout time.Duration
}

// ErrNotApplied means that the engine's own tables are missing or of another version.
var ErrNotApplied = errors.New("the database is not prepared: run cryptoviz apply")

// Open connects and checks that the engine's tables are there.
func Open(ctx context.Context, cfg *pgxpool.Config, opt Options) (*Store, error) {
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	s := &Store{
		pool: pool, clock: opt.Clock, log: opt.Log, owner: opt.Owner, ended: opt.Ended,
		idleTimeout: cmp.Or(opt.IdleTimeout, idleTimeout),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.ended == nil {
		s.ended = func(string, schedule.Kind, int) {}
	}
	var version string
	err = pool.QueryRow(ctx, "SELECT value FROM cryptoviz.meta WHERE key = 'schema_version'").Scan(&version)
	if err == nil && version != fmt.Sprint(schema.Version) {
		err = fmt.Errorf("%w: its schema_version is %s, this program needs %d", ErrNotApplied, version, schema.Version)
	}
	if pg.Is(err, pg.MissingObject) || errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotApplied
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return s, nil
}

// Close ends all connections.
func (s *Store) Close() { s.pool.Close() }

// Pool is for reading: status, queries, metrics.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Mode returns "live", "simulated" or "recorded".
func Mode(ctx context.Context, db *pgxpool.Pool) (string, error) {
	var mode string
	err := db.QueryRow(ctx, "SELECT mode FROM cryptoviz.mode").Scan(&mode)
	return mode, err
}

const oneDay = 24 * time.Hour
