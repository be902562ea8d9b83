//go:build race

package load

const slowdown = 10 // of the race detector
