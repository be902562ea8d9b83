package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// member joins as another process would.
func (b *bench) member(owner string) *store.Member {
	b.t.Helper()
	m, err := b.open(store.Options{Owner: owner}).Join(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(m.Leave)
	return m
}

// locks counts the numbers that are held.
const locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND datname = current_database() AND objsubid = 2"

const holder = "SELECT min(pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND datname = current_database() AND objsubid = 2"

// cut ends the connections that hold numbers.
const cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND datname = current_database() AND objsubid = 2"

func TestNoTwoInstancesShareAName(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	const n = 12
	var all sync.WaitGroup
	members := make([]*store.Member, n)
	for i := range members {
		s := b.open(store.Options{})
		all.Go(func() {
			m, err := s.Join(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(m.Leave)
			members[i] = m
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	var names []string
	for _, m := range members {
		names = append(names, m.Name())
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != n {
		t.Error(names)
	}
	for _, m := range members[3:] { // stopped, or killed: its connection ends
		m.Leave()
	}
	for _, m := range members[:3] {
		names = append(names, m.Name())
	}
	for range 5 {
		m := b.member("next")
		if slices.Contains(names[len(names)-3:], m.Name()) {
			t.Errorf("%s is another's", m.Name())
		}
		number, err := strconv.Atoi(m.Name()[1:])
		if err != nil || number > 8 {
			t.Errorf("%s was not the lowest free one", m.Name())
		}
	}
}

// What the one of the same name left unfinished is free at once; what others do is not.
func TestSuccessorFreesSlots(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	var ledgers []store.Ledger
	var members []*store.Member
	for _, owner := range []string{"one", "two"} {
		s := b.open(store.Options{Owner: owner})
		m, err := s.Join(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Leave)
		ledgers, members = append(ledgers, store.Ledger{Store: s}), append(members, m)
	}
	claim(t, ledgers[0], noon, time.Hour, schedule.Acquired)
	claim(t, ledgers[1], noon.Add(time.Minute), time.Hour, schedule.Acquired)
	members[0].Leave()
	next := b.open(store.Options{Owner: "three"})
	m, err := next.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Leave)
	claim(t, store.Ledger{Store: next}, noon, time.Hour, schedule.Acquired)
	claim(t, store.Ledger{Store: next}, noon.Add(time.Minute), time.Hour, schedule.Held)
	b.has(map[string]string{slots: "12:00:00 running n1/three 2, 12:01:00 running n2/two 1"})
}

// A lost connection is replaced, under the same name if nobody took it meanwhile.
func TestMemberKeepsItsName(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	m := b.member("one")
	renamed := make(chan string, 1)
	m.Keep(func(name string) { renamed <- name })
	for range 3 {
		was := b.text(holder)
		if n := b.text(cut); was == "" || n != "1" {
			t.Fatalf("%s connections held a number", n)
		}
		testkit.Eventually(t, func() error { // the one that was cut may show for a moment yet
			if now := b.text(holder); now == "" || now == was {
				return fmt.Errorf("process %q holds the number, after %s", now, was)
			}
			return nil
		})
	}
	if m.Name() != "n1" {
		t.Error(m.Name())
	}
	select {
	case name := <-renamed:
		t.Error(name)
	default:
	}
}

// becomes waits for an answer.
func (b *bench) becomes(sql, want string) {
	b.t.Helper()
	testkit.Eventually(b.t, func() error {
		if got := b.text(sql); got != want {
			return fmt.Errorf("%s is %q, want %q", sql, got, want)
		}
		return nil
	})
}

// Another instance starts in the moment in which the connection is lost: the name is its own from then on.
func TestMemberGivesWay(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	m := b.member("one")
	b.text(cut)
	b.becomes(locks, "0")
	other := b.member("two")
	renamed := make(chan string, 1)
	m.Keep(func(name string) { renamed <- name })
	if name := testkit.Receive(t, renamed, "new name"); name != "n2" || other.Name() != "n1" {
		t.Errorf("%s and %s", name, other.Name())
	}
}

// pooler passes one connection after the other to the server, and tells the client a process number of its own.
func pooler(t *testing.T, to string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	pass := func(dst, src net.Conn, change func([]byte)) {
		defer func() { _ = dst.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := src.Read(buf)
			change(buf[:n])
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go pass(far, near, func([]byte) {})
			go pass(near, far, func(b []byte) {
				if i := bytes.Index(b, []byte("K\x00\x00\x00\x0c")); i >= 0 && len(b) >= i+9 { // BackendKeyData
					binary.BigEndian.PutUint32(b[i+5:], 4242)
				}
			})
		}
	}()
	return l.Addr().String()
}

func TestNoNameBehindAPooler(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	cfg, err := pgxpool.ParseConfig(b.url)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(pooler(t, net.JoinHostPort(cfg.ConnConfig.Host, strconv.Itoa(int(cfg.ConnConfig.Port)))))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.Host, cfg.ConnConfig.Port, cfg.ConnConfig.Fallbacks = host, uint16(number), nil
	s, err := store.Open(t.Context(), cfg, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Join(t.Context()); !errors.Is(err, store.ErrPooled) {
		t.Errorf("got %v", err)
	}
	b.becomes(locks, "0")
}
