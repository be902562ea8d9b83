package killtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// The committers that lack one of the protections.
const (
	noFence      = "nofence"      // whoever has a batch stores it
	latePosition = "lateposition" // the position moves after the transaction of the rows
)

// naive stores batches as one might without thinking of kills. Everything but Commit is the store's.
type naive struct {
	consume.Store
	pool  *pgxpool.Pool
	lacks string
}

// Commit copies the rows and moves the position.
func (n naive) Commit(ctx context.Context, t *store.Target, fence store.Fence, b *store.Batch) error {
	err := pgx.BeginFunc(ctx, n.pool, func(tx pgx.Tx) error {
		if n.lacks == noFence {
			const sql = "UPDATE cryptoviz.position SET next_offset = $3 WHERE source = $1 AND partition = $2"
			if _, err := tx.Exec(ctx, sql, fence.Source, fence.Partition, b.Position.Next); err != nil {
				return err
			}
		}
		head, tail := append([]byte("PGCOPY\n\xff\r\n\x00"), make([]byte, 8)...), []byte{0xff, 0xff}
		rows := io.MultiReader(bytes.NewReader(head), bytes.NewReader(b.Rows.Data), bytes.NewReader(tail))
		_, err := tx.Conn().PgConn().CopyFrom(ctx, rows,
			fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)", pg.Ident(t.Table.Name), pg.Idents(t.Columns)))
		return err
	})
	if err == nil && n.lacks == latePosition {
		const sql = `UPDATE cryptoviz.position SET next_offset = $3
			WHERE source = $1 AND partition = $2 AND epoch = $4 AND topic_id = $5`
		_, err = n.pool.Exec(ctx, sql, fence.Source, fence.Partition, b.Position.Next, fence.Epoch,
			pgtype.UUID{Bytes: fence.TopicID, Valid: true})
	}
	if err != nil {
		return errors.Join(store.ErrBlocked, err)
	}
	return nil
}
