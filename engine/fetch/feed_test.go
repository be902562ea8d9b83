package fetch_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// feed is a WebSocket server in memory, so that it and its client can live in a synctest bubble.
type feed struct {
	t       *testing.T
	talk    func(n int, c *websocket.Conn) // one connection; n counts from 0. It is closed hard when talk returns
	raw     http.HandlerFunc               // instead of talk
	mute    bool                           // pings get no answer
	src     *spec.Source                   // instead of one with the lines of start
	s       *fetch.Stream
	log     log
	mu      sync.Mutex
	dialled []time.Time
	got     []record.Record
	ended   chan struct{}
	cancel  context.CancelFunc
	conns   chan net.Conn
	closed  chan struct{}
	srv     *http.Server
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error   { close(f.closed); return nil }
func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }

// ServeHTTP is one connection.
func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.dialled) - 1
	f.mu.Unlock()
	if f.raw != nil {
		f.raw(w, r)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OnPingReceived: func(context.Context, []byte) bool { return !f.mute }})
	if err != nil {
		f.t.Error(err)
		return
	}
	defer c.CloseNow()
	f.talk(n, c)
}

// start makes the stream of a definition run against the feed.
func (f *feed) start(lines ...string) {
	f.t.Helper()
	f.conns, f.closed, f.ended = make(chan net.Conn), make(chan struct{}), make(chan struct{})
	if f.src == nil {
		f.src = source(f.t, "1m", "stream {\n\turl = \"ws://feed.example/ws\"\n\t"+strings.Join(lines, "\n\t")+"\n}", tickers)
	}
	s, err := fetch.NewStream(f.src, fetch.Options{Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	if err != nil {
		f.t.Fatal(err)
	}
	f.s = s
	s.Dial(func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, server := net.Pipe()
		f.mu.Lock()
		f.dialled = append(f.dialled, time.Now())
		f.mu.Unlock()
		select {
		case f.conns <- server:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	f.srv = &http.Server{Handler: f, ErrorLog: quietly}
	go func() { _ = f.srv.Serve(f) }()
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(f.t.Context())
	go func() {
		defer close(f.ended)
		s.Run(ctx, func(records []record.Record) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.got = append(f.got, records...)
		})
	}()
}

// stop ends the stream, which must not take any time.
func (f *feed) stop() {
	f.t.Helper()
	began := time.Now()
	f.cancel()
	<-f.ended
	if d := time.Since(began); d != 0 {
		f.t.Errorf("the stream ended %s after its context", d)
	}
	_ = f.srv.Close()
}

// down waits until nothing happens at this moment and returns why no records come.
func (f *feed) down() string {
	f.t.Helper()
	synctest.Wait()
	if err := f.s.Down(time.Time{}); err != nil {
		plain(f.t, err.Error())
		return err.Error()
	}
	return ""
}

func (f *feed) isDown(want string) {
	f.t.Helper()
	if got := f.down(); got != want {
		f.t.Errorf("down because %q, want %q", got, want)
	}
}

func (f *feed) keys() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.got {
		out = append(out, r.Key)
	}
	return strings.Join(out, " ")
}

func (f *feed) dials() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dialled)
}

// say sends text frames.
func (f *feed) say(c *websocket.Conn, frames ...string) {
	for _, frame := range frames {
		if err := c.Write(context.Background(), websocket.MessageText, []byte(frame)); err != nil {
			return
		}
	}
}

// idle reads until the client has gone; the library answers pings while it reads.
func idle(c *websocket.Conn) {
	for {
		if _, _, err := c.Read(context.Background()); err != nil {
			return
		}
	}
}

func ticker(market string) string { return fmt.Sprintf(`{"type":"ticker","s":%q}`, market) }

func inBubble(t *testing.T, talk func(f *feed, n int, c *websocket.Conn), test func(f *feed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &feed{t: t}
		f.talk = func(n int, c *websocket.Conn) { talk(f, n, c) }
		test(f)
	})
}
