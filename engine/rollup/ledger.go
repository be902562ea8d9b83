package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// noteRejected enters late rows that stay raw, all that there are. While they do, the day has no "took".
func (u *rollupRun) noteRejected(ctx context.Context, n int64) error {
	_, err := u.tx.Exec(ctx,
		"UPDATE cryptoviz.rollup_day SET late_rows = $3, took = NULL WHERE rollup = $1 AND day = $2", u.r.Name, u.day,
		n)
	if err != nil {
		return fmt.Errorf("write the rollup ledger: %w", err)
	}
	return nil
}

// readLedger reads what earlier runs did. Late rows that were rejected are raw still, and will be counted again.
func (u *rollupRun) readLedger(ctx context.Context) error {
	err := u.tx.QueryRow(ctx,
		"SELECT true, dropped_at IS NOT NULL, raw_rows, hourly_rows, CASE WHEN took IS NULL THEN 0 ELSE late_rows END FROM cryptoviz.rollup_day WHERE rollup = $1 AND day = $2", u.r.Name, u.day).
		Scan(&u.ledger.found, &u.ledger.dropped, &u.ledger.raw, &u.ledger.hourly, &u.ledger.late)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the rollup ledger: %w", err)
	}
	return nil
}

func (u *rollupRun) writeLedger(ctx context.Context, out Result) error {
	raw := max(u.ledger.raw, out.RawRows)
	if u.ledger.dropped {
		raw = u.ledger.raw + out.RawRows
	}
	var dropped *time.Time
	if out.Dropped {
		dropped = &u.now
	}
	_, err := u.tx.Exec(ctx, `INSERT INTO cryptoviz.rollup_day AS d (rollup, day, raw_rows, hourly_rows, late_rows, rolled_at, dropped_at, took)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (rollup, day) DO UPDATE SET raw_rows = excluded.raw_rows, hourly_rows = excluded.hourly_rows, late_rows = excluded.late_rows,
		runs = d.runs + 1, rolled_at = excluded.rolled_at, dropped_at = coalesce(d.dropped_at, excluded.dropped_at), took = excluded.took`,
		u.r.Name, u.day, raw, u.ledger.hourly, u.ledger.late+out.LateRows, u.now, dropped, time.Since(u.began))
	if err != nil {
		return fmt.Errorf("write the rollup ledger: %w", err)
	}
	return nil
}
