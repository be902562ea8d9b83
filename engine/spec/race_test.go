//go:build race

package spec

const slowdown = 10 // of the race detector
