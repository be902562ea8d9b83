package rollup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Due lists the finished days that a rollup has work with, oldest first: days with raw rows that were not rolled up,
// late rows, and days whose raw rows need not be kept any more.
func (s Raw) Due(ctx context.Context, r *spec.Rollup, now time.Time) (due []time.Time, err error) {
	today := now.UTC().Truncate(oneDay)
	if r, err = s.effectiveRetention(ctx, r); err != nil {
		return nil, err
	}
	err = pg.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		t, err := partition.Begin(ctx, tx, r.From, "10s")
		if err != nil {
			return err
		}
		days, err := days(ctx, tx, &t, today)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx,
			"SELECT day, raw_rows, late_rows, dropped_at IS NOT NULL FROM cryptoviz.rollup_day WHERE rollup = $1 AND (dropped_at IS NULL OR day = ANY($2))", r.Name, days)
		if err != nil {
			return err
		}
		type entry struct {
			raw, late int64
			dropped   bool
		}
		ledger := map[time.Time]entry{}
		var day time.Time
		var e entry
		if _, err := pgx.ForEachRow(rows, []any{&day, &e.raw, &e.late, &e.dropped}, func() error {
			ledger[day.UTC()] = e
			if over := !today.Before(day.Add(oneDay + r.KeepRaw)); over && !e.dropped {
				due = append(due, day.UTC())
			}
			return nil
		}); err != nil {
			return err
		}
		for _, day := range days {
			e, known := ledger[day]
			switch {
			case slices.Contains(due, day):
			case !known, e.dropped && r.Late != "reject":
				due = append(due, day)
			default: // rolled up and kept, or rejected: only when there are rows that the ledger does not know
				n, err := t.Count(ctx, tx, day, day.Add(oneDay))
				if err != nil {
					return err
				}
				if e.dropped && n != e.late || !e.dropped && n != e.raw {
					due = append(due, day)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the days to roll up: %w", err)
	}
	slices.SortFunc(due, time.Time.Compare)
	return due, nil
}

// days lists the days before today that have raw rows.
func days(ctx context.Context, tx pgx.Tx, t *partition.Table, today time.Time) ([]time.Time, error) {
	if err := t.Read(ctx, tx); err != nil {
		return nil, err
	}
	pieces := t.Pieces
	if t.Kind == partition.Plain {
		pieces = []partition.Piece{{Name: t.Name}}
	}
	found := map[time.Time]bool{}
	for _, p := range pieces {
		day := p.From.Truncate(oneDay)
		switch {
		case !p.Overlaps(time.Time{}, today):
		case p.Within(day, day.Add(oneDay)):
			if found[day] {
				continue
			}
			var full bool
			if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+p.Name+")", pgx.QueryExecModeExec).
				Scan(&full); err != nil {
				return nil, err
			}
			if full {
				found[day] = true
			}
		default:
			rows, err := tx.Query(ctx, "SELECT DISTINCT pg_catalog.date_bin(interval '1 day', "+t.Column+
				", timestamptz '2000-01-01 00:00+00') FROM "+p.Name+" WHERE "+t.Column+" < $1", today)
			if err != nil {
				return nil, err
			}
			several, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
			if err != nil {
				return nil, err
			}
			for _, day := range several {
				found[day.UTC()] = true
			}
		}
	}
	return slices.Collect(maps.Keys(found)), nil
}
