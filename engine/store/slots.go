package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
)

// Ledger is the slot ledger: schedule.Ledger. Whoever inserts a slot's row runs it; a row whose lease is over is taken over.
// The database's clock decides, so that instances need not agree on the time.
type Ledger struct{ *Store }

var _ schedule.Ledger = Ledger{}

// ahead is how much earlier than by the database's clock an instance may begin a slot.
const ahead = 30 * time.Second

// due refuses a slot that has not begun by the database's clock: an instance whose clock is wrong would enter the days to come,
// and take them from those whose clock is right. Simulated and recorded time may be any.
func (s Ledger) due(ctx context.Context, at time.Time) error {
	var now time.Time
	err := s.pool.QueryRow(ctx, "SELECT clock_timestamp() FROM cryptoviz.mode WHERE mode = 'live' AND clock_timestamp() + $2 < $1", at, ahead).Scan(&now)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the database's clock: %w", err)
	}
	return &schedule.ClockError{Slot: at.UTC(), Ledger: now.UTC()}
}

// Claim tries to take a slot. One that was entered as skipped at a wrong time, before it began or later than it is now, is free
// again: a clock was ahead then, the database's or that of an instance of a version before this one.
func (s Ledger) Claim(ctx context.Context, slot schedule.Slot, lease time.Duration) (schedule.Claim, error) {
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
		return schedule.Mine, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("claim a slot: %w", err)
	}
	var state string
	if err := s.pool.QueryRow(ctx, "SELECT state FROM cryptoviz.slot WHERE source = $1 AND slot = $2", slot.Source, slot.At).Scan(&state); err != nil {
		return 0, fmt.Errorf("claim a slot: %w", err)
	}
	if state == "running" {
		return schedule.Taken, nil
	}
	return schedule.Done, nil
}

// Renew prolongs a claim of this instance.
func (s Ledger) Renew(ctx context.Context, slot schedule.Slot, lease time.Duration) (bool, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE cryptoviz.slot SET lease_until = clock_timestamp() + $4
		WHERE source = $1 AND slot = $2 AND owner = $3 AND state = 'running'`, slot.Source, slot.At, s.owner, lease)
	if err != nil {
		return false, fmt.Errorf("renew a slot: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// instanceEnded is the reason of a slot whose lease ran out and that nobody took over in time.
const instanceEnded = "the instance that ran it ended"

// Finish enters an outcome, unless the slot was taken over: then it is the other instance's to end. An instance that was
// taken for dead, and was only cut off from the database, corrects that.
func (s Ledger) Finish(ctx context.Context, o schedule.Outcome) error {
	tag, err := s.pool.Exec(ctx, `UPDATE cryptoviz.slot SET state = $4, reason = $5, records = $6, took = $7, lease_until = clock_timestamp()
		WHERE source = $1 AND slot = $2 AND owner = $3 AND (state = 'running' OR state = 'failed' AND reason = $8)`,
		o.Source, o.At, s.owner, string(o.Kind), printable(o.Reason), o.Records, o.Took, instanceEnded)
	if err != nil {
		return fmt.Errorf("finish a slot: %w", err)
	}
	s.ended(o.Source, o.Kind, int(tag.RowsAffected()))
	return nil
}

// Last returns the newest slot of a source, or zero.
func (s Ledger) Last(ctx context.Context, source string) (time.Time, error) {
	var at *time.Time
	if err := s.pool.QueryRow(ctx, "SELECT max(slot) FROM cryptoviz.slot WHERE source = $1", source).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read the slot ledger: %w", err)
	}
	if at == nil {
		return time.Time{}, nil
	}
	return at.UTC(), nil
}

// Settle enters what was missed in (after, before).
func (s Ledger) Settle(ctx context.Context, source string, after, before time.Time, interval time.Duration, reason string) (int, error) {
	if err := s.due(ctx, before); err != nil {
		return 0, fmt.Errorf("enter missed slots: %w", err)
	}
	var skipped, failed int
	err := s.inTx(ctx, func(tx pgx.Tx) error {
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
