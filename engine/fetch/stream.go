package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/coder/websocket"
	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/mapping"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Stream holds a WebSocket connection open and connects again whenever it ends.
type Stream struct {
	src     *spec.Source
	opt     Options
	target  *url.URL
	client  *http.Client
	decoder *mapping.Decoder
	down    atomic.Pointer[Error] // why there is no connection now; nil: there is
}

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
	out := &Stream{src: src, opt: opt, target: target, client: newClient(free, s.AllowPrivate), decoder: decoder}
	out.down.Store(&Error{Reason: "not connected yet"})
	return out, nil
}

// Down returns why there is no connection at this moment, or nil.
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
		err := plainly(s.connection(ctx, emit))
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		s.down.Store(err)
		wait := pause.NextBackOff()
		s.opt.Log.Warn("stream ended and is connected again", "source", s.src.Name, "reason", err.Reason, "in", wait.Round(time.Millisecond).String())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// connection is one connection, from dialling to its end.
func (s *Stream) connection(ctx context.Context, emit func(Record)) error {
	def := s.src.Definition.Stream
	dial, cancel := context.WithTimeout(ctx, 15*time.Second)
	conn, resp, err := websocket.Dial(dial, s.target.String(), &websocket.DialOptions{HTTPClient: s.client, HTTPHeader: http.Header{"User-Agent": {s.opt.UserAgent}}})
	cancel()
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return &Error{Reason: fmt.Sprintf("connect: HTTP %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)), Temporary: true}
		}
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(def.MaxMessage)
	for _, text := range def.Subscribe {
		if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	ctx, cancel = context.WithCancel(ctx)
	var pinging sync.WaitGroup
	if def.PingEvery > 0 {
		pinging.Go(func() { s.ping(ctx, conn) })
	}
	defer func() { cancel(); pinging.Wait() }()
	strange := false
	for {
		quiet, done := context.WithTimeout(ctx, def.Silence)
		_, body, err := conn.Read(quiet)
		done()
		if err != nil {
			return s.ended(ctx, quiet, conn, err)
		}
		pieces, err := s.decoder.Records(body)
		if said, ok := errors.AsType[*mapping.SourceError](err); ok {
			return &Error{Reason: said.Error(), Temporary: true}
		}
		if err != nil && !strange && def.Ping == "" { // sources that want a text ping answer with a text
			strange = true
			s.opt.Log.Warn("stream sends what is not understood", "source", s.src.Name, "reason", err.Error(), "frame", spec.Clip(string(body[:min(len(body), 200)])))
		}
		if len(pieces) > 0 {
			s.down.Store(nil)
		}
		now := s.opt.Clock.Now()
		for _, p := range pieces {
			emit(Record{Key: p.Key, Value: p.Value, Received: now})
		}
	}
}

// ended says why a connection is over.
func (s *Stream) ended(ctx, quiet context.Context, conn *websocket.Conn, err error) error {
	def := s.src.Definition.Stream
	closed, ok := errors.AsType[websocket.CloseError](err)
	switch {
	case ctx.Err() != nil:
		_ = conn.Close(websocket.StatusNormalClosure, "")
		return ctx.Err()
	case errors.Is(quiet.Err(), context.DeadlineExceeded):
		return &Error{Reason: "nothing came for " + spec.FormatDuration(def.Silence), Temporary: true}
	case errors.Is(err, websocket.ErrMessageTooBig):
		return &Error{Reason: fmt.Sprintf("a frame has more than %s: raise max_message if that is right", humanize.IBytes(uint64(def.MaxMessage)))} //nolint:gosec // positive
	case ok:
		return &Error{Reason: fmt.Sprintf("the source closed the connection: %d %s", closed.Code, spec.Clip(closed.Reason)), Temporary: true}
	}
	return err
}

// ping keeps the connection alive in the way that the source wants.
func (s *Stream) ping(ctx context.Context, conn *websocket.Conn) {
	def := s.src.Definition.Stream
	tick := time.NewTicker(def.PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wait, cancel := context.WithTimeout(ctx, 10*time.Second)
		var err error
		if def.Ping == "" {
			err = conn.Ping(wait)
		} else {
			err = conn.Write(wait, websocket.MessageText, []byte(def.Ping))
		}
		cancel()
		if err != nil {
			_ = conn.CloseNow() // the reader says that the connection is over
			return
		}
	}
}
