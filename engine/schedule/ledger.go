package schedule

import (
	"context"
	"fmt"
	"time"
)

// Lease is the ledger's answer to an instance that wants to run a slot.
type Lease int

// The answers.
const (
	Acquired Lease = iota // run it, renew the lease, and enter its end
	Held                  // another instance works on it; ask again later: it may die
	Finished              // it has ended
)

// Ledger is where every due slot ends, exactly once, over all instances. Leases are in real time, on the database's
// clock.
type Ledger interface {
	// Acquire asks for the right to run a slot.
	Acquire(ctx context.Context, slot Slot, lease time.Duration) (Lease, error)
	// Renew prolongs leases of a source, and returns those that were lost to another instance.
	Renew(ctx context.Context, source string, slots []time.Time, lease time.Duration) (lost []time.Time, err error)
	// Enter writes down how slots of one source ended, claimed before or not. What brought data outranks what was said
	// to have failed or to be skipped; a slot that another instance works on is left to it.
	Enter(ctx context.Context, ends []Outcome) error
	// Last returns the newest slot of a source, or zero.
	Last(ctx context.Context, source string) (time.Time, error)
	// RecordMissed enters the slots in (after, before), interval apart, that have no end yet: as skipped for the
	// reason, or as failed where an instance died with them. It returns how many it entered.
	RecordMissed(ctx context.Context, source string, after, before time.Time, interval time.Duration,
		reason string) (int, error)
}

// ClockError is the ledger's answer to an instance that is in a slot which has not begun by the ledger's clock.
type ClockError struct{ Slot, Ledger time.Time }

// Error names both times.
func (e *ClockError) Error() string {
	return fmt.Sprintf("the slot %s has not begun: the database's clock shows %s", e.Slot.Format(time.RFC3339),
		e.Ledger.Format(time.RFC3339))
}
