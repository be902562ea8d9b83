package catalog

import (
	"regexp"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Layouts of a table.
const (
	PlainTable = "plain table"
	Hyper      = "hypertable"
	Native     = "native partitions"
)

// ColumnAttr is the name of a column's attribute. A name that pipeline.hcl cannot declare is quoted: the column "v
// description" is not the description of column v.
func ColumnAttr(column string) string { return "column " + pg.IdentAsNeeded(column) }

// OtherKinds names the relations that are no tables, by pg_class.relkind.
var OtherKinds = map[string]string{"v": "view", "m": "materialized view", "f": "foreign table"}

// rangeOver reads PostgreSQL's text of a partition key with one column.
var rangeOver = regexp.MustCompile(`^RANGE \("?([^"(),]+)"?\)$`)

// Layout tells how a table is cut in time. Partitions of another kind have no time column.
func (r *Relation) Layout() (layout, time string, interval time.Duration) {
	switch {
	case r.Hyper != nil:
		return Hyper, r.Hyper.Time, r.Hyper.interval
	case r.Kind == "r":
		return PlainTable, "", 0
	}
	over := rangeOver.FindStringSubmatch(r.partKey)
	if over == nil {
		return "partitioned by " + r.partKey, "", 0
	}
	for _, p := range r.Parts { // in order of time: the last one tells how the next ones are cut
		if !p.From.IsZero() && !p.To.IsZero() {
			interval = p.To.Sub(p.From)
		}
	}
	return Native, over[1], interval
}

// PolicyAge is a policy's age, and whether it runs.
func PolicyAge(j *Job, after *time.Duration) string {
	text := "the creation of a chunk"
	switch {
	case after != nil:
		text = units.FormatDuration(*after)
	case j.number != "":
		text = j.number
	}
	if !j.Scheduled {
		text += " (paused)"
	}
	return text
}
