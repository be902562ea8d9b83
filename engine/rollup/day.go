package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Result is what one run of a rollup did with one day.
type Result struct {
	Day        time.Time // midnight, UTC
	RawRows    int64     // raw rows of the day that were there
	HourlyRows int64     // rows of the target that were written
	LateRows   int64     // raw rows that came after an earlier run
	// raw rows that had been counted before the day was dropped: removed, and in none of the other numbers
	Repeats  int64
	Rejected bool          // late = "reject", and the day was dropped: LateRows stay raw
	Dropped  bool          // the day's raw rows are gone now (dry run: would be)
	DryRun   bool          // nothing was changed
	Took     time.Duration // real time
}

// Error is a fault of the rollup's query, its merge or the day's data: another try gives the same. Nothing was changed.
type Error struct {
	Day   time.Time
	Where string // file, or file:line, of the query
	Err   error
}

func (e *Error) Error() string {
	return fmt.Sprintf("roll up %s: %s: %v", e.Day.Format(time.DateOnly), e.Where, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrUnfinished means that the day is not over yet, UTC.
var ErrUnfinished = errors.New("the day is not over yet (UTC)")

// Raw is the database whose raw rows are rolled up.
type Raw struct {
	Pool *pgxpool.Pool
	Log  *slog.Logger
}

// Day rolls up the UTC day that holds `day`, in one transaction: all of it or nothing.
//
// A day whose raw rows were never dropped is whole: its hours are replaced. Rows that come after the drop are merged
// into the stored hours, or with late = "reject" stay raw, are counted in the ledger and reported as LateRows. Rows
// that were in the day before it was dropped are removed.
// The raw rows go, in the same transaction, once the day has ended keep_raw ago. Errors: ErrUnfinished, *Error, and
// any other is the database's: try again.
func (s Raw) Day(ctx context.Context, r *spec.Rollup, day, now time.Time, dryRun bool) (Result, error) {
	day = day.UTC().Truncate(oneDay)
	if now.Before(day.Add(oneDay)) {
		return Result{}, fmt.Errorf("roll up %s: %w", day.Format(time.DateOnly), ErrUnfinished)
	}
	began := time.Now()
	var out Result
	r, err := s.effectiveRetention(ctx, r)
	if err != nil {
		return out, fmt.Errorf("roll up %s: %w", day.Format(time.DateOnly), err)
	}
	var run rollupRun
	for try := 0; ; try++ {
		run = rollupRun{s: s, r: r, day: day, end: day.Add(oneDay), now: now, began: began, dry: dryRun}
		if out, err = run.transact(ctx); err == nil {
			break
		}
		if errors.Is(err, errTurn) && ctx.Err() == nil && try < turns {
			continue
		}
		if try >= 2 || !pg.Is(err, pg.Conflict) {
			if by := run.waited.text(); by != "" && pg.Is(err, pg.LockBusy) {
				err = fmt.Errorf("another session is in the way: %s: %w", by, err)
			}
			if _, known := errors.AsType[*Error](err); !known {
				err = fmt.Errorf("roll up %s: %w", day.Format(time.DateOnly), err)
			}
			return Result{}, err
		}
	}
	if run.raw.HeldBy != "" {
		s.Log.InfoContext(ctx,
			"raw rows were deleted, since a session that reads them keeps the partition from being dropped", "day",
			day.Format(time.DateOnly), "held_by", run.raw.HeldBy)
	}
	out.Took = time.Since(began)
	if out.Dropped && !dryRun {
		s.dropEmptied(ctx, r, now)
	}
	return out, nil
}

// rollupRun is one try at one day.
type rollupRun struct {
	s             Raw
	r             *spec.Rollup
	day, end, now time.Time
	began         time.Time
	dry           bool

	tx      pgx.Tx
	waited  *blockers
	raw     partition.Table
	columns []string // of the query, in its order
	ledger  struct {
		found, dropped    bool
		raw, hourly, late int64
	}
}

var (
	errDryRun = errors.New("dry run")
	errTurn   = errors.New("another run has the day")
)

// turns is how often another run of the day is waited for at once.
const turns = 5

func (u *rollupRun) transact(ctx context.Context) (out Result, err error) {
	err = pg.InTx(ctx, u.s.Pool, func(tx pgx.Tx) error {
		u.tx = tx
		u.waited = watchBlockers(ctx, u.s.Pool, tx.Conn().PgConn().PID())
		defer u.waited.stop()
		if out, err = u.run(ctx); err == nil && u.dry {
			return errDryRun
		}
		return err
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return out, err
}

func (u *rollupRun) run(ctx context.Context) (Result, error) {
	out := Result{Day: u.day, DryRun: u.dry}
	idle, err := u.prepare(ctx)
	if err != nil || idle {
		return out, err
	}
	if out.Repeats, err = u.dropCounted(ctx); err != nil {
		return out, err
	}
	if out.RawRows, err = u.raw.Count(ctx, u.tx, u.day, u.end); err != nil {
		return out, fmt.Errorf("count the day in %s: %w", u.r.From.Name, err)
	}
	switch {
	case out.RawRows == 0 && out.Repeats > 0 && u.ledger.dropped:
		out.Dropped = true
		return out, u.raw.Drop(ctx, u.tx, u.day, u.end, 0)
	case out.RawRows == 0 && (!u.ledger.found || u.ledger.dropped):
		return out, nil // nothing to do, and nothing to note
	case u.ledger.dropped && u.r.Late == "reject":
		out.LateRows, out.Rejected = out.RawRows, true
		return out, u.noteRejected(ctx, out.LateRows)
	case u.ledger.dropped:
		out.LateRows = out.RawRows
	case u.ledger.found:
		out.LateRows = max(0, out.RawRows-u.ledger.raw)
	}
	if out.RawRows > 0 {
		if err := u.aggregate(ctx, &out); err != nil {
			return out, err
		}
	}
	// The last run of a day drops it, and so does each one after that: what is merged must not stay. Only what was
	// counted and aggregated under the lock goes.
	if out.Dropped = u.ledger.dropped || !u.now.Before(u.end.Add(u.r.KeepRaw)); out.Dropped {
		if err := store.RememberSamples(ctx, u.tx, u.r, u.raw.Name, u.raw.Column, u.day); err != nil {
			return out, err
		}
		if err := u.raw.Drop(ctx, u.tx, u.day, u.end, out.RawRows); err != nil {
			return out, fmt.Errorf("drop the day in %s: %w", u.r.From.Name, err)
		}
	}
	return out, u.writeLedger(ctx, out)
}

// dropCounted removes the day's raw rows that were counted before they were dropped once.
func (u *rollupRun) dropCounted(ctx context.Context) (int64, error) {
	n, again, err := store.DropCounted(ctx, u.tx, u.r, u.raw.Name, u.raw.Column, u.day)
	if again && !u.dry {
		u.s.Log.WarnContext(ctx, "the rollup's target is empty: what was counted before is counted again", "rollup",
			u.r.Name, "table", u.r.Into.Name)
	}
	return n, err
}

// prepare takes the day for this run and locks its rows. Unlike the aggregate, none of it takes long: a connection that
// died without a word is noticed here. Idle: the day has no rows, and nothing is made or noted for it.
func (u *rollupRun) prepare(ctx context.Context) (idle bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, partition.Patience)
	defer cancel()
	if err := u.takeTurn(ctx); err != nil {
		return false, err
	}
	if u.raw, err = partition.Find(ctx, u.tx, u.r.From); err != nil {
		return false, err
	}
	u.raw.Blockers = u.waited.text
	if err := u.check(ctx); err != nil {
		return false, err
	}
	if err := u.readLedger(ctx); err != nil {
		return false, err
	}
	if !u.ledger.found || u.ledger.dropped {
		var full bool
		if full, err = u.raw.Full(ctx, u.tx, u.day, u.end); err != nil || !full {
			return err == nil, err
		}
	}
	if err := u.partitions(ctx); err != nil {
		return false, err
	}
	if err := u.raw.Lock(ctx, u.tx, u.day, u.end); err != nil {
		return false, fmt.Errorf("lock the day in %s: %w", u.r.From.Name, err)
	}
	return false, nil
}

// takeTurn lets one run a day go on at a time, over all instances: the next one then sees what this one did. errTurn:
// try again. The waits are short, so that a dead connection is not waited on, and do not depend on the session's
// lock_timeout.
func (u *rollupRun) takeTurn(ctx context.Context) error {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	if err := partition.Settle(ctx, u.tx, "2s"); err != nil {
		return err
	}
	_, err := u.tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "cryptoviz.rollup "+u.r.Name+" "+
		u.day.Format(time.DateOnly))
	if pg.Is(err, pg.LockBusy) {
		return fmt.Errorf("%w: %w", errTurn, err)
	}
	if err == nil {
		_, err = u.tx.Exec(ctx, "SET LOCAL lock_timeout = '10s'", pgx.QueryExecModeExec)
	}
	return err
}

// aggregate runs the user's query into a temporary table, verifies it and merges it into the target. CREATE TABLE AS
// may run in parallel, INSERT … SELECT never does.
func (u *rollupRun) aggregate(ctx context.Context, out *Result) error {
	const before = "SELECT * FROM (\n"
	sql := "CREATE TEMP TABLE cryptoviz_rollup ON COMMIT DROP AS " + before + u.query() + "\n) AS q"
	args := [][]byte{[]byte(u.day.Format("2006-01-02 15:04:05Z")), []byte(u.end.Format("2006-01-02 15:04:05Z"))}
	if _, err := u.tx.Conn().PgConn().ExecParams(ctx, sql, args, dayOIDs, nil, nil).Close(); err != nil {
		return u.fault(err, len(sql)-len(u.query())-len("\n) AS q"))
	}
	count := "NULL::bigint"
	if u.r.Merge.Count != "" {
		count = "coalesce(sum(" + pg.Ident(u.r.Merge.Count) + "), 0)::bigint"
	}
	var staged int64
	var samples *int64
	if err := u.tx.QueryRow(ctx, "SELECT count(*), "+count+" FROM pg_temp.cryptoviz_rollup", pgx.QueryExecModeExec).
		Scan(&staged, &samples); err != nil {
		return u.fault(err, -1)
	}
	switch {
	case staged == 0:
		return u.failf("the query gives no row for the %d rows of %s on that day; nothing was dropped", out.RawRows,
			u.r.From.Name)
	case samples != nil && *samples != out.RawRows:
		return u.failf("the query's %s add up to %d, and %s has %d rows on that day; nothing was dropped. Every raw "+
			"row must be in exactly one group, and %s must be count(*)",
			u.r.Merge.Count, *samples, u.r.From.Name, out.RawRows, u.r.Merge.Count)
	}
	var beforeSum, beforeRows int64
	if u.ledger.dropped {
		if err := u.tx.QueryRow(ctx, u.matched(), pgx.QueryExecModeExec).Scan(&beforeRows, &beforeSum); err != nil {
			return u.fault(err, -1)
		}
	}
	var written int64
	var total *int64
	if err := u.tx.QueryRow(ctx, u.mergeSQL(), pgx.QueryExecModeExec).Scan(&written, &total); err != nil {
		return u.fault(err, -1)
	}
	if written != staged {
		return u.failf("%d stored rows of %s hold more samples than their raw rows: some of the day's raw rows were "+
			"removed by something else. "+
			"Nothing was changed. Remove the day's stored rows, or the raw rows that are left, and run it again",
			staged-written, u.r.Into.Name)
	}
	if samples != nil && *total != beforeSum+*samples {
		return u.failf("%s in %s would add up to %d instead of %d after the merge; nothing was changed",
			u.r.Merge.Count, u.r.Into.Name, *total, beforeSum+*samples)
	}
	out.HourlyRows = written
	if u.ledger.dropped {
		u.ledger.hourly += staged - beforeRows
	} else {
		u.ledger.hourly = max(u.ledger.hourly, staged)
	}
	return nil
}

var dayOIDs = []uint32{pgtype.TimestamptzOID, pgtype.TimestamptzOID}

func (u *rollupRun) query() string {
	return strings.TrimSuffix(strings.TrimSpace(u.r.Query), ";")
}

// check compares the query's columns with the target's, before anything is locked.
func (u *rollupRun) check(ctx context.Context) error {
	const before, after = "SELECT * FROM (\n", "\n) AS q"
	d, err := u.tx.Conn().PgConn().Prepare(ctx, "", before+u.query()+after, dayOIDs)
	if err != nil {
		return u.fault(err, len(before))
	}
	into := u.r.Into
	for _, f := range d.Fields {
		c := into.Column(f.Name)
		switch {
		case c == nil:
			return u.failf("the query gives a column %q that table %s does not have; its columns are %s",
				units.Clip(f.Name), into.Name, strings.Join(writable(into), ", "))
		case c.Generated != "":
			return u.failf("the query gives the column %q, which the database generates: remove it from the query",
				f.Name)
		case slices.Contains(u.columns, f.Name):
			return u.failf("the query gives the column %q twice", f.Name)
		}
		u.columns = append(u.columns, f.Name)
	}
	need := append(slices.Clone(into.PrimaryKey), u.r.Merge.Count, u.r.Merge.First, u.r.Merge.Last)
	for _, c := range into.Columns {
		if !c.Null && c.Default == "" && c.Generated == "" {
			need = append(need, c.Name)
		}
	}
	for _, name := range need {
		if name != "" && !slices.Contains(u.columns, name) {
			return u.failf("the query gives no column %q, and table %s needs it", name, into.Name)
		}
	}
	return nil
}

func writable(t *spec.Table) (out []string) {
	for _, c := range t.Columns {
		if c.Generated == "" {
			out = append(out, c.Name)
		}
	}
	return out
}

// partitions makes the target's partitions for the day, where a native one is missing.
func (u *rollupRun) partitions(ctx context.Context) error {
	if u.r.Into.Hypertable == nil {
		return nil
	}
	_, native, err := partition.FindNative(ctx, u.tx, u.r.Into.Name)
	if err != nil || !native {
		return err
	}
	return partition.CreateIn(ctx, u.tx, u.r.Into.Name, partition.Between(u.r.Into, u.day,
		u.end.Add(-time.Microsecond)))
}

func (u *rollupRun) failf(format string, args ...any) error {
	return &Error{Day: u.day, Where: u.r.QueryAt, Err: fmt.Errorf(format, args...)}
}

// fault makes an *Error of what the server says against the query or its values; before is where the query starts in
// the statement, or -1. A lost connection, a lock, a full disk stay what they are.
func (u *rollupRun) fault(err error, before int) error {
	switch class := pg.ClassOf(err); class {
	case pg.BadData, pg.Raised, pg.Rejected:
	case pg.MissingObject:
		if before < 0 { // not applied yet
			return fmt.Errorf("merge into %s: %w", u.r.Into.Name, err)
		}
	case pg.NoPrivilege:
		return fmt.Errorf("merge into %s: %w", u.r.Into.Name, err)
	default:
		return err
	}
	said, _ := errors.AsType[*pgconn.PgError](err)
	where := u.r.QueryAt
	if text := []rune(u.query()); before >= 0 && int(said.Position) > before &&
		int(said.Position)-before <= len(text)+1 {
		skipped := u.r.Query[:strings.Index(u.r.Query, u.query())]
		line := 1 + strings.Count(skipped, "\n") + strings.Count(string(text[:int(said.Position)-before-1]), "\n")
		if strings.Contains(where, ":") {
			where += fmt.Sprintf(", line %d of the query", line)
		} else {
			where += fmt.Sprintf(":%d", line)
		}
	}
	text := said.Message
	if said.Hint != "" {
		text += ". " + said.Hint
	}
	return &Error{Day: u.day, Where: where, Err: fmt.Errorf("%s (SQLSTATE %s)", text, said.Code)}
}
