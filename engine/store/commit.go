package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Target is where a source's rows go.
type Target struct {
	Topic   string
	Table   *spec.Table
	Columns []string // of row.Program, in its order

	stage, copyRows, copyStage, dropRepeats, fromStage string

	timed bool // rows have a time, and a rollup may read the table
}

// NewTarget prepares the statements of a source's rows.
func NewTarget(topic string, table *spec.Table, columns []string) *Target {
	name, list := pg.Ident(table.Name), pg.Idents(columns)
	return &Target{
		Topic: topic, Table: table, Columns: columns,
		copyRows: "COPY " + name + " (" + list + ") FROM STDIN (FORMAT binary)",
		stage: "CREATE TEMP TABLE IF NOT EXISTS cryptoviz_stage (LIKE " + name +
			" INCLUDING DEFAULTS) ON COMMIT DROP; TRUNCATE cryptoviz_stage",
		copyStage:   "COPY cryptoviz_stage (" + list + ") FROM STDIN (FORMAT binary)",
		timed:       table.Hypertable != nil && slices.Contains(columns, table.Hypertable.Time),
		dropRepeats: repeatsSQL(table),
		fromStage: "INSERT INTO " + name + " (" + list + ") SELECT " + list + " FROM cryptoviz_stage ON CONFLICT" +
			key(table) + " DO NOTHING",
	}
}

// key is the conflict that means "there already". A conflict with another unique index is not: such a row is refused.
func key(table *spec.Table) string {
	if len(table.PrimaryKey) == 0 {
		return ""
	}
	return " (" + pg.Idents(table.PrimaryKey) + ")"
}

var (
	errAlready     = errors.New("the batch is stored already")
	errNoPartition = errors.New("no partition for a row")
)

// idleTimeout is how long one try of Commit may stand still. A connection that died without a word would hold its
// source for ever; trying again is safe, since the position tells whether the batch was stored. Rows that flow are not
// standing still.
const idleTimeout = time.Minute

// Commit stores a batch in one transaction: position, rows, dead letters. All of it or nothing.
//
// A row that is there already, or was in a rolled-up day, is left as it is. A row that the table refuses goes to the
// dead letters, found by halving. ErrFenced: another worker owns the partition. ErrMoved: claim it again. ErrBlocked:
// nothing is stored, or it is not known; call again with the same batch. The batch's Dead grows by the records that the
// database refused; Stored and Repeats are set.
func (s *Store) Commit(ctx context.Context, t *Target, fence Fence, b *Batch) error {
	given, careful := len(b.Dead), false
	for try := 0; ; try++ {
		b.Dead = b.Dead[:given]
		alive := withIdleTimeout(ctx, s.idleTimeout)
		err := alive.fault(s.commitOnce(alive, t, fence, b, careful))
		alive.stop()
		switch {
		case err == nil, errors.Is(err, errAlready):
			return nil
		case errors.Is(err, ErrFenced), errors.Is(err, ErrMoved):
			return err
		case blames(err) != table && !careful:
			careful = true
		case errors.Is(err, errNoPartition) && try < 5:
			if err := s.ensurePartitions(ctx, t.Table, b.Rows); err != nil {
				return blocked(err)
			}
		case (pg.Is(err, pg.Conflict) || errors.Is(err, errRolled)) && try < 7:
		default:
			return blocked(err)
		}
	}
}

// blocked makes every other error an ErrBlocked that tells its cause.
func blocked(err error) error {
	if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrMoved) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBlocked, err)
}

// commitOnce tries one transaction. Only a careful one can find the row that is refused: it has savepoints, which cost
// time.
func (s *Store) commitOnce(ctx *idleContext, t *Target, fence Fence, b *Batch, careful bool) (err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var slot *time.Time
	if !b.Position.LastSlot.IsZero() {
		slot = &b.Position.LastSlot
	}
	batch := &pgx.Batch{}
	batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED") // whatever the database's default is
	batch.Queue(`UPDATE cryptoviz.position SET next_offset = $3, last_slot = greatest(last_slot, $7), updated_at = now()
		WHERE source = $1 AND partition = $2 AND epoch = $4 AND topic_id = $5 AND next_offset = $6`,
		fence.Source, fence.Partition, b.Position.Next, fence.Epoch, uuid(fence.TopicID), b.Position.First, slot)
	results := conn.SendBatch(ctx, batch)
	var moved pgconn.CommandTag
	if _, err = results.Exec(); err == nil {
		moved, err = results.Exec()
	}
	if e := results.Close(); err == nil {
		err = e
	}
	if err != nil {
		s.rollback(conn)
		return err
	}
	if moved.RowsAffected() == 0 {
		s.rollback(conn)
		return s.stored(ctx, fence, b)
	}
	w := writer{ctx: ctx, conn: conn, t: t, b: b, repeats: map[time.Time]int64{}}
	if err := w.recall(s.clock.Now()); err != nil {
		s.rollback(conn)
		return err
	}
	store := w.put
	if careful {
		store = w.rows
		// a deferred one would speak up in COMMIT, of no row
		if _, err := conn.Exec(ctx, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
			s.rollback(conn)
			return err
		}
	}
	if err := store(0, b.Rows.Len()); err != nil {
		s.rollback(conn)
		return err
	}
	if err := errors.Join(w.losses(fence), w.rolledMeanwhile()); err != nil {
		s.rollback(conn)
		return err
	}
	b.Stored, b.Repeats = w.stored, total(w.repeats)
	ctx.active()
	if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
		s.rollback(conn)
		if pg.Code(err) == "" { // the connection broke: did it commit? The position knows.
			return errors.Join(err, s.stored(context.WithoutCancel(ctx), fence, b))
		}
		return err
	}
	return nil
}

// rollback leaves the connection usable, or closes it.
func (s *Store) rollback(conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if !conn.Conn().IsClosed() && conn.Conn().PgConn().TxStatus() != 'I' {
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			_ = conn.Conn().Close(ctx)
		}
	}
}

// stored says why a position did not move: errAlready when the batch is stored, ErrFenced or ErrMoved.
func (s *Store) stored(ctx context.Context, fence Fence, b *Batch) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var id [16]byte
	var next, epoch int64
	err := s.pool.QueryRow(ctx,
		"SELECT topic_id, next_offset, epoch FROM cryptoviz.position WHERE source = $1 AND partition = $2",
		fence.Source, fence.Partition).Scan(&id, &next, &epoch)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: %s partition %d has none", ErrMoved, fence.Source, fence.Partition)
	case err != nil:
		return err
	case epoch != fence.Epoch || id != fence.TopicID:
		return ErrFenced
	case next >= b.Position.Next:
		return errAlready
	case next != b.Position.First: // a standby that lacks the last commits took over, say
		return fmt.Errorf("%w: %s partition %d is at %d, not %d", ErrMoved, fence.Source, fence.Partition, next,
			b.Position.First)
	}
	return errors.New("the transaction did not commit")
}

// losses keeps what is not a row: dead letters, gaps of the topic, and how many samples of each slot were repeats.
func (w *writer) losses(fence Fence) error {
	if len(w.b.Dead)+len(w.b.Gaps)+len(w.repeats) == 0 {
		return nil
	}
	w.ctx.active()
	batch := &pgx.Batch{}
	if err := w.deadLetters(batch, fence); err != nil {
		return err
	}
	for i := range w.b.Gaps {
		w.b.Gaps[i].queue(batch, fence, w.t.Topic)
	}
	// in order: two partitions must not wait for each other
	for _, slot := range slices.SortedFunc(maps.Keys(w.repeats), time.Time.Compare) {
		batch.Queue("UPDATE cryptoviz.slot SET repeats = repeats + $3 WHERE source = $1 AND slot = $2", fence.Source,
			slot, w.repeats[slot])
	}
	return w.conn.SendBatch(w.ctx, batch).Close()
}

// printable makes a text that PostgreSQL can store.
func printable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "�"), "�")
}
