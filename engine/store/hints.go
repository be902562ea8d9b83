package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Hint is what looks like a mistake of a source's definition: it was so in every record of the slot that was seen last
// At.
type Hint struct {
	Kind   string
	Detail string
	At     time.Time
}

// HintHolds is how long a hint counts after the slot that gave it.
func HintHolds(interval time.Duration) time.Duration { return max(3*interval, 5*time.Minute) }

// Hint keeps a source's hints, one of each kind.
func (s *Store) Hint(ctx context.Context, source string, hints []Hint) error {
	batch := &pgx.Batch{}
	for _, h := range hints {
		batch.Queue(`INSERT INTO cryptoviz.hint AS h (source, kind, detail, since, until) VALUES ($1, $2, $3, $4, $4)
			ON CONFLICT (source, kind) DO UPDATE SET detail = excluded.detail, until = greatest(h.until, excluded.until),
			since = CASE WHEN h.detail = excluded.detail THEN h.since ELSE excluded.since END`, source, h.Kind, h.Detail, h.At)
	}
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("keep hints of source %s: %w", source, err)
	}
	return nil
}

// Hints reads what was seen of a source after a time.
func Hints(ctx context.Context, db *pgxpool.Pool, source string, after time.Time) ([]string, error) {
	rows, err := db.Query(ctx, "SELECT detail FROM cryptoviz.hint WHERE source = $1 AND until > $2 ORDER BY kind",
		source, after)
	if err != nil {
		return nil, err
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if pg.Is(err, pg.MissingObject) { // the schema of a version before
		return nil, nil
	}
	return out, err
}
