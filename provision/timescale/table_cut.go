package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// cut judges another layout: only a plain table becomes a hypertable.
func (d *draft) cut(ctx context.Context) error {
	diff, _ := d.change.Diff("layout")
	if diff.Old != plain || diff.New != hyper {
		d.change.Find("CV-T22", "layout", "%s is a %s and cannot become a %s", d.name(), diff.Old, strings.TrimSuffix(diff.New, "s"))
		return nil
	}
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	h := d.Spec.Hypertable
	time := h.Time
	if w := d.Spec.Column(h.Time); w != nil && d.renames()[w.Was] == h.Time {
		time = w.Was
	}
	for _, x := range d.rel.indexes { // those that stay must hold the time column
		_, changes := d.change.Diff("index " + x.name)
		if _, key := d.change.Diff("primary_key"); x.primary {
			changes = key
		}
		if x.unique && !changes && !slices.Contains(x.columns, time) {
			d.change.Find("CV-T17", "layout", "the unique index %s lacks the time column %s", x.name, time)
		}
	}
	d.step(cutting, !s.empty, "%s", hypertableSQL(d.Spec, d.live.caps, !s.empty))
	if !s.empty {
		d.change.Find("CV-T21", "layout", "%s are moved into chunks of %s", s, units.FormatDuration(h.ChunkInterval))
	}
	return nil
}

// timeColumn judges another time column of a table that is cut already.
func (d *draft) timeColumn(diff plan.Diff) {
	if _, recut := d.change.Diff("layout"); !recut {
		d.change.Find("CV-T08", "time", "chunks are cut by %s, not by %s", diff.Old, diff.New)
	}
}

// chunkInterval judges another length of chunks or partitions.
func (d *draft) chunkInterval(ctx context.Context, diff plan.Diff) error {
	if _, recut := d.change.Diff("layout"); recut || d.Spec.Hypertable == nil {
		return nil
	}
	if d.rel.kind == "p" {
		return d.partitions(ctx, diff)
	}
	d.step(policies, false, "SELECT %s(%s, %s)", d.live.caps.fn("set_chunk_time_interval"), literal(d.table()), interval(d.Spec.Hypertable.ChunkInterval))
	if n := d.rel.hyper.chunks; n > 0 {
		d.change.Find("CV-T04", "chunk_interval", "the %d chunks that exist stay at %s or what they have", n, diff.Old)
	}
	return nil
}

// partitions gives native partitions another length. The engine names a partition by its start and never looks at its end, so
// two lengths cannot live side by side: the partitions are made anew, which only an empty table allows.
func (d *draft) partitions(ctx context.Context, diff plan.Diff) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	if !s.empty {
		last := d.rel.parts[len(d.rel.parts)-1]
		d.change.Find("CV-T05", "chunk_interval", "%d partitions of %s exist, the last one up to %s, with %s", len(d.rel.parts), diff.Old, last.to.Format(time.RFC3339), s)
		return nil
	}
	// Rows that came since the plan stop it: the lock keeps later ones away.
	d.step(cutting, false, "LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", d.table())
	d.step(cutting, false, "DO $$ BEGIN IF EXISTS (SELECT FROM %s) THEN RAISE EXCEPTION %s; END IF; END $$", d.table(), literal(fmt.Sprintf("table %s has rows now: plan again", d.name())))
	for _, p := range d.rel.parts {
		d.step(cutting, false, "DROP TABLE IF EXISTS %s", quote(p.schema, p.name))
	}
	for _, p := range partition.Ahead(d.Spec, d.Now()) {
		d.step(cutting, false, "%s", p.DDL())
	}
	return nil
}
