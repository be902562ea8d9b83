// Package mapping turns raw records into rows: a source's row expressions, compiled once.
package mapping
