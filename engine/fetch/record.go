package fetch

import "time"

// Record is one market's piece of a reply, exactly as the source sent it.
type Record struct {
	Key      string // the market; becomes the Kafka key
	Value    []byte // JSON of one record, or the outer HTML of one element
	Received time.Time
}
