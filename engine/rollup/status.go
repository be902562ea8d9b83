package rollup

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/robfig/cron/v3"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Status is how far a rollup is. Times are UTC.
type Status struct {
	Name       string    `json:"name"`
	Next       time.Time `json:"next"`
	Day        string    `json:"last_day,omitempty"` // newest day that is rolled up, 2026-11-22
	RawRows    int64     `json:"raw_rows"`
	HourlyRows int64     `json:"hourly_rows"`
	Days       int64     `json:"days"`
	// of the last dueDays: days with raw rows that should be rolled up by now; -1 when unknown
	Due      int64 `json:"days_due"`
	LateRows int64 `json:"late_rows"`     // of all days: rows that came after their day was rolled up
	Rejected int64 `json:"rejected_rows"` // of those: they stay raw, as late = "reject" says
}

// dueDays is how far back a look goes for days that were not rolled up.
const dueDays = 31

// ReadStatus looks at one rollup.
func ReadStatus(ctx context.Context, db *pgxpool.Pool, r *spec.Rollup, now time.Time) (Status, error) {
	schedule, err := cron.ParseStandard(r.Schedule)
	if err != nil {
		return Status{}, err
	}
	out := Status{Name: r.Name, Next: schedule.Next(now)}
	err = db.QueryRow(ctx, `SELECT coalesce(max(day)::text, ''), count(*),
		coalesce((array_agg(raw_rows ORDER BY day DESC))[1], 0), coalesce((array_agg(hourly_rows ORDER BY day DESC))[1], 0),
		coalesce(sum(late_rows), 0)::bigint, coalesce(sum(late_rows) FILTER (WHERE took IS NULL), 0)::bigint
		FROM cryptoviz.rollup_day WHERE rollup = $1`, r.Name).Scan(&out.Day, &out.Days, &out.RawRows, &out.HourlyRows, &out.LateRows, &out.Rejected)
	if err != nil {
		return Status{}, err
	}
	out.Due, err = countDue(ctx, r, schedule, db, now)
	return out, err
}

// countDue counts the days whose time to be rolled up has come, that have raw rows and are not in the ledger, or were
// dropped before the last time and have late rows. Only whether there is a row is looked up: counting them, as the
// rollup itself does, is not for every look.
func countDue(
	ctx context.Context, r *spec.Rollup, schedule cron.Schedule, db *pgxpool.Pool, now time.Time,
) (int64, error) {
	switch {
	case r.From.Hypertable == nil:
		return -1, nil
	case schedule.Next(now).IsZero(): // a date that does not exist
		return 0, nil
	}
	last := now.Truncate(oneDay).Add(-oneDay)
	for schedule.Next(last.Add(oneDay - time.Nanosecond)).After(now) { // over, but its time has not come
		last = last.Add(-oneDay)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, column := pg.Ident(r.From.Name), pg.Ident(r.From.Hypertable.Time)
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM generate_series($2::timestamptz, $3, interval '24 hours') AS d
		WHERE NOT EXISTS (SELECT FROM cryptoviz.rollup_day WHERE rollup = $1 AND day = (d AT TIME ZONE 'UTC')::date
			AND (dropped_at IS NULL OR took IS NULL OR rolled_at >= $4))
		AND EXISTS (SELECT FROM `+raw+` AS r WHERE r.`+column+` >= d AND r.`+column+` < d + interval '24 hours')`,
		r.Name, last.Add(-(dueDays-1)*oneDay), last, schedule.Next(last.Add(oneDay-time.Nanosecond))).Scan(&n)
	if err != nil {
		return -1, nil //nolint:nilerr // not applied yet, or a table without an index on the time: the rest is worth showing
	}
	return n, nil
}
