package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
)

// TestRetryAfterOfEveryStatus: whatever a reply's status is, what it asks for is kept to.
func TestRetryAfterOfEveryStatus(t *testing.T) {
	t.Parallel()
	for _, code := range []int{200, 202, 204, 300, 301, 302, 304, 307, 400, 401, 402, 403, 404, 408, 410, 418, 425, 429, 451, 500, 501, 502, 503, 504, 521, 530} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(n int, _ *http.Request) (*http.Response, error) {
					if n > 0 {
						return reply(200, oneRecord), nil
					}
					out := reply(code, oneRecord, "Retry-After", "600")
					if code/100 == 3 && code != 304 && code != 300 {
						out.Header.Set("Location", "https://other.example/")
					}
					return out, nil
				}}
				p := newPoll(t, source(t, "1m", poll(api), jsonDecode), fetch.Options{})
				p.RoundTrip(s)
				_, err := p.Fetch(slot(t, time.Minute))
				if (err == nil) != (code == 200) {
					t.Error(err)
				}
				for began := time.Now(); time.Since(began) < 9*time.Minute; time.Sleep(time.Minute) {
					_, err := p.Fetch(slot(t, time.Minute/2))
					if e := failure(t, err); !e.NotTried || !strings.HasPrefix(e.Reason, "the source asked to wait until 2000-01-01 00:10:00 UTC") || s.count() != 1 {
						t.Fatalf("%v, %d requests", e, s.count())
					}
				}
				time.Sleep(time.Minute)
				if _, err := p.Fetch(slot(t, time.Minute)); err != nil || s.count() != 2 {
					t.Errorf("%v, %d requests", err, s.count())
				}
			})
		})
	}
}

// kept is a database of pauses: it answers, fails or hangs.
type kept struct {
	mu     sync.Mutex
	until  map[string]time.Time
	reason map[string]string
	fails  error
	hangs  bool
	asked  int
}

func (k *kept) answers(ctx context.Context) error {
	k.asked++
	if k.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return k.fails
}

func (k *kept) Pause(ctx context.Context, name string, d time.Duration, reason string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.answers(ctx); err != nil {
		return err
	}
	if k.until == nil {
		k.until, k.reason = map[string]time.Time{}, map[string]string{}
	}
	if until := time.Now().Add(d); until.After(k.until[name]) {
		k.until[name], k.reason[name] = until, reason
	}
	return nil
}

func (k *kept) Paused(ctx context.Context, f func(name string, left time.Duration, reason string)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.answers(ctx); err != nil {
		return err
	}
	for name, until := range k.until {
		if until.After(time.Now()) {
			f(name, time.Until(until), k.reason[name])
		}
	}
	return nil
}

const budget = "budget \"b\" {\n\t\tlimit = 100\n\t\tper = \"1m\"\n\t}"

// TestPausesAreKept: over a restart and in other instances, by source or by the budget that it shares.
func TestPausesAreKept(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]string{"source a": "", "budget b": budget} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := &kept{}
				instance := func(s *server) *fetch.Poll {
					p := newPoll(t, source(t, "1m", poll(api, lines), jsonDecode), fetch.Options{Budgets: fetch.NewBudgets(db, nil)})
					p.RoundTrip(s)
					return p
				}
				refuses, serves := always(403, "", "Retry-After", "3600"), always(200, oneRecord)
				other := instance(serves)
				if _, err := other.Fetch(slot(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				_, err := instance(refuses).Fetch(slot(t, time.Minute))
				_ = failure(t, err)
				if db.reason[name] != "HTTP 403 Forbidden" {
					t.Errorf("kept: %v", db.reason)
				}
				time.Sleep(time.Minute)
				for _, p := range []*fetch.Poll{other, instance(serves)} {
					_, err := p.Fetch(slot(t, time.Minute))
					if e := failure(t, err); !e.NotTried || e.Reason != "the source asked to wait until 2000-01-01 01:01:00 UTC (HTTP 403 Forbidden)" {
						t.Error(e)
					}
				}
				time.Sleep(time.Hour)
				if _, err := other.Fetch(slot(t, time.Minute)); err != nil || serves.count() != 2 {
					t.Errorf("%v, %d requests", err, serves.count())
				}
			})
		})
	}
}

// TestPausesWithoutDatabase: it costs a source a moment in ten seconds, and what was asked meanwhile is written when it is back.
func TestPausesWithoutDatabase(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db := &kept{hangs: hangs, fails: errors.New("away")}
			s := &server{answer: func(n int, _ *http.Request) (*http.Response, error) {
				if n == 100 {
					return reply(500, "", "Retry-After", "600"), nil
				}
				return reply(200, oneRecord), nil
			}}
			p := newPoll(t, source(t, "1s", poll(api), jsonDecode), fetch.Options{Budgets: fetch.NewBudgets(db, nil)})
			p.RoundTrip(s)
			var lost time.Duration
			for range 100 {
				began := time.Now()
				if _, err := p.Fetch(slot(t, time.Second)); err != nil {
					t.Fatal(err)
				}
				lost += time.Since(began)
				time.Sleep(time.Until(began.Truncate(time.Second).Add(time.Second)))
			}
			if lost > 11*time.Second/4 || db.asked > 11 {
				t.Errorf("%s lost, asked %d times", lost, db.asked)
			}
			_, err := p.Fetch(slot(t, time.Second)) // it asks to wait
			_ = failure(t, err)
			time.Sleep(20 * time.Second)
			db.hangs, db.fails = false, nil
			_, err = p.Fetch(slot(t, time.Second))
			if e := failure(t, err); !e.NotTried || s.count() != 101 {
				t.Errorf("%v, %d requests", e, s.count())
			}
			if left := time.Until(db.until["source a"]); left < 570*time.Second || left > 580*time.Second {
				t.Errorf("%s are left", left)
			}
		})
	}
}
