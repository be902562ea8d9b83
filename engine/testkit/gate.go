package testkit

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Gate is a way to a server that can be shut: what is sent then is neither delivered nor refused, as behind a firewall.
type Gate struct {
	net.Listener
	to   string
	mu   sync.Mutex
	open *sync.Cond
	shut bool
}

// NewGate opens a way to an address; it ends with the test.
func NewGate(t testing.TB, to string) *Gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{Listener: l, to: to}
	g.open = sync.NewCond(&g.mu)
	t.Cleanup(func() { _ = l.Close(); g.Shut(false) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go g.serve(conn)
		}
	}()
	return g
}

// Shut shuts the gate, or opens it again.
func (g *Gate) Shut(shut bool) {
	g.mu.Lock()
	g.shut = shut
	g.mu.Unlock()
	g.open.Broadcast()
}

func (g *Gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.open.Wait()
	}
}

func (g *Gate) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	g.pass()
	g.mu.Lock()
	to := g.to
	g.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	done := make(chan struct{}, 2)
	pump := func(to io.Writer, from io.Reader) {
		defer func() { done <- struct{}{} }()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				g.pass()
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go pump(conn, server)
	go pump(server, conn)
	<-done
}
