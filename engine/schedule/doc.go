// Package schedule decides when each source runs: aligned slots, missed and overlapping ones, and which instance runs them.
package schedule
