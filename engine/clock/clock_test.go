package clock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
)

func TestClocks(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 4, 23, 59, 0, 0, time.FixedZone("", 3600))
	for name, c := range map[string]struct {
		make  func() clock.Clock
		speed float64
	}{
		"real":              {clock.Real, 1},
		"zero":              {func() clock.Clock { return clock.Clock{} }, 1},
		"as fast":           {func() clock.Clock { return clock.Fast(start, 1) }, 1},
		"ten minutes a sec": {func() clock.Clock { return clock.Fast(start, 600) }, 600},
		"an hour a sec":     {func() clock.Clock { return clock.Fast(start, 3600) }, 3600},
		"slow":              {func() clock.Clock { return clock.Fast(start, 0.5) }, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := c.make()
				began, real := k.Now(), time.Now()
				if k.Speed() != c.speed || began.Location() != time.UTC {
					t.Errorf("speed %v in %v", k.Speed(), began.Location())
				}
				for n := range 5 {
					before := k.Now()
					if err := k.Sleep(t.Context(), 90*time.Second); err != nil {
						t.Fatal(err)
					}
					if passed := k.Now().Sub(before); passed < 90*time.Second-time.Microsecond || passed > 90*time.Second+time.Microsecond {
						t.Errorf("sleep %d took %v", n, passed)
					}
				}
				want := time.Duration(float64(time.Since(real)) * c.speed)
				if passed := k.Now().Sub(began); passed != want {
					t.Errorf("%v passed, the machine's clock says %v", passed, want)
				}
			})
		})
	}
}

func TestFastBeginsAtStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
		k := clock.Fast(start, 600)
		if !k.Now().Equal(start) || k == clock.Real() {
			t.Errorf("it reads %v", k.Now())
		}
		time.Sleep(30 * 24 * time.Hour)
		if want := start.Add(600 * 30 * 24 * time.Hour); !k.Now().Equal(want) {
			t.Errorf("after a month it reads %v, want %v", k.Now(), want)
		}
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := clock.Fast(began, 60).Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := clock.Real().Sleep(t.Context(), -time.Hour); err != nil || time.Since(began) != time.Second {
			t.Errorf("no time at all: %v", err)
		}
	})
}

// TestSleepUntil: the machine may be suspended meanwhile, or its clock set, forth and back.
func TestSleepUntil(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		speed float64
		step  time.Duration // after ten real seconds
		took  time.Duration // real
	}{
		"undisturbed":       {1, 0, time.Minute},
		"fast":              {60, 0, time.Second},
		"suspended":         {1, time.Hour, 10 * time.Second},
		"a little forth":    {1, 20 * time.Second, 40 * time.Second},
		"a little back":     {1, -20 * time.Second, 80 * time.Second},
		"back by very much": {1, -24 * time.Hour, 10 * time.Second}, // for the caller to look what is next
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var off atomic.Int64
				k := clock.Stepped(clock.Fast(time.Now(), c.speed), &off)
				began, real := k.Now(), time.Now()
				time.AfterFunc(10*time.Second-time.Millisecond, func() { off.Store(int64(c.step)) })
				if err := k.SleepUntil(t.Context(), began.Add(time.Minute), time.Hour); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(real); took < c.took || took > c.took+time.Second {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				time.Sleep(time.Minute) // for the timer
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range []time.Duration{-time.Hour, time.Hour} {
		if err := clock.Real().SleepUntil(ctx, time.Now().Add(d), time.Hour); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
