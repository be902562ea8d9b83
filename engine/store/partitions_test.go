package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// chunked is the table with another chunk_interval.
func chunked(table *spec.Table, step time.Duration) *spec.Table {
	out, hyper := *table, *table.Hypertable
	hyper.ChunkInterval = step
	out.Hypertable = &hyper
	return &out
}

// ranges are the live partitions of the raw table.
const ranges = `SELECT string_agg(replace(replace(pg_get_expr(c.relpartbound, c.oid), ':00:00+00', ''), 'FOR VALUES ', ''), ', ' ORDER BY pg_get_expr(c.relpartbound, c.oid))
	FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'raw_crypto_data'::regclass`

// bare drops the partitions that newBench made.
func (b *bench) bare() {
	b.t.Helper()
	b.exec("DO $$ DECLARE p regclass; BEGIN FOR p IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'raw_crypto_data'::regclass LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$")
}

// TestPartitionsAfterChunkIntervalWasChanged: what is made fills the gap between the live ones, and no source stands still.
func TestPartitionsAfterChunkIntervalWasChanged(t *testing.T) {
	t.Parallel()
	day := time.Now().UTC().Truncate(24 * time.Hour)
	date := func(days int) string { return day.AddDate(0, 0, days).Format(time.DateOnly) }
	for name, c := range map[string]struct {
		was, now time.Duration
		live     [][2]time.Duration // beside those of "was", from the day on
		at       time.Duration
		want     string
	}{
		"longer, a part is there": {
			6 * time.Hour, 24 * time.Hour,
			[][2]time.Duration{{0, 6 * time.Hour}},
			13 * time.Hour,
			fmt.Sprintf("FROM ('%[1]s 00') TO ('%[1]s 06'), FROM ('%[1]s 06') TO ('%[2]s 00')", date(0), date(1)),
		},
		"longer, there is one on each side": {
			6 * time.Hour, 24 * time.Hour,
			[][2]time.Duration{{0, 6 * time.Hour}, {18 * time.Hour, 24 * time.Hour}},
			13 * time.Hour,
			fmt.Sprintf("FROM ('%[1]s 00') TO ('%[1]s 06'), FROM ('%[1]s 06') TO ('%[1]s 18'), FROM ('%[1]s 18') TO ('%[2]s 00')", date(0), date(1)),
		},
		"shorter, all is there": {
			24 * time.Hour, 6 * time.Hour,
			[][2]time.Duration{{0, 24 * time.Hour}},
			13 * time.Hour,
			fmt.Sprintf("FROM ('%s 00') TO ('%s 00')", date(0), date(1)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, store.Options{})
			b.bare()
			for _, l := range c.live {
				p := partition.Of(chunked(b.src.Table, c.was), day.Add(l[0]))
				p.From, p.To = day.Add(l[0]), day.Add(l[1])
				b.exec(p.DDL())
			}
			b.src.Table = chunked(b.src.Table, c.now)
			b.target = store.NewTarget(b.src.Topic.Name, b.src.Table, b.program.Columns())
			b.commit(b.claim(0, 100), b.batch(0, many(3, day.Add(c.at))...))
			b.has(map[string]string{rows: "3", position: "3", ranges: c.want})
			if err := partition.Create(t.Context(), b.Pool(), partition.Between(b.src.Table, day, day)); err != nil {
				t.Error(err)
			}
			b.has(map[string]string{ranges: c.want})
		})
	}
}

// TestPartitionNamesThatAreTaken: a name may belong to a live partition of another length.
func TestPartitionNamesThatAreTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.bare()
	week := chunked(b.src.Table, 7*24*time.Hour)
	p := partition.Of(week, time.Now())
	day := partition.Of(b.src.Table, p.From)
	b.exec(day.DDL()) // of the week's first day: it has the week's name
	if day.Name != p.Name {
		t.Fatal(day.Name, p.Name)
	}
	if err := partition.Create(t.Context(), b.Pool(), []partition.Partition{p}); err != nil {
		t.Fatal(err)
	}
	b.has(map[string]string{ranges: fmt.Sprintf("FROM ('%[1]s 00') TO ('%[2]s 00'), FROM ('%[2]s 00') TO ('%[3]s 00')", p.From.Format(time.DateOnly), day.To.Format(time.DateOnly), p.To.Format(time.DateOnly))})
}

// TestPartitionsOfEachTableAlone: what stands in one table's way does not hold the others.
func TestPartitionsOfEachTableAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.bare()
	b.exec("CREATE TABLE plain (time timestamptz)")
	now := time.Now()
	other := partition.Of(b.src.Table, now)
	other.Table = "plain"
	err := partition.Create(t.Context(), b.Pool(), []partition.Partition{other, partition.Of(b.src.Table, now), other})
	if err == nil || strings.Count(err.Error(), "plain is not partitioned") != 1 {
		t.Error(err)
	}
	b.has(map[string]string{"SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw_crypto_data'::regclass": "1"})
}

// TestPartitionsBesideADefaultOne: it gives way, as before.
func TestPartitionsBesideADefaultOne(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	b.bare()
	b.exec("CREATE TABLE rest PARTITION OF raw_crypto_data DEFAULT")
	if err := partition.Create(t.Context(), b.Pool(), []partition.Partition{partition.Of(b.src.Table, time.Now())}); err != nil {
		t.Error(err)
	}
	b.has(map[string]string{"SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw_crypto_data'::regclass": "2"})
}
