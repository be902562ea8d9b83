// Package view makes views and continuous aggregates match pipeline.hcl.
package view
