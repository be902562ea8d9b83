package store_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// worker lets these hours take records, as the shipped source's.
func (h *hours) worker() store.Fence {
	h.t.Helper()
	h.program, _ = row.Compile(h.src)
	h.target = store.NewTarget(h.src.Topic.Name, h.src.Table, h.program.Columns())
	return h.claim(0, 1<<40)
}

// TestRepeatWhileTheRollupRuns: a repeat that waits for the rollup to end is a repeat of what that dropped or merged.
func TestRepeatWhileTheRollupRuns(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			fence := h.worker()
			h.r.Query = strings.Replace(h.r.Query, "FROM raw_crypto_data AS r", "FROM pg_advisory_xact_lock_shared(4711) AS nap CROSS JOIN raw_crypto_data AS r", 1)
			for i := range 2 { // the second time the day is dropped already, and the row is late
				one := record("BTCUSDT", h.day.Add(time.Duration(10+i)*time.Minute), "5")
				h.commit(fence, h.batch(int64(2*i), one))
				held, err := h.Pool().Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := held.Exec(t.Context(), "SELECT pg_advisory_lock(4711)"); err != nil {
					t.Fatal(err)
				}
				rolled, stored := make(chan error, 1), make(chan error, 1)
				go func() {
					_, err := rawOf(h).Day(t.Context(), h.r, h.day, h.now, false)
					rolled <- err
				}()
				h.waiting("advisory")
				again := h.batch(int64(2*i+1), one)
				go func() { stored <- h.Commit(t.Context(), h.target, fence, again) }()
				if i == 0 { // by COPY; a staged one sees the raw row, and has nothing to wait for
					h.waiting("relation")
				}
				if _, err := held.Exec(t.Context(), "SELECT pg_advisory_unlock(4711)"); err != nil {
					t.Fatal(err)
				}
				held.Release()
				if err := <-rolled; err != nil {
					t.Fatal(err)
				}
				if err := <-stored; err != nil {
					t.Fatal(err)
				}
				if again.Stored != 0 || again.Repeats != 1 {
					t.Errorf("stored %d, repeats %d", again.Stored, again.Repeats)
				}
				h.has(map[string]string{raw: "0", sampled: fmt.Sprint(i + 1)})
			}
		})
	}
}

// waiting waits until a session waits for such a lock.
func (h *hours) waiting(kind string) {
	h.t.Helper()
	testkit.Eventually(h.t, func() error {
		if h.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = '"+kind+"' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "0" {
			return fmt.Errorf("nobody waits for a lock of kind %s", kind)
		}
		return nil
	})
}

// TestRepeatsAreCountedInTheirSlots: a repeat of the same batch, of the raw table and of a dropped day, in batches of one slot and
// of several; a row that is refused is none.
func TestRepeatsAreCountedInTheirSlots(t *testing.T) {
	h := newHours(t, "days")
	fence := h.worker()
	h.exec("ALTER TABLE raw_crypto_data ADD CHECK (price < 1000)")
	day, next := h.day, h.day.Add(24*time.Hour)
	h.commit(fence, h.batch(0, record("BTCUSDT", day, "1")))
	h.roll(day, false)
	for _, at := range []time.Time{day, next, next.Add(time.Minute)} {
		h.exec(fmt.Sprintf("INSERT INTO cryptoviz.slot (source, slot, state, lease_until) VALUES ('binance', '%s', 'ok', now())", at.Format(time.RFC3339)))
	}
	in := func(slot time.Time, r row.Record) row.Record {
		r.Slot = slot
		return r
	}
	batch := h.batch(1,
		in(next, record("BTCUSDT", day, "7")),                        // of a dropped day, with another value
		in(next, record("ETHUSDT", day, "2")),                        // late
		in(next.Add(time.Minute), record("ETHUSDT", day, "3")),       // in this batch
		in(next.Add(time.Minute), record("SOLUSDT", next, "5000")),   // refused
		in(next.Add(time.Minute), record("BTCUSDT", day, "1")),       // of a dropped day
		in(next.Add(2*time.Minute), record("BTCUSDT", day, "1")),     // its slot is not in the ledger
		in(next.Add(2*time.Minute), record("SOLUSDT", next, "12.5")), // new
	)
	h.commit(fence, batch)
	if batch.Stored != 2 || batch.Repeats != 4 || len(batch.Dead) != 1 {
		t.Errorf("stored %d, repeats %d, dead letters %q", batch.Stored, batch.Repeats, reasons(batch))
	}
	same := h.batch(8, in(next, record("ETHUSDT", day, "2"))) // of the raw table
	h.commit(fence, same)
	if same.Stored != 0 || same.Repeats != 1 {
		t.Errorf("stored %d, repeats %d", same.Stored, same.Repeats)
	}
	h.has(map[string]string{"SELECT string_agg(repeats::text, ' ' ORDER BY slot) FROM cryptoviz.slot": "0 2 2"})
}

// TestRollupDropsRepeats that lie raw all the same: an instance of an older version stored them, say.
func TestRollupDropsRepeats(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			h := newHours(t, layout)
			h.fill("BTC", h.day, 60)
			h.roll(h.day, false)
			if h.native {
				h.exec("CREATE TABLE IF NOT EXISTS again PARTITION OF raw_crypto_data FOR VALUES FROM ('2026-03-04 00:00+00') TO ('2026-03-04 04:00+00')")
			}
			h.exec("INSERT INTO raw_crypto_data SELECT * FROM keep WHERE time < '2026-03-04 00:30+00'")
			for _, dry := range []bool{true, false} {
				if did := h.roll(h.day, dry); did.Repeats != 30 || did.RawRows != 0 || did.LateRows != 0 || !did.Dropped {
					t.Errorf("%+v", did)
				}
			}
			h.right()
			h.has(map[string]string{raw: "0", ledger: "2026-03-04 60 1 0 1 t", "SELECT repeats FROM cryptoviz.rollup_day": "30"})
		})
	}
}

// TestLateRowsGoWhateverIsKept: they are merged once, also when keep_raw has become longer since their day was dropped.
func TestLateRowsGoWhateverIsKept(t *testing.T) {
	h := newHours(t, "plain")
	h.fill("BTC", h.day, 60)
	h.roll(h.day, false)
	h.r.KeepRaw = 30 * 24 * time.Hour
	h.fill("ETH", h.day, 5)
	for range 3 {
		h.roll(h.day, false)
	}
	h.right()
	h.due()
	h.has(map[string]string{raw: "0", ledger: "2026-03-04 65 2 5 2 t"})
}

// TestEmptyTargetIsFilledAgain: what was counted counts again where the hours are gone, all days of it.
func TestEmptyTargetIsFilledAgain(t *testing.T) {
	h := newHours(t, "days")
	fence := h.worker()
	records := []row.Record{record("BTCUSDT", h.day.AddDate(0, 0, -1), "1"), record("BTCUSDT", h.day, "2")}
	h.commit(fence, h.batch(0, records...))
	rollAll := func() {
		for _, day := range []time.Time{h.day.AddDate(0, 0, -1), h.day} {
			h.roll(day, false)
		}
	}
	rollAll()
	h.exec("TRUNCATE crypto_data_hourly")
	for i := range 2 {
		h.commit(fence, h.batch(int64(2+2*i), records...))
		rollAll()
		h.has(map[string]string{raw: "0", sampled: "2"})
	}
}

func TestForgetSamples(t *testing.T) {
	h := newHours(t, "plain")
	for _, day := range []time.Time{h.day.AddDate(0, 0, -2), h.day.AddDate(0, 0, -1), h.day} {
		h.fill("BTC", day, 1)
		h.roll(day, false)
	}
	const days = "SELECT string_agg(day::text, ' ' ORDER BY day) FROM cryptoviz.rolled_sample"
	for _, table := range []string{"other", "raw_crypto_data"} { // a record of just that age is still taken
		if err := h.ForgetSamples(t.Context(), table, h.day.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	h.has(map[string]string{days: "2026-03-03 2026-03-04"})
}

// TestSamplesOfAnyKey: a key is the same whatever its columns' types are, however a value is written, and whatever a session's
// settings are; and a long one does not stop the rollup.
func TestSamplesOfAnyKey(t *testing.T) {
	long := strings.Repeat("长", 500)
	p, d := load.Load(fstest.MapFS{
		"pipeline.hcl": {Data: []byte(`
kafka { brokers = ["127.0.0.1:9092"] }
database { url = "postgres://x@localhost/x" }
topic "s" {}
source "s" {
  definition = "s.hcl"
  interval   = "1m"
  topic      = topic.s
  table      = table.raw
}
table "raw" {
  column "at" { type = "timestamptz" }
  column "a" { type = "text" }
  column "b" { type = "numeric" }
  column "c" { type = "double precision" }
  column "d" { type = "timestamptz" }
  column "e" { type = "boolean" }
  column "f" { type = "bigint" }
  column "g" { type = "integer" }
  primary_key = ["a", "b", "at", "c", "d", "e", "f", "g"]
  hypertable { time = "at" }
}
table "hourly" {
  column "at" { type = "timestamptz" }
  column "n" { type = "bigint" }
  primary_key = ["at"]
}
rollup "hourly" {
  from  = table.raw
  into  = table.hourly
  query = "SELECT date_bin('1 hour', at, timestamptz '2000-01-01 00:00+00') AS at, count(*) AS n FROM raw WHERE at >= $1 AND at < $2 GROUP BY 1"
  merge {
    count   = "n"
    columns = { n = "sum" }
  }
}`)},
		"s.hcl": {Data: []byte(`
poll { url = "http://127.0.0.1/" }
decode "json" { key = r.a }
row {
  at = r.at
  a  = r.a
  b  = r.b
  c  = r.c
  d  = r.d
  e  = r.e
  f  = r.f
  g  = r.g
}`)},
	}, "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	h := &hours{bench: &bench{t: t, src: p.Sources[0], url: testkit.Postgres(t)}, r: p.Rollups[0], day: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)}
	h.now = h.day.Add(25 * time.Hour)
	pool, err := pgxpool.New(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	statements := []string{schema.SQL}
	for _, table := range p.Tables {
		statements = append(statements, ddl.CreateSQL(table, catalog.Capabilities{}, h.day)...)
	}
	for _, sql := range statements {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	h.Store = h.open(store.Options{})
	cfg, err := pgxpool.ParseConfig(h.url)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(cfg.ConnConfig.RuntimeParams, map[string]string{"TimeZone": "Asia/Kathmandu", "DateStyle": "German", "extra_float_digits": "-5", "IntervalStyle": "sql_standard"})
	abroad, err := store.Open(t.Context(), cfg, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(abroad.Close)
	fence := h.worker()
	base := []string{`"x"`, `1.5`, `0.1`, `"2026-01-01T00:00:00.000001Z"`, `true`, `9007199254740993`, `-1`, `"2026-03-04T23:59:59.999999Z"`}
	others := []string{`"` + long + `"`, `1.05`, `0.10000000000000002`, `"2026-01-01T00:00:00Z"`, `false`, `9007199254740992`, `0`, `"2026-03-04T23:59:59.999Z"`}
	written := []string{`"x"`, `1.500`, `1e-1`, `"2026-01-01T05:45:00.000001+05:45"`, `"true"`, `"9007199254740993"`, `-1.0`, `"2026-03-05T00:59:59.999999+01:00"`}
	value := func(v []string) row.Record {
		return row.Record{Key: "k", Slot: h.now, Value: fmt.Appendf(nil, `{"a":%s,"b":%s,"c":%s,"d":%s,"e":%s,"f":%s,"g":%s,"at":%s}`, v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7])}
	}
	records := []row.Record{value(base)}
	for i := range base {
		v := append([]string{}, base...)
		v[i] = others[i]
		records = append(records, value(v))
	}
	v := append([]string{}, base...)
	v[2] = "-0.0"
	records = append(records, value(v))
	n := int64(len(records))
	h.commit(fence, h.batch(0, records...))
	h.roll(h.day, false)
	v[2] = "0"
	again := h.batch(n, append(records[:n:n], value(written), value(v))...)
	if err := abroad.Commit(t.Context(), h.target, fence, again); err != nil {
		t.Fatal(err)
	}
	if again.Stored != 0 || again.Repeats != n+2 {
		t.Errorf("stored %d, repeats %d of %d", again.Stored, again.Repeats, n+2)
	}
	h.exec("CREATE TABLE IF NOT EXISTS back PARTITION OF raw FOR VALUES FROM ('2026-03-04 00:00+00') TO ('2026-03-05 00:00+00')")
	h.exec("INSERT INTO raw VALUES ('2026-03-04 23:59:59.999999+00', 'x', 1.50, 0.1, '2026-01-01 00:00:00.000001+00', true, 9007199254740993, -1)")
	out, err := rawOf(abroad).Day(t.Context(), h.r, h.day, h.now, false)
	if err != nil || out.Repeats != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	h.has(map[string]string{"SELECT sum(n) FROM hourly": fmt.Sprint(n), "SELECT count(*) FROM raw": "0"})
}
