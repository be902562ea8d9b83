// Package partition knows how a table is split by time: it lists, locks, creates and drops the chunks of a hypertable
// and the native range partitions of plain PostgreSQL. Provisioning makes the first partitions, the store makes the
// next ones, and the rollup drops them: all three must agree.
package partition

import (
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Partition is one range [From, To) of a table's time column, UTC.
type Partition struct {
	Table    string
	Name     string
	From, To time.Time
}

// Of returns the partition that holds t.
func Of(table *spec.Table, t time.Time) Partition {
	step := table.Hypertable.ChunkInterval
	from := time.UnixMicro(t.UnixMicro() - mod(t.UnixMicro(), step.Microseconds())).UTC()
	layout := "20060102"
	if step%(24*time.Hour) != 0 {
		layout = "20060102_1504"
	}
	return Partition{table.Name, table.Name + "_p" + from.Format(layout), from, from.Add(step)}
}

func mod(a, b int64) int64 { return ((a % b) + b) % b }

// Between returns the partitions that cover [from, to].
func Between(table *spec.Table, from, to time.Time) []Partition {
	var out []Partition
	for p := Of(table, from); !p.From.After(to); p = Of(table, p.To) {
		out = append(out, p)
	}
	return out
}

// Ahead returns the partitions that should exist at a time: the current one to three chunks ahead. An earlier one is
// made when a row needs it: yesterday's may have been dropped by its rollup.
func Ahead(table *spec.Table, now time.Time) []Partition {
	return Between(table, now, now.Add(max(3*table.Hypertable.ChunkInterval, 72*time.Hour)))
}

// After returns the partitions that follow an end of those that exist, ahead of now and at least one of full length.
// The first one is shorter where the end lies within it.
func After(table *spec.Table, end, now time.Time) (out []Partition) {
	ahead := Ahead(table, now)
	if end.IsZero() {
		return ahead
	}
	first := Of(table, end)
	if !first.From.Equal(end) {
		out = append(out, Partition{table.Name, table.Name + "_p" + end.Format("20060102_1504"), end, first.To})
		first = Of(table, first.To)
	}
	for p := first; p == first || !p.From.After(ahead[len(ahead)-1].From); p = Of(table, p.To) {
		out = append(out, p)
	}
	return out
}

// DDL creates the partition unless it exists.
func (p Partition) DDL() string {
	const layout = "2006-01-02 15:04:05.999999+00"
	return "CREATE TABLE IF NOT EXISTS " + pg.Ident(p.Name) + " PARTITION OF " + pg.Ident(p.Table) +
		" FOR VALUES FROM ('" + p.From.Format(layout) + "') TO ('" + p.To.Format(layout) + "')"
}
