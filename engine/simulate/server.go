package simulate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Options are the settings of a Server. The zero value simulates at the machine's own time and logs nothing.
type Options struct {
	Seed     uint64      // of the prices
	Clock    clock.Clock // what "now" is, and how fast recordings and slots pass
	Recorded fs.FS       // play these recordings instead of the fixtures; nil: simulate
	Log      *slog.Logger
}

// Server plays the exchanges of one pipeline on a port of 127.0.0.1.
type Server struct {
	clock   clock.Clock
	log     *slog.Logger
	players map[string]*player // by source name; never changes
	why     map[string]error   // what is wrong with the recordings of a source; never changes

	mu      sync.Mutex // over what follows
	base    string     // host:port once it listens
	begun   time.Time  // engine time of Start: recorded polls run from here
	ctx     context.Context
	cancel  context.CancelFunc
	server  *http.Server
	closed  bool
	working sync.WaitGroup // Serve and each request
}

// New reads the fixtures (from the pipeline's folder) or recordings of every source, enabled or not. A source without
// any has no endpoint, and Silent tells why. A broken file is an error that names it and its line.
func New(p *spec.Pipeline, opt Options) (*Server, error) {
	s := &Server{clock: opt.Clock, log: opt.Log, players: map[string]*player{}, why: map[string]error{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, src := range p.Sources {
		var found *player
		var err error
		if opt.Recorded != nil {
			found, err = recordedPlayer(opt.Recorded, src)
		} else {
			found, err = fixturePlayer(p.FS, src, opt.Seed, s.log)
		}
		if errors.As(err, new(*unfitError)) {
			s.why[src.Name] = err
			continue
		}
		if err != nil {
			return nil, err
		}
		if found != nil {
			s.players[src.Name] = found
		}
	}
	return s, nil
}

// Plays tells whether there is something to play for a source.
func (s *Server) Plays(name string) bool { return s.players[name] != nil }

// Silent returns what is wrong with the recordings of a source that is not played; nil when there are none.
func (s *Server) Silent(name string) error { return s.why[name] }

// Start listens and serves until Close, or until ctx ends. It is called once.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil || s.closed {
		return errors.New("start the simulated exchanges: they were started before")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start the simulated exchanges: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.base, s.begun = listener.Addr().String(), s.clock.Now()
	s.server = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.working.Go(func() {
		if err := s.server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("simulated exchanges stopped", "error", err)
		}
	})
	s.working.Go(func() {
		<-s.ctx.Done()
		_ = s.server.Close() // its listener alone can fail to close, and is gone with the process
	})
	return nil
}

// Endpoint returns the address that stands for a source's own: http for a poll, ws for a stream. "" means that nothing
// is played for it, or that the server does not run: the source must then not be fetched at all.
func (s *Server) Endpoint(src *spec.Source) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.players[src.Name]
	if p == nil || s.base == "" || s.closed {
		return ""
	}
	scheme := "http://"
	if p.src.Definition.Stream != nil {
		scheme = "ws://"
	}
	return scheme + s.base + "/" + url.PathEscape(src.Name)
}

// Close ends every connection and waits for all that the server started. A second Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	started := s.server != nil
	s.closed = true
	s.mu.Unlock()
	if started {
		s.cancel()
		s.working.Wait()
	}
	return nil
}

// enter counts a request in, unless the server is closing.
func (s *Server) enter() (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ctx.Err() != nil {
		return nil, false
	}
	s.working.Add(1)
	return s.working.Done, true
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter()
	if !ok {
		http.Error(w, "closing", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	p := s.players[strings.TrimPrefix(r.URL.Path, "/")]
	switch {
	case p == nil:
		http.NotFound(w, r)
	case p.src.Definition.Stream != nil:
		s.stream(w, r, p)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
	default:
		s.poll(w, p)
	}
}

func (s *Server) poll(w http.ResponseWriter, p *player) {
	now, t := s.clock.Now(), p.reply
	if p.recording != nil {
		t = p.recording.current(now.Sub(s.begun))
	}
	kind := "application/json"
	if p.src.Definition.Decode.Format == "html" {
		kind = "text/html; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(t.render(nil, now)) // the client may have gone
}

// maxRequest bounds a client's frame: a subscription to thousands of markets.
const maxRequest = 1 << 20

// sendTimeout is how long a client may leave a frame unread.
const sendTimeout = 10 * time.Second

func (s *Server) stream(w http.ResponseWriter, r *http.Request, p *player) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		s.log.Debug("simulated websocket refused", "source", p.src.Name, "error", err)
		return
	}
	conn.SetReadLimit(maxRequest)
	ctx, cancel := context.WithCancel(s.ctx) // the request's own context ends with its hijacked connection's handler
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.CloseNow() //nolint:errcheck // it is closed either way
	defer cancel()

	subscribed := make(chan struct{})
	if len(p.src.Definition.Stream.Subscribe) == 0 {
		close(subscribed)
	}
	reading.Go(func() {
		defer cancel()
		s.listen(ctx, conn, p, subscribed)
	})
	select {
	case <-ctx.Done():
		return
	case <-subscribed:
	}
	if p.recording != nil {
		err = s.playRecording(ctx, conn, p.recording)
	} else {
		err = s.playRounds(ctx, conn, p)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Debug("simulated websocket ended", "source", p.src.Name, "error", err)
	}
}

// listen reads the client's frames: the first is taken for a subscription; the definition's ping text is answered with
// the same text saying pong. WebSocket's own pings are answered by the library while it reads.
func (s *Server) listen(ctx context.Context, conn *websocket.Conn, p *player, subscribed chan struct{}) {
	ping := p.src.Definition.Stream.Ping
	waiting := len(p.src.Definition.Stream.Subscribe) > 0
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if ping != "" && string(text) == ping {
			if send(ctx, conn, []byte(pong(ping))) != nil {
				return
			}
			continue
		}
		if waiting {
			waiting = false
			close(subscribed)
		}
	}
}

var pongs = strings.NewReplacer("ping", "pong", "PING", "PONG", "Ping", "Pong")

func pong(ping string) string { return pongs.Replace(ping) }

func send(ctx context.Context, conn *websocket.Conn, frame []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, frame)
}

func (s *Server) playRounds(ctx context.Context, conn *websocket.Conn, p *player) error {
	var buf []byte
	say := func(frames []*template) error {
		for _, t := range frames {
			buf = t.render(buf[:0], s.clock.Now())
			if err := send(ctx, conn, buf); err != nil {
				return err
			}
		}
		return nil
	}
	if err := say(p.acks); err != nil {
		return err
	}
	tick := time.NewTicker(p.period(s.clock.Speed()))
	defer tick.Stop()
	for {
		if err := say(p.rounds); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// playRecording starts from nothing whenever it ends; each round is timed from its own beginning, so that a slow reader
// is never flooded.
func (s *Server) playRecording(ctx context.Context, conn *websocket.Conn, t *recording) error {
	var buf []byte
	for {
		begun := s.clock.Now()
		for i, frame := range t.frames {
			if err := s.until(ctx, begun.Add(t.at[i])); err != nil {
				return err
			}
			buf = frame.render(buf[:0], s.clock.Now())
			if err := send(ctx, conn, buf); err != nil {
				return err
			}
		}
		if err := s.until(ctx, begun.Add(t.length)); err != nil {
			return err
		}
	}
}

func (s *Server) until(ctx context.Context, t time.Time) error {
	if d := t.Sub(s.clock.Now()); d > 0 {
		return s.clock.Sleep(ctx, d)
	}
	return ctx.Err()
}
