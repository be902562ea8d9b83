// Package schedule decides when each source is fetched: aligned slots in UTC, one run a slot over all instances, never
// two of one source at a time, and an entry in the ledger for every slot that was due.
package schedule
