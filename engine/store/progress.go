package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// PartitionProgress is how far one partition of a source is stored.
type PartitionProgress struct {
	Source    string
	Partition int32
	Topic     string
	Next      int64
	LastSlot  time.Time // newest slot among the stored records, zero for none
}

// Positions returns the progress of each partition of the sources.
func Positions(ctx context.Context, db *pgxpool.Pool, sources []string) ([]PartitionProgress, error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	rows, err := db.Query(ctx, `SELECT source, partition, topic, next_offset, coalesce(last_slot, '0001-01-01 00:00:00+00')
		FROM cryptoviz.position WHERE source = ANY($1)`, sources)
	if err != nil {
		return nil, fmt.Errorf("read the positions: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PartitionProgress])
	if err != nil {
		return nil, fmt.Errorf("read the positions: %w", err)
	}
	for i := range out {
		out[i].LastSlot = out[i].LastSlot.UTC()
	}
	return out, nil
}

// SourceProgress is what the slot ledger, the dead letters and the gaps say about a source.
type SourceProgress struct {
	Name      string
	Enabled   bool      // as applied: up switches off what it cannot play
	Slot      time.Time // the newest slot that has ended, zero for none
	State     string    // of that slot
	Reason    string
	Records   int64
	PerMinute float64 // records, mean of the last ten minutes, or ten slots if they are longer
	Dead      int64   // dead letters
	Lost      int64   // offsets in gaps
	Failed24  int64   // slots of the last 24 hours that ended as failed or skipped
	Late1     int64   // slots of the last hour, by how they ended
	Skipped1  int64
	Failed1   int64
}

// Sources returns the progress of each source that was applied.
func Sources(ctx context.Context, db *pgxpool.Pool, now time.Time) ([]SourceProgress, error) {
	// The newest slot is found from the end of the primary key: one row a source, however long the ledger is.
	rows, err := db.Query(ctx, `SELECT src.name, src.enabled, coalesce(l.slot, '0001-01-01 00:00:00+00'), coalesce(l.state, ''),
			coalesce(l.reason, ''), coalesce(l.records, 0)::bigint, coalesce(r.per_minute, 0),
			(SELECT coalesce(sum(records), 0)::bigint FROM cryptoviz.dead_letter_hour WHERE source = src.name),
			(SELECT coalesce(sum(greatest(0, to_offset - from_offset)), 0)::bigint FROM cryptoviz.gap WHERE source = src.name),
			e.failed, e.late_1h, e.skipped_1h, e.failed_1h
		FROM cryptoviz.source src
		LEFT JOIN LATERAL (SELECT * FROM cryptoviz.slot WHERE source = src.name AND slot <= $1 AND state <> 'running'
			ORDER BY slot DESC LIMIT 1) l ON true
		CROSS JOIN LATERAL (SELECT sum(records) / (greatest(600, 10 * extract(epoch FROM src.every)) / 60)::double precision AS per_minute
			FROM cryptoviz.slot WHERE l.slot IS NOT NULL AND source = src.name AND slot <= $1
			AND slot > $1::timestamptz - greatest(interval '10 minutes', 10 * src.every)) r
		CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE state <> 'late') AS failed,
				count(*) FILTER (WHERE state = 'late' AND slot > $1::timestamptz - interval '1 hour') AS late_1h,
				count(*) FILTER (WHERE state = 'skipped' AND slot > $1::timestamptz - interval '1 hour') AS skipped_1h,
				count(*) FILTER (WHERE state = 'failed' AND slot > $1::timestamptz - interval '1 hour') AS failed_1h
			FROM cryptoviz.slot WHERE source = src.name AND state IN ('failed', 'skipped', 'late')
			AND slot > $1::timestamptz - interval '24 hours' AND slot <= $1) e`, now)
	if err != nil {
		return nil, fmt.Errorf("read the slot ledger: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SourceProgress])
	if err != nil {
		return nil, fmt.Errorf("read the slot ledger: %w", err)
	}
	for i := range out {
		out[i].Slot = out[i].Slot.UTC()
	}
	return out, nil
}

// SlotsRunning counts the slots before a time that some instance is still working on, under a lease that holds.
func (s *Store) SlotsRunning(ctx context.Context, sources []string, before time.Time) (int, error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	var n int
	err := s.pool.QueryRow(ctx,
		"SELECT count(*) FROM cryptoviz.slot WHERE source = ANY($1) AND slot < $2 AND state = 'running' AND lease_until > clock_timestamp()",
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
		return fmt.Errorf("the database holds %s data and cannot take %s data: the two must never mix. Use "+
			"another database", have, mode)
	}
	return nil
}
