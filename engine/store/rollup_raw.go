package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// rawTable is the table that a rollup reads and empties, as the database has it.
type rawTable struct {
	oid           uint32
	schema, table string
	name          string // quoted, with its schema
	time, column  string // the time column, as it is and quoted
	kind          rawKind
	extension     string // quoted schema of TimescaleDB's functions
	pieces        []piece
	blockers      func() string // who a statement waited for
	heldBy        string        // who kept pieces from being dropped: their rows were deleted
}

type rawKind int

const (
	plainTable  rawKind = iota // one table: a day goes by DELETE
	nativeTable                // range partitions: a day's are truncated, and dropped when nobody uses the table
	hypertable                 // chunks of TimescaleDB
)

// piece is one partition or chunk, [from, to). A zero time is a bound that is open or unknown.
type piece struct {
	name     string // quoted, with its schema
	from, to time.Time
}

func (p piece) overlaps(from, to time.Time) bool {
	return (p.from.IsZero() || p.from.Before(to)) && (p.to.IsZero() || p.to.After(from))
}

func (p piece) within(from, to time.Time) bool {
	return !p.from.IsZero() && !p.to.IsZero() && !p.from.Before(from) && !p.to.After(to)
}

// findRaw tells what the table is. Its pieces are read by lock or read.
func findRaw(ctx context.Context, tx pgx.Tx, table *spec.Table) (rawTable, error) {
	t := rawTable{time: table.Hypertable.Time, column: ident(table.Hypertable.Time)}
	var kind string
	var extension *string
	var hyper bool
	err := tx.QueryRow(ctx, `SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
			(SELECT x.nspname::text FROM pg_extension e JOIN pg_namespace x ON x.oid = e.extnamespace WHERE e.extname = 'timescaledb')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, ident(table.Name)).Scan(&t.oid, &t.schema, &t.table, &kind, &extension)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, fmt.Errorf("table %s does not exist: run cryptoviz apply", table.Name)
	}
	if err == nil && extension != nil {
		t.extension = ident(*extension)
		err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = $1 AND hypertable_name = $2)", t.schema, t.table).Scan(&hyper)
	}
	if err != nil {
		return t, fmt.Errorf("read table %s: %w", table.Name, err)
	}
	t.name = ident(t.schema, t.table)
	switch {
	case hyper:
		t.kind = hypertable
	case kind == "p":
		t.kind = nativeTable
	case kind != "r":
		return t, fmt.Errorf("%s is not a table", table.Name)
	}
	return t, nil
}

// read lists the pieces. The session's TimeZone must be UTC and its DateStyle ISO: native bounds are read as text.
func (t *rawTable) read(ctx context.Context, tx pgx.Tx) error {
	var sql string
	var args []any
	switch t.kind {
	case plainTable:
		return nil
	case hypertable:
		sql = `SELECT chunk_schema::text, chunk_name::text, CASE WHEN primary_dimension = $3 THEN range_start END, CASE WHEN primary_dimension = $3 THEN range_end END
			FROM timescaledb_information.chunks WHERE hypertable_schema = $1 AND hypertable_name = $2 ORDER BY 1, 2`
		args = []any{t.schema, t.table, t.time}
	case nativeTable:
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
	t.pieces = nil
	var schema, name string
	var from, to *time.Time
	_, err = pgx.ForEachRow(rows, []any{&schema, &name, &from, &to}, func() error {
		p := piece{name: ident(schema, name)}
		if from != nil {
			p.from = from.UTC()
		}
		if to != nil {
			p.to = to.UTC()
		}
		t.pieces = append(t.pieces, p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the partitions of %s: %w", t.table, err)
	}
	return nil
}

// lock keeps writers out of the day until the transaction ends; readers, and writers of other days, go on. The lock of the
// table itself lets every reader and writer pass: it keeps others from adding a partition or chunk to the day meanwhile.
func (t *rawTable) lock(ctx context.Context, tx pgx.Tx, day, end time.Time) error {
	if t.kind == plainTable {
		_, err := tx.Exec(ctx, "LOCK TABLE "+t.name+" IN SHARE ROW EXCLUSIVE MODE")
		return err
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+t.name+" IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		return err
	}
	if err := t.read(ctx, tx); err != nil {
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
func (t *rawTable) of(day, end time.Time) (names []string) {
	for _, p := range t.pieces {
		if p.overlaps(day, end) {
			names = append(names, p.name)
		}
	}
	return names
}

func (t *rawTable) full(ctx context.Context, tx pgx.Tx, day, end time.Time) (yes bool, err error) {
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.name+" WHERE "+t.column+" >= $1 AND "+t.column+" < $2)", day, end).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look for the day in %s: %w", t.table, err)
	}
	return yes, nil
}

func (t *rawTable) count(ctx context.Context, tx pgx.Tx, day, end time.Time) (n int64, err error) {
	err = tx.QueryRow(ctx, "SELECT count(*) FROM "+t.name+" WHERE "+t.column+" >= $1 AND "+t.column+" < $2", day, end).Scan(&n)
	return n, err
}

// drop removes the day's rows, n of them, under the locks of lock.
//
// Native partitions are truncated: dropping one locks the whole table, and a writer that waits for the day's partition
// holds that already. A session that reads on for long, like a dump, keeps partitions and chunks from going: then the rows are
// deleted, which no reader hinders. dropEmptied drops what is empty afterwards.
func (t *rawTable) drop(ctx context.Context, tx pgx.Tx, day, end time.Time, n int64) error {
	whole := t.kind != plainTable
	for _, p := range t.pieces {
		whole = whole && (!p.overlaps(day, end) || p.within(day, end))
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
	t.heldBy = t.blockers()
	if e := t.deleteRows(ctx, tx, day, end, n); e != nil {
		return errors.Join(err, e)
	}
	return nil
}

// dropPieces drops chunks, or empties partitions, within a savepoint. It waits for readers a moment only.
func (t *rawTable) dropPieces(ctx context.Context, tx pgx.Tx, day, end time.Time, names []string) error {
	return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'", pgx.QueryExecModeExec); err != nil {
			return err
		}
		if t.kind == nativeTable {
			_, err := tx.Exec(ctx, "TRUNCATE "+strings.Join(names, ", "))
			return err
		}
		return t.dropChunks(ctx, tx, day, end, len(names))
	})
}

// dropChunks drops the chunks of a stretch, and checks that there are so many.
func (t *rawTable) dropChunks(ctx context.Context, tx pgx.Tx, from, to time.Time, n int) error {
	var dropped int
	err := tx.QueryRow(ctx, "SELECT count(*) FROM "+t.extension+".drop_chunks($1::regclass, older_than => $3::timestamptz, newer_than => $2::timestamptz)", t.name, from, to).Scan(&dropped)
	if err == nil && dropped != n {
		err = fmt.Errorf("drop_chunks dropped %d chunks instead of %d", dropped, n)
	}
	return err
}

func (t *rawTable) deleteRows(ctx context.Context, tx pgx.Tx, day, end time.Time, n int64) error {
	tag, err := tx.Exec(ctx, "DELETE FROM "+t.name+" WHERE "+t.column+" >= $1 AND "+t.column+" < $2", day, end)
	if err == nil && tag.RowsAffected() != n {
		err = fmt.Errorf("%d rows were deleted instead of %d", tag.RowsAffected(), n)
	}
	return err
}

// begin prepares a transaction that looks at a raw table.
func begin(ctx context.Context, tx pgx.Tx, table *spec.Table, lockTimeout string) (rawTable, error) {
	if err := settle(ctx, tx, lockTimeout); err != nil {
		return rawTable{}, err
	}
	return findRaw(ctx, tx, table)
}

// settle sets what reading the bounds of partitions relies on, and how long a lock is waited for.
func settle(ctx context.Context, tx pgx.Tx, lockTimeout string) error {
	for _, sql := range []string{"SET LOCAL TimeZone = 'UTC'", "SET LOCAL DateStyle = 'ISO'", "SET LOCAL lock_timeout = '" + lockTimeout + "'"} {
		if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec); err != nil {
			return err
		}
	}
	return nil
}

// RollupDue lists the finished days that a rollup has work with, oldest first: days with raw rows that were not rolled up,
// late rows, and days whose raw rows need not be kept any more.
func (s Raw) RollupDue(ctx context.Context, r *spec.Rollup, now time.Time) (due []time.Time, err error) {
	today := now.UTC().Truncate(oneDay)
	if r, err = s.applied(ctx, r); err != nil {
		return nil, err
	}
	err = inTx(ctx, s.Pool, func(tx pgx.Tx) error {
		t, err := begin(ctx, tx, r.From, "10s")
		if err != nil {
			return err
		}
		days, err := days(ctx, tx, &t, today)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT day, raw_rows, late_rows, dropped_at IS NOT NULL FROM cryptoviz.rollup_day WHERE rollup = $1 AND (dropped_at IS NULL OR day = ANY($2))", r.Name, days)
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
				n, err := t.count(ctx, tx, day, day.Add(oneDay))
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
func days(ctx context.Context, tx pgx.Tx, t *rawTable, today time.Time) ([]time.Time, error) {
	if err := t.read(ctx, tx); err != nil {
		return nil, err
	}
	pieces := t.pieces
	if t.kind == plainTable {
		pieces = []piece{{name: t.name}}
	}
	found := map[time.Time]bool{}
	for _, p := range pieces {
		day := p.from.Truncate(oneDay)
		switch {
		case !p.overlaps(time.Time{}, today):
		case p.within(day, day.Add(oneDay)):
			if found[day] {
				continue
			}
			var full bool
			if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+p.name+")", pgx.QueryExecModeExec).Scan(&full); err != nil {
				return nil, err
			}
			if full {
				found[day] = true
			}
		default:
			rows, err := tx.Query(ctx, "SELECT DISTINCT pg_catalog.date_bin(interval '1 day', "+t.column+", timestamptz '2000-01-01 00:00+00') FROM "+p.name+" WHERE "+t.column+" < $1", today)
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
