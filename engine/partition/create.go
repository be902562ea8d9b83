package partition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Patience is how long making a table's partitions may take: where it has a DEFAULT one, that is read through.
const Patience = 5 * time.Minute

// Create makes partitions where nothing covers their ranges yet, one instance at a time. Each table has a
// transaction of its own, so that what stands in the way of one does not hold the others.
func Create(ctx context.Context, pool *pgxpool.Pool, need []Partition) error {
	var failed error
	for len(need) > 0 {
		table := need[0].Table
		var own, others []Partition
		for _, p := range need {
			if p.Table == table {
				own = append(own, p)
			} else {
				others = append(others, p)
			}
		}
		failed = errors.Join(failed, createOf(ctx, pool, table, own))
		need = others
	}
	return failed
}

func createOf(ctx context.Context, pool *pgxpool.Pool, table string, need []Partition) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return pg.InTx(ctx, pool, func(tx pgx.Tx) error {
		if err := Settle(ctx, tx, "10s"); err != nil {
			return err
		}
		return CreateIn(ctx, tx, table, need)
	})
}

// CreateIn makes the partitions of one table that are missing. The transaction must be settled.
func CreateIn(ctx context.Context, tx pgx.Tx, table string, need []Partition) error {
	t, native, err := FindNative(ctx, tx, table)
	if err != nil {
		return err
	}
	if !native {
		return fmt.Errorf("table %s is not partitioned by one range: run cryptoviz plan", table)
	}
	if err := t.Read(ctx, tx); err != nil {
		return err
	}
	if !slices.ContainsFunc(need, func(p Partition) bool { return len(t.free(p)) > 0 }) {
		return nil
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('cryptoviz.partition'))"); err != nil {
		return err
	}
	if err := t.Read(ctx, tx); err != nil { // another instance may have made some meanwhile
		return err
	}
	for _, p := range need {
		for _, gap := range t.free(p) {
			if gap.Name, err = freeName(ctx, tx, p, gap); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, gap.DDL()); err != nil {
				return fmt.Errorf("create partition %s: %w", gap.Name, err)
			}
		}
	}
	return nil
}

// FindNative looks a table up that PostgreSQL itself divides into ranges of one column.
func FindNative(ctx context.Context, tx pgx.Tx, table string) (t Table, native bool, err error) {
	t.Kind = Native
	err = tx.QueryRow(ctx, `SELECT c.oid, n.nspname::text, c.relname::text, a.attname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_partitioned_table p ON p.partrelid = c.oid AND p.partstrat = 'r' AND p.partnatts = 1 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
		WHERE c.oid = to_regclass($1)`, pg.Ident(table)).Scan(&t.oid, &t.schema, &t.table, &t.time)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("read table %s: %w", table, err)
	}
	return t, true, nil
}

// free is what of a partition's range no live one covers: all of it, unless chunk_interval was another one once.
func (t *Table) free(p Partition) (gaps []Partition) {
	live := slices.Clone(t.Pieces)
	slices.SortFunc(live, func(a, b Piece) int { return a.From.Compare(b.From) })
	from := p.From
	add := func(to time.Time) {
		if from.Before(to) {
			gaps = append(gaps, Partition{Table: p.Table, From: from, To: to})
		}
	}
	for _, l := range live {
		if l.From.IsZero() && l.To.IsZero() || !l.Overlaps(from, p.To) { // the DEFAULT one gives way
			continue
		}
		add(l.From)
		if l.To.IsZero() {
			return gaps
		}
		from = l.To
	}
	add(p.To)
	return gaps
}

// freeName is what a new partition may be called. One that is clipped gets a name of its own: that of the whole may
// belong to a live one of another length.
func freeName(ctx context.Context, tx pgx.Tx, p, gap Partition) (string, error) {
	base := p.Table + "_p"
	names := []string{
		base + gap.From.Format("20060102_1504"),
		base + gap.From.Format("20060102_150405") + gap.To.Format("_20060102_150405"),
	}
	if gap.From.Equal(p.From) && gap.To.Equal(p.To) {
		names = slices.Insert(names, 0, p.Name)
	}
	for _, name := range names {
		var taken bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pg.Ident(name)).Scan(&taken); err != nil {
			return "", err
		}
		if !taken {
			return name, nil
		}
	}
	return "", fmt.Errorf("create partition %s: a table of that name exists and is not a partition of %s for that "+
		"time: drop or rename it", cmp.Or(p.Name, names[0]), p.Table)
}

// IsNative tells whether the table is natively partitioned, that is: not a hypertable, not a plain table.
func IsNative(ctx context.Context, pool *pgxpool.Pool, table string) (bool, error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	var yes bool
	err := pool.QueryRow(ctx,
		"SELECT coalesce((SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)), false)", pg.Ident(table)).
		Scan(&yes)
	return yes, err
}
