package store

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cryptoviz/cryptoviz/engine/row"
)

// ErrFenced means that another owner has taken this partition: nothing was stored; give the partition back.
var ErrFenced = errors.New("another worker has taken this partition")

// ErrMoved means that the position in the database is not where this worker left it: nothing was stored; claim the
// partition again. A database that lost its last commits (a standby took over, a backup was restored) shows so: the
// rows are gone with the position, and are read again.
var ErrMoved = errors.New("the position in the database was moved")

// ErrBlocked means that the database cannot take rows now and the record is not to blame: a missing table or
// column, no rights, a read-only server, a lost connection. Wait and try again; drop nothing.
var ErrBlocked = errors.New("the database cannot take rows")

// Fence proves the right to write a partition. It is issued on assignment by Claim and checked in each Commit.
type Fence struct {
	Source    string
	Partition int32
	TopicID   [16]byte
	Epoch     int64
}

// Position is the stretch of a partition that a batch covers: [First, Next). First is where the last batch ended.
type Position struct {
	First, Next int64
	LastSlot    time.Time // newest slot among the records, zero if none had one
}

// DeadLetter is a record that cannot become a row, with the reason. It is kept in the transaction that moves the
// position.
type DeadLetter struct {
	Offset int64
	Key    string
	Value  []byte
	// what failed, the same for all records of the kind: "column price", "decode.key", "time"; finer than Class
	Kind   string
	Reason string
	kind   string // of the reason; "" for deadKind
	Class  string // what it failed at: one of DeadClasses
}

// DeadClasses are the kinds of reasons: the record's key could not be computed; an expression of the row block failed;
// its time cannot be; the table refused the row.
var DeadClasses = []string{DeadKey, DeadRow, DeadTime, DeadTable}

// The classes.
const (
	DeadKey   = "key"
	DeadRow   = "row"
	DeadTime  = "time"
	DeadTable = "table"
)

// Batch is what one Commit stores in one transaction.
type Batch struct {
	Position Position
	Rows     *row.Rows
	Offsets  []int64 // offset of record i; Rows.Source[i] indexes it
	Records  []row.Record
	Dead     []DeadLetter
	Gaps     []Gap
	Stored   int64 // set by Commit: rows that were new, neither there already nor refused
	// set by Commit: rows that were there already, in the table, in a rolled-up day or earlier in the batch
	Repeats int64
}

// Gap is a stretch [From, To) of the partition that was gone before it could be read. Which slots it took is known once
// a record after it has a slot: then another Gap, of no stretch, tells that one as Before.
type Gap struct {
	From, To int64
	Reason   string
	After    time.Time // newest slot that was stored before it, zero for none
	Before   time.Time // slot of the first record after it
	Slots    int64     // set by Commit: slots that lost records, and are entered as failed
}

// Records is how many offsets a gap has, 0 where that cannot be known.
func (g Gap) Records() int64 { return max(0, g.To-g.From) }

// Claimed is a partition that was claimed.
type Claimed struct {
	Fence    Fence
	Next     int64     // first offset to store
	LastSlot time.Time // newest slot that is stored, zero for none
	Gap      *Gap      // noted by this claim, or nil
	Pending  bool      // the slots of a gap are not entered yet
}

// uuid is an id that goes to the server in every mode of a connection, also in those of connection poolers.
func uuid(id [16]byte) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }
