package fetch_test

import (
	"context"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// trap counts connections to a port of this machine, on every loopback address that it has.
type trap struct {
	port  string
	count atomic.Int32
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	tr := &trap{}
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, oneRecord) })
	listen := func(network, addr string) {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), network, addr)
		if err != nil {
			t.Logf("%s: %v", addr, err)
			return
		}
		if tr.port == "" {
			_, tr.port, _ = net.SplitHostPort(l.Addr().String())
		}
		s := &http.Server{Handler: h, ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				tr.count.Add(1)
			}
		}}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	listen("tcp4", "0.0.0.0:0")
	listen("tcp6", "[::]:"+tr.port)
	return tr
}

// names is a resolver of the test's own: it gives the answers in turn, and the last one again and again. It is set for the
// process, so these tests do not run beside others.
type names struct {
	mu      sync.Mutex
	answers map[string][][]string
	asked   int
}

func resolve(t *testing.T, answers map[string][][]string) *names {
	t.Helper()
	n := &names{answers: answers}
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
	t.Cleanup(func() { net.DefaultResolver = before })
	return n
}

// serve speaks DNS as over TCP.
func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		msg := make([]byte, int(head[0])<<8|int(head[1]))
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		out, err := n.answer(msg)
		if err != nil {
			return
		}
		if _, err := conn.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...)); err != nil {
			return
		}
	}
}

func (n *names) answer(msg []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable = true, true
	m.Additionals = nil
	q := m.Questions[0]
	n.mu.Lock()
	defer n.mu.Unlock()
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	turns, known := n.answers[name]
	if !known || len(turns[0]) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	} else {
		for _, text := range turns[0] {
			at, head := netip.MustParseAddr(text), dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}
			switch {
			case at.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: at.As4()}})
			case at.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: at.As16()}})
			}
		}
	}
	if q.Type == dnsmessage.TypeA {
		n.asked++
		if len(turns) > 1 {
			n.answers[name] = turns[1:]
		}
	}
	return m.Pack()
}

// quietly is the log of servers whose clients break off.
var quietly = stdlog.New(io.Discard, "", 0)

// get fetches a URL with the guard on.
func get(t *testing.T, client *http.Client, rawURL string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, rawURL, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}
