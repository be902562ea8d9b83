package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Standing is how far one partition of a source is stored.
type Standing struct {
	Source    string
	Partition int32
	Next      int64
	LastSlot  time.Time // newest slot among the stored records, zero for none
}

// Positions returns the standing of each partition of the sources.
func (s *Store) Positions(ctx context.Context, sources []string) ([]Standing, error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, "SELECT source, partition, next_offset, last_slot FROM cryptoviz.position WHERE source = ANY($1)", sources)
	if err != nil {
		return nil, fmt.Errorf("read the positions: %w", err)
	}
	var out []Standing
	var one Standing
	var slot *time.Time
	_, err = pgx.ForEachRow(rows, []any{&one.Source, &one.Partition, &one.Next, &slot}, func() error {
		one.LastSlot = time.Time{}
		if slot != nil {
			one.LastSlot = slot.UTC()
		}
		out = append(out, one)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the positions: %w", err)
	}
	return out, nil
}

// SlotsRunning counts the slots before a time that some instance is still working on, under a lease that holds.
func (s *Store) SlotsRunning(ctx context.Context, sources []string, before time.Time) (int, error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	var n int
	err := s.pool.QueryRow(ctx, "SELECT count(*) FROM cryptoviz.slot WHERE source = ANY($1) AND slot < $2 AND state = 'running' AND lease_until > clock_timestamp()",
		sources, before).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("read the slot ledger: %w", err)
	}
	return n, nil
}

// SetMode marks the database as live, simulated or recorded, for good. It is an error when it is another one already.
func (s *Store) SetMode(ctx context.Context, mode string) error {
	var have string
	err := s.pool.QueryRow(ctx, `INSERT INTO cryptoviz.meta (key, value) VALUES ('mode', $1)
		ON CONFLICT (key) DO UPDATE SET value = cryptoviz.meta.value RETURNING value`, mode).Scan(&have)
	if err != nil {
		return fmt.Errorf("mark the database as %s: %w", mode, err)
	}
	if have != mode {
		return fmt.Errorf("the database holds %s data and cannot take %s data: the two must never mix. Use another database", have, mode)
	}
	return nil
}
