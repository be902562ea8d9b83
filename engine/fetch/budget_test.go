package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/fetch"
)

// budgeted is a poll with a budget block of these lines.
func budgeted(t testing.TB, opt fetch.Options, s *server, name string, lines ...string) *fetch.Poll {
	t.Helper()
	p := newPoll(t, source(t, "1m", poll(api, "retries = 0", fmt.Sprintf("budget %q {\n%s\n}", name, strings.Join(lines, "\n"))), jsonDecode), opt)
	p.RoundTrip(s)
	return p
}

// TestBudgetAtTheServer counts what arrives there: sources that share a budget never send more than it allows in any stretch
// of time, however long the way is.
func TestBudgetAtTheServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, cost int
		per         time.Duration
		speed       float64
	}{
		{10, 1, 10 * time.Second, 1},
		{10, 3, 10 * time.Second, 1},
		{15, 1, 15 * time.Second, 1}, // Kraken's
		{6000, 80, time.Minute, 1},   // Binance's, all markets
		{1, 1, time.Second, 1},
		{100, 7, time.Minute, 600},
	} {
		synctest.Test(t, func(t *testing.T) {
			per := time.Duration(float64(c.per) / c.speed)
			var mu sync.Mutex
			var arrived []time.Time
			way := func() {
				time.Sleep(time.Duration(rand.Float64() * float64(per) / 10))
			}
			s := &server{answer: func(int, *http.Request) (*http.Response, error) {
				way()
				mu.Lock()
				arrived = append(arrived, time.Now())
				mu.Unlock()
				way()
				if rand.IntN(10) == 0 {
					return nil, errors.New("broken off")
				}
				return reply(200, oneRecord), nil
			}}
			opt := fetch.Options{Budgets: fetch.NewBudgets(nil, nil), Clock: clock.Fast(time.Now(), c.speed)}
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 30 {
				p := budgeted(t, opt, s, "shared", fmt.Sprintf("limit = %d\nper = %q\ncost = %d", c.limit, c.per, c.cost))
				all.Go(func() {
					for ctx.Err() == nil {
						_, _ = p.Fetch(ctx)
					}
				})
			}
			time.Sleep(10 * per)
			cancel()
			all.Wait()
			slices.SortFunc(arrived, time.Time.Compare)
			most := 0
			for i, at := range arrived {
				n := 0
				for _, other := range arrived[i:] {
					if other.Sub(at) < per {
						n++
					}
				}
				most = max(most, n*c.cost)
			}
			if most > c.limit {
				t.Errorf("%+v: %d in one stretch", c, most)
			}
			if n := len(arrived); n*c.cost*10 < 10*c.limit*6 {
				t.Errorf("%+v: only %d requests in ten stretches", c, n)
			}
		})
	}
}

// TestBudgetSpent: what does not fit waits, or is skipped at once when the slot ends before.
func TestBudgetSpent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := always(200, oneRecord), time.Now()
		opt := fetch.Options{Budgets: fetch.NewBudgets(nil, nil)}
		one := budgeted(t, opt, s, "b", `limit = 5`, `per = "1m"`, `cost = 3`)
		two := budgeted(t, opt, s, "b", `limit = 5`, `per = "1m"`, `cost = 2`)
		other := budgeted(t, opt, s, "c", `limit = 1`, `per = "1m"`)
		for _, p := range []*fetch.Poll{one, two, other} {
			if _, err := p.Fetch(slot(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := two.Fetch(slot(t, 59*time.Second))
		if e := failure(t, err); !e.NotTried || e.Reason != "the request budget b (5 per 1m) is spent" || s.count() != 3 || time.Since(began) != 0 {
			t.Errorf("%+v after %s, %d requests", e, time.Since(began), s.count())
		}
		if _, err := two.Fetch(slot(t, 61*time.Second)); err != nil || time.Since(began) != time.Minute || s.count() != 4 {
			t.Errorf("%v after %s, %d requests", err, time.Since(began), s.count())
		}
		// A stop while it waits.
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		for range 3 {
			_, err = one.Fetch(ctx)
		}
		if e := failure(t, err); !e.NotTried || time.Since(began) != time.Minute+time.Second {
			t.Errorf("%+v after %s", e, time.Since(began))
		}
	})
}

// TestBudgetIsSpentByRetries: the reason stays what the attempt before found.
func TestBudgetIsSpentByRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := always(500, "broken")
		p := newPoll(t, source(t, "1m", poll(api, `budget "b" {`, `limit = 2`, `per = "1h"`, `}`), jsonDecode), fetch.Options{})
		p.RoundTrip(s)
		_, err := p.Fetch(slot(t, time.Minute))
		if e := failure(t, err); e.NotTried || e.Reason != "HTTP 500 Internal Server Error: broken" || s.count() != 2 {
			t.Errorf("%+v, %d requests", e, s.count())
		}
		_, err = p.Fetch(slot(t, time.Minute))
		if e := failure(t, err); !e.NotTried || s.count() != 2 {
			t.Errorf("%+v, %d requests", e, s.count())
		}
	})
}

// TestSmallerBudget: where two sources disagree, the smaller rate counts, and one that cannot live with it says so.
func TestSmallerBudget(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := always(200, oneRecord)
			opt := fetch.Options{Budgets: fetch.NewBudgets(nil, nil)}
			var all, few *fetch.Poll
			if first {
				all = budgeted(t, opt, s, "b", `limit = 6000`, `per = "1m"`, `cost = 80`)
			}
			few = budgeted(t, opt, s, "b", `limit = 2`, `per = "10s"`)
			if !first {
				all = budgeted(t, opt, s, "b", `limit = 6000`, `per = "1m"`, `cost = 80`)
			}
			_, err := all.Fetch(slot(t, time.Minute))
			if e := failure(t, err); !e.NotTried || e.Reason != "the request budget b (2 per 10s) is smaller than one request, which costs 80: give every source of that budget the same limit" {
				t.Errorf("%+v", e)
			}
			for range 2 {
				if _, err := few.Fetch(slot(t, time.Second)); err != nil {
					t.Error(err)
				}
			}
			_, err = few.Fetch(slot(t, 9*time.Second))
			if e := failure(t, err); !e.NotTried || s.count() != 2 {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestBudgetLearns: others at this address use the server too, and it says how much.
func TestBudgetLearns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		used string
		left int // requests that go through afterwards
	}{
		{"1", 99},
		{"50", 50},
		{"50.5", 49},
		{"99", 1},
		{"100", 0},
		{"5000", 0},
		{"1e300", 0},
		{"99999999999999999999", 0},
		{"", 99},
		{"0", 99},
		{"-7", 99},
		{"NaN", 99},
		{"much", 99},
		{"-1e300", 99},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: func(n int, _ *http.Request) (*http.Response, error) {
				if n > 0 {
					return reply(200, oneRecord), nil
				}
				return reply(200, oneRecord, "X-Mbx-Used-Weight-1m", c.used), nil
			}}
			opt := fetch.Options{Budgets: fetch.NewBudgets(nil, nil)}
			lines := []string{`limit = 100`, `per = "1m"`, `used = header["X-MBX-USED-WEIGHT-1M"]`}
			one, two := budgeted(t, opt, s, "b", lines...), budgeted(t, opt, s, "b", lines...)
			if _, err := one.Fetch(slot(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; ; n++ {
				if _, err := two.Fetch(slot(t, 59*time.Second)); err != nil {
					break
				}
			}
			if n != c.left {
				t.Errorf("used %q: %d more, want %d", c.used, n, c.left)
			}
			time.Sleep(time.Minute)
			if _, err := two.Fetch(slot(t, time.Second)); err != nil {
				t.Errorf("used %q: %v", c.used, err)
			}
		})
	}
}

// TestUsedByExpression: the header may need a little work, also from an error's reply.
func TestUsedByExpression(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := always(400, "", "X-Left", "1")
		p := budgeted(t, fetch.Options{}, s, "b", `limit = 10`, `per = "1m"`, `used = 10 - number(header.X-Left)`)
		_, err := p.Fetch(slot(t, time.Minute))
		_ = failure(t, err)
		for i, want := range []bool{false, true} {
			_, err = p.Fetch(slot(t, time.Second))
			if e := failure(t, err); e.NotTried != want {
				t.Errorf("%d: %+v", i, e)
			}
		}
	})
}

// TestWaitIsShared: a server that asks one source to wait means the address that all of them have.
func TestWaitIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := always(418, "", "Retry-After", "600")
		opt := fetch.Options{Budgets: fetch.NewBudgets(nil, nil)}
		one, two := budgeted(t, opt, s, "b", `limit = 10`, `per = "1m"`), budgeted(t, opt, s, "b", `limit = 10`, `per = "1m"`)
		other := budgeted(t, opt, s, "c", `limit = 10`, `per = "1m"`)
		_, err := one.Fetch(slot(t, time.Minute))
		_ = failure(t, err)
		_, err = two.Fetch(slot(t, time.Minute))
		if e := failure(t, err); !e.NotTried || s.count() != 1 {
			t.Errorf("%+v, %d requests", e, s.count())
		}
		_, err = other.Fetch(slot(t, time.Minute))
		if e := failure(t, err); e.NotTried || s.count() != 2 {
			t.Errorf("%+v, %d requests", e, s.count())
		}
	})
}
