package clock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
)

func TestClocks(t *testing.T) {
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
