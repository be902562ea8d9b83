// Package decode cuts replies and frames into records, and finds what a source reports as its own failure.
package decode
