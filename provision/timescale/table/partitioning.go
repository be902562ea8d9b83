package table

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// becomeHypertable assesses another layout: only a plain table becomes a hypertable.
func (d *tableDiff) becomeHypertable(ctx context.Context) error {
	diff, _ := d.change.Diff("layout")
	if diff.Old != catalog.PlainTable || diff.New != catalog.Hyper {
		d.change.Find(codeLayoutFixed, "layout", "%s is a %s and cannot become a %s", d.t.name(), diff.Old,
			strings.TrimSuffix(diff.New, "s"))
		return nil
	}
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	h := d.t.Spec.Hypertable
	time := h.Time
	if w := d.t.Spec.Column(h.Time); w != nil && d.t.renames()[w.Was] == h.Time {
		time = w.Was
	}
	for _, x := range d.t.rel.Indexes { // those that stay must hold the time column
		_, changes := d.change.Diff("index " + x.Name)
		if _, key := d.change.Diff("primary_key"); x.Primary {
			changes = key
		}
		if x.Unique && !changes && !slices.Contains(x.Columns, time) {
			d.change.Find(codeUniqueWithoutTime, "layout", "the unique index %s lacks the time column %s", x.Name, time)
		}
	}
	d.step(ddl.Partitioning, !s.empty, "%s", ddl.HypertableSQL(d.t.Spec, d.t.live.Caps, !s.empty))
	if !s.empty {
		d.change.Find(codeBecomesHypertable, "layout", "%s are moved into chunks of %s", s,
			units.FormatDuration(h.ChunkInterval))
	}
	return nil
}

// timeColumn assesses another time column of a table that is cut already.
func (d *tableDiff) timeColumn(diff plan.Diff) {
	if _, recut := d.change.Diff("layout"); !recut {
		d.change.Find(codeTimeColumn, "time", "chunks are cut by %s, not by %s", diff.Old, diff.New)
	}
}

// chunkInterval assesses another length of chunks or partitions.
func (d *tableDiff) chunkInterval(diff plan.Diff) {
	if _, recut := d.change.Diff("layout"); recut || d.t.Spec.Hypertable == nil {
		return
	}
	what, n := "partitions", len(d.t.rel.Parts)
	if d.t.rel.Kind == "p" {
		d.partitions()
	} else {
		what, n = "chunks", d.t.rel.Hyper.Chunks
		d.step(ddl.Policies, false, "SELECT %s(%s, interval '%d microseconds')",
			d.t.live.Caps.Function("set_chunk_time_interval"), pg.Literal(d.quoted()),
			d.t.Spec.Hypertable.ChunkInterval.Microseconds())
	}
	if n > 0 && !d.change.Impossible() {
		d.change.Find(codeChunkInterval, "chunk_interval", "the %d %s that exist stay at %s or what they have", n, what,
			diff.Old)
	}
}

// partitions gives native partitions another length, from the end of those that exist: the engine fills what they
// leave, and a rollup deletes the rows of a day that is a part of one.
func (d *tableDiff) partitions() {
	var end time.Time
	for _, p := range d.t.rel.Parts {
		switch {
		case p.To.IsZero() && !p.From.IsZero():
			d.change.Find(codePartitionLength, "chunk_interval", "partition %s begins at %s and has no end", p.Name,
				p.From.Format(time.RFC3339))
			return
		case p.To.After(end):
			end = p.To
		}
	}
	for _, p := range partition.After(d.t.Spec, end, d.t.Now()) {
		d.step(ddl.Partitioning, false, "%s", p.DDL())
	}
}
