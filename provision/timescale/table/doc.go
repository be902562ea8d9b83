// Package table makes tables match pipeline.hcl.
package table
