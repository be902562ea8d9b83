package partition

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Table is the table that a rollup reads and empties, as the database has it.
type Table struct {
	oid           uint32
	schema, table string
	Name          string // quoted, with its schema
	time, Column  string // the time column, as it is and quoted
	Kind          Kind
	extension     string // quoted schema of TimescaleDB's functions
	Pieces        []Piece
	Blockers      func() string // who a statement waited for
	HeldBy        string        // who kept pieces from being dropped: their rows were deleted
}

// Kind is how PostgreSQL keeps a table.
type Kind int

// The kinds.
const (
	Plain      Kind = iota // one table: a day goes by DELETE
	Native                 // range partitions: a day's are truncated, and dropped when nobody uses the table
	Hypertable             // chunks of TimescaleDB
)

// Piece is one partition or chunk, [from, to). A zero time is a bound that is open or unknown.
type Piece struct {
	Name     string // quoted, with its schema
	From, To time.Time
}

// Overlaps tells whether the piece may hold rows of [from, to).
func (p Piece) Overlaps(from, to time.Time) bool {
	return (p.From.IsZero() || p.From.Before(to)) && (p.To.IsZero() || p.To.After(from))
}

// Within tells whether all rows of the piece are in [from, to).
func (p Piece) Within(from, to time.Time) bool {
	return !p.From.IsZero() && !p.To.IsZero() && !p.From.Before(from) && !p.To.After(to)
}

// Find tells what the table is. Its pieces are read by Lock or Read.
func Find(ctx context.Context, tx pgx.Tx, table *spec.Table) (Table, error) {
	t := Table{time: table.Hypertable.Time, Column: pg.Ident(table.Hypertable.Time)}
	var kind string
	var extension *string
	var hyper bool
	err := tx.QueryRow(ctx, `SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
			(SELECT x.nspname::text FROM pg_extension e JOIN pg_namespace x ON x.oid = e.extnamespace WHERE e.extname = 'timescaledb')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, pg.Ident(table.Name)).Scan(&t.oid, &t.schema, &t.table, &kind, &extension)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, fmt.Errorf("table %s does not exist: run cryptoviz apply", table.Name)
	}
	if err == nil && extension != nil {
		t.extension = pg.Ident(*extension)
		err = tx.QueryRow(ctx,
			"SELECT EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = $1 AND hypertable_name = $2)", t.schema, t.table).Scan(&hyper)
	}
	if err != nil {
		return t, fmt.Errorf("read table %s: %w", table.Name, err)
	}
	t.Name = pg.Ident(t.schema, t.table)
	switch {
	case hyper:
		t.Kind = Hypertable
	case kind == "p":
		t.Kind = Native
	case kind != "r":
		return t, fmt.Errorf("%s is not a table", table.Name)
	}
	return t, nil
}

// Read lists the pieces. The session's TimeZone must be UTC and its DateStyle ISO: native bounds are read as text.
func (t *Table) Read(ctx context.Context, tx pgx.Tx) error {
	var sql string
	var args []any
	switch t.Kind {
	case Plain:
		return nil
	case Hypertable:
		sql = `SELECT chunk_schema::text, chunk_name::text, CASE WHEN primary_dimension = $3 THEN range_start END, CASE WHEN primary_dimension = $3 THEN range_end END
			FROM timescaledb_information.chunks WHERE hypertable_schema = $1 AND hypertable_name = $2 ORDER BY 1, 2`
		args = []any{t.schema, t.table, t.time}
	case Native:
		sql = `SELECT n.nspname::text, c.relname::text, CASE WHEN k.ours THEN nullif(substring(k.bound FROM 'FROM \(''([^'']+)''\)')::timestamptz, '-infinity') END,
			CASE WHEN k.ours THEN nullif(substring(k.bound FROM 'TO \(''([^'']+)''\)')::timestamptz, 'infinity') END
			FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
			LATERAL (SELECT pg_get_partkeydef($1::oid) = format('RANGE (%I)', $2::text) AS ours, pg_get_expr(c.relpartbound, c.oid) AS bound) k
			WHERE i.inhparent = $1 ORDER BY 1, 2`
		args = []any{t.oid, t.time}
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("read the partitions of %s: %w", t.table, err)
	}
	t.Pieces = nil
	var schema, name string
	var from, to *time.Time
	_, err = pgx.ForEachRow(rows, []any{&schema, &name, &from, &to}, func() error {
		p := Piece{Name: pg.Ident(schema, name)}
		if from != nil {
			p.From = from.UTC()
		}
		if to != nil {
			p.To = to.UTC()
		}
		t.Pieces = append(t.Pieces, p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the partitions of %s: %w", t.table, err)
	}
	return nil
}

// Lock keeps writers out of the day until the transaction ends; readers, and writers of other days, go on. The lock of
// the table itself lets every reader and writer pass: it keeps others from adding a partition or chunk to the day
// meanwhile.
func (t *Table) Lock(ctx context.Context, tx pgx.Tx, day, end time.Time) error {
	if t.Kind == Plain {
		_, err := tx.Exec(ctx, "LOCK TABLE "+t.Name+" IN SHARE ROW EXCLUSIVE MODE")
		return err
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+t.Name+" IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		return err
	}
	if err := t.Read(ctx, tx); err != nil {
		return err
	}
	if names := t.of(day, end); len(names) > 0 {
		if _, err := tx.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
	}
	return nil
}

// of names the pieces that may hold rows of the day.
func (t *Table) of(day, end time.Time) (names []string) {
	for _, p := range t.Pieces {
		if p.Overlaps(day, end) {
			names = append(names, p.Name)
		}
	}
	return names
}

// Full tells whether the day has a row.
func (t *Table) Full(ctx context.Context, tx pgx.Tx, day, end time.Time) (yes bool, err error) {
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.Name+" WHERE "+t.Column+" >= $1 AND "+t.Column+" < $2)", day,
		end).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look for the day in %s: %w", t.table, err)
	}
	return yes, nil
}

// Count counts the rows of the day.
func (t *Table) Count(ctx context.Context, tx pgx.Tx, day, end time.Time) (n int64, err error) {
	err = tx.QueryRow(ctx, "SELECT count(*) FROM "+t.Name+" WHERE "+t.Column+" >= $1 AND "+t.Column+" < $2", day,
		end).Scan(&n)
	return n, err
}

// Drop removes the day's rows, n of them, under the locks of Lock.
//
// Native partitions are truncated: dropping one locks the whole table, and a writer that waits for the day's partition
// holds that already. A session that reads on for long, like a dump, keeps partitions and chunks from going: then the
// rows are deleted, which no reader hinders. dropEmptied drops what is empty afterwards.
func (t *Table) Drop(ctx context.Context, tx pgx.Tx, day, end time.Time, n int64) error {
	whole := t.Kind != Plain
	for _, p := range t.Pieces {
		whole = whole && (!p.Overlaps(day, end) || p.Within(day, end))
	}
	names := t.of(day, end)
	switch {
	case whole && len(names) == 0:
		return nil
	case !whole:
		return t.deleteRows(ctx, tx, day, end, n)
	}
	err := t.dropPieces(ctx, tx, day, end, names)
	if !pg.Is(err, pg.LockBusy) {
		return err
	}
	t.HeldBy = t.Blockers()
	if e := t.deleteRows(ctx, tx, day, end, n); e != nil {
		return errors.Join(err, e)
	}
	return nil
}

// dropPieces drops chunks, or empties partitions, within a savepoint. It waits for readers a moment only.
func (t *Table) dropPieces(ctx context.Context, tx pgx.Tx, day, end time.Time, names []string) error {
	return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'", pgx.QueryExecModeExec); err != nil {
			return err
		}
		if t.Kind == Native {
			_, err := tx.Exec(ctx, "TRUNCATE "+strings.Join(names, ", "))
			return err
		}
		return t.DropChunks(ctx, tx, day, end, len(names))
	})
}

// DropChunks drops the chunks of a stretch, and checks that there are so many.
func (t *Table) DropChunks(ctx context.Context, tx pgx.Tx, from, to time.Time, n int) error {
	var dropped int
	err := tx.QueryRow(ctx, "SELECT count(*) FROM "+t.extension+
		".drop_chunks($1::regclass, older_than => $3::timestamptz, newer_than => $2::timestamptz)", t.Name, from,
		to).Scan(&dropped)
	if err == nil && dropped != n {
		err = fmt.Errorf("drop_chunks dropped %d chunks instead of %d", dropped, n)
	}
	return err
}

func (t *Table) deleteRows(ctx context.Context, tx pgx.Tx, day, end time.Time, n int64) error {
	tag, err := tx.Exec(ctx, "DELETE FROM "+t.Name+" WHERE "+t.Column+" >= $1 AND "+t.Column+" < $2", day, end)
	if err == nil && tag.RowsAffected() != n {
		err = fmt.Errorf("%d rows were deleted instead of %d", tag.RowsAffected(), n)
	}
	return err
}

// Begin prepares a transaction that looks at a raw table.
func Begin(ctx context.Context, tx pgx.Tx, table *spec.Table, lockTimeout string) (Table, error) {
	if err := Settle(ctx, tx, lockTimeout); err != nil {
		return Table{}, err
	}
	return Find(ctx, tx, table)
}

// Settle sets what reading the bounds of partitions relies on, and how long a lock is waited for.
func Settle(ctx context.Context, tx pgx.Tx, lockTimeout string) error {
	for _, sql := range []string{
		"SET LOCAL TimeZone = 'UTC'", "SET LOCAL DateStyle = 'ISO'",
		"SET LOCAL lock_timeout = '" + lockTimeout + "'",
	} {
		if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec); err != nil {
			return err
		}
	}
	return nil
}

// Full tells whether the piece has a row.
func (p Piece) Full(ctx context.Context, tx pgx.Tx) (yes bool, err error) {
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+p.Name+")", pgx.QueryExecModeExec).Scan(&yes)
	return yes, err
}
