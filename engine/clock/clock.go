// Package clock is the engine's only source of time, so that a simulation can make days pass quickly.
package clock

import (
	"context"
	"time"
)

// Clock tells the time and waits. Every time that the engine plans, stores or compares comes from here.
type Clock struct {
	start time.Time // engine time at real
	real  time.Time
	speed float64 // engine seconds a real second; 0 is the real clock
}

// Real is the machine's clock.
func Real() Clock { return Clock{} }

// Fast returns a clock that reads start now and runs speed times as fast as the machine's.
func Fast(start time.Time, speed float64) Clock {
	return Clock{start: start, real: time.Now(), speed: speed}
}

// Now returns the engine's time, UTC.
func (c Clock) Now() time.Time {
	if c.speed == 0 {
		return time.Now().UTC()
	}
	return c.start.Add(time.Duration(float64(time.Since(c.real)) * c.speed)).UTC()
}

// Speed returns how many engine seconds pass in a real second.
func (c Clock) Speed() float64 {
	if c.speed == 0 {
		return 1
	}
	return c.speed
}

// Sleep waits for d of engine time, or until ctx ends.
func (c Clock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(time.Duration(float64(d) / c.Speed()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
