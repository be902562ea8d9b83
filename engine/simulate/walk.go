package simulate

import (
	"hash/fnv"
	"math"
	"time"
)

// The walk is a sum of octaves: in octave k a random level for each period of 4 s · 4^k, joined by straight lines. Its
// swing grows with the root of the period, as a price's does: about 2.5 % a day. Nothing needs to be remembered.
const (
	octaves    = 12 // the longest period is half a year
	shortest   = 4 * time.Second
	swing      = 8.5e-5 // of the logarithm, a root second
	venueSwing = 1e-4   // how far two markets of one asset drift apart
)

// walk is one market's way. The same asset moves together on every venue, but for a small part of its own.
type walk struct{ asset, market uint64 }

func newWalk(seed uint64, source, asset, market string) walk {
	return walk{mix(seed ^ hash(asset)), mix(seed ^ hash(source+"\x00"+market))}
}

// factor is what a price is multiplied by at t: positive, around 1.
func (w walk) factor(t time.Time) float64 {
	ns := t.UnixNano()
	sum := venueSwing * noise(w.market, ns, int64(16*time.Second))
	period := shortest
	for k := range uint64(octaves) {
		sum += swing * math.Sqrt(period.Seconds()) * noise(w.asset+k*0x9e3779b97f4a7c15, ns, int64(period))
		period *= 4
	}
	return math.Exp(sum)
}

// noise is between -1 and 1, continuous in time.
func noise(key uint64, ns, period int64) float64 {
	step, rest := ns/period, ns%period
	if rest < 0 { // before 1970
		step, rest = step-1, rest+period
	}
	from, to := level(key, step), level(key, step+1)
	return from + (to-from)*float64(rest)/float64(period)
}

func level(key uint64, step int64) float64 {
	return float64(int64(mix(key^mix(uint64(step))))) / (1 << 63)
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
