package fetch_test

import (
	"context"
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
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

const tickers = `decode "json" {
	when    = try(body.type == "ticker", false)
	error   = try(body.type == "error" ? body.message : null, null)
	records = body
	key     = r.s
}`

func TestStreamSubscribes(t *testing.T) {
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
	for _, c := range []struct {
		name  string
		lines string
		talk  func(f *feed, c *websocket.Conn)
		after time.Duration // of the first record
		want  string
	}{
		{"an error frame", "", func(f *feed, c *websocket.Conn) {
			f.say(c, `{"type":"error","message":"no such\nproduct\u0000"}`)
			idle(c)
		}, 0, "the source says: no such product"},
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
				if !strings.Contains(f.log.String(), "stream is down") || strings.Count(f.log.String(), "\n") != 1 {
					t.Errorf("log:\n%s", f.log.String())
				}
				ended := time.Now()
				time.Sleep(1500 * time.Millisecond)
				f.isDown(c.want) // connected, and it still says why nothing came
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

// TestStreamWithoutRecords: connected, subscribed, and nothing but heartbeats comes.
func TestStreamWithoutRecords(t *testing.T) {
	inBubble(t, func(f *feed, _ int, c *websocket.Conn) {
		go idle(c)
		for range 600 {
			f.say(c, `{"type":"heartbeat"}`)
			time.Sleep(time.Second)
		}
	}, func(f *feed) {
		f.start(`silence = "2s"`)
		f.isDown("connected, and no record has come yet")
		time.Sleep(599 * time.Second)
		f.isDown("connected, and no record has come yet")
		if len(f.dials()) != 1 {
			t.Errorf("dialled at %v", f.dials())
		}
		f.stop()
		time.Sleep(time.Second)
	})
}

// TestTextPing: as OKX wants it, a text every 20 seconds; its answers keep the connection alive and are no surprise.
func TestTextPing(t *testing.T) {
	var pings []time.Duration
	var began time.Time
	inBubble(t, func(f *feed, n int, c *websocket.Conn) {
		for n == 0 && len(pings) < 30 {
			_, text, err := c.Read(context.Background())
			if err != nil || string(text) != "ping" {
				t.Errorf("%q, %v", text, err)
				return
			}
			pings = append(pings, time.Since(began))
			f.say(c, "pong")
		}
		idle(c)
	}, func(f *feed) {
		began = time.Now()
		f.start(`ping = "ping"`, `ping_every = "20s"`, `silence = "45s"`)
		defer f.stop()
		time.Sleep(600 * time.Second)
		synctest.Wait()
		if len(pings) != 30 || pings[0] != 20*time.Second || pings[29] != 600*time.Second || len(f.dials()) != 1 || f.log.String() != "" {
			t.Errorf("pings at %v, dialled at %v\n%s", pings, f.dials(), f.log.String())
		}
		time.Sleep(45 * time.Second)
		f.isDown("nothing came for 45s")
	})
}

// TestControlPing: the WebSocket's own ping and pong.
func TestControlPing(t *testing.T) {
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
		time.Sleep(599 * time.Second)
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
	stream.Run(ctx, func(r fetch.Record) {
		if r.Key != fmt.Sprint(n) {
			t.Errorf("record %d is %s", n, r.Key)
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
