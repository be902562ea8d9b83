package consume

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// gaps finds what of a partition was gone before it could be read.
type gaps struct {
	next    int64     // offset that is wanted
	last    time.Time // newest slot so far
	pending bool      // a gap waits for the slot after it
}

// look notes what is missing before a record. Offsets that the log passes over are no loss: markers and aborted records
// of transactions, what compaction removed. Those before the start of the log are.
func (g *gaps) look(b *store.Batch, r *kgo.Record, start int64, slots *record.Slots) {
	end := r.Offset
	if start >= 0 {
		end = min(end, start)
	}
	if g.next < end {
		b.Gaps = append(b.Gaps, store.Gap{From: g.next, To: end, Reason: store.RemovedUnread, After: g.last})
		g.pending = true
	}
	g.next = r.Offset + 1
	if !g.pending || r.Attrs.IsControl() {
		return
	}
	if slot := slots.Of(r); !slot.IsZero() {
		b.Gaps, g.pending = append(b.Gaps, store.Gap{Before: slot}), false
	}
}

// lost tells of a gap: in the log, and in the counters.
func (w *Worker) lost(partition int32, g store.Gap) {
	switch {
	case !g.Before.IsZero():
		if g.Slots > 0 {
			w.log.Error("slots lost records and are entered as failed", "partition", partition, "slots", g.Slots,
				"until", g.Before)
		}
		return
	case g.Reason == store.RemovedUnread:
		w.log.Error("records lost", "reason", g.Reason, "partition", partition, "records", g.Records(), "from_offset",
			g.From, "to_offset", g.To, "after_slot", g.After)
	default:
		w.log.Warn("gap in topic", "reason", g.Reason, "partition", partition, "from_offset", g.From, "to_offset", g.To,
			"after_slot", g.After)
	}
	w.gaps.Add(1)
	w.gapRecords.Add(g.Records())
}
