package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// effectiveRetention is the rollup with raw rows kept at least as long as at the last apply. A shorter keep_raw deletes
// days at once: it counts from the next apply on, which shows what goes and needs consent (CV-T39).
func (s Raw) effectiveRetention(ctx context.Context, r *spec.Rollup) (*spec.Rollup, error) {
	var keep time.Duration
	err := s.Pool.QueryRow(ctx, "SELECT keep_raw FROM cryptoviz.rollup_state WHERE table_name = $1", r.From.Name).
		Scan(&keep)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, nil
	}
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
