package ddl

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// losses are counts of what goes, by object and code.
type losses map[[2]string]plan.Loss

func (l losses) add(r plan.Recount, n int64) {
	key := [2]string{r.Address, r.Code}
	l[key] = plan.Loss{Unit: plan.Rows, Known: true, Count: l[key].Count + n}
}

// check compares them with what the change may lose. The error is a plan.More.
func (l losses) check(c plan.Change) error {
	for key, loss := range l {
		if err := c.Check(key[0], key[1], loss); err != nil {
			return err
		}
	}
	return nil
}

// countLarge counts what goes of tables that are too large to be locked meanwhile, just before the change and for a
// bounded time, and returns what is to be counted under the lock. What cannot be counted in that time stands as it was
// planned a moment ago.
func countLarge(ctx context.Context, db *pgxpool.Pool, c plan.Change) (small []plan.Recount, err error) {
	counts := losses{}
	for _, r := range c.Recounts {
		var bytes, n int64
		if err := db.QueryRow(ctx, "SELECT coalesce("+r.Size+", 0)::bigint").Scan(&bytes); err != nil {
			return nil, fmt.Errorf("measure %s: %w", r.Address, err)
		}
		if bytes <= Countable {
			small = append(small, r)
			continue
		}
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) (err error) {
			if err = pg.SetLocal(ctx, tx, "statement_timeout", "10s", "lock_timeout", "2s", "TimeZone",
				"UTC"); err == nil {
				n, err = count(ctx, tx, r)
			}
			return err
		})
		switch {
		case err == nil:
			counts.add(r, n)
		case !pg.Is(err, pg.Canceled, pg.LockBusy) || ctx.Err() != nil:
			return nil, fmt.Errorf("count again what is lost of %s: %w", r.Address, err)
		}
	}
	return small, counts.check(c)
}

// countLocked counts what goes in the transaction of the change, with the tables locked: nothing can come any more.
func countLocked(ctx context.Context, tx pgx.Tx, c plan.Change, list []plan.Recount) error {
	locked := map[string]bool{}
	for _, r := range list {
		if r.Table == "" || locked[r.Table] {
			continue
		}
		if err := pg.ExecSingle(ctx, tx, "LOCK TABLE "+r.Table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		locked[r.Table] = true
	}
	counts := losses{}
	for _, r := range list {
		n, err := count(ctx, tx, r)
		if err != nil {
			return err
		}
		counts.add(r, n)
	}
	return counts.check(c)
}

// count runs one of them as planning did, and leaves no setting behind. What is gone already loses nothing.
func count(ctx context.Context, tx pgx.Tx, r plan.Recount) (n int64, err error) {
	for _, query := range []string{r.Query, r.Otherwise} {
		if query == "" {
			break
		}
		err = pg.Savepoint(ctx, tx, func() error {
			sp, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if err := pg.SetLocal(ctx, sp, "TimeZone", "UTC"); err != nil {
				return err
			}
			if err := sp.QueryRow(ctx, query).Scan(&n); err != nil {
				return &pg.StatementError{SQL: query, Err: err}
			}
			return sp.Rollback(ctx)
		})
		if !pg.Is(err, pg.MissingObject) {
			return n, err
		}
	}
	return 0, nil
}

// RowsLost is a loss of rows, or of the values of a column.
func RowsLost(n int64, known bool, when string) *plan.Loss {
	return &plan.Loss{Unit: plan.Rows, Count: n, Known: known, When: when}
}

// Countable is up to how many bytes rows are counted; above, the server's estimate does.
const Countable = 256 << 20
