package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pause keeps that a source asked to wait, d from now by the database's clock. Of two for a name the longer counts.
func (s *Store) Pause(ctx context.Context, name string, d time.Duration, reason string) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO cryptoviz.pause AS p (name, until, reason) VALUES ($1, clock_timestamp() + $2, $3)
		ON CONFLICT (name) DO UPDATE SET until = excluded.until, reason = excluded.reason, at = excluded.at WHERE p.until < excluded.until`,
		name, d, printable(reason))
	if err != nil {
		return fmt.Errorf("keep a pause: %w", err)
	}
	return nil
}

// Paused calls f with each pause that is not over, and what is left of it.
func (s *Store) Paused(ctx context.Context, f func(name string, left time.Duration, reason string)) error {
	rows, err := s.pool.Query(ctx,
		"SELECT name, until - clock_timestamp(), reason FROM cryptoviz.pause WHERE until > clock_timestamp()")
	if err != nil {
		return fmt.Errorf("read the pauses: %w", err)
	}
	var name, reason string
	var left time.Duration
	_, err = pgx.ForEachRow(rows, []any{&name, &left, &reason}, func() error {
		f(name, left, reason)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the pauses: %w", err)
	}
	return nil
}
