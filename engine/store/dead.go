package store

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// What is kept of the dead letters of one source, kind and hour: the first ones, and then samples. All are counted.
const (
	deadFirst   = 1000
	deadBytes   = 16 << 20
	deadSamples = 1000 // one of so many
	deadKinds   = 50   // more are one kind
)

// deadKind is what a reason has in common with those of other records: no quoted text, no number.
func deadKind(reason string) string {
	return units.Clip(printable(strings.Join(strings.Fields(valueForm.ReplaceAllString(reason, "…")), " ")))
}

var valueForm = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'[^']*'|[-+]?\d[\d.,:eE+-]*`)

// deadGroup is one kind in a batch.
type deadGroup struct {
	records, kept, bytes int64 // in the hour so far
	batch                struct{ records, kept, bytes, from, to int64 }
	reason               string
}

// keeps tells whether the next record of the group is kept as a whole.
func (g *deadGroup) keeps() bool {
	return g.kept < deadFirst && g.bytes < deadBytes || g.records%deadSamples == 0
}

func (g *deadGroup) add(d *DeadLetter) (keep bool) {
	keep = g.keeps()
	n := &g.batch
	if n.records == 0 {
		n.from = d.Offset
	}
	n.from, n.to = min(n.from, d.Offset), max(n.to, d.Offset+1)
	g.records, n.records, g.reason = g.records+1, n.records+1, d.Reason
	if size := int64(len(d.Value)); keep {
		g.kept, n.kept = g.kept+1, n.kept+1
		g.bytes, n.bytes = g.bytes+size, n.bytes+size
	}
	return keep
}

// deadLetters queues the batch's dead letters: those that are kept, and the count of all with the offsets between which
// they are.
func (w *writer) deadLetters(batch *pgx.Batch, fence Fence) error {
	if len(w.b.Dead) == 0 {
		return nil
	}
	groups := map[string]*deadGroup{}
	rows, err := w.conn.Query(w.ctx,
		"SELECT kind, sum(records)::bigint, sum(kept)::bigint, sum(bytes)::bigint FROM cryptoviz.dead_letter_hour WHERE source = $1 AND hour = date_trunc('hour', now()) GROUP BY kind", fence.Source)
	if err != nil {
		return err
	}
	var kind string
	var so deadGroup
	if _, err := pgx.ForEachRow(rows, []any{&kind, &so.records, &so.kept, &so.bytes}, func() error {
		groups[kind] = &deadGroup{records: so.records, kept: so.kept, bytes: so.bytes}
		return nil
	}); err != nil {
		return err
	}
	for i := range w.b.Dead {
		d := &w.b.Dead[i]
		kind := d.kind
		if kind == "" {
			kind = deadKind(d.Reason)
		}
		if groups[kind] == nil && len(groups) >= deadKinds {
			kind = "other"
		}
		if groups[kind] == nil {
			groups[kind] = &deadGroup{}
		}
		if groups[kind].add(d) {
			batch.Queue(`INSERT INTO cryptoviz.dead_letter (source, topic, topic_id, partition, "offset", key, value, reason, kind)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
				fence.Source, w.t.Topic, uuid(fence.TopicID), fence.Partition, d.Offset, printable(d.Key),
				append([]byte{}, d.Value...), printable(d.Reason), kind)
		}
	}
	for kind, g := range groups {
		if n := g.batch; n.records > 0 {
			batch.Queue(`INSERT INTO cryptoviz.dead_letter_hour AS h (source, topic, topic_id, partition, hour, kind, records, kept, bytes, from_offset, to_offset, reason)
				VALUES ($1, $2, $3, $4, date_trunc('hour', now()), $5, $6, $7, $8, $9, $10, $11)
				ON CONFLICT (source, hour, kind, topic_id, partition) DO UPDATE SET records = h.records + excluded.records, kept = h.kept + excluded.kept, bytes = h.bytes + excluded.bytes,
				from_offset = least(h.from_offset, excluded.from_offset), to_offset = greatest(h.to_offset, excluded.to_offset), reason = excluded.reason`,
				fence.Source, w.t.Topic, uuid(fence.TopicID), fence.Partition, kind, n.records, n.kept, n.bytes, n.from,
				n.to, printable(g.reason))
		}
	}
	return nil
}
