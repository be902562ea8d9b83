package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// The primary key makes a repeated sample harmless while the raw row is there. A rollup that drops a day remembers its
// samples in cryptoviz.rolled_sample, in the same transaction, and first removes from the day what is remembered
// already: so each sample is in the hours once, whatever is delivered again. Commit looks there too, so that a repeat
// does not lie raw until the next rollup.

// errRolled: a rollup of the table ended while a batch was being stored, and may have dropped what its rows repeat.
var errRolled = errors.New("a rollup ended meanwhile")

// rolledTable is what a batch with rows of past days must know of its table.
type rolledTable struct {
	asked   bool
	until   time.Time // end of the newest day that was dropped
	version int64     // 0: none was
	into    *string   // the rollup's target, quoted; nil if it is gone
}

// recall finds out, for a batch with rows of days that are over, whether these days may have been dropped.
func (w *writer) recall(now time.Time) error {
	if !w.t.timed || len(w.b.Rows.Times) == 0 {
		return nil
	}
	// A minute more: another instance, whose clock is ahead, may roll the day up.
	today := now.Add(time.Minute).UTC().Truncate(oneDay)
	oldest := time.UnixMicro(slices.Min(w.b.Rows.Times))
	if !oldest.Before(today) {
		return nil
	}
	if err := w.readRolled(&w.rolled); err != nil {
		return err
	}
	w.staged = w.rolled.into != nil && oldest.Before(w.rolled.until)
	return nil
}

func (w *writer) readRolled(r *rolledTable) error {
	r.asked = true
	err := w.conn.QueryRow(w.ctx,
		"SELECT until, version, to_regclass(quote_ident(into_table))::text FROM cryptoviz.rolled_table WHERE table_name = $1", w.t.Table.Name).
		Scan(&r.until, &r.version, &r.into)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// rolledMeanwhile is errRolled when a rollup ended after recall. A rollup that still runs waits for this batch, or
// finds its rows.
func (w *writer) rolledMeanwhile() error {
	if !w.rolled.asked {
		return nil
	}
	var now rolledTable
	if err := w.readRolled(&now); err != nil {
		return err
	}
	if now.version != w.rolled.version {
		return errRolled
	}
	return nil
}

// dropRepeats removes from the stage, which holds n rows, what is there already, and notes which rows that were.
func (w *writer) dropRepeats(n int) error {
	w.left = w.left[:0]
	for i := range n {
		w.left = append(w.left, int32(i))
	}
	if w.rolled.into != nil {
		if err := hashJoins(w.ctx, w.conn.Conn(), true); err != nil {
			return err
		}
		if err := w.note(rolledSQL(w.t.Table, *w.rolled.into), w.t.Table.Name); err != nil {
			return err
		}
		if err := hashJoins(w.ctx, w.conn.Conn(), false); err != nil {
			return err
		}
	}
	return w.note(w.t.dropRepeats)
}

// note runs a statement that removes rows from the stage and returns their places in it.
func (w *writer) note(sql string, args ...any) error {
	rows, err := w.conn.Query(w.ctx, sql, args...)
	if err != nil {
		return err
	}
	gone, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	for _, i := range gone {
		w.found = append(w.found, w.left[i])
		w.left[i] = -1
	}
	w.left = slices.DeleteFunc(w.left, func(i int32) bool { return i < 0 })
	return err
}

func total(counts map[time.Time]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// hashJoins makes the transaction join with hashes only, or as it likes again. Nothing tells the planner how many
// samples there are, and there is no index of them.
func hashJoins(ctx context.Context, conn *pgx.Conn, only bool) error {
	sql := "SET LOCAL enable_nestloop TO DEFAULT; SET LOCAL jit TO DEFAULT"
	if only {
		// what cannot do without would seem worth compiling
		sql = "SET LOCAL enable_nestloop = off; SET LOCAL jit = off"
	}
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// numbered is the stage with each row's place in it.
const numbered = "(SELECT *, ctid AS cryptoviz_at, (row_number() OVER (ORDER BY ctid) - 1)::integer AS " +
	"cryptoviz_n FROM pg_temp.cryptoviz_stage)"

// repeatsSQL removes from the stage the rows whose key is in the table, or earlier in the stage.
func repeatsSQL(table *spec.Table) string {
	if len(table.PrimaryKey) == 0 {
		return ""
	}
	var same []string
	for _, c := range table.PrimaryKey {
		same = append(same, "t."+pg.Ident(c)+" = n."+pg.Ident(c))
	}
	return "WITH n AS (SELECT *, row_number() OVER (PARTITION BY " + pg.Idents(table.PrimaryKey) +
		" ORDER BY cryptoviz_n) AS cryptoviz_nth FROM " + numbered +
		" AS s), gone AS (DELETE FROM pg_temp.cryptoviz_stage AS s USING n WHERE s.ctid = n.cryptoviz_at AND (n.cryptoviz_nth > 1 OR EXISTS (SELECT FROM " + pg.Ident(table.Name) +
		" AS t WHERE " + strings.Join(same, " AND ") + ")) RETURNING n.cryptoviz_n) SELECT cryptoviz_n FROM gone"
}

// rolledSQL removes from the stage the rows that are in a dropped day, while the rollup's target has rows at all.
func rolledSQL(table *spec.Table, into string) string {
	at := "n." + pg.Ident(table.Hypertable.Time)
	return "WITH n AS (SELECT n.cryptoviz_at, n.cryptoviz_n, " + sampleDay(at) + " AS day, " + sampleKey(table, "n") +
		" AS key, " + sampleTime(at) + " AS us FROM " + numbered + " AS n), m AS " +
		samples("r.table_name = $1 AND r.day = ANY(ARRAY(SELECT DISTINCT day FROM n)) AND r.key IN (SELECT key FROM "+
			"n) AND EXISTS (SELECT FROM "+into+")") +
		", gone AS (DELETE FROM pg_temp.cryptoviz_stage AS s USING n JOIN m USING (day, key, us) WHERE s.ctid = n.cryptoviz_at RETURNING n.cryptoviz_n) SELECT cryptoviz_n FROM gone"
}

// samples is one row (day, key, us) a remembered sample, us in microseconds from midnight.
func samples(where string) string {
	return "(SELECT r.day, r.key, unnest(r.ms)::bigint * 1000 AS us FROM cryptoviz.rolled_sample AS r WHERE " + where +
		" UNION ALL SELECT r.day, r.key, unnest(r.us) FROM cryptoviz.rolled_sample AS r WHERE " + where + ")"
}

func sampleDay(at string) string { return "(" + at + " AT TIME ZONE 'UTC')::date" }

// sampleTime is the time of day, UTC, in microseconds.
func sampleTime(at string) string {
	return "(extract(epoch FROM (" + at + " AT TIME ZONE 'UTC')::time) * 1000000)::bigint"
}

// sampleKey is the primary key without its time, in a form that no setting of a session changes.
func sampleKey(table *spec.Table, alias string) string {
	var parts []string
	for _, name := range table.PrimaryKey {
		if name == table.Hypertable.Time {
			continue
		}
		v := alias + "." + pg.Ident(name)
		switch table.Column(name).Type {
		case spec.Text: // a long one must fit an index
			v = "CASE WHEN octet_length(" + v + ") > 200 THEN 'sha256:' || encode(sha256(convert_to(" + v +
				", 'UTF8')), 'hex') ELSE " + v + " END"
		case spec.Numeric: // 1.0 is 1
			v = "trim_scale(" + v + ")::text"
		case spec.Double: // -0 is 0
			v = "encode(float8send(" + v + " + 0), 'hex')"
		case spec.Timestamptz:
			v = "encode(timestamptz_send(" + v + "), 'hex')"
		default:
			v += "::text"
		}
		parts = append(parts, v)
	}
	return "ARRAY[" + strings.Join(parts, ", ") + "]::text[]"
}

// DropCounted removes the raw rows of a day, in the table and the time column that are given quoted, that were counted
// before they were dropped once. What is remembered means nothing any more once the target is empty, since it was made
// again, to be filled again: then it is forgotten, and again is true.
func DropCounted(ctx context.Context, tx pgx.Tx, r *spec.Rollup, raw, column string, day time.Time) (n int64,
	again bool, err error,
) {
	tag, err := tx.Exec(ctx, "DELETE FROM cryptoviz.rolled_sample WHERE table_name = $1 AND NOT EXISTS (SELECT FROM "+
		pg.Ident(r.Into.Name)+")", r.From.Name)
	if err != nil {
		return 0, again, fmt.Errorf("read the samples of dropped days: %w", err)
	}
	again = tag.RowsAffected() > 0
	var some bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM cryptoviz.rolled_sample WHERE table_name = $1 AND day = $2)",
		r.From.Name, day).Scan(&some); err != nil || !some {
		return 0, again, err
	}
	if err := hashJoins(ctx, tx.Conn(), true); err != nil {
		return 0, again, err
	}
	tag, err = tx.Exec(ctx, "DELETE FROM "+raw+" AS t USING "+samples("r.table_name = $3 AND r.day = $4")+
		" AS m WHERE t."+column+" >= $1 AND t."+column+" < $2 AND m.key = "+
		sampleKey(r.From, "t")+" AND m.us = "+sampleTime("t."+column), day, day.Add(oneDay), r.From.Name, day)
	if err != nil {
		return 0, again, fmt.Errorf("drop what was counted before from %s: %w", r.From.Name, err)
	}
	if err := hashJoins(ctx, tx.Conn(), false); err != nil {
		return 0, again, err
	}
	if n = tag.RowsAffected(); n > 0 {
		_, err = tx.Exec(ctx, "UPDATE cryptoviz.rollup_day SET repeats = repeats + $3 WHERE rollup = $1 AND day = $2",
			r.Name, day, n)
	}
	return n, again, err
}

// RememberSamples keeps which samples the raw rows of a day are, before they are dropped.
func RememberSamples(ctx context.Context, tx pgx.Tx, r *spec.Rollup, raw, column string, day time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO cryptoviz.rolled_sample AS m (table_name, day, key, ms, us)
		SELECT $3, $4, key, coalesce(array_agg((us / 1000)::integer) FILTER (WHERE us % 1000 = 0), '{}'), coalesce(array_agg(us) FILTER (WHERE us % 1000 <> 0), '{}')
		FROM (SELECT `+sampleKey(r.From, "t")+" AS key, "+sampleTime("t."+column)+" AS us FROM "+raw+" AS t WHERE t."+column+" >= $1 AND t."+column+` < $2) AS s GROUP BY key
		ON CONFLICT (table_name, day, key) DO UPDATE SET ms = m.ms || excluded.ms, us = m.us || excluded.us`, day, day.Add(oneDay), r.From.Name, day)
	if err == nil {
		_, err = tx.Exec(ctx, `INSERT INTO cryptoviz.rolled_table AS t (table_name, into_table, until) VALUES ($1, $2, $3)
			ON CONFLICT (table_name) DO UPDATE SET into_table = excluded.into_table, until = greatest(t.until, excluded.until), version = t.version + 1`, r.From.Name, r.Into.Name, day.Add(oneDay))
	}
	if err != nil {
		return fmt.Errorf("remember the samples of the day in %s: %w", r.From.Name, err)
	}
	return nil
}

// ForgetSamples drops the memory of days that ended before a time: records that old are refused, so none can be
// repeated.
func (s *Store) ForgetSamples(ctx context.Context, table string, before time.Time) error {
	_, err := s.pool.Exec(ctx, "DELETE FROM cryptoviz.rolled_sample WHERE table_name = $1 AND day < $2", table,
		before.UTC().Truncate(oneDay).AddDate(0, 0, -1))
	if err != nil {
		return fmt.Errorf("forget samples of %s: %w", table, err)
	}
	return nil
}
