package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
)

// Ledger is the slot ledger: schedule.Ledger. Whoever inserts a slot's row runs it; a row whose lease is over is taken
// over. The database's clock decides, so that instances need not agree on the time.
type Ledger struct{ *Store }

var _ schedule.Ledger = Ledger{}

// ahead is how much earlier than by the database's clock an instance may begin a slot.
const ahead = 30 * time.Second

// due refuses a slot that has not begun by the database's clock: an instance whose clock is wrong would enter the days
// to come, and take them from those whose clock is right. Simulated and recorded time may be any.
func (s Ledger) due(ctx context.Context, at time.Time) error {
	var now time.Time
	err := s.pool.QueryRow(ctx,
		"SELECT clock_timestamp() FROM cryptoviz.mode WHERE mode = 'live' AND clock_timestamp() + $2 < $1", at,
		ahead).Scan(&now)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the database's clock: %w", err)
	}
	return &schedule.ClockError{Slot: at.UTC(), Ledger: now.UTC()}
}

// Acquire tries to take a slot. One that was entered as skipped at a wrong time, before it began or later than it is
// now, is free again: a clock was ahead then, the database's or that of an instance of a version before this one.
func (s Ledger) Acquire(ctx context.Context, slot schedule.Slot, lease time.Duration) (schedule.Lease, error) {
	if err := s.due(ctx, slot.At); err != nil {
		return 0, fmt.Errorf("claim a slot: %w", err)
	}
	var mine bool
	err := s.pool.QueryRow(ctx, `INSERT INTO cryptoviz.slot AS l (source, slot, state, owner, lease_until)
		VALUES ($1, $2, 'running', $3, clock_timestamp() + $4)
		ON CONFLICT (source, slot) DO UPDATE SET state = 'running', reason = excluded.reason, owner = excluded.owner, lease_until = excluded.lease_until, attempt = l.attempt + 1, started_at = clock_timestamp()
		WHERE l.state = 'running' AND l.lease_until < clock_timestamp()
			OR l.state = 'skipped' AND l.started_at NOT BETWEEN l.slot - $5::interval AND clock_timestamp() + $5::interval AND (SELECT mode = 'live' FROM cryptoviz.mode)
		RETURNING true`, slot.Source, slot.At, s.owner, lease, ahead).Scan(&mine)
	if err == nil {
		return schedule.Acquired, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("claim a slot: %w", err)
	}
	var state string
	if err := s.pool.QueryRow(ctx, "SELECT state FROM cryptoviz.slot WHERE source = $1 AND slot = $2", slot.Source,
		slot.At).Scan(&state); err != nil {
		return 0, fmt.Errorf("claim a slot: %w", err)
	}
	if state == "running" {
		return schedule.Held, nil
	}
	return schedule.Finished, nil
}

// Renew prolongs leases of this instance, and returns those that are not its own any more.
func (s Ledger) Renew(ctx context.Context, source string, slots []time.Time, lease time.Duration) ([]time.Time, error) {
	rows, err := s.pool.Query(ctx, `UPDATE cryptoviz.slot SET lease_until = clock_timestamp() + $4
		WHERE source = $1 AND slot = ANY($2) AND owner = $3 AND state = 'running' RETURNING slot`, source, slots, s.owner, lease)
	if err != nil {
		return nil, fmt.Errorf("renew slots: %w", err)
	}
	renewed, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("renew slots: %w", err)
	}
	return slices.DeleteFunc(slices.Clone(slots), func(at time.Time) bool {
		return slices.ContainsFunc(renewed, at.Equal)
	}), nil
}

// instanceEnded is the reason of a slot whose lease ran out and that nobody took over in time.
const instanceEnded = "the instance that ran it ended"

// Enter writes down how slots of a source ended: those that this instance claimed, and those that it ran while the
// database was away. A slot that another instance works on is left to it. What brought data outranks what was said to
// have failed, and that what was said to be skipped: another instance knew less.
func (s Ledger) Enter(ctx context.Context, ends []schedule.Outcome) error {
	at, states, reasons := make([]time.Time, len(ends)), make([]string, len(ends)), make([]string, len(ends))
	records, took := make([]int, len(ends)), make([]time.Duration, len(ends))
	for i, o := range ends {
		at[i], states[i], reasons[i], records[i], took[i] = o.At, string(o.Kind), printable(o.Reason), o.Records, o.Took
	}
	rows, err := s.pool.Query(ctx, `INSERT INTO cryptoviz.slot AS l (source, slot, state, reason, records, took, owner, lease_until)
		SELECT DISTINCT ON (slot) $1, slot, state, reason, records, took, $7, clock_timestamp()
		FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::int[], $6::interval[]) WITH ORDINALITY AS e (slot, state, reason, records, took, n) ORDER BY slot, n DESC
		ON CONFLICT (source, slot) DO UPDATE SET state = excluded.state, reason = excluded.reason, records = excluded.records, took = excluded.took, owner = excluded.owner, lease_until = excluded.lease_until
		WHERE l.owner = excluded.owner AND (l.state = 'running' OR l.state = 'failed' AND l.reason = $8)
			OR excluded.state IN ('ok', 'late', 'not_modified') AND (l.state IN ('failed', 'skipped') OR l.state = 'running' AND l.lease_until < clock_timestamp())
			OR excluded.state = 'failed' AND l.state = 'skipped'
		RETURNING l.state`, ends[0].Source, at, states, reasons, records, took, s.owner, instanceEnded)
	if err != nil {
		return fmt.Errorf("enter slots: %w", err)
	}
	entered := map[string]int{}
	var state string
	if _, err := pgx.ForEachRow(rows, []any{&state}, func() error { entered[state]++; return nil }); err != nil {
		return fmt.Errorf("enter slots: %w", err)
	}
	for state, n := range entered {
		s.ended(ends[0].Source, schedule.Kind(state), n)
	}
	return nil
}

// Last returns the newest slot of a source, or zero.
func (s Ledger) Last(ctx context.Context, source string) (time.Time, error) {
	var at *time.Time
	if err := s.pool.QueryRow(ctx, "SELECT max(slot) FROM cryptoviz.slot WHERE source = $1",
		source).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read the slot ledger: %w", err)
	}
	if at == nil {
		return time.Time{}, nil
	}
	return at.UTC(), nil
}

// RecordMissed enters what was missed in (after, before).
func (s Ledger) RecordMissed(ctx context.Context, source string, after, before time.Time, interval time.Duration,
	reason string,
) (int, error) {
	if err := s.due(ctx, before); err != nil {
		return 0, fmt.Errorf("enter missed slots: %w", err)
	}
	var skipped, failed int
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO cryptoviz.slot (source, slot, state, reason, owner, lease_until, took)
			SELECT $1, at, 'skipped', $5, $6, clock_timestamp(), interval '0'
			FROM generate_series($2::timestamptz + $4::interval, $3::timestamptz - $4::interval, $4::interval) AS at
			ON CONFLICT DO NOTHING`, source, after, before, interval, reason, s.owner)
		if err != nil {
			return err
		}
		skipped = int(tag.RowsAffected())
		tag, err = tx.Exec(ctx, `UPDATE cryptoviz.slot SET state = 'failed', reason = $3
			WHERE source = $1 AND slot < $2 AND state = 'running' AND lease_until < clock_timestamp()`, source, before, instanceEnded)
		failed = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("enter missed slots: %w", err)
	}
	s.ended(source, schedule.Skipped, skipped)
	s.ended(source, schedule.Failed, failed)
	return skipped + failed, nil
}
