package pg

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// InTx runs f in one transaction. Each statement of it must see what was committed before it, whatever the database's
// default is: a snapshot from before the locks would miss rows. A default of read-only is left alone: somebody set it.
func InTx(ctx context.Context, pool *pgxpool.Pool, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, f)
}

// Short bounds what is answered at once, so that a dead connection does not hold its caller for ever.
func Short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 30*time.Second)
}

// SetLocal sets settings for the rest of a transaction, in one request.
func SetLocal(ctx context.Context, tx pgx.Tx, pairs ...string) error {
	var calls []string
	for i := 0; i < len(pairs); i += 2 {
		calls = append(calls, "set_config("+Literal(pairs[i])+", "+Literal(pairs[i+1])+", true)")
	}
	_, err := tx.Exec(ctx, "SELECT "+strings.Join(calls, ", "))
	return err
}

// PlainText makes the server's texts of expressions, bounds and intervals independent of the session's settings.
func PlainText(ctx context.Context, tx pgx.Tx) error {
	return SetLocal(ctx, tx, "search_path", "pg_catalog", "TimeZone", "UTC", "IntervalStyle", "postgres", "DateStyle",
		"ISO", "extra_float_digits", "1", "quote_all_identifiers", "off")
}

// ForEach runs a query and calls f for each row. It is planned for its arguments each time: a prepared plan is made for
// a few tables and is slow with many.
func ForEach(ctx context.Context, tx pgx.Tx, sql string, args []any, into []any, f func() error) error {
	rows, err := tx.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, into, f)
	return err
}

const (
	// LockWait bounds one wait for a lock: who waits for a table's lock makes everybody behind him wait, too.
	LockWait = 2 * time.Second
	// LockAttempts is how often the lock is asked for, lockPause apart.
	LockAttempts = 5
	lockPause    = time.Second
)

// RetryOnLock repeats f while a lock is not to be had or a deadlock ended it.
func RetryOnLock(ctx context.Context, f func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		if state := Code(err); err != nil && state != "55P03" && state != "40P01" {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(lockPause)), // others, who waited behind us, go on
		backoff.WithMaxTries(LockAttempts), backoff.WithMaxElapsedTime(0))
	return err
}

// OldestTransaction names the oldest open transaction: the likely holder of a lock.
func OldestTransaction(ctx context.Context, db *pgxpool.Pool) string {
	var pid int
	var app, since string
	if err := db.QueryRow(ctx, `SELECT pid, coalesce(application_name, ''), to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') FROM pg_stat_activity
		WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY xact_start LIMIT 1`).Scan(&pid, &app, &since); err != nil {
		return ""
	}
	return fmt.Sprintf(" (the oldest transaction is of process %d, %q, since %s)", pid, app, since)
}

// Savepoint runs f inside a savepoint, and takes back what it did when it fails.
func Savepoint(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "SAVEPOINT attempt"); err != nil {
		return err
	}
	err := f()
	end := "RELEASE SAVEPOINT attempt"
	if err != nil {
		end = "ROLLBACK TO SAVEPOINT attempt; " + end
	}
	if _, sql := tx.Exec(ctx, end); sql != nil && err == nil {
		err = sql
	}
	return err
}

// ExecSingle runs one statement. What comes from pipeline.hcl goes through here: Exec without arguments would run every
// statement of a text, and one of "…; COMMIT; DROP TABLE x" would outlive the transaction that is rolled back.
func ExecSingle(ctx context.Context, tx pgx.Tx, sql string) error {
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeExec)
	if err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// ExecAll runs statements in one request, each as ExecSingle does, up to the first that fails: its index comes with the
// error.
func ExecAll(ctx context.Context, tx pgx.Tx, statements []string) (failed int, err error) {
	batch := &pgconn.Batch{}
	for _, sql := range statements {
		batch.ExecParams(sql, nil, nil, nil, nil)
	}
	reader := tx.Conn().PgConn().ExecBatch(ctx, batch)
	for failed = 0; reader.NextResult(); failed++ {
		if _, err := reader.ResultReader().Close(); err != nil {
			break
		}
	}
	return min(failed, max(0, len(statements)-1)), reader.Close()
}

// PrepareAll has the server read statements in one request, up to the first that it rejects. It runs none of them;
// EXPLAIN would run what is constant.
func PrepareAll(ctx context.Context, tx pgx.Tx, statements []string) error {
	pipeline := tx.Conn().PgConn().StartPipeline(ctx)
	for _, sql := range statements {
		pipeline.SendPrepare("", sql, nil)
	}
	err := pipeline.Sync()
	for err == nil {
		var result any
		if result, err = pipeline.GetResults(); result == nil {
			break
		}
		if _, end := result.(*pgconn.PipelineSync); end {
			break
		}
	}
	return cmp.Or(err, pipeline.Close())
}
