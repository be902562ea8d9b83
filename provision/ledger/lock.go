package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/connect"
)

// lockKey is the advisory lock that apply holds, one a database.
const lockKey int64 = 0x6372_7970_746f_0001

// errLocked means that another apply is under way.
var errLocked = errors.New("another apply is under way")

// errPooled means that no session would hold the lock.
var errPooled = errors.New("a pooler in transaction mode stands before the database, and the lock of apply needs a " +
	"session of its own: run this command with a DATABASE_URL that names the server itself, or a pooler in session mode; run may go on through this one")

// ErrLockLost means that PostgreSQL ended the session that held the lock, so that another apply may have begun.
var ErrLockLost = errors.New("the lock of apply was lost, since PostgreSQL or something on the way ended its session: " +
	"another apply may have begun, so this one stopped; apply again")

// Lock takes the lock of apply: a session's advisory lock, which dies with its connection, so that a killed apply
// leaves none. The context that comes with it ends when the lock is lost, with ErrLockLost as its cause. When another
// process holds the lock, the error tells which. A pooler in transaction mode does not keep sessions: apply goes past
// it.
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
	// The session's last statement is this one until apply ends: since when it is idle tells since when it holds the
	// lock.
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
	return nil, nil, fmt.Errorf("%w: process %d (%q, user %s) holds the lock since %s; wait for it, or end it with "+
		"SELECT pg_terminate_backend(%d)", errLocked, pid, app, user, since, pid)
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
