package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Maintained is what one run of Maintain removed.
type Maintained struct{ Slots, DeadLetters, Gaps int64 }

// deleteRows bounds one transaction of Maintain.
const deleteRows = 10_000

// Maintain removes what the engine's own tables need not keep any more, in small transactions; slots are added up by
// day first. Now is the engine's time, which slots are in. One instance does it at a time; another one leaves it.
func (s *Store) Maintain(ctx context.Context, keep spec.Keep, now time.Time) (out Maintained, err error) {
	for _, step := range []struct {
		n  *int64
		do func() (int64, error)
	}{
		{&out.Slots, func() (int64, error) { return s.foldSlots(ctx, now.UTC().Add(-keep.Slots).Truncate(oneDay)) }},
		{&out.DeadLetters, func() (int64, error) {
			return s.deleteSome(ctx,
				"DELETE FROM cryptoviz.dead_letter WHERE id IN (SELECT id FROM cryptoviz.dead_letter WHERE at < now() - $1::interval ORDER BY at LIMIT $2)", keep.DeadLetters, deleteRows)
		}},
		{new(int64), func() (int64, error) {
			return s.deleteSome(ctx,
				"DELETE FROM cryptoviz.dead_letter_hour WHERE hour < now() - $1::interval - interval '1 hour'",
				keep.DeadLetters)
		}},
		{&out.DeadLetters, func() (int64, error) { return s.shrinkDeadLetters(ctx, keep.DeadLettersSize) }},
		{&out.Gaps, func() (int64, error) {
			return s.deleteSome(ctx,
				"DELETE FROM cryptoviz.gap WHERE id IN (SELECT id FROM cryptoviz.gap WHERE at < now() - $1::interval ORDER BY id LIMIT $2)", keep.Gaps, deleteRows)
		}},
	} {
		for {
			n, err := step.do()
			if err != nil {
				return out, fmt.Errorf("maintain the engine's tables: %w", err)
			}
			if *step.n += n; n == 0 {
				break
			}
		}
	}
	return out, nil
}

// alone runs f in a transaction, unless another instance maintains the tables.
func (s *Store) alone(ctx context.Context, f func(pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, partition.Patience)
	defer cancel()
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var mine bool
		if err := partition.Settle(ctx, tx, "10s"); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock(hashtext('cryptoviz.maintain'))").
			Scan(&mine); err != nil || !mine {
			return err
		}
		return f(tx)
	})
	if pg.Is(err, pg.LockBusy) { // the next run does it
		return nil
	}
	return err
}

func (s *Store) deleteSome(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = s.alone(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, args...)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// foldSlots adds the slots of one day of one source, which ended before a time, up in cryptoviz.slot_day, and removes
// them. The newest slot of a source stays: the scheduler goes on from it.
func (s *Store) foldSlots(ctx context.Context, before time.Time) (n int64, err error) {
	err = s.alone(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `WITH RECURSIVE src (name) AS ( -- the sources, by the index
				SELECT min(source) FROM cryptoviz.slot UNION ALL SELECT (SELECT min(source) FROM cryptoviz.slot WHERE source > src.name) FROM src WHERE src.name IS NOT NULL
			), span AS (
				SELECT src.name, (SELECT min(slot) FROM cryptoviz.slot WHERE source = src.name) AS first, (SELECT max(slot) FROM cryptoviz.slot WHERE source = src.name) AS last FROM src WHERE src.name IS NOT NULL
			), day AS (
				SELECT name, pg_catalog.date_bin(interval '1 day', first, timestamptz '2000-01-01 00:00+00') AS at, last FROM span WHERE first < $1 AND first < last LIMIT 1
			), gone AS (
				DELETE FROM cryptoviz.slot AS l USING day WHERE l.source = day.name AND l.slot >= day.at AND l.slot < day.at + interval '24 hours' AND l.slot < day.last
				RETURNING l.source, day.at, CASE l.state WHEN 'running' THEN 'failed' ELSE l.state END AS state, l.records
			), put AS (
				INSERT INTO cryptoviz.slot_day AS d (source, day, state, slots, records)
				SELECT source, (at AT TIME ZONE 'UTC')::date, state, count(*), sum(records) FROM gone GROUP BY 1, 2, 3
				ON CONFLICT (source, day, state) DO UPDATE SET slots = d.slots + excluded.slots, records = d.records + excluded.records
			)
			SELECT count(*) FROM gone`, before).Scan(&n)
	})
	return n, err
}

// shrinkDeadLetters removes some of the oldest dead letters while they take more than so many bytes: first those whose
// kind has many newer ones.
func (s *Store) shrinkDeadLetters(ctx context.Context, size int64) (n int64, err error) {
	const left = 100 // of a kind
	err = s.alone(ctx, func(tx pgx.Tx) error {
		var has int64 // what is deleted leaves room in the file: only when that is large, its rows are measured
		if err := tx.QueryRow(ctx, "SELECT pg_total_relation_size('cryptoviz.dead_letter')").Scan(&has); err != nil ||
			has <= size {
			return err
		}
		if err := tx.QueryRow(ctx,
			"SELECT coalesce(sum(octet_length(value) + octet_length(key) + octet_length(reason) + 200), 0)::bigint FROM cryptoviz.dead_letter").Scan(&has); err != nil || has <= size {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM cryptoviz.dead_letter WHERE id IN (
			SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY source, kind ORDER BY id DESC) AS nth FROM cryptoviz.dead_letter) AS d WHERE nth > $1 ORDER BY id LIMIT $2)`, left, deleteRows)
		if n = tag.RowsAffected(); err != nil || n > 0 {
			return err
		}
		tag, err = tx.Exec(ctx,
			"DELETE FROM cryptoviz.dead_letter WHERE id IN (SELECT id FROM cryptoviz.dead_letter ORDER BY id LIMIT $1)",
			left)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}
