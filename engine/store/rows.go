package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// fault is who must change so that rows are taken.
type fault uint8

const (
	table  fault = iota // the table, the server or its operator: all rows wait
	oneRow              // one row: a dead letter
	either              // the row when others of its batch are taken, else the table
)

// errMisfit is a table that is not as pipeline.hcl declares it.
var errMisfit = errors.New("run cryptoviz plan")

// blames tells who is at fault when rows are refused. It is the one place that decides it.
func blames(err error) fault {
	switch {
	case errors.Is(err, errNoPartition):
		return table
	case errors.Is(err, errMisfit):
		return either
	}
	switch pg.ClassOf(err) {
	case pg.BadData, pg.Raised:
		return oneRow
	case pg.MissingObject, pg.NoPrivilege, pg.Rejected, pg.Other:
		// of the table, or of what its triggers do for some rows
		return either
	default:
		return table
	}
}

// writer puts rows into the open transaction of conn.
type writer struct {
	ctx    *idleContext
	conn   *pgxpool.Conn
	t      *Target
	b      *Batch
	staged bool
	stored int64 // rows that were new
	taken  bool  // the table takes some row of the batch
	rolled rolledTable

	found   []int32             // of the last send: rows that were there already, counted from its first one
	left    []int32             // rows that the stage still holds, as in found
	repeats map[time.Time]int64 // such rows of the batch, by slot
}

// rows stores rows [from, to): by COPY, by staged insert where COPY does not do, by halves when one is refused.
func (w *writer) rows(from, to int) error {
	if from == to {
		return nil
	}
	if err := w.exec("SAVEPOINT rows"); err != nil {
		return err
	}
	err := w.put(from, to)
	if err == nil {
		return w.exec("RELEASE SAVEPOINT rows")
	}
	// a key is there; row-level security
	stage := !w.staged && (pg.Code(err) == pg.UniqueViolation || pg.Code(err) == pg.FeatureNotSupported)
	blame := blames(err)
	if blame == table && !stage {
		return err
	}
	if err := w.exec(undo); err != nil {
		return err
	}
	if stage {
		w.staged = true
		return w.rows(from, to)
	}
	if blame == either {
		if taken, e := w.takesOthers(); e != nil || !taken {
			return errors.Join(e, err)
		}
	}
	if to-from == 1 {
		return w.refuse(from, err)
	}
	half := from + (to-from)/2
	if err := w.rows(from, half); err != nil {
		return err
	}
	return w.rows(half, to)
}

const undo = "ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows"

func (w *writer) exec(sql string) error {
	_, err := w.conn.Exec(w.ctx, sql)
	return err
}

// takesOthers tells whether the table takes no rows at all without an error, and some row of the batch as a new one:
// then what it refuses is that row's own fault. So many rows are tried.
func (w *writer) takesOthers() (bool, error) {
	const tries = 16
	if ok, err := w.try(0, 0); err != nil || !ok {
		return false, err
	}
	n := w.b.Rows.Len()
	for i := 0; i < min(n, tries) && !w.taken; i++ {
		at := i * n / min(n, tries)
		ok, err := w.try(at, at+1)
		if err != nil {
			return false, err
		}
		w.taken = ok
	}
	return w.taken, nil
}

// try tells whether rows [from, to) are taken, and are new; it stores none of them.
func (w *writer) try(from, to int) (bool, error) {
	if err := w.exec("SAVEPOINT rows"); err != nil {
		return false, err
	}
	tag, err := w.send(from, to)
	if err != nil && pg.Code(err) == "" {
		return false, err
	}
	return err == nil && tag.RowsAffected() == int64(to-from), w.exec(undo)
}

// put stores rows [from, to) or none.
func (w *writer) put(from, to int) error {
	if from == to {
		return nil
	}
	tag, err := w.send(from, to)
	said, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		w.stored += tag.RowsAffected()
		for _, i := range w.found {
			w.repeats[w.b.Records[w.b.Rows.Source[from+int(i)]].Slot]++
		}
	case !ok, pg.IsRaised(said):
	case said.Code == pg.NoSuchConflictKey:
		return fmt.Errorf("table %s does not have the primary key that pipeline.hcl declares: %w: %w", w.t.Table.Name,
			errMisfit, err)
	case said.Code == pg.CheckViolation && said.ConstraintName == "":
		return errNoPartition
	case said.Code == pg.InvalidBinary, said.Code == pg.BadCopyFormat, said.Code == pg.ProtocolViolation,
		said.Code == pg.NotNullViolation && said.ColumnName != "" && !slices.Contains(w.t.Columns, said.ColumnName):
		return fmt.Errorf("table %s does not have the columns that pipeline.hcl declares: %w: %w", w.t.Table.Name,
			errMisfit, err)
	}
	return err
}

func (w *writer) send(from, to int) (tag pgconn.CommandTag, err error) {
	w.ctx.active()
	w.found = w.found[:0]
	conn := w.conn.Conn().PgConn()
	rows := w.ctx.reader(stream(w.b.Rows.Slice(from, to)))
	if !w.staged {
		return conn.CopyFrom(w.ctx, rows, w.t.copyRows)
	}
	if _, err := conn.Exec(w.ctx, w.t.stage).ReadAll(); err != nil {
		return tag, err
	}
	if _, err := conn.CopyFrom(w.ctx, rows, w.t.copyStage); err != nil {
		return tag, err
	}
	if err := w.dropRepeats(to - from); err != nil {
		return tag, err
	}
	return w.conn.Exec(w.ctx, w.t.fromStage)
}

var (
	copyHeader  = append([]byte("PGCOPY\n\xff\r\n\x00"), make([]byte, 8)...)
	copyTrailer = []byte{0xff, 0xff}
)

func stream(rows []byte) io.Reader {
	return io.MultiReader(bytes.NewReader(copyHeader), bytes.NewReader(rows), bytes.NewReader(copyTrailer))
}

// refuse makes a dead letter of the record that row i came from.
func (w *writer) refuse(i int, err error) error {
	k := w.b.Rows.Source[i]
	rec := w.b.Records[k]
	said, _ := errors.AsType[*pgconn.PgError](err)
	reason := fmt.Sprintf("table %s refuses it: %s (SQLSTATE %s)", w.t.Table.Name, units.Clip(said.Message), said.Code)
	w.b.Dead = append(w.b.Dead, DeadLetter{
		Offset: w.b.Offsets[k], Key: rec.Key, Value: rec.Value, Reason: reason,
		kind: strings.TrimSpace("SQLSTATE " + said.Code + " " + said.ConstraintName), Class: DeadTable,
	})
	return nil
}
