package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/coder/websocket"
	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

const (
	// answerTimeout is how long a server may take to answer.
	answerTimeout = 15 * time.Second
	// longestSilence bounds how long a connection that never gives a record is kept, after others that did not either.
	longestSilence = 10 * time.Minute
	// longestPong is what an answer to a text ping may have.
	longestPong = 256
)

// Stream holds a WebSocket connection open and connects again whenever it ends.
type Stream struct {
	src       *spec.Source
	opt       Options
	target    *url.URL
	client    *http.Client
	decoder   *decode.Decoder
	redactor  redactor
	limiter   *rateLimiter
	standing  standing
	fruitless int // connections one after the other that gave no record
}

// NewStream prepares a source that has a stream block.
func NewStream(src *spec.Source, opt Options) (*Stream, error) {
	opt.fill()
	s := src.Definition.Stream
	target, free, err := opt.target(src, s.URL, nil)
	if err != nil {
		return nil, err
	}
	decoder, err := decode.NewDecoder(src)
	if err != nil {
		return nil, err
	}
	return &Stream{
		src: src, opt: opt, target: target, client: newClient(free, s.AllowPrivate), decoder: decoder,
		redactor: newRedactor(src.Definition, target), limiter: opt.Budgets.ofSource(src.Name),
	}, nil
}

// Down returns why no records come, for a slot that began then, or nil: they do. It is an *Error.
func (s *Stream) Down(since time.Time) error {
	if e := s.standing.why(since); e != nil {
		return e
	}
	return nil
}

// Said returns what the source reported since then while records came: a market that it refuses, for instance. "":
// nothing.
func (s *Stream) Said(since time.Time) string { return s.standing.complaints(since) }

// Stats counts what the stream met since it began.
func (s *Stream) Stats() StreamStats { return s.standing.counted() }

// Run emits records as they come, those of a frame together, until ctx ends. Whatever breaks the connection is logged
// and it is made again, with growing pauses: a source must not be hammered.
func (s *Stream) Run(ctx context.Context, emit func([]record.Record)) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = time.Second, time.Minute
	before := time.Duration(0) // the pause before this connection
	for s.mayConnect(ctx) {
		began := time.Now()
		useful, err := s.connection(ctx, emit)
		e := s.redactor.describe(err)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute || useful > before {
			pause.Reset()
		}
		s.standing.ended(e)
		before = pause.NextBackOff()
		s.opt.Log.Warn("stream is down: connecting again", "source", s.src.Name, "reason", e.Reason, "in",
			max(before, e.RetryAfter).Round(time.Millisecond).String())
		wait(ctx, before)
	}
}

// mayConnect waits as long as the source asked to; false: ctx ended.
func (s *Stream) mayConnect(ctx context.Context) bool {
	s.opt.Budgets.exchange(ctx, time.Second)
	for ctx.Err() == nil {
		reserved, at, why := s.limiter.tryTake(time.Now(), 0)
		if reserved != nil {
			return true
		}
		s.standing.ended(&Error{Reason: why, NotTried: true})
		waitUntil(ctx, at)
	}
	return false
}

// talk is one connection.
type talk struct {
	conn    *websocket.Conn
	pinged  atomic.Bool // a text ping was sent
	pong    []byte      // what is taken for the answer to it
	strange bool        // something came that is not understood, and that was said
	began   time.Time   // real times: timeouts are
	record  time.Time   // the newest; zero: none
}

// connection is one connection, from dialling to its end. useful is how long records came.
func (s *Stream) connection(ctx context.Context, emit func([]record.Record)) (useful time.Duration, err error) {
	def := s.src.Definition.Stream
	conn, err := s.subscribe(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(def.MaxMessage)
	t := &talk{conn: conn, began: time.Now()}
	s.standing.begun(s.opt.Clock.Now())
	pings, cancel := context.WithCancel(ctx)
	var pinging sync.WaitGroup
	var unanswered *Error
	if def.PingEvery > 0 {
		pinging.Go(func() { unanswered = s.ping(pings, t) })
	}
	err = s.read(ctx, t, emit)
	cancel()
	pinging.Wait()
	if unanswered != nil {
		err = unanswered
	}
	if t.record.IsZero() {
		s.fruitless++
		return 0, err
	}
	return t.record.Sub(t.began), err
}

// silence is how long a connection may give no record. Whatever else comes keeps nothing: a subscription that was lost
// answers pings, too. It grows while no connection brings any, so that a quiet market makes no storm.
func (s *Stream) silence() time.Duration {
	d := s.src.Definition.Stream.Silence
	for range s.fruitless {
		if d >= longestSilence {
			break
		}
		d = min(2*d, longestSilence)
	}
	return d
}

// read takes frames until the connection ends, and says why it did.
func (s *Stream) read(ctx context.Context, t *talk, emit func([]record.Record)) error {
	frames := 0
	since, silence := t.began, s.silence()
	for {
		quiet, done := context.WithDeadline(ctx, since.Add(silence))
		kind, body, err := t.conn.Read(quiet)
		done()
		if err != nil {
			return s.ended(ctx, quiet, silence, frames, err)
		}
		frames++
		pieces, err := s.decoder.Records(body)
		if said, ok := errors.AsType[*decode.SourceError](err); ok {
			if e := s.said(said); e != nil {
				return e
			}
		} else if err != nil && !t.isPong(s.src.Definition.Stream, kind, body) {
			s.strange(t, kind, body, err)
		}
		if len(pieces) == 0 {
			continue
		}
		since, frames = time.Now(), 0
		t.record = since
		if s.fruitless > 0 {
			s.fruitless, silence = 0, s.src.Definition.Stream.Silence
		}
		now := s.opt.Clock.Now()
		s.standing.came(now)
		records := make([]record.Record, len(pieces))
		for i, p := range pieces {
			records[i] = record.Record{Key: p.Key, Value: p.Value, Fault: s.redactor.line(p.Fault), Received: now}
		}
		emit(records)
	}
}

// said notes what the source reports. It ends the connection, with an error, only where the definition says so: most
// sources refuse one market of many and go on, and those that mean it give no more records.
func (s *Stream) said(said *decode.SourceError) *Error {
	e := s.redactor.reported(said)
	if said.Effect == spec.EffectRetry {
		s.standing.count(func(n *StreamStats) { n.Errors++ })
		return e
	}
	market := ""
	if said.Market != "" {
		market = s.redactor.quote(said.Market)
	}
	if s.standing.complained(s.opt.Clock.Now(), market, e.Reason) {
		s.opt.Log.Warn("stream: the source reports a failure, and the connection goes on", "source", s.src.Name,
			"market", market, "reason", e.Reason)
	}
	return nil
}

// isPong tells whether a frame that is not understood is the answer to a text ping: the first short text after one, and
// what is equal to it.
func (t *talk) isPong(def *spec.Stream, kind websocket.MessageType, body []byte) bool {
	if def.Ping == "" || kind != websocket.MessageText || !t.pinged.Load() || len(body) > longestPong {
		return false
	}
	if t.pong == nil {
		t.pong = bytes.Clone(body)
	}
	return bytes.Equal(body, t.pong)
}

// strange tells that something is not understood, once a connection and once a reason, and counts it.
func (s *Stream) strange(t *talk, kind websocket.MessageType, body []byte, err error) {
	reason, frame := s.redactor.line(err.Error()), s.redactor.quote(string(body[:min(len(body), 512)]))
	if kind == websocket.MessageBinary && bytes.HasPrefix(body, []byte("\x1f\x8b")) {
		reason, frame = "the frame is compressed with gzip, which is not undone",
			fmt.Sprintf("%x", body[:min(len(body), 16)])
	}
	if news := s.standing.notUnderstood(reason); news && !t.strange {
		s.opt.Log.Warn("stream sends what is not understood", "source", s.src.Name, "reason", reason, "frame", frame)
	}
	t.strange = true
}

// subscribe connects and sends the definition's messages.
func (s *Stream) subscribe(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, s.target.String(), &websocket.DialOptions{
		HTTPClient: s.client,
		HTTPHeader: http.Header{"User-Agent": {s.opt.UserAgent}},
	})
	if err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		e := &Error{Reason: "connect: " + status(resp.StatusCode)}
		if resp.StatusCode == http.StatusOK {
			e.Reason += ", which is no WebSocket"
		}
		e.waits(resp)
		s.opt.Budgets.hold(ctx, s.limiter, e.RetryAfter, status(resp.StatusCode))
		return nil, e
	}
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil { // the library's own preface
			err = inner
		}
		return nil, s.during("connect", err)
	}
	for _, text := range s.src.Definition.Stream.Subscribe {
		if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			_ = conn.CloseNow()
			return nil, s.during("subscribe", err)
		}
	}
	return conn, nil
}

// during says in which step it failed.
func (s *Stream) during(step string, err error) *Error {
	e := *s.redactor.describe(err)
	e.Reason = step + ": " + e.Reason
	return &e
}

// ended says why a connection is over. frames came since the last record.
func (s *Stream) ended(ctx, quiet context.Context, silence time.Duration, frames int, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &Error{Temporary: true}
	closed, ok := errors.AsType[websocket.CloseError](err)
	switch {
	case errors.Is(quiet.Err(), context.DeadlineExceeded) && frames > 0:
		e.Reason = fmt.Sprintf("no record came for %s, though %s", units.FormatDuration(silence),
			plural(frames, "another frame", "other frames")+" did")
	case errors.Is(quiet.Err(), context.DeadlineExceeded):
		e.Reason = "nothing came for " + units.FormatDuration(silence)
	case errors.Is(err, websocket.ErrMessageTooBig):
		e.Temporary = false
		e.Reason = fmt.Sprintf("a frame has more than %s: raise max_message if that is right", humanize.IBytes(uint64(s.src.Definition.Stream.MaxMessage))) //nolint:gosec // positive
	case ok:
		e.Reason = strings.TrimSpace(fmt.Sprintf("the source closed the connection: %d %s", closed.Code,
			s.redactor.quote(closed.Reason)))
	default:
		e = s.redactor.describe(err)
	}
	if problem := s.standing.unsolved(); problem != "" { // it is why
		e.Reason = problem + "; " + e.Reason
	}
	return e
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprint(n, " ", more)
}

// ping keeps the connection alive in the way that the source wants. It closes it, and says so, when no answer comes.
func (s *Stream) ping(ctx context.Context, t *talk) *Error {
	def := s.src.Definition.Stream
	tick := time.NewTicker(def.PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		short, cancel := context.WithTimeout(ctx, answerTimeout)
		var err error
		if def.Ping == "" {
			err = t.conn.Ping(short)
		} else {
			t.pinged.Store(true)
			err = t.conn.Write(short, websocket.MessageText, []byte(def.Ping))
		}
		late := errors.Is(short.Err(), context.DeadlineExceeded)
		cancel()
		if err == nil {
			continue
		}
		_ = t.conn.CloseNow() // the reader sees it
		if late {
			return &Error{Reason: "no answer to a ping for " + units.FormatDuration(answerTimeout), Temporary: true}
		}
		return nil
	}
}
