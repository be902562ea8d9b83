package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Log is a partition as the broker has it now.
type Log struct {
	Source    string
	Topic     string
	Partition int32
	TopicID   [16]byte
	Start     int64 // first offset that is still kept
	End       int64 // offset of the next record
}

// Claim takes a partition: it raises the epoch, so that no earlier owner can store any more, and returns where to go
// on. Records that are gone for good are noted in cryptoviz.gap: a topic that was deleted and created again, records
// that retention removed before they were read, a log that is shorter than it was.
//
// An earlier owner that stands still inside a transaction (a paused process, a lost machine) is cut off: the group has
// given its partition away, and what it stored is rolled back.
func (s *Store) Claim(ctx context.Context, l Log) (Claimed, error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	out, err := s.claim(ctx, l)
	if pg.Is(err, pg.LockBusy) {
		var cut int
		err = s.pool.QueryRow(ctx, `SELECT count(pg_terminate_backend(l.pid)) FROM cryptoviz.position p
			JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = p.xmax AND l.granted
			WHERE p.source = $1 AND p.partition = $2 AND l.pid <> pg_backend_pid()`, l.Source, l.Partition).Scan(&cut)
		s.log.WarnContext(ctx, "earlier owner stands still in a transaction", "source", l.Source, "partition",
			l.Partition, "connections_ended", cut)
		if err == nil {
			out, err = s.claim(ctx, l)
		}
	}
	if err != nil {
		return Claimed{}, fmt.Errorf("claim %s partition %d: %w", l.Source, l.Partition, blocked(err))
	}
	return out, nil
}

func (s *Store) claim(ctx context.Context, l Log) (out Claimed, err error) {
	out = Claimed{Fence: Fence{Source: l.Source, Partition: l.Partition, TopicID: l.TopicID, Epoch: 1}, Next: l.Start}
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '3s'"); err != nil {
			return err
		}
		var id [16]byte
		var next, epoch int64
		var slot *time.Time
		err := tx.QueryRow(ctx,
			"SELECT topic_id, next_offset, epoch, last_slot FROM cryptoviz.position WHERE source = $1 AND partition = $2 FOR UPDATE",
			l.Source, l.Partition).Scan(&id, &next, &epoch, &slot)
		if errors.Is(err, pgx.ErrNoRows) {
			_, err = tx.Exec(ctx,
				`INSERT INTO cryptoviz.position (source, partition, topic, topic_id, next_offset, epoch) VALUES ($1, $2, $3, $4, $5, 1)`,
				l.Source, l.Partition, l.Topic, uuid(l.TopicID), out.Next)
			return err
		}
		if err != nil {
			return err
		}
		if slot != nil {
			out.LastSlot = slot.UTC()
		}
		gap := Gap{From: next, To: next, After: out.LastSlot}
		switch {
		case id != l.TopicID:
			gap.To, gap.Reason = l.Start, "the topic was deleted and created again"
		case next < l.Start:
			gap.To, gap.Reason = l.Start, RemovedUnread
		case next > l.End:
			gap.To, gap.Reason = l.End, "the topic is shorter than what was read of it: the broker lost records"
		}
		if gap.Reason != "" {
			out.Gap = &gap
			batch := &pgx.Batch{}
			gap.queue(batch, out.Fence, l.Topic)
			if err := tx.SendBatch(ctx, batch).Close(); err != nil {
				return err
			}
		}
		if err := tx.QueryRow(ctx,
			"SELECT EXISTS (SELECT FROM cryptoviz.gap WHERE source = $1 AND partition = $2 AND after_slot IS NOT NULL AND before_slot IS NULL)",
			l.Source, l.Partition).Scan(&out.Pending); err != nil {
			return err
		}
		out.Next, out.Fence.Epoch = gap.To, epoch+1
		_, err = tx.Exec(ctx,
			`UPDATE cryptoviz.position SET topic = $3, topic_id = $4, next_offset = $5, epoch = $6, updated_at = now() WHERE source = $1 AND partition = $2`,
			l.Source, l.Partition, l.Topic, uuid(l.TopicID), out.Next, out.Fence.Epoch)
		return err
	})
	return out, err
}
