package run_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/serve"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// stopper passes connections to a server that can stand still, as a stopped process does: it takes connections and says nothing.
type stopper struct {
	net.Listener
	mu    sync.Mutex
	still chan struct{} // closed: it goes on
}

func newStopper(t *testing.T, to string) *stopper {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stopper{Listener: l, still: make(chan struct{})}
	close(s.still)
	t.Cleanup(func() { _ = l.Close(); s.goOn() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go s.pass(far, near)
			go s.pass(near, far)
		}
	}()
	return s
}

func (s *stopper) pass(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		s.mu.Lock()
		still := s.still
		s.mu.Unlock()
		<-still
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (s *stopper) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.still = make(chan struct{})
}

func (s *stopper) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.still:
	default:
		close(s.still)
	}
}

// TestReadyNamesWhatHangs: each server that stands still is named, and no other; the metrics say the same, and everything is
// answered in spite of it.
func TestReadyNamesWhatHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), 1)
	u, err := url.Parse(w.p.Database.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	database := newStopper(t, u.Host)
	u.Host = database.Addr().String()
	w.p.Database.URL = spec.NewSecret(u.String())
	e := w.open("a", run.Stages{Rollup: true})
	web := httptest.NewServer(serve.Handler(e.Ready, e))
	t.Cleanup(web.Close)
	get := func(path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(testkit.Context(t), http.MethodGet, web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var text strings.Builder
		for buf := make([]byte, 32<<10); ; {
			n, err := resp.Body.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				return text.String()
			}
		}
	}
	says := func(ledger, kafka bool) {
		t.Helper()
		testkit.Eventually(t, func() error {
			var want string
			if !ledger {
				want += "the database does not answer: no answer within 2s\n"
			}
			if !kafka {
				want += "kafka does not answer: no answer within 2s\n"
			}
			if ledger && kafka {
				want = "ok\n"
			}
			if got := get("/readyz"); got != want {
				return fmt.Errorf("readyz says %q, want %q", got, want)
			}
			metrics := get("/metrics")
			number := map[bool]int{true: 1}
			for _, want := range []string{
				fmt.Sprintf("\ncryptoviz_ready %d\n", number[ledger && kafka]), fmt.Sprintf("\ncryptoviz_ledger_reachable %d\n", number[ledger]), fmt.Sprintf("\ncryptoviz_kafka_reachable %d\n", number[kafka]),
				"\ncryptoviz_mode_info", "\ngo_goroutines ",
			} {
				if !strings.Contains(metrics, want) {
					return fmt.Errorf("the metrics lack %q", want)
				}
			}
			if ledger != strings.Contains(metrics, "cryptoviz_rollup_days_due{") {
				return fmt.Errorf("days due while the database answers: %t", ledger)
			}
			return nil
		})
	}
	says(true, true)
	database.stop()
	says(false, true)
	free := make(chan struct{})
	w.broker.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.broker.KeepControl()
		w.broker.SleepControl(func() { <-free })
		return nil, nil, false
	})
	says(false, false)
	database.goOn()
	says(true, false)
	close(free)
	says(true, true)

	// The stages have every connection of theirs in use: that says nothing about the database.
	for range e.Pool().Config().MaxConns {
		c, err := e.Pool().Acquire(testkit.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
	}
	says(true, true)
}
