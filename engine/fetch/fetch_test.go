package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Keys that no message may hold: one in the query, one in a header.
const (
	queryKey  = "QUERYKEY0123456789"
	headerKey = "HEADERKEY/0123+456"
)

const (
	jsonDecode = `decode "json" {
	error   = try("${body.code}: ${body.msg}", null)
	records = body.data
	key     = r.s
}`
	oneRecord = `{"data":[{"s":"BTC","p":1}]}`
)

// source loads a definition that has the given transport and decode blocks.
func source(t testing.TB, interval string, blocks ...string) *spec.Source {
	t.Helper()
	p, d := load.Load(fstest.MapFS{
		"pipeline.hcl": {Data: fmt.Appendf(nil, `
kafka { brokers = ["localhost:9092"] }
database { url = "postgres://localhost/a" }
topic "a" { partitions = 1 }
source "a" {
	definition = "a.hcl"
	interval   = %q
	topic      = topic.a
	table      = table.t
}
table "t" {
	column "time"  { type = "timestamptz" }
	column "price" { type = "double precision" }
	primary_key = ["time"]
}`, interval)},
		"a.hcl": {Data: []byte(strings.Join(blocks, "\n") + "\nrow {\n\ttime = slot\n\tprice = 1\n}")},
	}, "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	return p.Sources[0]
}

// poll is a poll block of an API with a key in its query and one in a header; more are further lines.
func poll(url string, more ...string) string {
	return fmt.Sprintf("poll {\n\turl = %q\n\tquery = { api_key = %q }\n\theaders = { X-Key = %q }\n\t%s\n}", url, queryKey, headerKey, strings.Join(more, "\n\t"))
}

func newPoll(t testing.TB, src *spec.Source, opt fetch.Options) *fetch.Poll {
	t.Helper()
	p, err := fetch.NewPoll(src, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// server answers in memory and notes when it was asked: in a synctest bubble, to the nanosecond.
type server struct {
	answer func(n int, r *http.Request) (*http.Response, error) // n counts from 0
	mu     sync.Mutex
	asked  []time.Time
	heads  []http.Header
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	n := len(s.asked)
	s.asked, s.heads = append(s.asked, time.Now()), append(s.heads, r.Header)
	s.mu.Unlock()
	resp, err := s.answer(n, r)
	if resp != nil {
		resp.Request = r
	}
	return resp, err
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// reply makes a response; header holds names and values in turn.
func reply(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1, ProtoMajor: 1, ProtoMinor: 1}
}

// always gives the same reply to every request.
func always(status int, body string, header ...string) *server {
	return &server{answer: func(int, *http.Request) (*http.Response, error) { return reply(status, body, header...), nil }}
}

// slot is a context that ends as a slot of that length does.
func slot(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// failure returns the *Error of a fetch, after a look at its text.
func failure(t testing.TB, err error) *fetch.Error {
	t.Helper()
	e, ok := errors.AsType[*fetch.Error](err)
	if !ok {
		t.Fatalf("the error is %v", err)
	}
	plain(t, e.Reason)
	return e
}

// plain checks what the ledger, the log and a terminal are given.
func plain(t testing.TB, reason string) {
	t.Helper()
	if !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("the reason is not one printable line: %q", reason)
	}
	if reason != strings.TrimSpace(reason) || reason == "" || len(reason) > 400 {
		t.Errorf("the reason is blank or too long: %q", reason)
	}
	for _, key := range []string{queryKey, headerKey, "HEADERKEY", "QUERYKEY", "api_key"} {
		if strings.Contains(reason, key) {
			t.Errorf("the reason holds %s: %q", key, reason)
		}
	}
}

// log collects what is logged.
type log struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	said chan struct{} // with room for one, when a test waits for a line
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.said <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
