// Package ddl writes the statements of a change, and runs them.
package ddl
