// Package clock is the engine's only source of time, so that a simulation can make days pass quickly.
package clock

import (
	"context"
	"sync/atomic"
	"time"
)

// Clock tells the time and waits. Every time that the engine plans, stores or compares comes from here.
type Clock struct {
	start time.Time // engine time at real
	real  time.Time
	speed float64 // engine seconds a real second; 0 is the real clock
	off   *atomic.Int64
}

// Real is the machine's clock.
func Real() Clock { return Clock{} }

// Fast returns a clock that reads start now and runs speed times as fast as the machine's.
func Fast(start time.Time, speed float64) Clock {
	return Clock{start: start, real: time.Now(), speed: speed}
}

// Stepped returns a clock that is off by so many nanoseconds of engine time. Its timers know nothing of it: to
// everybody else a changed offset is a machine that was suspended, or whose clock was set.
func Stepped(c Clock, off *atomic.Int64) Clock {
	c.off = off
	return c
}

// Now returns the engine's time, UTC.
func (c Clock) Now() time.Time {
	now := time.Now()
	if c.speed != 0 {
		now = c.start.Add(time.Duration(float64(time.Since(c.real)) * c.speed))
	}
	if c.off != nil {
		now = now.Round(0).Add(time.Duration(c.off.Load()))
	}
	return now.UTC()
}

// Speed returns how many engine seconds pass in a real second.
func (c Clock) Speed() float64 {
	if c.speed == 0 {
		return 1
	}
	return c.speed
}

// SleepUntil waits until the clock reads t, or ctx ends. It looks at the clock each second: timers stand still while a
// machine is suspended, and a clock that was set does not move them. It returns early when the clock goes back by more
// than so much: the caller may have something to do before t then.
func (c Clock) SleepUntil(ctx context.Context, t time.Time, back time.Duration) error {
	t = t.Round(0) // without its monotonic reading, which a suspended machine does not advance either
	most := t.Sub(c.Now()) + back
	for {
		left := t.Sub(c.Now())
		if left <= 0 || left > most {
			return ctx.Err()
		}
		if err := c.Sleep(ctx, min(left, time.Duration(float64(time.Second)*c.Speed()))); err != nil {
			return err
		}
	}
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
