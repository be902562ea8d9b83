package store

import (
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// RemovedUnread is the reason of a gap that no longer retention, or a faster worker, would have prevented.
const RemovedUnread = "the topic's retention removed records before they were stored"

// queue notes a gap, or enters what the gaps noted before took: the slots between the last one that was stored and the
// first one after it. The two themselves are whole, unless the gap is longer than what the ledger says of those
// between.
func (g *Gap) queue(batch *pgx.Batch, fence Fence, topic string) {
	if g.Before.IsZero() {
		var after *time.Time
		if !g.After.IsZero() {
			after = &g.After
		}
		batch.Queue(`INSERT INTO cryptoviz.gap (source, topic, partition, from_offset, to_offset, reason, after_slot) VALUES ($1, $2, $3, $4, $5, $6, coalesce($7::timestamptz, '-infinity'))`,
			fence.Source, topic, fence.Partition, g.From, g.To, g.Reason, after)
		return
	}
	batch.Queue(`WITH g AS (
			UPDATE cryptoviz.gap SET before_slot = $3 WHERE source = $1 AND partition = $2 AND after_slot IS NOT NULL AND before_slot IS NULL
			RETURNING from_offset, to_offset, after_slot, reason, to_offset - from_offset > 1 + (SELECT coalesce(sum(records + 1), 0) FROM cryptoviz.slot
				WHERE source = $1 AND slot > after_slot AND slot < $3) AND (SELECT count(*) = 1 FROM cryptoviz.position WHERE source = $1) AS longer)
		UPDATE cryptoviz.slot AS s SET state = 'failed', reason = g.reason || format(': offsets %s to %s of partition %s', g.from_offset, g.to_offset - 1, $2::int)
		FROM g WHERE s.source = $1 AND s.state IN ('ok', 'late') AND s.records > 0 AND s.slot >= g.after_slot AND s.slot <= $3
			AND (g.longer OR s.slot > g.after_slot AND s.slot < $3)`, fence.Source, fence.Partition, g.Before).
		Exec(func(tag pgconn.CommandTag) error {
			g.Slots = tag.RowsAffected()
			return nil
		})
}
