package view

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// coverage compares what an aggregate holds with what its source still has.
type coverage struct {
	source   *time.Time    // the source's oldest row; nil: it has none
	from, to *time.Time    // oldest and newest bucket that the aggregate holds; nil: it holds none
	rows     int64         // what it holds of before source, which cannot be computed again; -1: too many to count
	lostTo   *time.Time    // the newest of them
	chunks   int           // wholly before source
	bytes    int64         // of these chunks
	bucket   time.Duration // 0: unknown
	now      time.Time
}

var bucketForm = regexp.MustCompile(`time_bucket\('([^']+)'::interval`)

// readCoverage reads it. source overrides the source's oldest row, for an aggregate whose source is rebuilt.
func readCoverage(ctx context.Context, q *shadow.Queries, l *liveAggregate, source *coverage) (*coverage, error) {
	caps, err := q.Catalog.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	out := &coverage{}
	err = q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		shrinks := false
		if source != nil {
			out.source, shrinks = source.source, source.rows != 0
		} else if err := out.readSource(ctx, tx, l); err != nil {
			return err
		}
		return out.readStored(ctx, tx, l, shrinks, caps)
	})
	if err != nil {
		return nil, fmt.Errorf("read how far aggregate %s and its source reach: %w", l.Name, err)
	}
	return out, nil
}

const timeColumnSQL = "SELECT column_name::text FROM timescaledb_information.dimensions WHERE hypertable_schema = $1 " +
	"AND hypertable_name = $2 AND dimension_number = 1"

// chunkRange is the time that a chunk spans.
type chunkRange struct{ from, to time.Time }

// readSource finds the source's oldest row: the first chunk that has any tells, without reading the others.
func (v *coverage) readSource(ctx context.Context, tx pgx.Tx, l *liveAggregate) error {
	var column string
	if err := tx.QueryRow(ctx, timeColumnSQL, l.ref.FromSchema, l.ref.FromName).Scan(&column); err != nil {
		return err
	}
	var chunks []chunkRange
	var k chunkRange
	err := pg.ForEach(ctx, tx, `SELECT range_start, range_end FROM timescaledb_information.chunks WHERE hypertable_schema = $1 AND hypertable_name = $2
		AND range_start IS NOT NULL ORDER BY range_start`, []any{l.ref.FromSchema, l.ref.FromName}, []any{&k.from, &k.to}, func() error {
		chunks = append(chunks, k)
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range chunks {
		var oldest *time.Time
		err := withinTime(ctx, tx, func() error {
			return tx.QueryRow(ctx, fmt.Sprintf("SELECT min(%[1]s) FROM %[2]s WHERE %[1]s >= $1 AND %[1]s < $2",
				pg.Ident(column), pg.Ident(l.ref.FromSchema, l.ref.FromName)), k.from, k.to).Scan(&oldest)
		})
		switch {
		case errors.Is(err, errTooLong):
			v.source = &k.to // not better than it is
			return nil
		case err != nil:
			return err
		case oldest != nil:
			v.source = oldest
			return nil
		}
	}
	return nil
}

// readStored finds what the aggregate holds, and what of it lies before the source's oldest row. shrinks: the source
// itself will have lost something of the bucket in which its oldest row is.
func (v *coverage) readStored(ctx context.Context, tx pgx.Tx, l *liveAggregate, shrinks bool,
	caps catalog.Capabilities,
) error {
	stored := pg.Ident(l.ref.StoredSchema, l.ref.StoredName)
	var column string
	if err := tx.QueryRow(ctx, timeColumnSQL, l.ref.StoredSchema, l.ref.StoredName).Scan(&column); err != nil {
		return err
	}
	width := "0"
	if m := bucketForm.FindStringSubmatch(l.Query); m != nil {
		width = m[1]
	}
	var micros int64
	if err := tx.QueryRow(ctx,
		fmt.Sprintf("SELECT min(%[1]s), max(%[1]s), now(), (extract(epoch FROM %[3]s::interval) * "+
			"1000000)::bigint FROM %[2]s", pg.Ident(column), stored, pg.Literal(width))).
		Scan(&v.from, &v.to, &v.now, &micros); err != nil {
		return err
	}
	v.bucket = time.Duration(micros) * time.Microsecond
	if v.from == nil || v.source != nil && !v.from.Before(*v.source) {
		return nil
	}
	before := v.source
	if before != nil && !shrinks {
		whole, err := v.edge(ctx, tx, l, column)
		if err != nil {
			return err
		}
		if whole != nil {
			before = whole
		}
	}
	err := withinTime(ctx, tx, func() error {
		return tx.QueryRow(ctx,
			fmt.Sprintf("SELECT count(*), max(%[1]s) FROM %[2]s WHERE $1::timestamptz IS NULL OR %[1]s < $1",
				pg.Ident(column), stored), before).Scan(&v.rows, &v.lostTo)
	})
	if errors.Is(err, errTooLong) {
		v.rows, v.lostTo, err = -1, v.source, nil
	}
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, `SELECT count(*)::int, coalesce(sum(b.total_bytes), 0)::bigint FROM timescaledb_information.chunks k LEFT JOIN `+caps.Function("chunks_detailed_size")+`($4::regclass) b
		ON b.chunk_schema = k.chunk_schema AND b.chunk_name = k.chunk_name WHERE k.hypertable_schema = $1 AND k.hypertable_name = $2 AND ($3::timestamptz IS NULL OR k.range_end <= $3)`,
		l.ref.StoredSchema, l.ref.StoredName, before, stored).Scan(&v.chunks, &v.bytes)
}

// edge looks at the bucket in which the source's oldest row is. When the source still gives what the aggregate holds of
// it, it is returned: only what is older is lost.
func (v *coverage) edge(ctx context.Context, tx pgx.Tx, l *liveAggregate, column string) (whole *time.Time, err error) {
	stored := pg.Ident(l.ref.StoredSchema, l.ref.StoredName)
	var bucket *time.Time
	if err := tx.QueryRow(ctx, fmt.Sprintf("SELECT max(%[1]s) FROM %[2]s WHERE %[1]s < $1", pg.Ident(column), stored),
		v.source).Scan(&bucket); err != nil {
		return nil, err
	}
	if bucket == nil || v.bucket == 0 || !bucket.Add(v.bucket).After(*v.source) {
		return nil, nil
	}
	var names []string
	for _, c := range l.Columns {
		names = append(names, c.Name)
	}
	var other bool
	err = withinTime(ctx, tx, func() error {
		return tx.QueryRow(ctx,
			fmt.Sprintf("SELECT EXISTS (SELECT %[1]s FROM %[2]s WHERE %[3]s = $1 EXCEPT SELECT %[1]s FROM (%[4]s) q "+
				"WHERE %[3]s = $1)",
				pg.Idents(names), stored, pg.Ident(column), l.Query), bucket).Scan(&other)
	})
	if errors.Is(err, errTooLong) || err == nil && other {
		return nil, nil
	}
	return bucket, err
}

// loss is what cannot be computed again, nil for nothing.
func (v *coverage) loss() *plan.Loss {
	if v.rows == 0 {
		return nil
	}
	out := ddl.RowsLost(max(v.rows, 0), v.rows >= 0, "at once")
	out.Chunks, out.Bytes = v.chunks, v.bytes
	if v.from != nil {
		out.From = v.from.UTC().Format(time.RFC3339)
	}
	if v.lostTo != nil {
		out.To = v.lostTo.UTC().Format(time.RFC3339)
	}
	return out
}

// text puts both ranges into words.
func (v *coverage) text() string {
	has := "its source has no rows"
	if v.source != nil {
		has = "its source has rows since " + moment(v.source)
	}
	return fmt.Sprintf("it holds %s to %s, %s", moment(v.from), moment(v.to), has)
}

// holds tells whether the source has at least two whole buckets before the end of a refresh window.
func (v *coverage) holds(r *spec.Refresh) bool {
	end := v.now
	if r != nil {
		end = end.Add(-r.End)
	}
	return v.bucket > 0 && !v.source.Add(2*v.bucket).After(end)
}

func moment(t *time.Time) string {
	if t == nil {
		return "nothing"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

var errTooLong = errors.New("it takes too long")

// withinTime runs a query that may have much to read, for five seconds; then it ends with errTooLong.
func withinTime(ctx context.Context, tx pgx.Tx, f func() error) error {
	err := pg.Savepoint(ctx, tx, func() error {
		if err := pg.SetLocal(ctx, tx, "statement_timeout", "5s"); err != nil {
			return err
		}
		return f()
	})
	if pg.Code(err) == "57014" && ctx.Err() == nil {
		return errTooLong
	}
	return err
}

// sourceWaits tells whether the source has rows that the aggregate's policy will never look at.
func (a *Aggregate) sourceWaits(ctx context.Context, l *liveAggregate) (bool, error) {
	if a.Spec.Refresh == nil {
		return false, nil
	}
	cover, err := readCoverage(ctx, a.Queries, l, nil)
	if err != nil {
		return false, err
	}
	return cover.source != nil && cover.source.Before(cover.now.Add(-a.Spec.Refresh.Start)), nil
}

// assessRetention tells what a new retention deletes that the old one kept.
func (a *Aggregate) assessRetention(ctx context.Context, c *plan.Change, l *liveAggregate,
	caps catalog.Capabilities,
) error {
	loss := ddl.RowsLost(0, true, "when the policy first runs, within a minute of apply")
	var from, to *time.Time
	err := a.Queries.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		var column string
		if err := tx.QueryRow(ctx, timeColumnSQL, l.ref.StoredSchema, l.ref.StoredName).Scan(&column); err != nil {
			return err
		}
		stored := pg.Ident(l.ref.StoredSchema, l.ref.StoredName)
		if err := tx.QueryRow(ctx, `SELECT count(*)::int, max(k.range_end), coalesce(sum(b.total_bytes), 0)::bigint FROM timescaledb_information.chunks k LEFT JOIN `+caps.Function("chunks_detailed_size")+`($4::regclass) b
			ON b.chunk_schema = k.chunk_schema AND b.chunk_name = k.chunk_name WHERE k.hypertable_schema = $1 AND k.hypertable_name = $2 AND k.range_end <= now() - make_interval(secs => $3)`,
			l.ref.StoredSchema, l.ref.StoredName, a.Spec.Retention.Seconds(), stored).Scan(&loss.Chunks, &to,
			&loss.Bytes); err != nil || loss.Chunks == 0 {
			return err
		}
		err := withinTime(ctx, tx, func() error {
			return tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*), min(%[1]s), max(%[1]s) FROM %[2]s WHERE %[1]s < $1",
				pg.Ident(column), stored), to).Scan(&loss.Count, &from, &to)
		})
		if errors.Is(err, errTooLong) {
			loss.Known = false
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read what retention takes from aggregate %s: %w", a.name(), err)
	}
	if loss.Chunks == 0 {
		return nil
	}
	if from != nil {
		loss.From = from.UTC().Format(time.RFC3339)
	}
	if to != nil {
		loss.To = to.UTC().Format(time.RFC3339)
	}
	c.Find(codeShorterRetention, "retention", "retention = %s drops %d chunks", units.FormatDuration(a.Spec.Retention),
		loss.Chunks).Loss = loss
	return nil
}
