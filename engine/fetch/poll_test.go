package fetch_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/fetch"
)

const api = "https://api.example/v1/ticker"

// TestStatus: what each HTTP status means to the slot, with two retries allowed.
func TestStatus(t *testing.T) {
	t.Parallel()
	const no, again = 1, 3
	for _, c := range []struct {
		name   string
		resp   func() *http.Response
		tries  int
		reason string
	}{
		{"204", func() *http.Response { return reply(204, "") }, no, "HTTP 204 No Content"},
		{"206", func() *http.Response { return reply(206, oneRecord) }, no, "HTTP 206 Partial Content: " + oneRecord},
		{"304 that nobody asked for", func() *http.Response { return reply(304, "") }, no, "HTTP 304 Not Modified"},
		{"301 without a place", func() *http.Response { return reply(301, "") }, no, "HTTP 301 Moved Permanently"},
		{"400", func() *http.Response { return reply(400, `{"code":-1121,"msg":"Invalid symbol."}`) }, no, `HTTP 400 Bad Request: {"code":-1121,"msg":"Invalid symbol."}`},
		{"401", func() *http.Response { return reply(401, "bad key "+headerKey) }, no, "HTTP 401 Unauthorized: bad key (hidden) (the source wants a key, or another one: see the definition's headers)"},
		{"403", func() *http.Response { return reply(403, "<!DOCTYPE html><title>Attention</title>") }, no, "HTTP 403 Forbidden"},
		{"404", func() *http.Response { return reply(404, "no\r\n\r\nsuch\tthing\n") }, no, "HTTP 404 Not Found: no such thing"},
		{"408", func() *http.Response { return reply(408, "") }, again, "HTTP 408 Request Timeout"},
		{"418", func() *http.Response { return reply(418, "") }, again, "HTTP 418 I'm a teapot"},
		{"425", func() *http.Response { return reply(425, "") }, again, "HTTP 425 Too Early"},
		{"429", func() *http.Response { return reply(429, "") }, again, "HTTP 429 Too Many Requests"},
		{"451", func() *http.Response { return reply(451, "") }, no, "HTTP 451 Unavailable For Legal Reasons (the source does not serve this country)"},
		{"500", func() *http.Response { return reply(500, "\x1b[2Jboom\x00\xff") }, again, "HTTP 500 Internal Server Error: [2Jboom"},
		{"502", func() *http.Response { return reply(502, "") }, again, "HTTP 502 Bad Gateway"},
		{"503", func() *http.Response { return reply(503, "") }, again, "HTTP 503 Service Unavailable"},
		{"522", func() *http.Response { return reply(522, "") }, again, "HTTP 522"},
		{"522 with words", func() *http.Response { return reply(522, "origin") }, again, "HTTP 522: origin"},
		{"the key in the text", func() *http.Response { return reply(400, "no access to /v1?api_key="+queryKey+"&x with "+headerKey) }, no, "HTTP 400 Bad Request: no access to /v1?(hidden)&x with (hidden)"},
		{"a long text", func() *http.Response { return reply(400, strings.Repeat("x", 1<<20)) }, no, "HTTP 400 Bad Request: " + strings.Repeat("x", 100) + "…"},
		{"a compressed text", func() *http.Response { return reply(400, zipped("why"), "Content-Encoding", "gzip") }, no, "HTTP 400 Bad Request: why"},
		{"a text in a strange compression", func() *http.Response { return reply(400, "\x00\x01", "Content-Encoding", "br") }, no, "HTTP 400 Bad Request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(int, *http.Request) (*http.Response, error) { return c.resp(), nil }}
				p := newPoll(t, source(t, "1m", poll(api, "retries = 2"), jsonDecode), fetch.Options{})
				p.RoundTrip(s)
				_, err := p.Fetch(slot(t, time.Minute))
				if e := failure(t, err); e.Reason != c.reason || e.NotTried {
					t.Errorf("reason %q, not tried %v; want %q", e.Reason, e.NotTried, c.reason)
				}
				if s.count() != c.tries {
					t.Errorf("%d requests, want %d", s.count(), c.tries)
				}
			})
		})
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	var got *http.Request
	s := &server{answer: func(_ int, r *http.Request) (*http.Response, error) {
		got = r
		return reply(200, `{"data":[{"s":"BTC","p":1},{"s":"ETH","p":2}]}`), nil
	}}
	p := newPoll(t, source(t, "1m", poll(api), jsonDecode), fetch.Options{UserAgent: "cryptoviz/1"})
	p.RoundTrip(s)
	records, err := p.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || records[1].Key != "ETH" || string(records[1].Value) != `{"s":"ETH","p":2}` || time.Since(records[0].Received) > time.Minute {
		t.Errorf("records %+v", records)
	}
	if got.URL.String() != api+"?api_key="+queryKey || got.Header.Get("X-Key") != headerKey || got.Header.Get("User-Agent") != "cryptoviz/1" || got.Header.Get("If-None-Match") != "" {
		t.Errorf("asked %s %v", got.URL, got.Header)
	}
}

// TestNotModified: only what Kafka has acknowledged may spare a fetch.
func TestNotModified(t *testing.T) {
	t.Parallel()
	version := "one"
	s := &server{answer: func(_ int, r *http.Request) (*http.Response, error) {
		if r.Header.Get("If-None-Match") == `"`+version+`"` && r.Header.Get("If-Modified-Since") == version {
			return reply(304, ""), nil
		}
		return reply(200, oneRecord, "ETag", `"`+version+`"`, "Last-Modified", version), nil
	}}
	p := newPoll(t, source(t, "1m", poll(api, "retries = 0"), jsonDecode), fetch.Options{})
	p.RoundTrip(s)
	fetched := func(step string, want error) {
		t.Helper()
		if records, err := p.Fetch(t.Context()); !errors.Is(err, want) || (len(records) == 1) != (want == nil) {
			t.Errorf("%s: %d records, %v", step, len(records), err)
		}
	}
	fetched("first", nil)
	fetched("the first was not sent on", nil)
	p.Accept()()
	fetched("it was", fetch.ErrNotModified)
	fetched("it still is", fetch.ErrNotModified)
	version = "two"
	fetched("new", nil)
	fetched("the new one was not sent on", nil)
	p.Accept()()
	fetched("it was", fetch.ErrNotModified)
}

// TestLongValidator: it is not sent back, where servers refuse long headers.
func TestLongValidator(t *testing.T) {
	t.Parallel()
	s := always(200, oneRecord, "ETag", `"`+strings.Repeat("x", 40<<10)+`"`)
	p := newPoll(t, source(t, "1m", poll(api, "retries = 0"), jsonDecode), fetch.Options{})
	p.RoundTrip(s)
	for range 2 {
		if _, err := p.Fetch(t.Context()); err != nil {
			t.Error(err)
		}
		p.Accept()()
	}
	if got := s.heads[1].Get("If-None-Match"); got != "" {
		t.Errorf("it sent %d bytes", len(got))
	}
}

// TestPauses: how long it waits between attempts, by interval and speed, and that no attempt comes after the slot.
func TestPauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		interval   string
		speed      float64
		slot       time.Duration
		first, all [2]time.Duration // bounds of the first pause and of the time of the last attempt
		tries      int
	}{
		{"1m", 1, time.Minute, [2]time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}, [2]time.Duration{2375 * time.Millisecond, 7125 * time.Millisecond}, 4},
		{"1h", 1, time.Hour, [2]time.Duration{30 * time.Second, 90 * time.Second}, [2]time.Duration{142 * time.Second, 428 * time.Second}, 4},
		{"1d", 1, 24 * time.Hour, [2]time.Duration{30 * time.Second, 90 * time.Second}, [2]time.Duration{142 * time.Second, 428 * time.Second}, 4},
		{"5s", 1, 5 * time.Second, [2]time.Duration{250 * time.Millisecond, 750 * time.Millisecond}, [2]time.Duration{1100 * time.Millisecond, 3600 * time.Millisecond}, 4},
		{"1h", 600, 6 * time.Second, [2]time.Duration{250 * time.Millisecond, 750 * time.Millisecond}, [2]time.Duration{1100 * time.Millisecond, 3600 * time.Millisecond}, 4},
		{"1m", 600, 100 * time.Millisecond, [2]time.Duration{}, [2]time.Duration{}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			for range 20 {
				s, began := always(500, ""), time.Now()
				p := newPoll(t, source(t, c.interval, poll(api), jsonDecode), fetch.Options{Clock: clock.Fast(began, c.speed)})
				p.RoundTrip(s)
				_, err := p.Fetch(slot(t, c.slot))
				if e := failure(t, err); e.Reason != "HTTP 500 Internal Server Error" {
					t.Errorf("%+v: %s", c, e.Reason)
				}
				if s.count() != c.tries {
					t.Fatalf("%+v: %d requests", c, s.count())
				}
				if d := time.Since(began); d > c.slot || d != s.asked[c.tries-1].Sub(began) {
					t.Errorf("%+v: it gave up after %s, its last request came at %s", c, d, s.asked[c.tries-1].Sub(began))
				}
				if c.tries > 1 {
					first, all := s.asked[1].Sub(began), s.asked[c.tries-1].Sub(began)
					if first < c.first[0] || first > c.first[1] || all < c.all[0] || all > c.all[1] {
						t.Errorf("%+v: pauses %s and %s", c, first, all)
					}
				}
			}
		})
	}
}

// TestSlotEnd: the reason is what the source did, not that the time was over.
func TestSlotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := always(502, "overloaded"), time.Now()
		p := newPoll(t, source(t, "1m", poll(api, "retries = 20"), jsonDecode), fetch.Options{})
		p.RoundTrip(s)
		_, err := p.Fetch(slot(t, time.Minute))
		if e := failure(t, err); e.Reason != "HTTP 502 Bad Gateway: overloaded" {
			t.Error(e.Reason)
		}
		if n := s.count(); n < 6 || n > 20 || time.Since(began) > time.Minute {
			t.Errorf("%d requests in %s", n, time.Since(began))
		}
	})
}

// TestTimeouts: of an attempt, and of the slot.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(_ int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}}
		p := newPoll(t, source(t, "1m", poll(api, "retries = 1", `timeout = "10s"`), jsonDecode), fetch.Options{})
		p.RoundTrip(s)
		began := time.Now()
		_, err := p.Fetch(slot(t, time.Minute))
		if e := failure(t, err); e.Reason != "no whole answer in time" || s.count() != 2 || s.asked[1].Sub(began) < 10*time.Second || time.Since(began) > 22*time.Second {
			t.Errorf("%s, asked at %v, %s", e.Reason, s.asked, time.Since(began))
		}
		began = time.Now()
		_, err = p.Fetch(slot(t, 5*time.Second))
		if e := failure(t, err); e.Reason != "no whole answer in time" || time.Since(began) != 5*time.Second || s.count() != 3 {
			t.Errorf("%s after %s", e.Reason, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began = time.Now()
		_, err = p.Fetch(ctx)
		if e := failure(t, err); e.Reason != "interrupted" || time.Since(began) != time.Second || s.count() != 4 {
			t.Errorf("%s after %s", e.Reason, time.Since(began))
		}
	})
}

// TestRetryAfter: a source that asked to wait is not asked before, in this slot or in a later one.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const (
		slotLength = time.Minute
		later      = "2000-01-01 01:00:00 UTC"
	)
	for _, c := range []struct {
		name   string
		status int
		header string
		second time.Duration // of the second request; 0: not in this slot
		reason string
	}{
		{"seconds", 429, "30", 30 * time.Second, ""},
		{"seconds, teapot", 418, "30", 30 * time.Second, ""},
		{"seconds, unavailable", 503, " 30 ", 30 * time.Second, ""},
		{"date", 429, "Sat, 01 Jan 2000 00:00:45 GMT", 45 * time.Second, ""},
		{"to the slot's end", 429, "60", 60 * time.Second, ""},
		{"longer than the slot", 429, "3600", 0, "HTTP 429 Too Many Requests: slow down; it asks to wait 1h"},
		{"date of later", 503, "Sat, 01 Jan 2000 01:00:00 GMT", 0, "HTTP 503 Service Unavailable: slow down; it asks to wait 1h"},
		{"huge", 418, "99999999999999999999999999", 0, "HTTP 418 I'm a teapot: slow down; it asks to wait 4d or more (Retry-After: 99999999999999999999999999): it is asked again after 4d"},
		{"far date", 429, "Fri, 01 Jan 2100 00:00:00 GMT", 0, "HTTP 429 Too Many Requests: slow down; it asks to wait 4d or more (Retry-After: Fri, 01 Jan 2100 00:00:00 GMT): it is asked again after 4d"},
		{"negative", 429, "-30", -1, ""},
		{"a past date", 429, "Fri, 31 Dec 1999 23:00:00 GMT", -1, ""},
		{"huge and negative", 429, "-99999999999999999999999999", -1, ""},
		{"absent", 429, "", -1, ""},
		{"garbage", 429, "soon\x00", -1, ""},
		{"forbidden", 403, "30", 30 * time.Second, ""},
		{"any other status", 404, "3600", 0, "HTTP 404 Not Found: slow down; it asks to wait 1h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &server{answer: func(n int, _ *http.Request) (*http.Response, error) {
					if n > 0 {
						return reply(200, oneRecord), nil
					}
					return reply(c.status, "slow down", "Retry-After", c.header), nil
				}}
				p := newPoll(t, source(t, "1m", poll(api), jsonDecode), fetch.Options{})
				p.RoundTrip(s)
				_, err := p.Fetch(slot(t, slotLength))
				if c.second != 0 {
					if err != nil || s.count() != 2 {
						t.Fatalf("%v, %d requests", err, s.count())
					}
					if d := s.asked[1].Sub(began); c.second > 0 && d != c.second || c.second < 0 && (d < 500*time.Millisecond || d > 1500*time.Millisecond) {
						t.Errorf("asked again after %s", d)
					}
					return
				}
				e := failure(t, err)
				if e.Reason != c.reason || e.NotTried || s.count() != 1 || time.Since(began) != 0 {
					t.Errorf("%q after %s, %d requests", e.Reason, time.Since(began), s.count())
				}
				// The slots until then send nothing, and say why.
				time.Sleep(slotLength)
				_, err = p.Fetch(slot(t, slotLength))
				if e := failure(t, err); !e.NotTried || !strings.HasPrefix(e.Reason, "the source asked to wait until 20") || s.count() != 1 || time.Since(began) != slotLength {
					t.Errorf("%q, %d requests", e.Reason, s.count())
				} else if strings.HasSuffix(c.reason, "1h") && e.Reason != "the source asked to wait until "+later+" ("+c.reason[:strings.Index(c.reason, ": ")]+")" {
					t.Error(e.Reason)
				}
				time.Sleep(96 * time.Hour)
				if _, err = p.Fetch(slot(t, slotLength)); err != nil || s.count() != 2 {
					t.Errorf("%v, %d requests", err, s.count())
				}
			})
		})
	}
}

// TestAskedToWaitIsInterrupted: a stop while it waits ends at once, and nothing is sent.
func TestAskedToWaitIsInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := always(429, "", "Retry-After", "30")
		p := newPoll(t, source(t, "1m", poll(api, "retries = 0"), jsonDecode), fetch.Options{})
		p.RoundTrip(s)
		_, err := p.Fetch(slot(t, time.Minute))
		_ = failure(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		_, err = p.Fetch(ctx)
		if e := failure(t, err); !e.NotTried || s.count() != 1 {
			t.Errorf("%+v, %d requests", e, s.count())
		}
	})
}
