package schedule

import "time"

// Slot is one planned run of a source. At is the planned time, UTC: never "now".
type Slot struct {
	Source string
	At     time.Time
}

// Kind is how a slot ended.
type Kind string

// The ends of a slot. Every due slot gets exactly one of them in the ledger.
const (
	OK          Kind = "ok"           // records were fetched and acknowledged by Kafka
	NotModified Kind = "not_modified" // the source said that nothing changed
	Late        Kind = "late"         // fetched, but after the slot's end
	Skipped     Kind = "skipped"      // not tried; Reason says why (overlap, down, budget …)
	Failed      Kind = "failed"       // tried and given up; Reason says why
)

// Outcome is one row of the slot ledger.
type Outcome struct {
	Slot
	Kind    Kind
	Reason  string
	Records int
	Took    time.Duration
	// Pending is set while the records wait for Kafka. It waits for that, and returns how the slot ends.
	Pending func() Outcome
}
