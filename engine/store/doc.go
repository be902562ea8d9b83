// Package store holds all of the engine's run-time SQL: rows, positions, the slot ledger, rollups, status.
package store
