// Package units reads and writes durations, sizes and decimal numbers as pipeline.hcl has them.
package units
