package timescale

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Ledger is cryptoviz.managed: what the last apply set, by address.
type Ledger struct{ DB *pgxpool.Pool }

// Entry is what the last apply set on an object, and on which server.
type Entry struct {
	State  plan.State
	Server string // as plan.Servers.Place names it; "": set by an earlier version, or not known
}

// All returns every object's state, whatever server it is on.
func (l *Ledger) All(ctx context.Context) (map[string]plan.State, error) {
	entries, err := l.Entries(ctx)
	out := map[string]plan.State{}
	for address, e := range entries {
		out[address] = e.State
	}
	return out, err
}

// Entries returns every row. Without the table, before the first apply, there is none.
func (l *Ledger) Entries(ctx context.Context) (map[string]Entry, error) {
	out := map[string]Entry{}
	// The column server is there from version 4 on.
	rows, err := l.DB.Query(ctx, "SELECT address, state::text, coalesce(to_jsonb(m) ->> 'server', '') FROM cryptoviz.managed m")
	if err == nil {
		var address, text string
		var e Entry
		_, err = pgx.ForEachRow(rows, []any{&address, &text, &e.Server}, func() error {
			e.State = plan.State{}
			if err := json.Unmarshal([]byte(text), &e.State); err != nil {
				return fmt.Errorf("state of %s: %w", address, err)
			}
			out[address] = e
			return nil
		})
	}
	switch {
	case pg.Is(err, pg.MissingObject):
		return map[string]Entry{}, nil
	case pg.Is(err, pg.NoPrivilege):
		return nil, fmt.Errorf("read the ledger cryptoviz.managed: %w; GRANT USAGE ON SCHEMA cryptoviz and SELECT on its tables, or use the user that owns it", err)
	case err != nil:
		return nil, fmt.Errorf("read the ledger cryptoviz.managed: %w", err)
	}
	return out, nil
}

// managed is what the last apply set, for resources that need more of it than their own part.
func (c *Catalog) managed(ctx context.Context) (map[string]plan.State, error) {
	return cached(ctx, c, "managed", func(ctx context.Context) (map[string]plan.State, error) {
		c.count()
		return (&Ledger{DB: c.DB}).All(ctx)
	})
}

// Put writes down what apply has set on an object.
func (l *Ledger) Put(ctx context.Context, address string, e Entry, by, version string) error {
	text, err := json.Marshal(e.State)
	if err != nil {
		return err
	}
	salt, err := l.Salt(ctx)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, l.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO cryptoviz.managed (address, state, applied_at, applied_by, version, server)
			VALUES ($1, $2::text::jsonb, now(), $3, $4, $5) ON CONFLICT (address) DO UPDATE SET state = excluded.state,
			applied_at = excluded.applied_at, applied_by = excluded.applied_by, version = excluded.version, server = excluded.server`,
			address, string(text), by, version, e.Server); err != nil {
			return err
		}
		// From here on it stays, also when the database moves to another server.
		_, err := tx.Exec(ctx, "INSERT INTO cryptoviz.meta VALUES ('salt', $1) ON CONFLICT DO NOTHING", salt)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s into the ledger cryptoviz.managed: %w", address, err)
	}
	return nil
}

// Forget removes an object that is deleted.
func (l *Ledger) Forget(ctx context.Context, address string) error {
	if _, err := l.DB.Exec(ctx, "DELETE FROM cryptoviz.managed WHERE address = $1", address); err != nil && !pg.Is(err, pg.MissingObject) {
		return fmt.Errorf("remove %s from the ledger cryptoviz.managed: %w", address, err)
	}
	return nil
}

// Salt goes into the hashes of secrets. Before the first apply it follows from the server's and the database's identity, so
// that a saved plan and its apply agree; Put keeps it.
func (l *Ledger) Salt(ctx context.Context) (string, error) {
	var salt string
	err := l.DB.QueryRow(ctx, "SELECT value FROM cryptoviz.meta WHERE key = 'salt'").Scan(&salt)
	if err == nil {
		return salt, nil
	}
	if !pg.Is(err, pg.MissingObject) && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read the salt in cryptoviz.meta: %w", err)
	}
	d, err := l.database(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "cryptoviz salt %s %d %s", d.System, d.OID, d.Name))
	return hex.EncodeToString(sum[:16]), nil
}

// database is the server's and the database's identity. Some services keep the server's to themselves.
func (l *Ledger) database(ctx context.Context) (d plan.Database, err error) {
	const oid = "SELECT oid, datname::text FROM pg_database WHERE datname = current_database()"
	if err := l.DB.QueryRow(ctx, oid).Scan(&d.OID, &d.Name); err != nil {
		return d, fmt.Errorf("read the database's identity: %w", err)
	}
	err = l.DB.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&d.System)
	if err != nil && !pg.Is(err, pg.NoPrivilege) {
		return d, fmt.Errorf("read the server's identity: %w", err)
	}
	return d, nil
}

// Identity tells this database from every other one. copied is where the last apply was, when this is a copy of that database.
func (l *Ledger) Identity(ctx context.Context) (d plan.Database, copied string, err error) {
	if d, err = l.database(ctx); err != nil {
		return d, "", err
	}
	rows, err := l.DB.Query(ctx, "SELECT key, value FROM cryptoviz.meta WHERE key IN ('ledger', 'database')")
	if err == nil {
		var key, value string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
			if key == "ledger" {
				d.Ledger = value
			} else {
				copied = value
			}
			return nil
		})
	}
	if err != nil && !pg.Is(err, pg.MissingObject, pg.NoPrivilege) {
		return d, "", fmt.Errorf("read cryptoviz.meta: %w", err)
	}
	if here := (plan.Servers{Database: d}).Place(plan.EngineAddress); copied == here || strings.HasPrefix(here, "?") || strings.HasPrefix(copied, "?") {
		copied = ""
	}
	return d, copied, nil
}

// FillIn writes the servers into rows that name none. All rows of objects in the database are of this one: a copy has its own.
func (l *Ledger) FillIn(ctx context.Context, s plan.Servers) error {
	err := pgx.BeginFunc(ctx, l.DB, func(tx pgx.Tx) error {
		for _, kind := range []string{"topic", "table", "dashboard"} { // one of each system
			place, system := s.Place(kind+"."), plan.SystemOf(kind)
			if place == "" {
				continue
			}
			const fill = `UPDATE cryptoviz.managed SET server = $1 WHERE server <> $1 AND (server = '' OR $3) AND split_part(address, '.', 1) = ANY($2)`
			if _, err := tx.Exec(ctx, fill, place, plan.KindsOf(system), system == "PostgreSQL"); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO cryptoviz.meta VALUES ('database', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value "+
			"WHERE cryptoviz.meta.value <> excluded.value", s.Place(plan.EngineAddress))
		return err
	})
	if err != nil && !pg.Is(err, pg.MissingObject) {
		return fmt.Errorf("write the servers into the ledger cryptoviz.managed: %w", err)
	}
	return nil
}

// lockKey is the advisory lock that apply holds, one a database.
const lockKey int64 = 0x6372_7970_746f_0001

// errLocked means that another apply is under way.
var errLocked = errors.New("another apply is under way")

// errPooled means that no session would hold the lock.
var errPooled = errors.New("a pooler in transaction mode stands before the database, and the lock of apply needs a session of its own: " +
	"run this command with a DATABASE_URL that names the server itself, or a pooler in session mode; run may go on through this one")

// ErrLockLost means that PostgreSQL ended the session that held the lock, so that another apply may have begun.
var ErrLockLost = errors.New("the lock of apply was lost, since PostgreSQL or something on the way ended its session: another apply may have begun, so this one stopped; apply again")

// Lock takes the lock of apply: a session's advisory lock, which dies with its connection, so that a killed apply leaves none.
// The context that comes with it ends when the lock is lost, with ErrLockLost as its cause. When another process holds the lock,
// the error tells which. A pooler in transaction mode does not keep sessions: apply goes past it.
func Lock(ctx context.Context, pool *pgxpool.Pool) (held context.Context, release func(), err error) {
	if pooled, err := connect.Pooled(ctx, pool); err != nil || pooled {
		return nil, nil, cmp.Or(err, errPooled)
	}
	acquired, err := pool.Acquire(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("lock the database for apply: %w", err)
	}
	conn := acquired.Hijack() // never handed out again: the lock must not outlive apply in an idle connection
	closing := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", lockKey)
		_ = conn.Close(ctx)
	}
	var got bool
	if _, err := conn.Exec(ctx, "SET idle_session_timeout = 0"); err != nil {
		closing()
		return nil, nil, fmt.Errorf("lock the database for apply: %w", err)
	}
	// The session's last statement is this one until apply ends: since when it is idle tells since when it holds the lock.
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockKey).Scan(&got); err != nil {
		closing()
		return nil, nil, fmt.Errorf("lock the database for apply: %w", err)
	}
	if got {
		held, release = watch(ctx, conn, closing)
		return held, release, nil
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var pid int
	var app, user, since string
	err = conn.QueryRow(ctx, `SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''), coalesce(to_char(a.state_change AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), 'an unknown time')
		FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted
		AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (l.classid::bigint << 32 | l.objid::bigint) = $1 AND l.objsubid = 1`, lockKey).Scan(&pid, &app, &user, &since)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil, fmt.Errorf("%w; it has just ended: apply again", errLocked)
	case err != nil:
		return nil, nil, fmt.Errorf("%w: %w", errLocked, err)
	}
	return nil, nil, fmt.Errorf("%w: process %d (%q, user %s) holds the lock since %s; wait for it, or end it with SELECT pg_terminate_backend(%d)", errLocked, pid, app, user, since, pid)
}

// watch listens on the lock's connection, where nothing ever comes but its end.
func watch(ctx context.Context, conn *pgx.Conn, closing func()) (held context.Context, release func()) {
	held, lose := context.WithCancelCause(ctx)
	listen, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() { // ends with release
		defer close(ended)
		for listen.Err() == nil {
			if _, err := conn.WaitForNotification(listen); err != nil && listen.Err() == nil {
				lose(ErrLockLost)
				return
			}
		}
	}()
	return held, func() {
		stop()
		<-ended
		closing()
		lose(context.Canceled)
	}
}
