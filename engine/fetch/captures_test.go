package fetch_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// captured is a frame of recorded traffic.
type captured struct {
	Message json.RawMessage
	Binary  []byte
}

// captures reads recorded traffic, which is not part of this repository.
func captures(t *testing.T, name string) (out []captured) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../shared/captures", name))
	if err != nil {
		t.Skipf("recorded traffic is not beside the repository: %v", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var c captured
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// TestRecordedStreams plays recorded traffic to the shipped definitions: each ticker is a record, and nothing is strange. Then the
// subscription is lost, and what else comes does not hide it.
func TestRecordedStreams(t *testing.T) {
	for _, c := range []struct {
		source, file string
		ping         string // the frame that keeps coming, as it does from the exchange
		market       func(message []byte) (string, bool)
	}{
		{"okx", "okx-v5-ws.ndjson", "pong", func(message []byte) (string, bool) {
			var m struct {
				Arg  struct{ Channel string }
				Data []struct{ InstID string }
			}
			if json.Unmarshal(message, &m) != nil || m.Arg.Channel != "tickers" || len(m.Data) == 0 {
				return "", false
			}
			return m.Data[0].InstID, true
		}},
		{"coinbase", "coinbase-exchange-ws.ndjson", `{"type":"heartbeat","last_trade_id":90,"product_id":"BTC-USD","sequence":7,"time":"2026-10-01T11:59:58.1Z"}`, func(message []byte) (string, bool) {
			var m struct {
				Type, Market string
				ProductID    string `json:"product_id"`
			}
			_ = json.Unmarshal(message, &m)
			return m.ProductID, m.Type == "ticker"
		}},
	} {
		t.Run(c.source, func(t *testing.T) {
			frames := captures(t, c.file)
			p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
			if d.HasErrors() {
				t.Fatal(d.Diags)
			}
			at := slices.IndexFunc(p.Sources, func(s *spec.Source) bool { return s.Name == c.source })
			var want []string
			inBubble(t, func(f *feed, n int, conn *websocket.Conn) {
				gone := make(chan struct{})
				go func() { defer close(gone); idle(conn) }()
				for _, frame := range frames {
					if market, ok := c.market(frame.Message); ok && n == 0 {
						want = append(want, market)
					}
					f.say(conn, string(frame.Message))
				}
				if c.ping == "pong" {
					time.Sleep(21 * time.Second) // it answers
				}
				for tick := time.NewTicker(time.Second); ; {
					select {
					case <-gone:
						tick.Stop()
						return
					case <-tick.C:
						f.say(conn, c.ping)
					}
				}
			}, func(f *feed) {
				f.src = p.Sources[at]
				f.src.Definition.Stream.URL = "ws://feed.example/ws"
				f.start()
				defer time.Sleep(time.Minute)
				defer f.stop()
				f.isDown("")
				if len(want) == 0 || f.keys() != strings.Join(want, " ") || f.s.Stats().Strange != 0 || f.log.String() != "" {
					t.Errorf("%d records, want %d; %+v\n%s", len(f.got), len(want), f.s.Stats(), f.log.String())
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if len(f.dials()) < 2 || len(f.got) != len(f.dials())*len(want) || !strings.Contains(f.log.String(), "no record came for ") {
					t.Errorf("%d connections, %d records\n%s", len(f.dials()), len(f.got), f.log.String())
				}
			})
		})
	}
}

// TestRecordedGzip: frames that a definition cannot read yet are told, with a text ping, too.
func TestRecordedGzip(t *testing.T) {
	frames := captures(t, "huobi-gzip-ws.ndjson")
	inBubble(t, func(_ *feed, _ int, conn *websocket.Conn) {
		for _, frame := range frames {
			_ = conn.Write(context.Background(), websocket.MessageBinary, frame.Binary)
		}
		idle(conn)
	}, func(f *feed) {
		f.start(`ping = "ping"`, `ping_every = "10s"`)
		defer f.stop()
		f.isDown("connected, and what comes is not understood: the frame is compressed with gzip, which is not undone")
		if f.s.Stats().Strange != int64(len(frames)) || strings.Count(f.log.String(), "\n") != 1 {
			t.Errorf("%+v\n%s", f.s.Stats(), f.log.String())
		}
	})
}
