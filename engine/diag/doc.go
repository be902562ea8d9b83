// Package diag holds what is wrong with a pipeline, and prints it: with its place, its line and a remedy.
package diag
