package grafana

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// maxReply bounds what is read of one answer.
const maxReply = 64 << 20

// tries is how often an idempotent request is sent at most, within maxWait.
const (
	tries   = 4
	maxWait = 30 * time.Second
)

// wire sends requests: with credentials, a limit on time and size, and a few repetitions where repeating is harmless.
// An answer that is no success is an *Error.
type wire struct {
	pool    http.RoundTripper
	host    string // for messages
	prefix  string // path of Grafana's address, not for messages
	header  string // Authorization
	secrets []string
	timeout time.Duration // of one attempt
	first   time.Duration // wait before the second attempt
	limit   int64         // of the bytes of one answer
	count   *atomic.Int64
}

func (w *wire) authorize(auth string) {
	if _, password, basic := strings.Cut(auth, ":"); basic {
		encoded := base64.StdEncoding.EncodeToString([]byte(auth))
		w.header, w.secrets = "Basic "+encoded, []string{encoded, password}
		return
	}
	w.header, w.secrets = "Bearer "+auth, []string{auth}
}

// bound is the wire for the calls of one context: the library has none.
type bound struct {
	ctx  context.Context //nolint:containedctx // the library takes no context
	wire *wire
}

// RoundTrip sends a request of the library.
func (b bound) RoundTrip(req *http.Request) (*http.Response, error) { return b.wire.send(b.ctx, req) }

func (w *wire) send(ctx context.Context, req *http.Request) (*http.Response, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = w.first, 8*w.first
	resp, err := backoff.Retry(ctx, func() (*http.Response, error) {
		resp, err := w.attempt(ctx, req)
		if err == nil {
			return resp, nil
		}
		e, refused := errors.AsType[*Error](err)
		if !refused || !e.temporary() || req.Method == http.MethodPost {
			return nil, backoff.Permanent(err)
		}
		if e.wait > 0 {
			return nil, errors.Join(e, &backoff.RetryAfterError{Duration: e.wait})
		}
		return nil, e
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(maxWait))
	if e, ok := errors.AsType[*Error](err); ok {
		return nil, e
	}
	return resp, err
}

// route is the path of a request within Grafana.
func (w *wire) route(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, w.prefix) }

func (w *wire) attempt(parent context.Context, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(parent, w.timeout)
	defer cancel()
	r := req.Clone(ctx)
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		r.Body = body
	}
	r.Header.Set("Authorization", w.header)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "cryptoviz")
	w.count.Add(1)
	resp, err := w.pool.RoundTrip(r)
	if err != nil {
		return nil, w.unreachable(parent, ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, w.limit+1))
	if err != nil {
		return nil, w.unreachable(parent, ctx, err)
	}
	if int64(len(body)) > w.limit {
		return nil, &Error{
			Method: r.Method, Path: w.route(r), Status: resp.StatusCode,
			Message: fmt.Sprintf("with more than %d MiB", w.limit>>20),
		}
	}
	if e := w.responseError(r, resp, body); e != nil {
		return nil, e
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// unreachable words a request that got no whole answer.
func (w *wire) unreachable(parent, ctx context.Context, err error) error {
	switch {
	case parent.Err() != nil:
		return parent.Err()
	case ctx.Err() != nil || isTimeout(err):
		return fmt.Errorf("no answer from Grafana at %s within %s", w.host, w.timeout)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("the connection to Grafana at %s was closed before its answer was whole", w.host)
	}
	return fmt.Errorf("cannot reach Grafana at %s: %w", w.host, err)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// responseError turns an answer into an error, unless it is a success with JSON or with nothing.
func (w *wire) responseError(r *http.Request, resp *http.Response, body []byte) *Error {
	e := &Error{Method: r.Method, Path: w.route(r), Status: resp.StatusCode}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	text := bytes.TrimSpace(body)
	html := strings.HasPrefix(kind, "text/html") || bytes.HasPrefix(text, []byte("<"))
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		e.Message = "with a redirect to " + w.hide(resp.Header.Get("Location"))
		return e
	case html:
		e.Message, e.page = "with a web page", true
		return e
	case resp.StatusCode < 300:
		return nil
	}
	var in struct {
		Message   string `json:"message"`
		MessageID string `json:"messageId"`
	}
	if json.Unmarshal(body, &in) == nil && in.Message != "" {
		e.Message, e.ID = w.hide(in.Message), in.MessageID
	}
	e.wait = retryAfter(resp.Header.Get("Retry-After"))
	return e
}

// hide makes a text from outside fit for a message: short, printable, and without our credentials.
func (w *wire) hide(text string) string {
	for _, s := range w.secrets {
		if len(s) > 3 {
			text = strings.ReplaceAll(text, s, "(sensitive)")
		}
	}
	return units.ClipTo(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text), 300)
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// some lists the first few, and how many more there are.
func some(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
