package row

import "time"

// Record is what a worker knows of one Kafka record.
type Record struct {
	Key   string    // Kafka key: the market
	Value []byte    // as the source sent it
	Slot  time.Time // planned time of the slot, from the record's header
	Fault string    // why the producer could not compute Key, which is then ""; from the record's header
}

// Rows are mapped rows in PostgreSQL's binary COPY encoding (without header and trailer), so that a
// batch reaches the server with no further conversion. Reset keeps the memory for the next batch.
type Rows struct {
	Data []byte // the rows, one after the other
	Ends []int  // Ends[i] is the offset in Data behind row i
	// value of the table's time column of row i, in microseconds since 1970-01-01 UTC; 0 where the table has none
	Times  []int64
	Source []int32 // index, in the caller's batch, of the record that row i came from
}

// Len returns the number of rows.
func (r *Rows) Len() int { return len(r.Ends) }

// Reset empties the batch and keeps its memory.
func (r *Rows) Reset() {
	r.Data, r.Ends, r.Times, r.Source = r.Data[:0], r.Ends[:0], r.Times[:0], r.Source[:0]
}

// Slice returns the bytes of rows [from, to).
func (r *Rows) Slice(from, to int) []byte {
	start := 0
	if from > 0 {
		start = r.Ends[from-1]
	}
	if to == 0 {
		return nil
	}
	return r.Data[start:r.Ends[to-1]]
}

// Truncate keeps the first n rows.
func (r *Rows) Truncate(n int) {
	end := 0
	if n > 0 {
		end = r.Ends[n-1]
	}
	r.Data, r.Ends, r.Times, r.Source = r.Data[:end], r.Ends[:n], r.Times[:n], r.Source[:n]
}
