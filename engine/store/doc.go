// Package store holds all of the engine's run-time SQL: rows, positions, the slot ledger, dead letters, gaps, the
// memory of samples.
package store
