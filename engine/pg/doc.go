// Package pg holds basics of PostgreSQL that are the same for all who use it.
package pg
