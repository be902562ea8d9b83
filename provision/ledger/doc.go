// Package ledger reads and writes cryptoviz.managed, what the last apply set on each object, and holds the lock of
// apply.
package ledger
