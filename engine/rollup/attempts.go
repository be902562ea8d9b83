package rollup

import (
	"maps"
	"slices"
	"time"
)

// attempts are the days that are due, and were not rolled up yet.
type attempts map[time.Time]*attempt

// attempt is how a day stands.
type attempt struct {
	until time.Time     // engine time: workers are waited for so long
	tries int           // that failed
	pause time.Duration // real time between the last try and the next one
	next  time.Time     // real time of the next try
	said  time.Time     // real time when the log last told of it
}

// of returns the attempt of a day, a new one waits for workers until a time.
func (a attempts) of(day, until time.Time) *attempt {
	if a[day] == nil {
		a[day] = &attempt{until: until}
	}
	return a[day]
}

// keep forgets the days that are not due any more.
func (a attempts) keep(due []time.Time) {
	maps.DeleteFunc(a, func(day time.Time, _ *attempt) bool { return !slices.ContainsFunc(due, day.Equal) })
}

// next is when the next try is due, in real time.
func (a attempts) next() (at time.Time, ok bool) {
	for _, one := range a {
		if one.tries > 0 && (!ok || one.next.Before(at)) {
			at, ok = one.next, true
		}
	}
	return at, ok
}

// failed sets when the next try is.
func (a *attempt) failed(faulty bool) {
	a.tries++
	a.pause = min(max(2*a.pause, tryFirst), tryLast)
	if faulty {
		a.pause = tryFaulty
	}
	a.next = time.Now().Add(a.pause)
}
