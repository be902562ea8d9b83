package fetch

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Poll asks a source once a slot. One goroutine uses it.
type Poll struct {
	src      *spec.Source
	opt      Options
	target   *url.URL
	client   *http.Client
	decoder  *decode.Decoder
	redactor redactor
	limiter  *rateLimiter
	cost     int

	// What the newest reply said of itself, and what the newest accepted one did: only that may spare a fetch.
	seen     validators
	mu       sync.Mutex
	accepted validators

	said string // what the newest reply reports beside its records
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
	decoder, err := decode.NewDecoder(src)
	if err != nil {
		return nil, err
	}
	out := &Poll{
		src: src, opt: opt, target: target, client: newClient(free, p.AllowPrivate), decoder: decoder,
		redactor: newRedactor(src.Definition, target), limiter: opt.Budgets.ofSource(src.Name),
	}
	if p.Budget != nil {
		out.limiter, out.cost = opt.Budgets.get(p.Budget, opt.Clock.Speed()), p.Budget.Cost
	}
	return out, nil
}

// FetchUntil returns the records of one reply. It tries again, with growing pauses, as often as the definition says and
// while ctx leaves the time; no attempt begins after until, and one that has begun may use up its timeout.
// ErrNotModified: nothing new. Every other error is an *Error.
func (p *Poll) FetchUntil(ctx context.Context, until time.Time) ([]record.Record, error) {
	begin, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	// The attempts spread over the slot: an hourly source is worth minutes of waiting, one of a minute seconds.
	pause, slot := backoff.NewExponentialBackOff(), time.Duration(float64(p.src.Interval)/p.opt.Clock.Speed())
	pause.InitialInterval, pause.MaxInterval = min(max(slot/60, 500*time.Millisecond), time.Minute),
		max(slot/6, time.Second)
	p.opt.Budgets.exchange(ctx, slot/4)
	var last *Error
	for try := 0; ; try++ {
		records, err := p.attempt(ctx, begin)
		if err == nil || errors.Is(err, ErrNotModified) {
			return records, err
		}
		e := p.redactor.describe(err)
		if e.NotTried && last != nil { // no time is left for it: what the attempt before found is the reason
			return nil, last
		}
		last = e
		p.opt.Log.Debug("attempt failed", "source", p.src.Name, "reason", e.Reason)
		if !e.Temporary || try >= p.src.Definition.Poll.Retries {
			return nil, e
		}
		// the limiter waits as the source asked
		if e.RetryAfter == 0 && !waitUntil(begin, time.Now().Add(pause.NextBackOff())) {
			return nil, e
		}
	}
}

// Accept returns what says that the records of the newest reply are safe: from then on the source may answer that
// nothing changed. Another goroutine may call it.
func (p *Poll) Accept() func() {
	seen := p.seen
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.accepted = seen
	}
}

// known is what the newest accepted reply said of itself.
func (p *Poll) known() validators {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

func (p *Poll) attempt(ctx, begin context.Context) ([]record.Record, error) {
	reserved, err := p.limiter.take(begin, p.cost)
	if err != nil {
		return nil, err
	}
	defer p.limiter.done(reserved)
	ctx, cancel := context.WithTimeout(ctx, p.src.Definition.Poll.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.target.String(), nil)
	if err != nil {
		return nil, &Error{Reason: "its URL cannot be requested"}
	}
	req.Header.Set("User-Agent", p.opt.UserAgent)
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("Accept", map[string]string{
		"json": "application/json",
		"html": "text/html",
	}[p.src.Definition.Decode.Format]+", */*;q=0.1")
	for name, value := range p.src.Definition.Poll.Headers {
		req.Header.Set(name, value.Reveal())
	}
	known := p.known()
	if known.etag != "" {
		req.Header.Set("If-None-Match", known.etag)
	}
	if known.modified != "" {
		req.Header.Set("If-Modified-Since", known.modified)
	}
	resp, err := p.client.Do(req)
	if resp != nil { // also with an error: a redirect that was not followed
		defer func() { _ = resp.Body.Close() }()
		p.heed(ctx, resp)
		p.learn(resp.Header)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusNotModified && known != (validators{}):
		return nil, ErrNotModified
	case resp.StatusCode != http.StatusOK:
		return nil, p.statusError(resp)
	}
	body, err := p.body(resp)
	if err != nil {
		return nil, err
	}
	return p.decode(resp, body)
}

// statusError sorts what is not 200: what may pass, what asks to wait, and what needs a person.
func (p *Poll) statusError(resp *http.Response) *Error {
	e := &Error{Reason: status(resp.StatusCode)}
	if from, err := decompressed(resp); err == nil {
		head, _ := io.ReadAll(io.LimitReader(from, 512))
		// a page says nothing that its status does not
		if text := p.redactor.quote(string(head)); text != "" && text[0] != '<' {
			e.Reason += ": " + text
		}
	}
	e.waits(resp)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e.Reason += " (the source wants a key, or another one: see the definition's headers)"
	case http.StatusUnavailableForLegalReasons:
		e.Reason += " (the source does not serve this country)"
	}
	return e
}

// waits notes whether another attempt may help, and when the source wants it: then it does.
func (e *Error) waits(resp *http.Response) {
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch {
	case e.RetryAfter == longestWait:
		e.Reason += fmt.Sprintf("; it asks to wait 4d or more (Retry-After: %s): it is asked again after 4d",
			redactor{}.quote(resp.Header.Get("Retry-After")))
	case e.RetryAfter > 0:
		e.Reason += "; it asks to wait " + units.FormatDuration(max(e.RetryAfter.Round(time.Second), time.Second))
	}
	switch code := resp.StatusCode; code {
	case http.StatusTooManyRequests, http.StatusTeapot, http.StatusRequestTimeout, http.StatusTooEarly:
		e.Temporary = true
	default:
		e.Temporary = code >= 500 || e.RetryAfter > 0
	}
}

// longestWait bounds what a source may ask for: Binance bans for up to three days.
const longestWait = 96 * time.Hour

// retryAfter reads seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	text, d := strings.TrimSpace(text), time.Duration(0)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		d = time.Duration(min(max(n, 0), int64(longestWait/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), longestWait)
}

// decompressed undoes the reply's Content-Encoding.
func decompressed(resp *http.Response) (io.Reader, error) {
	switch coding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))); coding {
	case "", "identity":
		return resp.Body, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(resp.Body)
		switch {
		case errors.Is(err, io.EOF):
			return nil, emptyReply()
		case errors.Is(err, gzip.ErrHeader):
			return nil, &Error{Reason: "the reply says that it is gzip and is not", Temporary: true}
		}
		return z, err
	default:
		return nil, &Error{Reason: fmt.Sprintf("the reply has a compression that was not asked for: %q",
			redactor{}.quote(coding)), Temporary: true}
	}
}

// body reads the reply, counting what comes out of the decompression.
func (p *Poll) body(resp *http.Response) ([]byte, error) {
	limit := p.src.Definition.Poll.MaxBody
	from, err := decompressed(resp)
	if err != nil {
		return nil, err
	}
	if from == io.Reader(resp.Body) && resp.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(io.LimitReader(from, limit+1))
	_, isDamaged := errors.AsType[flate.CorruptInputError](err)
	switch {
	case int64(len(body)) > limit:
		return nil, tooLarge(limit)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return nil, &Error{
			Reason:    fmt.Sprintf("the reply broke off after %s", humanize.IBytes(uint64(len(body)))),
			Temporary: true,
		}
	case isDamaged, errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader):
		return nil, &Error{Reason: fmt.Sprintf("the reply's compression is damaged after %s",
			humanize.IBytes(uint64(len(body)))), Temporary: true}
	case err != nil:
		return nil, err
	}
	return body, nil
}

func tooLarge(limit int64) *Error {
	return &Error{Reason: fmt.Sprintf("the reply has more than %s after decompression: raise max_body if that is right", humanize.IBytes(uint64(limit)))} //nolint:gosec // positive
}

func emptyReply() *Error { return &Error{Reason: "the reply is empty", Temporary: true} }

func (p *Poll) decode(resp *http.Response, body []byte) ([]record.Record, error) {
	pieces, err := p.decoder.Decode(resp.Header.Get("Content-Type"), body)
	p.said = ""
	if said, ok := errors.AsType[*decode.SourceError](err); ok && said.Effect == spec.EffectLog && len(pieces) > 0 {
		p.complains(said)
	} else if err != nil {
		return nil, p.undecoded(resp, body, err)
	}
	if len(pieces) == 0 {
		return nil, &Error{Reason: "the reply holds no records", Temporary: true}
	}
	p.seen = validators{validator(resp.Header.Get("ETag")), validator(resp.Header.Get("Last-Modified"))}
	now := p.opt.Clock.Now()
	out := make([]record.Record, len(pieces))
	for i, piece := range pieces {
		out[i] = record.Record{Key: piece.Key, Value: piece.Value, Fault: p.redactor.line(piece.Fault), Received: now}
	}
	return out, nil
}

// Said is what the newest reply reports beside its records, such as a market that the source refuses; "" for nothing.
func (p *Poll) Said() string { return p.said }

func (p *Poll) complains(said *decode.SourceError) {
	p.said = p.redactor.reported(said).Reason
	if said.Market != "" {
		p.said = p.redactor.quote(said.Market) + ": " + p.said
	}
	p.opt.Log.Debug("the source reports a failure beside its records", "source", p.src.Name, "reason", p.said)
}

// validator is a header's value, unless it is so long that no server would take it back.
func validator(text string) string {
	if len(text) > 1<<10 {
		return ""
	}
	return text
}

// undecoded says why a reply gives no records.
func (p *Poll) undecoded(resp *http.Response, body []byte, err error) *Error {
	if said, ok := errors.AsType[*decode.SourceError](err); ok {
		return p.redactor.reported(said)
	}
	if shape, ok := errors.AsType[*decode.ShapeError](err); ok {
		return &Error{Reason: p.redactor.line(shape.Reason)}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return emptyReply()
	}
	if text, err := p.decoder.Text(resp.Header.Get("Content-Type"), body); err == nil {
		body = text
	}
	what, kind := err.Error(), p.redactor.quote(resp.Header.Get("Content-Type"))
	if syntax, ok := errors.AsType[*rawjson.SyntaxError](err); ok {
		what = fmt.Sprintf("%s, at byte %d", syntax.Reason, syntax.Offset)
	}
	if kind == "" {
		kind = "no Content-Type"
	}
	if begins := p.redactor.quote(string(body[:min(len(body), 512)])); begins != "" {
		what += ". It begins: " + begins
	}
	return &Error{Reason: fmt.Sprintf("the reply is not JSON (%s): %s", kind, what), Temporary: true}
}
