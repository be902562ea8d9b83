package ddl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// Reached tells whether the live object is as the change wants it.
func Reached(c plan.Change, live *plan.State) bool {
	if c.Want == nil || live == nil {
		return c.Want == nil && live == nil
	}
	diffs, _ := plan.Compare(c.Last, live, c.Want)
	return len(diffs) == 0
}

// Wrap makes the steps of statements: one transaction with a bounded wait for locks, and after it what cannot be in
// one. Heavy statements may take their time.
func Wrap(steps []Step) (out []string) {
	if len(steps) == 0 {
		return nil
	}
	out = append(out, "BEGIN", fmt.Sprintf("SET LOCAL lock_timeout = '%s'", pg.LockWait))
	if slices.ContainsFunc(steps, func(s Step) bool { return s.Heavy }) {
		out = append(out, "SET LOCAL statement_timeout = 0")
	}
	var after []string
	for _, s := range steps {
		if s.Phase == Outside {
			after = append(after, s.SQL)
		} else {
			out = append(out, s.SQL)
		}
	}
	if len(after) == len(steps) {
		return after
	}
	return append(append(out, "COMMIT"), after...)
}

// Execute runs the steps of a change. A transaction is repeated when a lock in it was not to be had. The first one
// begins with counting what is lost: when that is more than was agreed to, nothing is done.
func Execute(ctx context.Context, db *pgxpool.Pool, c plan.Change) error {
	steps := c.Steps
	recounts, err := countLarge(ctx, db, c)
	if err != nil {
		return err
	}
	for i := 0; i < len(steps); i++ {
		if steps[i] != "BEGIN" {
			if err := pg.RetryOnLock(ctx, func() error { return alone(ctx, db, steps[i]) }); err != nil {
				return err
			}
			continue
		}
		end := i + slices.Index(steps[i:], "COMMIT")
		if end < i {
			return errors.New("the plan's steps have a BEGIN without its COMMIT")
		}
		if err := pg.RetryOnLock(ctx, func() error {
			return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
				counted := false
				for _, sql := range steps[i+1 : end] {
					if !counted && !strings.HasPrefix(sql, "SET LOCAL ") {
						counted = true
						if err := countLocked(ctx, tx, c, recounts); err != nil {
							return err
						}
					}
					if err := one(ctx, tx, sql); err != nil {
						return &pg.StatementError{SQL: sql, Err: err}
					}
				}
				return nil
			})
		}); err != nil {
			return err
		}
		i, recounts = end, nil
	}
	return nil
}

// one runs a step of a transaction. Only our own schema holds several statements.
func one(ctx context.Context, tx pgx.Tx, sql string) error {
	if sql != schema.SQL {
		return pg.ExecSingle(ctx, tx, sql)
	}
	_, err := tx.Exec(ctx, sql)
	return err
}

// alone runs one statement outside of a transaction. It may take its time, and it may wait for locks: what runs here
// blocks no other session, and an index that is built CONCURRENTLY must see old transactions end.
func alone(ctx context.Context, db *pgxpool.Pool, sql string) error {
	conn, err := db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var statements, locks string
	if err := conn.QueryRow(ctx, "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')").
		Scan(&statements, &locks); err != nil {
		return err
	}
	const set = "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false)"
	if _, err := conn.Exec(ctx, set, "0", "0"); err != nil {
		return err
	}
	if b := buildOf(sql); b != nil {
		err = b.run(ctx, conn.Conn(), sql)
	} else {
		err = send(ctx, conn.Conn(), sql)
	}
	if _, back := conn.Exec(context.WithoutCancel(ctx), set, statements, locks); back != nil {
		_ = conn.Conn().Close(context.WithoutCancel(ctx))
	}
	return err
}

// send runs one statement on a connection.
func send(ctx context.Context, conn *pgx.Conn, sql string) error {
	if _, err := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Close(); err != nil {
		return &pg.StatementError{SQL: sql, Err: err}
	}
	return nil
}

// Explain adds the remedy where there is one.
func Explain(ctx context.Context, db *pgxpool.Pool, err error) error {
	switch pg.Code(err) {
	case "55P03":
		return fmt.Errorf("could not lock it in %d attempts; another session is using it: %w%s; stop that session or "+
			"wait, then apply again", pg.LockAttempts, err, pg.OldestTransaction(ctx, db))
	case "42501":
		return fmt.Errorf("%w: use a user that may, such as the owner", err)
	case "25006":
		return fmt.Errorf("%w: %w", catalog.ErrReadOnly, err)
	}
	return err
}

// Unwrapped takes steps out of their transaction; after is what follows it.
func Unwrapped(steps []string) (inside, after []string) {
	end := slices.Index(steps, "COMMIT")
	if end < 0 {
		return nil, steps
	}
	return steps[2:end], steps[end+1:] // after BEGIN and the bound of its locks
}

// Phase orders the statements of one table.
type Phase int

// The phases, in their order.
const (
	Renaming Phase = iota
	DroppingIndexes
	DroppingKey
	DroppingColumns
	AddingColumns
	AlteringColumns
	Generating
	Partitioning // into chunks
	AddingKey
	AddingIndexes
	Policies
	Comments
	Outside // after the transaction: CONCURRENTLY
)

// Step is one statement. A heavy one reads or writes all rows: planning tries it on small tables only.
type Step struct {
	Phase Phase
	SQL   string
	Heavy bool
	Dry   []string // what planning tries in its place; nil: SQL itself
}

// Apply makes a change that is all in its steps.
func Apply(ctx context.Context, db *pgxpool.Pool, c plan.Change) error {
	if c.Impossible() {
		return fmt.Errorf("change %s: it cannot be done, as the plan says", c.Address)
	}
	if err := Execute(ctx, db, c); err != nil {
		return fmt.Errorf("%s %s: %w", c.Action, c.Address, Explain(ctx, db, err))
	}
	return nil
}

// Transaction puts statements into one transaction that waits for no lock for long.
func Transaction(statements ...string) []string {
	if len(statements) == 0 {
		return nil
	}
	return slices.Concat([]string{"BEGIN", fmt.Sprintf("SET LOCAL lock_timeout = '%s'", pg.LockWait)}, statements,
		[]string{"COMMIT"})
}
