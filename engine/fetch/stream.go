package fetch

import (
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

	"github.com/cryptoviz/cryptoviz/engine/mapping"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// patience is how long a server may take to answer.
const patience = 15 * time.Second

// Stream holds a WebSocket connection open and connects again whenever it ends.
type Stream struct {
	src     *spec.Source
	opt     Options
	target  *url.URL
	client  *http.Client
	decoder *mapping.Decoder
	sent    sent
	down    atomic.Pointer[Error] // why no records come now; nil: they do
}

var (
	notYet = &Error{Reason: "not connected yet"}
	silent = &Error{Reason: "connected, and no record has come yet"}
)

// NewStream prepares a source that has a stream block.
func NewStream(src *spec.Source, opt Options) (*Stream, error) {
	opt.fill()
	s := src.Definition.Stream
	target, free, err := opt.target(src, s.URL, nil)
	if err != nil {
		return nil, err
	}
	decoder, err := mapping.NewDecoder(src)
	if err != nil {
		return nil, err
	}
	out := &Stream{src: src, opt: opt, target: target, client: newClient(free, s.AllowPrivate), decoder: decoder, sent: sentBy(nil, target)}
	out.down.Store(notYet)
	return out, nil
}

// Down returns why no records come at this moment, or nil. After a failure it keeps saying so until the first new record.
func (s *Stream) Down() error {
	if e := s.down.Load(); e != nil {
		return e
	}
	return nil
}

// Run emits records as they come until ctx ends. Whatever breaks the connection is logged and it is made again, with growing
// pauses: a source must not be hammered.
func (s *Stream) Run(ctx context.Context, emit func(Record)) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = time.Second, time.Minute
	for ctx.Err() == nil {
		began := time.Now()
		err := s.sent.plainly(s.connection(ctx, emit))
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		s.down.Store(err)
		again := max(pause.NextBackOff(), err.RetryAfter)
		s.opt.Log.Warn("stream is down: connecting again", "source", s.src.Name, "reason", err.Reason, "in", again.Round(time.Millisecond).String())
		wait(ctx, again)
	}
}

// connection is one connection, from dialling to its end.
func (s *Stream) connection(ctx context.Context, emit func(Record)) error {
	def := s.src.Definition.Stream
	conn, err := s.subscribe(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(def.MaxMessage)
	s.down.CompareAndSwap(notYet, silent)
	pings, cancel := context.WithCancel(ctx)
	var pinging sync.WaitGroup
	var unanswered *Error
	if def.PingEvery > 0 {
		pinging.Go(func() { unanswered = s.ping(pings, conn) })
	}
	defer func() { cancel(); pinging.Wait() }()
	strange := false
	for {
		quiet, done := context.WithTimeout(ctx, def.Silence)
		_, body, err := conn.Read(quiet)
		done()
		if err != nil {
			cancel()
			pinging.Wait()
			if unanswered != nil {
				return unanswered
			}
			return s.ended(ctx, quiet, err)
		}
		pieces, err := s.decoder.Records(body)
		if said, ok := errors.AsType[*mapping.SourceError](err); ok {
			return s.sent.said(said)
		}
		if err != nil && !strange && def.Ping == "" { // sources that want a text ping answer with a text
			strange = true
			s.opt.Log.Warn("stream sends what is not understood", "source", s.src.Name, "reason", s.sent.line(err.Error()), "frame", s.sent.quote(string(body[:min(len(body), 512)])))
		}
		if len(pieces) > 0 {
			s.down.Store(nil)
		}
		now := s.opt.Clock.Now()
		for _, p := range pieces {
			emit(Record{Key: p.Key, Value: p.Value, Fault: p.Fault, Received: now})
		}
	}
}

// subscribe connects and sends the definition's messages.
func (s *Stream) subscribe(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, s.target.String(), &websocket.DialOptions{HTTPClient: s.client, HTTPHeader: http.Header{"User-Agent": {s.opt.UserAgent}}})
	if err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		e := &Error{Reason: "connect: " + status(resp.StatusCode)}
		if resp.StatusCode == http.StatusOK {
			e.Reason += ", which is no WebSocket"
		}
		e.waits(resp)
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
	e := *s.sent.plainly(err)
	e.Reason = step + ": " + e.Reason
	return &e
}

// ended says why a connection is over.
func (s *Stream) ended(ctx, quiet context.Context, err error) error {
	def := s.src.Definition.Stream
	closed, ok := errors.AsType[websocket.CloseError](err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(quiet.Err(), context.DeadlineExceeded):
		return &Error{Reason: "nothing came for " + spec.FormatDuration(def.Silence), Temporary: true}
	case errors.Is(err, websocket.ErrMessageTooBig):
		return &Error{Reason: fmt.Sprintf("a frame has more than %s: raise max_message if that is right", humanize.IBytes(uint64(def.MaxMessage)))} //nolint:gosec // positive
	case ok:
		return &Error{Reason: strings.TrimSpace(fmt.Sprintf("the source closed the connection: %d %s", closed.Code, s.sent.quote(closed.Reason))), Temporary: true}
	}
	return err
}

// ping keeps the connection alive in the way that the source wants. It closes it, and says so, when no answer comes.
func (s *Stream) ping(ctx context.Context, conn *websocket.Conn) *Error {
	def := s.src.Definition.Stream
	tick := time.NewTicker(def.PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		short, cancel := context.WithTimeout(ctx, patience)
		var err error
		if def.Ping == "" {
			err = conn.Ping(short)
		} else {
			err = conn.Write(short, websocket.MessageText, []byte(def.Ping))
		}
		late := errors.Is(short.Err(), context.DeadlineExceeded)
		cancel()
		if err == nil {
			continue
		}
		_ = conn.CloseNow() // the reader sees it
		if late {
			return &Error{Reason: "no answer to a ping for " + spec.FormatDuration(patience), Temporary: true}
		}
		return nil
	}
}
