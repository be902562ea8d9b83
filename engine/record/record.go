package record

import (
	"crypto/sha256"
	"time"
)

// Record is one market's piece of a reply: as the source sent it, in UTF-8.
type Record struct {
	Key      string // the market; becomes the Kafka key
	Value    []byte // JSON of one record, or the outer HTML of one element
	Fault    string // why Key could not be computed; Key is then "", and the record is to end as a dead letter
	Received time.Time
}

// Identity is what two records of one slot have in common when one of them is enough: the market. A record without a
// key is like none but its own copies: nobody knows whose it is.
func (r Record) Identity() string {
	if r.Fault == "" {
		return r.Key
	}
	sum := sha256.Sum256(r.Value)
	return "\x00" + string(sum[:16])
}
