package rollup

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// dropEmptied drops the empty partitions and chunks of days whose raw rows are not kept any more. It waits for other
// users of the table a moment only; what stays is dropped after another day.
func (s Raw) dropEmptied(ctx context.Context, r *spec.Rollup, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, partition.Patience)
	defer cancel()
	until := now.Add(-r.KeepRaw).UTC().Truncate(oneDay)
	var dropped []string
	empty, err := s.emptied(ctx, r, until)
	if err == nil && len(empty) > 0 {
		err = pg.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
			dropped, err = dropEmpty(ctx, tx, r, empty)
			return err
		})
	}
	switch {
	case err != nil && ctx.Err() == nil:
		s.Log.InfoContext(ctx, "empty partitions stay for now", "table", r.From.Name, "error", err.Error())
	case err == nil && len(dropped) > 0:
		s.Log.DebugContext(ctx, "empty partitions dropped", "table", r.From.Name, "partitions", dropped)
	}
}

// emptied names the pieces that ended by a time and hold no row. It keeps no lock.
func (s Raw) emptied(ctx context.Context, r *spec.Rollup, until time.Time) (names []string, err error) {
	err = pg.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		t, err := partition.Begin(ctx, tx, r.From, "2s")
		if err != nil {
			return err
		}
		if err := t.Read(ctx, tx); err != nil {
			return err
		}
		for _, p := range t.Pieces {
			if p.To.IsZero() || p.To.After(until) {
				continue
			}
			full, err := p.Full(ctx, tx)
			if err != nil {
				return err
			}
			if !full {
				names = append(names, p.Name)
			}
		}
		return nil
	})
	return names, err
}

// dropEmpty drops pieces, unless they are gone or hold rows meanwhile.
func dropEmpty(ctx context.Context, tx pgx.Tx, r *spec.Rollup, names []string) (dropped []string, err error) {
	t, err := partition.Begin(ctx, tx, r.From, "2s")
	if err != nil {
		return nil, err
	}
	if t.Kind == partition.Native {
		if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+t.Name+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return nil, err
		}
	}
	if err := t.Read(ctx, tx); err != nil {
		return nil, err
	}
	for _, p := range t.Pieces {
		if !slices.Contains(names, p.Name) {
			continue
		}
		if _, err := tx.Exec(ctx, "LOCK TABLE "+p.Name+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return nil, err
		}
		full, err := p.Full(ctx, tx)
		switch {
		case err != nil:
			return nil, err
		case full:
			continue
		case t.Kind == partition.Hypertable:
			err = t.DropChunks(ctx, tx, p.From, p.To, 1)
		default:
			_, err = tx.Exec(ctx, "DROP TABLE "+p.Name)
		}
		if err != nil {
			return nil, err
		}
		dropped = append(dropped, p.Name)
	}
	return dropped, nil
}
