package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// hours is a database prepared for the shipped rollup.
type hours struct {
	*bench
	r   *spec.Rollup
	day time.Time // a day that is over
	now time.Time // soon after it

	log    *slog.Logger // of the rollup; nil: nobody reads it
	native bool         // partitions of PostgreSQL, which somebody must make
}

// layouts are the ways a raw table can lie in plain PostgreSQL.
var layouts = []string{"days", "sixths", "weeks", "plain"}

func newHours(t testing.TB, layout string) *hours {
	t.Helper()
	return newHoursAt(t, testkit.Postgres(t), layout)
}

// newHoursAt prepares an empty database, with TimescaleDB where that is installed in it.
func newHoursAt(t testing.TB, url, layout string) *hours {
	t.Helper()
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	h := &hours{bench: &bench{t: t, src: p.Sources[0], url: url}, r: p.Rollups[0]}
	h.day = time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	h.now = h.day.Add(24*time.Hour + 5*time.Minute)
	pool, err := pgxpool.New(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	caps, err := catalog.Detect(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	h.native = caps.Version == "" && layout != "plain"
	statements := []string{schema.SQL, "INSERT INTO cryptoviz.source VALUES ('binance', true, '1 minute', 60, 'binance', 'raw_crypto_data')"}
	raw := h.r.From
	hyper := *raw.Hypertable
	switch layout {
	case "sixths":
		hyper.ChunkInterval = 4 * time.Hour
	case "weeks":
		hyper.ChunkInterval = 7 * 24 * time.Hour
	}
	raw.Hypertable = &hyper
	for _, table := range []*spec.Table{raw, h.r.Into} {
		made := *table
		if layout == "plain" {
			made.Hypertable = nil
		}
		statements = append(statements, ddl.CreateSQL(&made, caps, h.day.AddDate(0, 0, -1))...)
	}
	for _, sql := range statements {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	h.Store = h.open(store.Options{})
	if h.native {
		h.exec(fmt.Sprintf("CREATE TABLE strays PARTITION OF raw_crypto_data FOR VALUES FROM (MINVALUE) TO ('%s')", h.day.Add(-40*24*time.Hour).Format(time.RFC3339)))
	}
	return h
}

// fill stores n rows of a market, a minute apart from a time on, with a price that walks. Keep holds a copy of every one.
func (h *hours) fill(market string, from time.Time, n int) {
	h.t.Helper()
	h.exec("CREATE TABLE IF NOT EXISTS keep (LIKE raw_crypto_data)")
	h.exec(fmt.Sprintf(`WITH made AS (INSERT INTO raw_crypto_data (time, source, base, quote, price, volume_24h)
		SELECT t, 'binance', '%s', 'USDT', 100 + 10 * sin(extract(epoch FROM t)), nullif(extract(minute FROM t), 59) FROM generate_series('%s'::timestamptz, '%s', '1 minute') AS t
		RETURNING *) INSERT INTO keep SELECT * FROM made`, market, from.Format(time.RFC3339Nano), from.Add(time.Duration(n-1)*time.Minute).Format(time.RFC3339Nano)))
}

func (h *hours) roll(day time.Time, dry bool) rollup.Result {
	h.t.Helper()
	out, err := rawOf(h).Day(h.t.Context(), h.r, day, h.now, dry)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// right compares the hours with a SQL of another form over the kept copy: every difference is a line.
func (h *hours) right() {
	h.t.Helper()
	h.has(map[string]string{`SELECT string_agg(format('%s %s %s', base, time, why), E'\n') FROM (
		SELECT coalesce(w.base, h.base) AS base, coalesce(w.time, h.time) AS time, format('want %s have %s', w, h) AS why
		FROM (SELECT base, hour AS time,
				(SELECT price FROM keep k WHERE (k.base, k.time) = (g.base, g.a)) AS open, high, low,
				(SELECT price FROM keep k WHERE (k.base, k.time) = (g.base, g.z)) AS close, mean,
				(SELECT volume_24h FROM keep k WHERE k.base = g.base AND k.time >= hour AND k.time < hour + interval '1 hour' AND volume_24h IS NOT NULL ORDER BY time DESC LIMIT 1) AS volume, n, a, z
			FROM (SELECT base, date_trunc('hour', time, 'UTC') AS hour, max(price) AS high, min(price) AS low, avg(price) AS mean, count(*) AS n, min(time) AS a, max(time) AS z
				FROM keep GROUP BY 1, 2) AS g) AS w
		FULL JOIN crypto_data_hourly AS h ON (h.base, h.time) = (w.base, w.time)
		WHERE (w.open, w.high, w.low, w.close, w.n, w.a, w.z) IS DISTINCT FROM (h.open, h.high, h.low, h.close, h.samples, h.first_time, h.last_time)
		   OR w.volume IS DISTINCT FROM h.volume_24h OR abs(w.mean - h.mean) > 1e-9 OR h.expected <> 60 OR h.coverage <> least(1, w.n / 60.0)) AS wrong`: ""})
}

const (
	raw     = "SELECT count(*) FROM raw_crypto_data"
	sampled = "SELECT sum(samples) FROM crypto_data_hourly"
	ledger  = "SELECT string_agg(concat_ws(' ', day, raw_rows, hourly_rows, late_rows, runs, dropped_at IS NOT NULL), ', ' ORDER BY day) FROM cryptoviz.rollup_day"
)

func TestRollupDay(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			h.fill("BTC", h.day, 1440)
			h.fill("ETH", h.day.Add(90*time.Minute), 100)
			h.fill("SOL", h.day.Add(1439*time.Minute), 1)
			h.exec("INSERT INTO raw_crypto_data (time, source, base, quote, price) SELECT timestamptz '2026-03-05 00:00+00', 'binance', 'BTC', 'USDT', 1 UNION ALL SELECT timestamptz '2026-03-03 23:59:59.999999+00', 'binance', 'BTC', 'USDT', 1")
			dry := h.roll(h.day.Add(13*time.Hour), true)
			h.has(map[string]string{raw: "1543", sampled: "", ledger: "", "SELECT count(*) FROM pg_class WHERE relname LIKE 'crypto_data_hourly_p20260222'": "0"})
			did := h.roll(h.day, false)
			if did.RawRows != 1541 || did.HourlyRows != 28 || did.LateRows != 0 || !did.Dropped || did.DryRun || !did.Day.Equal(h.day) || did.Took <= 0 {
				t.Errorf("%+v", did)
			}
			if dry.DryRun, dry.Took, did.Took = false, 0, 0; dry != did {
				t.Errorf("dry run: %+v", dry)
			}
			h.right()
			h.has(map[string]string{raw: "2", sampled: "1541", ledger: "2026-03-04 1541 28 0 1 t"})
			if layout == "days" && h.native {
				h.has(map[string]string{"SELECT to_regclass('raw_crypto_data_p20260304')": "", "SELECT to_regclass('raw_crypto_data_p20260305')": "raw_crypto_data_p20260305"})
			}
			again := h.roll(h.day, false)
			if again.RawRows != 0 || again.HourlyRows != 0 || again.Dropped {
				t.Errorf("again: %+v", again)
			}
			h.right()
			h.has(map[string]string{raw: "2", ledger: "2026-03-04 1541 28 0 1 t"})
		})
	}
}

// TestRollupMergesLateRows: before, between and after what is stored, and in hours of their own; then once more.
func TestRollupMergesLateRows(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			h.fill("BTC", h.day.Add(10*time.Minute), 5)
			h.fill("BTC", h.day.Add(70*time.Minute), 20)
			h.fill("ETH", h.day, 60)
			h.roll(h.day, false)
			h.right()
			h.now = h.now.Add(24 * time.Hour)
			if h.native { // they are gone: a worker makes them again
				if err := partition.Create(t.Context(), h.Pool(), partition.Between(h.r.From, h.day, h.day.Add(4*time.Hour))); err != nil {
					t.Fatal(err)
				}
			}
			h.fill("BTC", h.day, 10)                    // before: a new open
			h.fill("BTC", h.day.Add(15*time.Minute), 3) // after: a new close
			h.fill("BTC", h.day.Add(95*time.Minute), 2) // after, in the next hour
			h.fill("SOL", h.day.Add(3*time.Hour), 60)   // an hour of its own
			if dry := h.roll(h.day, true); dry.LateRows != 75 || dry.HourlyRows != 3 || !dry.Dropped {
				t.Errorf("dry run: %+v", dry)
			}
			did := h.roll(h.day, false)
			if did.RawRows != 75 || did.LateRows != 75 || did.HourlyRows != 3 || !did.Dropped {
				t.Errorf("%+v", did)
			}
			h.right()
			h.has(map[string]string{raw: "0", sampled: "160", ledger: "2026-03-04 160 4 75 2 t"})
		})
	}
}

func TestRollupRejectsLateRows(t *testing.T) {
	t.Parallel()
	h := newHours(t, "plain")
	h.r.Late = "reject"
	h.fill("BTC", h.day, 60)
	h.roll(h.day, false)
	h.right()
	h.exec("INSERT INTO raw_crypto_data SELECT * FROM keep LIMIT 5")                                                                // counted before
	h.exec("INSERT INTO raw_crypto_data (time, source, base, quote, price) SELECT time, source, 'ETH', quote, 1 FROM keep LIMIT 7") // late
	h.due(h.day)
	did := h.roll(h.day, false)
	if did.LateRows != 7 || did.Repeats != 5 || !did.Rejected || did.HourlyRows != 0 || did.Dropped {
		t.Errorf("%+v", did)
	}
	h.right()
	h.due() // they are known now
	h.has(map[string]string{raw: "7", ledger: "2026-03-04 60 1 7 1 t"})
}

func TestRollupKeepsRaw(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.r.KeepRaw = 48 * time.Hour
	h.fill("BTC", h.day, 100)
	h.due(h.day)
	if did := h.roll(h.day, false); did.RawRows != 100 || did.LateRows != 0 || did.Dropped {
		t.Errorf("%+v", did)
	}
	h.due()
	h.fill("BTC", h.day.Add(100*time.Minute), 10)
	h.due(h.day)
	for range 2 { // whole: the hours are replaced, not added to
		h.roll(h.day, false)
		h.right()
	}
	h.has(map[string]string{raw: "110", ledger: "2026-03-04 110 2 10 3 f"})
	h.now = h.day.Add(3*24*time.Hour - time.Second)
	h.due()
	h.now = h.day.Add(3 * 24 * time.Hour)
	h.due(h.day)
	if did := h.roll(h.day, false); !did.Dropped || did.RawRows != 110 {
		t.Errorf("%+v", did)
	}
	h.due()
	h.right()
	h.has(map[string]string{raw: "0", ledger: "2026-03-04 110 2 10 4 t"})
}

// due fails unless these days are due, in this order.
func (h *hours) due(want ...time.Time) {
	h.t.Helper()
	got, err := rawOf(h).Due(h.t.Context(), h.r, h.now)
	if err != nil {
		h.t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, time.Time.Equal) {
		h.t.Errorf("due: %v, want %v", got, want)
	}
}

// The same on hypertables: days, and chunks that are shorter and longer than a day.
func TestRollupOnTimescale(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"days", "sixths", "weeks"} {
		t.Run(layout, func(t *testing.T) {
			h := newHoursAt(t, testkit.Timescale(t), layout)
			h.exec("CREATE FUNCTION drop_chunks(text, older_than timestamptz, newer_than timestamptz) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RAISE 'of somebody else'; END $$")
			h.fill("BTC", h.day, 1440)
			h.fill("ETH", h.day.Add(90*time.Minute), 100)
			h.exec("INSERT INTO raw_crypto_data (time, source, base, quote, price) SELECT timestamptz '2026-03-05 00:00+00', 'binance', 'BTC', 'USDT', 1")
			if did := h.roll(h.day, false); did.RawRows != 1540 || did.HourlyRows != 27 || !did.Dropped {
				t.Errorf("%+v", did)
			}
			h.right()
			h.has(map[string]string{raw: "1", ledger: "2026-03-04 1540 27 0 1 t"})
			h.fill("BTC", h.day.Add(30*time.Second), 30) // late: between the samples of the first hour
			if did := h.roll(h.day, false); did.LateRows != 30 {
				t.Errorf("%+v", did)
			}
			h.right()
			h.has(map[string]string{raw: "1"})
		})
	}
}

func TestRollupDueIsOldestFirst(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			h.due()
			days := []time.Time{h.day.AddDate(0, 0, -100), h.day.AddDate(0, 0, -41), h.day.AddDate(0, 0, -1), h.day}
			for _, day := range []int{2, 0, 3, 1} {
				h.fill("BTC", days[day].Add(24*time.Hour-time.Minute), 1)
			}
			h.fill("BTC", h.day.Add(24*time.Hour), 1) // today
			h.due(days...)
			for i, day := range days {
				h.roll(day, false)
				h.due(days[i+1:]...)
			}
			h.has(map[string]string{raw: "1", sampled: "4"})
		})
	}
}

func TestRollupRefusesAnUnfinishedDay(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.fill("BTC", h.day, 10)
	h.now = h.day.Add(24*time.Hour - time.Nanosecond)
	h.due()
	for _, day := range []time.Time{h.day, h.day.Add(24 * time.Hour)} {
		if _, err := rawOf(h).Day(t.Context(), h.r, day, h.now, false); !errors.Is(err, rollup.ErrUnfinished) || !strings.Contains(err.Error(), day.Format(time.DateOnly)) {
			t.Error(err)
		}
	}
	h.has(map[string]string{raw: "10", ledger: ""})
	h.now = h.day.Add(24 * time.Hour)
	h.roll(h.day, false)
	h.has(map[string]string{raw: "0"})
}

// TestRollupIsAllOrNothing ends the session at each step, as a crash of either side does.
func TestRollupIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, trigger := range map[string]string{
		"at the first hour":     "BEFORE INSERT ON crypto_data_hourly FOR EACH ROW",
		"after the last hour":   "AFTER INSERT ON crypto_data_hourly FOR EACH STATEMENT",
		"after the drop":        "AFTER INSERT ON cryptoviz.rollup_day FOR EACH STATEMENT",
		"while the raw rows go": "BEFORE DELETE ON raw_crypto_data FOR EACH STATEMENT",
	} {
		t.Run(name, func(t *testing.T) {
			layout := "days"
			if strings.Contains(trigger, "DELETE") {
				layout = "plain"
			}
			h := newHours(t, layout)
			h.fill("BTC", h.day, 1440)
			h.exec("CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; CREATE TRIGGER crash " + trigger + " EXECUTE FUNCTION crash()")
			_, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false)
			if _, final := errors.AsType[*rollup.Error](err); err == nil || final {
				t.Errorf("got %v", err)
			}
			h.has(map[string]string{raw: "1440", sampled: "", ledger: ""})
			h.exec("DROP FUNCTION crash CASCADE")
			h.roll(h.day, false)
			h.right()
			h.has(map[string]string{raw: "0", sampled: "1440", ledger: "2026-03-04 1440 24 0 1 t"})
		})
	}
}

// TestRollupOfABrokenQuery: the message names the file and what to do, and nothing changes.
func TestRollupOfABrokenQuery(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.fill("BTC", h.day, 120)
	good := h.r.Query
	swap := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("the query has no %q", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for name, c := range map[string]struct{ query, want string }{
		"unknown column":     {swap("max(r.price)", "max(r.prise)"), "sql/rollup_hourly.sql:31: column r.prise does not exist"},
		"unknown table":      {swap("FROM raw_crypto_data", "FROM raw_crypt"), `sql/rollup_hourly.sql:40: relation "raw_crypt" does not exist`},
		"not SQL":            {"-- all\nSELECT $1 FRM $2", `sql/rollup_hourly.sql:2: syntax error at or near "$2"`},
		"unclosed":           {"SELECT ($1, $2", "sql/rollup_hourly.sql"},
		"two statements":     {"SELECT $1, $2; DROP TABLE raw_crypto_data", `syntax error at or near ";"`},
		"it deletes":         {"WITH d AS (DELETE FROM raw_crypto_data WHERE time >= $1 AND time < $2 RETURNING *) SELECT * FROM d", "data-modifying"},
		"breaks out":         {"SELECT $1, $2) AS q; --", "sql/rollup_hourly.sql"},
		"column of no table": {swap("AS samples", "AS sample_count"), `the query gives a column "sample_count" that table crypto_data_hourly does not have; its columns are time, source,`},
		"column missing":     {swap("  count(*) AS samples,\n", ""), `the query gives no column "samples", and table crypto_data_hourly needs it`},
		"key missing":        {strings.Replace(swap("  r.base,\n", ""), "1, 2, 3, 4", "1, 2, 3", 1), `the query gives no column "base"`},
		"generated column":   {swap("AS expected", "AS coverage"), `the query gives the column "coverage", which the database generates: remove it`},
		"column twice":       {swap("AS low", "AS high"), `the query gives the column "high" twice`},
		"no rows":            {swap("r.time < $2", "r.time < $2 AND false"), "the query gives no row for the 120 rows of raw_crypto_data on that day; nothing was dropped"},
		"rows left out":      {swap("r.time < $2", "r.time < $2 - interval '1 hour' AND r.time >= '2026-03-04 00:30+00'"), "the query's samples add up to 90, and raw_crypto_data has 120 rows on that day; nothing was dropped"},
		"rows doubled":       {swap("count(*) AS", "2 * count(*) AS"), "add up to 240, and raw_crypto_data has 120 rows"},
		"hour twice":         {swap("GROUP BY 1, 2, 3, 4", "GROUP BY 1, 2, 3, 4, r.time"), "cannot affect row a second time"},
		"null in a key":      {swap("  r.base,", "  nullif(r.base, 'BTC') AS base,"), `null value in column "base"`},
		"wrong type":         {swap("avg(r.price) AS mean", "'text'::text AS mean"), `column "mean" is of type double precision but expression is of type text`},
		"divides by zero":    {swap("avg(r.price) AS mean", "1 / (count(*) - 60) AS mean"), "sql/rollup_hourly.sql: division by zero"},
	} {
		t.Run(name, func(t *testing.T) {
			h.r.Query = c.query
			for _, dry := range []bool{true, false} {
				_, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, dry)
				wrong, ok := errors.AsType[*rollup.Error](err)
				if !ok || wrong.Day != h.day || !strings.HasPrefix(err.Error(), "roll up 2026-03-04: sql/rollup_hourly.sql") || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
			}
			h.has(map[string]string{raw: "120", sampled: "", ledger: ""})
		})
	}
	h.r.Query = "\n\n" + good + ";\n"
	h.roll(h.day, false)
	h.right()
}

// TestRollupNeverShrinksAnHour when something else removed raw rows.
func TestRollupNeverShrinksAnHour(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.r.KeepRaw = 24 * time.Hour
	h.fill("BTC", h.day, 120)
	h.roll(h.day, false)
	h.exec("DELETE FROM raw_crypto_data WHERE time < '2026-03-04 00:10+00'")
	h.now = h.now.Add(48 * time.Hour)
	_, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false)
	if _, final := errors.AsType[*rollup.Error](err); !final || !strings.Contains(err.Error(), "1 stored rows of crypto_data_hourly hold more samples than their raw rows") {
		t.Error(err)
	}
	h.has(map[string]string{raw: "110", sampled: "120"})
	h.exec("DELETE FROM raw_crypto_data") // all of it: the hours stay, and the day is done with
	h.due(h.day)
	if did := h.roll(h.day, false); !did.Dropped || did.RawRows != 0 {
		t.Errorf("%+v", did)
	}
	h.due()
	h.right()
	h.has(map[string]string{ledger: "2026-03-04 120 2 0 2 t"})
}

func TestRollupWithoutTables(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	h.fill("BTC", h.day, 10)
	for sql, want := range map[string]string{
		"ALTER TABLE raw_crypto_data RENAME TO away":                 "raw_crypto_data",
		"ALTER TABLE crypto_data_hourly RENAME TO away":              "crypto_data_hourly",
		"ALTER TABLE cryptoviz.rollup_day RENAME TO away":            "rollup ledger",
		"ALTER TABLE crypto_data_hourly RENAME COLUMN mean TO other": "mean",
	} {
		tx := strings.Fields(sql)
		h.exec(sql)
		if _, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sql, err)
		}
		switch {
		case strings.Contains(sql, "COLUMN"):
			h.exec("ALTER TABLE crypto_data_hourly RENAME COLUMN other TO mean")
		case strings.Contains(sql, "cryptoviz."):
			h.exec("ALTER TABLE cryptoviz.away RENAME TO rollup_day")
		default:
			h.exec("ALTER TABLE away RENAME TO " + tx[2])
		}
	}
	h.roll(h.day, false)
	h.right()
}

// TestRollupOfADayWithoutRows makes and notes nothing.
func TestRollupOfADayWithoutRows(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	before := h.text("SELECT count(*) FROM pg_class")
	for _, day := range []time.Time{h.day.AddDate(-1, 0, 0), {}} {
		for _, dry := range []bool{true, false} {
			if out := h.roll(day, dry); out.RawRows != 0 || out.Dropped {
				t.Errorf("%+v", out)
			}
		}
	}
	h.has(map[string]string{"SELECT count(*) FROM pg_class": before, ledger: ""})
}

// TestRollupMergesWhatItRejected: late rows are late once, even if they are first rejected and then merged.
func TestRollupMergesWhatItRejected(t *testing.T) {
	t.Parallel()
	h := newHours(t, "plain")
	h.r.Late = "reject"
	h.fill("BTC", h.day, 60)
	h.roll(h.day, false)
	h.fill("ETH", h.day, 7)
	for range 2 {
		if did := h.roll(h.day, false); did.LateRows != 7 || !did.Rejected {
			t.Errorf("%+v", did)
		}
	}
	h.has(map[string]string{ledger: "2026-03-04 60 1 7 1 t", raw: "7"})
	h.r.Late = "merge"
	h.fill("SOL", h.day, 2)
	if did := h.roll(h.day, false); did.LateRows != 9 || did.Rejected {
		t.Errorf("%+v", did)
	}
	h.right()
	h.has(map[string]string{ledger: "2026-03-04 69 3 9 2 t", raw: "0"})
	h.fill("XRP", h.day, 1)
	h.roll(h.day, false)
	h.has(map[string]string{ledger: "2026-03-04 70 4 10 3 t"})
}

// BenchmarkRollup is a day of 1000 markets by the minute, rolled up, merged, noted and dropped, beside the bare
// INSERT … SELECT of the same query on the same rows.
func BenchmarkRollup(b *testing.B) {
	h := newHours(b, "days")
	h.exec("CREATE TABLE copy (LIKE raw_crypto_data)")
	h.exec(fmt.Sprintf(`INSERT INTO copy (time, source, base, quote, price, bid, ask, volume_24h)
		SELECT t, 'binance', 'M' || m, 'USDT', 100 + random(), 99, 101, random() FROM generate_series('%s'::timestamptz, '%s', '1 minute') AS t, generate_series(1, 1000) AS m`,
		h.day.Format(time.RFC3339), h.day.Add(1439*time.Minute).Format(time.RFC3339)))
	var bare, whole time.Duration
	const list = "time, source, base, quote, open, high, low, close, mean, volume_24h, samples, expected, first_time, last_time"
	for b.Loop() {
		b.StopTimer()
		for _, sql := range []string{"DELETE FROM cryptoviz.rollup_day", "DELETE FROM cryptoviz.rolled_sample", "TRUNCATE crypto_data_hourly", "INSERT INTO raw_crypto_data SELECT * FROM copy", "VACUUM ANALYZE raw_crypto_data", "CHECKPOINT"} {
			h.exec(sql)
		}
		began := time.Now()
		if _, err := h.Pool().Exec(b.Context(), "INSERT INTO crypto_data_hourly ("+list+") "+h.r.Query, h.day, h.day.Add(24*time.Hour)); err != nil {
			b.Fatal(err)
		}
		bare += time.Since(began)
		h.exec("TRUNCATE crypto_data_hourly")
		h.exec("CHECKPOINT")
		b.StartTimer()
		began = time.Now()
		if out := h.roll(h.day, false); out.RawRows != 1_440_000 || out.HourlyRows != 24_000 || !out.Dropped {
			b.Fatalf("%+v", out)
		}
		whole += time.Since(began)
		b.StopTimer()
		h.exec("CREATE TABLE IF NOT EXISTS raw_crypto_data_p20260304 PARTITION OF raw_crypto_data FOR VALUES FROM ('2026-03-04 00:00+00') TO ('2026-03-05 00:00+00')")
		b.StartTimer()
	}
	b.ReportMetric(bare.Seconds()/float64(b.N), "bare-s")
	b.ReportMetric(whole.Seconds()/float64(b.N), "rollup-s")
	b.ReportMetric(whole.Seconds()/bare.Seconds(), "x")
}

// rawOf is the database of a store, for its rollups.
func rawOf(s interface{ Pool() *pgxpool.Pool }) rollup.Raw {
	out := rollup.Raw{Pool: s.Pool(), Log: slog.New(slog.DiscardHandler)}
	if h, ok := s.(*hours); ok && h.log != nil {
		out.Log = h.log
	}
	return out
}
