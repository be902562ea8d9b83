package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

const tickers = `decode "json" {
	when    = try(body.type == "ticker", false)
	error   = try(body.type == "error" ? body.message : null, null)
	records = body
	key     = r.s
	on_error {
		when = try(body.type == "fatal", false)
		text = body.message
	}
	on_error {
		when   = try(body.type == "refused", false)
		text   = body.message
		market = body.s
	}
}`

func TestStreamSubscribes(t *testing.T) {
	t.Parallel()
	var asked []string
	inBubble(t, func(f *feed, _ int, c *websocket.Conn) {
		for range 3 {
			kind, text, err := c.Read(context.Background())
			if err != nil || kind != websocket.MessageText {
				t.Errorf("%v %v", kind, err)
			}
			asked = append(asked, string(text))
		}
		f.say(c, `{"type":"subscriptions"}`, ticker("BTC"), `{"type":"heartbeat"}`, "no JSON", "[1,", "", ticker("ETH"))
		_ = c.Write(context.Background(), websocket.MessageBinary, []byte(ticker("SOL")))
		_ = c.Write(context.Background(), websocket.MessageBinary, []byte("\x1f\x8b\x00\xff"))
		f.say(c, `{"s":"no type"}`, ticker("XRP"))
		idle(c)
	}, func(f *feed) {
		f.start(`subscribe = ["one", "two {\"a\":1}", "three"]`)
		defer f.stop()
		f.isDown("")
		if want := []string{"one", `two {"a":1}`, "three"}; !slices.Equal(asked, want) {
			t.Errorf("asked %q", asked)
		}
		if f.keys() != "BTC ETH SOL XRP" || string(f.got[0].Value) != ticker("BTC") || !f.got[0].Received.Equal(time.Now()) {
			t.Errorf("got %+v", f.got)
		}
		if n := strings.Count(f.log.String(), "not understood"); n != 1 || !strings.Contains(f.log.String(), `frame="no JSON"`) {
			t.Errorf("said %d times:\n%s", n, f.log.String())
		}
	})
}

// TestStreamEnds: each way that a connection ends, what is said of it, and that it is made again.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		lines string
		talk  func(f *feed, c *websocket.Conn)
		after time.Duration // of the first record
		want  string
	}{
		{"a fatal error", "", func(f *feed, c *websocket.Conn) {
			f.say(c, `{"type":"fatal","message":"no such\nlogin\u0000"}`)
			idle(c)
		}, 0, "the source says: no such login"},
		{"an error, then the end", "", func(f *feed, c *websocket.Conn) {
			f.say(c, `{"type":"error","message":"too many\nconnections\u0000"}`)
			_ = c.Close(websocket.StatusPolicyViolation, "")
		}, 0, "the source says: too many connections; the source closed the connection: 1008"},
		{"silence", `silence = "15s"`, func(_ *feed, c *websocket.Conn) { idle(c) }, 15 * time.Second, "nothing came for 15s"},
		{"a peer that is gone", `silence = "15s"`, func(f *feed, _ *websocket.Conn) { <-f.t.Context().Done() }, 15 * time.Second, "nothing came for 15s"},
		{"normal close", "", func(_ *feed, c *websocket.Conn) { _ = c.Close(websocket.StatusNormalClosure, "") }, 0, "the source closed the connection: 1000"},
		{"going away", "", func(_ *feed, c *websocket.Conn) { _ = c.Close(websocket.StatusGoingAway, "restart\n\x00at noon") }, 0, "the source closed the connection: 1001 restart at noon"},
		{"policy", "", func(_ *feed, c *websocket.Conn) {
			_ = c.Close(websocket.StatusPolicyViolation, strings.Repeat("x", 123))
		}, 0, "the source closed the connection: 1008 " + strings.Repeat("x", 100) + "…"},
		{"broken off", "", func(_ *feed, c *websocket.Conn) { _ = c.CloseNow() }, 0, "the source broke the connection off"},
		{"a large frame", `max_message = "1KiB"`, func(f *feed, c *websocket.Conn) {
			f.say(c, ticker(strings.Repeat("x", 1<<10)))
			idle(c)
		}, 0, "a frame has more than 1.0 KiB: raise max_message if that is right"},
		{"a ping without an answer", "ping_every = \"20s\"\n\tsilence = \"10m\"", func(f *feed, c *websocket.Conn) {
			f.mute = true
			idle(c)
		}, 35 * time.Second, "no answer to a ping for 15s"},
		{"a text ping that nobody reads", "ping = \"ping\"\n\tping_every = \"20s\"\n\tsilence = \"10m\"", func(f *feed, _ *websocket.Conn) { <-f.t.Context().Done() }, 35 * time.Second, "no answer to a ping for 15s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hold := make(chan struct{})
			inBubble(t, func(f *feed, n int, conn *websocket.Conn) {
				if n == 0 {
					f.say(conn, ticker("BTC"))
					c.talk(f, conn)
					return
				}
				<-hold
				f.say(conn, ticker("ETH"))
				idle(conn)
			}, func(f *feed) {
				hold = make(chan struct{})
				f.start(c.lines)
				defer f.stop()
				letGo := sync.OnceFunc(func() { close(hold) })
				defer letGo()
				if c.after > 0 {
					f.isDown("")
					time.Sleep(c.after - time.Nanosecond)
					f.isDown("")
					time.Sleep(time.Nanosecond)
				}
				f.isDown(c.want)
				if strings.Count(f.log.String(), "stream is down") != 1 || !strings.Contains(f.log.String(), c.want) {
					t.Errorf("log:\n%s", f.log.String())
				}
				ended := time.Now()
				time.Sleep(1500 * time.Millisecond)
				f.isDown("connected, and no record has come yet")
				if why := f.s.Down(ended.Add(time.Second / 4)); !strings.HasPrefix(why.Error(), "connected again at ") || !strings.HasSuffix(why.Error(), "; before that: "+c.want) {
					t.Errorf("a slot in which the connection was lost: %v", why)
				}
				if d := f.dials(); len(d) != 2 || d[1].Sub(ended) < 500*time.Millisecond || d[1].Sub(ended) > 1500*time.Millisecond {
					t.Fatalf("dialled at %v", d)
				}
				letGo()
				f.isDown("")
				if f.keys() != "BTC ETH" {
					t.Error(f.keys())
				}
			})
		})
	}
}

// TestStreamConnects: what is said when there never was a connection.
func TestStreamConnects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		raw   http.HandlerFunc
		lines string
		after time.Duration
		want  string
	}{
		{"a page", body("<html>"), "", 0, "connect: HTTP 200 OK, which is no WebSocket"},
		{"403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "", 0, "connect: HTTP 403 Forbidden"},
		{"530", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(530) }, "", 0, "connect: HTTP 530"},
		{"another host", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "wss://other.example/")
			w.WriteHeader(http.StatusFound)
		}, "", 0, "connect: redirected to another host, other.example: if that is right, write it into the definition's url"},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "", 15 * time.Second, "connect: no whole answer in time"},
		{"no reader of the subscription", func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			time.Sleep(time.Hour)
		}, `subscribe = ["all"]`, 15 * time.Second, "subscribe: no whole answer in time"},
		{"another protocol", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "h2c")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}, "", 3 * time.Second, `connect: WebSocket protocol violation: Upgrade header "h2c" does not contain websocket`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &feed{t: t, raw: c.raw}
				f.start(c.lines)
				if c.after > 0 {
					f.isDown("not connected yet")
					time.Sleep(c.after)
				}
				f.isDown(c.want)
				f.stop()
				time.Sleep(time.Hour)
			})
		})
	}
}

// TestSilence: only records keep a connection. Whatever else comes does not, and while no connection brings any, each is kept
// for longer than the one before, up to ten minutes.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, lines string
		frame       string // each second, and what is said when it was not enough
		want        string
	}{
		{"heartbeats", `silence = "10s"`, `{"type":"heartbeat"}`, "no record came for 10s, though 9 other frames did"},
		{"answers to a text ping", "silence = \"10s\"\n\tping = \"ping\"\n\tping_every = \"1s\"", "pong", "no record came for 10s, though 9 other frames did"},
		{"answers to pings", "silence = \"10s\"\n\tping_every = \"1s\"", "", "nothing came for 10s"},
		{"what is not understood", `silence = "10s"`, "{", "what comes is not understood: not JSON at byte 1: it is cut short; no record came for 10s, though 9 other frames did"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var speaks atomic.Bool
			inBubble(t, func(f *feed, n int, conn *websocket.Conn) {
				gone := make(chan struct{})
				go func() { defer close(gone); idle(conn) }()
				if n == 0 || speaks.Load() {
					f.say(conn, ticker("BTC"))
				}
				time.Sleep(time.Millisecond)
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for {
					select {
					case <-gone:
						return
					case <-tick.C:
					}
					if c.frame != "" {
						f.say(conn, c.frame)
					}
				}
			}, func(f *feed) {
				f.start(c.lines)
				defer f.stop()
				time.Sleep(10*time.Second + time.Millisecond)
				f.isDown(c.want)
				time.Sleep(2 * time.Hour)
				d := f.dials()
				kept := []time.Duration{10 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 320 * time.Second, 10 * time.Minute, 10 * time.Minute}
				if len(d) < len(kept)+1 || len(d) > 20 {
					t.Fatalf("%d connections in two hours", len(d))
				}
				for i, want := range kept {
					if got := d[i+1].Sub(d[i]); got < want+500*time.Millisecond || got > want+90*time.Second {
						t.Errorf("connection %d was made %s after the one before, want %s and a pause", i+1, got, want)
					}
				}
				speaks.Store(true) // a record, and the next silence is a short one
				time.Sleep(12 * time.Minute)
				synctest.Wait()
				if again := f.dials(); len(again)-len(d) < 12 {
					t.Errorf("with records again it connected %d times in 12 minutes", len(again)-len(d))
				}
			})
		})
	}
}

// TestStreamRefusal: one market of many is refused, and the others go on.
func TestStreamRefusal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ frame, want string }{
		"a market":           {`{"type":"refused","message":"does not exist","s":"GONE"}`, "GONE: the source says: does not exist"},
		"no market is named": {`{"type":"error","message":"GONE does not exist"}`, "the source says: GONE does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *feed, _ int, conn *websocket.Conn) {
				go idle(conn)
				f.say(conn, c.frame)
				time.Sleep(time.Second)
				for range 601 {
					f.say(conn, c.frame, ticker("BTC"))
					time.Sleep(time.Second)
				}
			}, func(f *feed) {
				f.start(`silence = "5s"`)
				defer time.Sleep(time.Minute)
				defer f.stop()
				f.isDown(c.want[strings.Index(c.want, "the source"):])
				time.Sleep(600*time.Second + time.Millisecond)
				f.isDown("")
				if len(f.dials()) != 1 || len(f.got) != 600 {
					t.Errorf("%d connections, %d records", len(f.dials()), len(f.got))
				}
				if got := f.s.Said(time.Now().Add(-time.Minute)); got != c.want {
					t.Errorf("the slot says %q, want %q", got, c.want)
				}
				if n := strings.Count(f.log.String(), "\n"); n != 1 || f.s.Stats().Errors != 601 {
					t.Errorf("told %d times, counted %d:\n%s", n, f.s.Stats().Errors, f.log.String())
				}
			})
		})
	}
}

// TestTextPing: as OKX wants it, a text every 20 seconds; its answers are no surprise. Other texts are.
func TestTextPing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var pings []time.Duration
	var began time.Time
	seen := func() []time.Duration { mu.Lock(); defer mu.Unlock(); return slices.Clone(pings) }
	inBubble(t, func(f *feed, n int, c *websocket.Conn) {
		for n == 0 && len(seen()) < 30 {
			_, text, err := c.Read(context.Background())
			if err != nil || string(text) != "ping" {
				t.Errorf("%q, %v", text, err)
				return
			}
			mu.Lock()
			pings = append(pings, time.Since(began))
			mu.Unlock()
			f.say(c, "pong", ticker("BTC"))
		}
		f.say(c, "maintenance")
		idle(c)
	}, func(f *feed) {
		began = time.Now()
		f.start(`ping = "ping"`, `ping_every = "20s"`, `silence = "45s"`)
		defer f.stop()
		time.Sleep(600*time.Second - time.Nanosecond)
		synctest.Wait()
		if pings := seen(); len(pings) != 29 || pings[0] != 20*time.Second || len(f.dials()) != 1 || f.log.String() != "" {
			t.Errorf("pings at %v, dialled at %v\n%s", pings, f.dials(), f.log.String())
		}
		time.Sleep(time.Second)
		f.isDown("connected, and what comes is not understood: not JSON at byte 0: a value cannot begin with 'm'")
		if n := strings.Count(f.log.String(), "not understood"); n != 1 || !strings.Contains(f.log.String(), "frame=maintenance") {
			t.Errorf("told %d times:\n%s", n, f.log.String())
		}
	})
}

// TestStrangeFrames are told with a text ping, too, once a connection; and what they are, where that is known.
func TestStrangeFrames(t *testing.T) {
	t.Parallel()
	inBubble(t, func(f *feed, _ int, c *websocket.Conn) {
		go idle(c)
		time.Sleep(time.Millisecond)
		for range 20 {
			_ = c.Write(context.Background(), websocket.MessageBinary, []byte("\x1f\x8b\x08\x00\x00"))
			f.say(c, "pong")
			time.Sleep(time.Second)
		}
	}, func(f *feed) {
		f.start(`ping = "ping"`, `ping_every = "2s"`, `silence = "1m"`)
		defer time.Sleep(time.Minute)
		defer f.stop()
		time.Sleep(10 * time.Second)
		f.isDown("connected, and what comes is not understood: the frame is compressed with gzip, which is not undone")
		if n := strings.Count(f.log.String(), "not understood"); n != 1 || f.s.Stats().Strange != 12 { // "pong" is strange until the first ping
			t.Errorf("told %d times, counted %d:\n%s", n, f.s.Stats().Strange, f.log.String())
		}
	})
}

// TestControlPing: the WebSocket's own ping and pong.
func TestControlPing(t *testing.T) {
	t.Parallel()
	inBubble(t, func(_ *feed, _ int, c *websocket.Conn) { idle(c) }, func(f *feed) {
		f.start(`ping_every = "20s"`, `silence = "1h"`)
		time.Sleep(30 * time.Minute)
		f.isDown("connected, and no record has come yet")
		if len(f.dials()) != 1 {
			t.Errorf("dialled at %v", f.dials())
		}
		f.stop()
	})
}

// TestReconnects: the pauses grow to a minute, with jitter, and are short again after a connection that lasted.
func TestReconnects(t *testing.T) {
	t.Parallel()
	var lasts atomic.Int64
	inBubble(t, func(_ *feed, _ int, _ *websocket.Conn) { time.Sleep(time.Duration(lasts.Load())) }, func(f *feed) {
		f.start(`silence = "1h"`)
		defer f.stop()
		time.Sleep(6 * time.Hour)
		var pauses []time.Duration
		dials := f.dials()
		for i, at := range dials[1:] {
			pauses = append(pauses, at.Sub(dials[i]))
		}
		if n := len(pauses); n < 300 || n > 450 {
			t.Fatalf("%d connections in six hours", n)
		}
		sum := time.Duration(0)
		for i, d := range pauses {
			low, high := 500*time.Millisecond, 90*time.Second
			if i > 20 {
				low = 30 * time.Second
				sum += d
			}
			if d < low || d > high {
				t.Errorf("pause %d was %s", i, d)
			}
		}
		if mean := sum / time.Duration(len(pauses)-21); mean < 50*time.Second || mean > 70*time.Second {
			t.Errorf("the mean pause is %s", mean)
		}
		slices.Sort(pauses)
		if n := len(slices.Compact(pauses)); n < 200 {
			t.Errorf("only %d different pauses", n)
		}
		const life = 2 * time.Minute
		lasts.Store(int64(life))
		time.Sleep(10 * time.Minute)
		dials = f.dials()
		if d := dials[len(dials)-1].Sub(dials[len(dials)-2]); d < life+500*time.Millisecond || d > life+1500*time.Millisecond {
			t.Errorf("the pause is %s", d-life)
		}
		lasts.Store(0)
		time.Sleep(3 * time.Minute)
	})
}

// TestStreamAskedToWait: a server that has too many connections says when to come back.
func TestStreamAskedToWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		f := &feed{t: t, raw: func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
		}}
		f.start()
		defer f.stop()
		f.isDown("connect: HTTP 429 Too Many Requests; it asks to wait 10m")
		time.Sleep(598 * time.Second)
		f.isDown("the source asked to wait until 2000-01-01 00:10:00 UTC (HTTP 429 Too Many Requests)")
		if e, ok := errors.AsType[*fetch.Error](f.s.Down(time.Time{})); !ok || !e.NotTried {
			t.Error("a slot meanwhile would not be skipped")
		}
		time.Sleep(time.Second)
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(2 * time.Second)
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestStreamStops in every state that it can be in; the bubble would not end with a goroutine left.
func TestStreamStops(t *testing.T) {
	t.Parallel()
	for name, talk := range map[string]func(f *feed, n int, c *websocket.Conn){
		"while it reads":     func(_ *feed, _ int, c *websocket.Conn) { idle(c) },
		"while it waits":     func(*feed, int, *websocket.Conn) {},
		"in a flood":         func(f *feed, _ int, c *websocket.Conn) { f.say(c, slices.Repeat([]string{ticker("BTC")}, 1000)...) },
		"with a dead peer":   func(*feed, int, *websocket.Conn) { time.Sleep(time.Hour) },
		"with a mute closer": func(_ *feed, _ int, c *websocket.Conn) { time.Sleep(time.Minute); _ = c.CloseNow() },
	} {
		for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Second, 25 * time.Second} {
			t.Run(fmt.Sprint(name, " ", after), func(t *testing.T) {
				inBubble(t, talk, func(f *feed) {
					f.start(`subscribe = ["a", "b"]`, `ping_every = "20s"`, `silence = "1h"`)
					if after > 0 {
						time.Sleep(after)
					}
					f.stop()
					time.Sleep(2 * time.Hour)
				})
			})
		}
	}
}

// TestFlood: ten thousand messages over a real connection, in order.
func TestFlood(t *testing.T) {
	t.Parallel()
	const count = 20_000
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for i := range count {
			if err := c.Write(r.Context(), websocket.MessageText, []byte(ticker(fmt.Sprint(i)))); err != nil {
				return
			}
		}
		idle(c)
	}))
	defer s.Close()
	at := s.Listener.Addr().String()
	stream, err := fetch.NewStream(source(t, "1m", fmt.Sprintf("stream {\n url = %q\n allow_private = [%q]\n}", "ws://"+at, at), tickers), fetch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	began, n := time.Now(), 0
	stream.Run(ctx, func(records []record.Record) {
		if len(records) != 1 || records[0].Key != fmt.Sprint(n) {
			t.Errorf("record %d is %+v", n, records)
			cancel()
		}
		if n++; n == count {
			cancel()
		}
	})
	if n != count {
		t.Fatalf("%d records", n)
	}
	t.Logf("%.0f a second", float64(count)/time.Since(began).Seconds())
}
