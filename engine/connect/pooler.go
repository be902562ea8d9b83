package connect

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pooled tells whether a pooler in transaction mode, such as PgBouncer, stands before PostgreSQL: it keeps no sessions,
// so each transaction may run on another connection of the server, without the locks, settings and prepared statements
// of the one before.
func Pooled(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	first, err := backend(ctx, conn)
	if err != nil || first == conn.Conn().PgConn().PID() {
		return false, err // nothing stands between
	}
	other, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return false, err
	}
	defer func() { _ = other.Close(context.WithoutCancel(ctx)) }()
	tx, err := other.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// The pooler gives the connection that was used last, which in session mode is still the first client's.
	if second, err := backend(ctx, tx); err != nil || second == first {
		return err == nil, err
	}
	again, err := backend(ctx, conn)
	return err == nil && again != first, err
}

// backend is the number of the server's process that answers.
func backend(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) (pid uint32, err error) {
	if err = q.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
		err = fmt.Errorf("ask which process of PostgreSQL answers: %w", err)
	}
	return pid, err
}
