package fetch

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"github.com/cryptoviz/cryptoviz/engine/mapping"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Poll asks a source once a slot. One goroutine uses it.
type Poll struct {
	src     *spec.Source
	opt     Options
	target  *url.URL
	client  *http.Client
	decoder *mapping.Decoder
	budget  *rate.Limiter
	until   time.Time // real time before which the source wants no request

	// What the newest reply said of itself, and what the newest accepted one did: only that may spare a fetch.
	seen, accepted validators
}

type validators struct{ etag, modified string }

// NewPoll prepares a source that has a poll block.
func NewPoll(src *spec.Source, opt Options) (*Poll, error) {
	opt.fill()
	p := src.Definition.Poll
	target, free, err := opt.target(src, p.URL, p.Query)
	if err != nil {
		return nil, err
	}
	decoder, err := mapping.NewDecoder(src)
	if err != nil {
		return nil, err
	}
	out := &Poll{src: src, opt: opt, target: target, client: newClient(free, p.AllowPrivate), decoder: decoder}
	if p.Budget != nil {
		out.budget = opt.Budgets.get(p.Budget, opt.Clock.Speed())
	}
	return out, nil
}

// Fetch returns the records of one reply. It tries again, with growing pauses, as often as the definition says and until ctx
// ends. ErrNotModified: nothing new. Every other error is an *Error.
func (p *Poll) Fetch(ctx context.Context) ([]Record, error) {
	if left := time.Until(p.until); left > 0 {
		if end, ok := ctx.Deadline(); ok && p.until.After(end) {
			return nil, &Error{Reason: fmt.Sprintf("the source asked to wait until %s", p.until.UTC().Format("15:04:05")), NotTried: true}
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, &Error{Reason: "interrupted while waiting as the source asked", NotTried: true}
		case <-timer.C:
		}
	}
	// The attempts spread over the slot: an hourly source is worth minutes of patience, one of a minute seconds.
	pause, slot := backoff.NewExponentialBackOff(), time.Duration(float64(p.src.Interval)/p.opt.Clock.Speed())
	pause.InitialInterval, pause.MaxInterval = min(max(slot/60, 500*time.Millisecond), time.Minute), max(slot/6, time.Second)
	records, err := backoff.Retry(ctx, func() ([]Record, error) {
		records, err := p.attempt(ctx)
		if err == nil || errors.Is(err, ErrNotModified) {
			return records, permanent(err)
		}
		e := plainly(err)
		if e.RetryAfter > 0 {
			p.until = time.Now().Add(e.RetryAfter)
			return nil, errors.Join(e, &backoff.RetryAfterError{Duration: e.RetryAfter})
		}
		if !e.Temporary {
			return nil, backoff.Permanent(e)
		}
		p.opt.Log.Debug("attempt failed", "source", p.src.Name, "reason", e.Reason)
		return nil, e
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(uint(p.src.Definition.Poll.Retries)+1), backoff.WithMaxElapsedTime(0)) //nolint:gosec // 0 to 20
	switch e, ok := errors.AsType[*Error](err); {
	case err == nil:
		return records, nil
	case errors.Is(err, ErrNotModified):
		return nil, ErrNotModified
	case ok:
		return nil, e
	}
	return nil, &Error{Reason: "no answer before the slot's end", Temporary: true}
}

func permanent(err error) error {
	if err == nil {
		return nil
	}
	return backoff.Permanent(err)
}

// Accepted says that the records of the newest reply are safe: from now on the source may answer that nothing changed.
func (p *Poll) Accepted() { p.accepted = p.seen }

func (p *Poll) attempt(ctx context.Context) ([]Record, error) {
	if err := p.spend(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.src.Definition.Poll.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.target.String(), nil)
	if err != nil {
		return nil, &Error{Reason: "its URL cannot be requested"}
	}
	req.Header.Set("User-Agent", p.opt.UserAgent)
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("Accept", map[string]string{"json": "application/json", "html": "text/html"}[p.src.Definition.Decode.Format]+", */*;q=0.1")
	for name, value := range p.src.Definition.Poll.Headers {
		req.Header.Set(name, value.Reveal())
	}
	if p.accepted.etag != "" {
		req.Header.Set("If-None-Match", p.accepted.etag)
	}
	if p.accepted.modified != "" {
		req.Header.Set("If-Modified-Since", p.accepted.modified)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	p.learn(resp.Header)
	if resp.StatusCode == http.StatusNotModified && p.accepted != (validators{}) {
		return nil, ErrNotModified
	}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp)
	}
	body, err := p.body(resp)
	if err != nil {
		return nil, err
	}
	return p.decode(resp, body)
}

// statusError sorts what is not 200: what may pass, what asks to wait, and what needs a person.
func statusError(resp *http.Response) *Error {
	head, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	e := &Error{Reason: fmt.Sprintf("HTTP %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
	if text := strings.TrimSpace(string(head)); text != "" && resp.Header.Get("Content-Encoding") == "" {
		e.Reason += ": " + spec.Clip(text)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusTeapot, code == http.StatusServiceUnavailable:
		e.Temporary, e.RetryAfter = true, retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		e.Temporary = true
	case code == http.StatusUnauthorized:
		e.Reason += " (the source wants a key, or another one: see the definition's headers)"
	case code == http.StatusUnavailableForLegalReasons:
		e.Reason += " (the source does not serve this country)"
	}
	return e
}

// retryAfter reads seconds or a date, at most four days: Binance bans for up to three.
func retryAfter(text string, now time.Time) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
		d = time.Duration(min(max(n, 0), 1<<20)) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), 96*time.Hour)
}

// body reads the reply, counting what comes out of the decompression.
func (p *Poll) body(resp *http.Response) ([]byte, error) {
	from, limit := io.Reader(resp.Body), p.src.Definition.Poll.MaxBody
	switch coding := strings.ToLower(resp.Header.Get("Content-Encoding")); coding {
	case "", "identity":
		if resp.ContentLength > limit {
			return nil, tooLarge(limit)
		}
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, &Error{Reason: "the reply says that it is gzip and is not", Temporary: true}
		}
		from = z
	default:
		return nil, &Error{Reason: "the reply has a compression that was not asked for: " + spec.Clip(coding), Temporary: true}
	}
	body, err := io.ReadAll(io.LimitReader(from, limit+1))
	switch {
	case int64(len(body)) > limit:
		return nil, tooLarge(limit)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &Error{Reason: fmt.Sprintf("the reply broke off after %s", humanize.IBytes(uint64(len(body)))), Temporary: true}
	case err != nil:
		return nil, err
	}
	return body, nil
}

func tooLarge(limit int64) *Error {
	return &Error{Reason: fmt.Sprintf("the reply has more than %s after decompression: raise max_body if that is right", humanize.IBytes(uint64(limit)))} //nolint:gosec // positive
}

func (p *Poll) decode(resp *http.Response, body []byte) ([]Record, error) {
	pieces, err := p.decoder.Records(body)
	if err != nil {
		if said, ok := errors.AsType[*mapping.SourceError](err); ok {
			return nil, &Error{Reason: said.Error(), Temporary: true}
		}
		if shape, ok := errors.AsType[*mapping.ShapeError](err); ok {
			return nil, &Error{Reason: shape.Error()}
		}
		kind := resp.Header.Get("Content-Type")
		if len(strings.TrimSpace(string(body))) == 0 {
			return nil, &Error{Reason: "the reply is empty", Temporary: true}
		}
		return nil, &Error{Reason: fmt.Sprintf("the reply is not JSON (%s): %v. It begins: %s", spec.Clip(kind), err, spec.Clip(string(body[:min(len(body), 200)]))), Temporary: true}
	}
	if len(pieces) == 0 {
		return nil, &Error{Reason: "the reply holds no records", Temporary: true}
	}
	p.seen = validators{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")}
	now := p.opt.Clock.Now()
	out := make([]Record, len(pieces))
	for i, piece := range pieces {
		out[i] = Record{Key: piece.Key, Value: piece.Value, Received: now}
	}
	return out, nil
}
