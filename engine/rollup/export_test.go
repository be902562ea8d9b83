package rollup

import "time"

// Pauses are those between so many tries that fail.
func Pauses(n int, faulty bool) (out []time.Duration) {
	var a attempt
	for range n {
		a.failed(faulty)
		out = append(out, a.pause)
	}
	return out
}
