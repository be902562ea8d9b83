package rollup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// applied is a rollup that keeps raw rows at least as long as apply was told last. A shorter keep_raw deletes days at once: it
// counts when apply has heard it, too, which tells what goes and wants consent (CV-T39).
func (s Raw) applied(ctx context.Context, r *spec.Rollup) (*spec.Rollup, error) {
	var text string
	err := s.Pool.QueryRow(ctx, `SELECT a->>'value' FROM cryptoviz.managed, jsonb_array_elements(state->'attrs') AS a
		WHERE address = 'table.' || $1 AND a->>'name' = 'keep_raw'`, r.From.Name).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read how long raw rows are kept: %w", err)
	}
	keep, err := units.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("read how long raw rows are kept: %w", err)
	}
	if keep <= r.KeepRaw {
		return r, nil
	}
	out := *r
	out.KeepRaw = keep
	return &out, nil
}
