package produce_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// TestOnce: instances that all believe that a source is theirs send the same slots over connections that break before and
// behind the brokers' work. Each key of each slot is on the topic once.
func TestOnce(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	const slots, instances = 40, 3
	ways := make([]*flaky, instances)
	producers := make([]*produce.Producer, instances)
	for i := range instances {
		ways[i] = &flaky{rand: rand.New(rand.NewPCG(uint64(i), 7)), on: true} //nolint:gosec // a test
		producers[i] = producer(t, addrs, produce.Options{}, kgo.Dialer(ways[i].dial))
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var want []string
	for i, p := range producers {
		all.Go(func() {
			var wait []*produce.Delivery
			for n := range slots {
				if n%instances != i && n%4 == 0 {
					continue // this one was not its slot
				}
				records := markets(3)
				records = append(records, record.Record{Key: fmt.Sprint("of", i)})
				d, err := p.Queue(source("s"), at(n), records)
				if err != nil {
					t.Error(err)
					return
				}
				wait = append(wait, d)
				mu.Lock()
				for _, r := range records {
					want = append(want, at(n).Format(time.TimeOnly)+" "+r.Key)
				}
				mu.Unlock()
				time.Sleep(5 * time.Millisecond) //nolint:forbidigo // the pace of slots, or of looking
			}
			time.AfterFunc(3*time.Second, ways[i].heal)
			for _, d := range wait {
				select {
				case <-d.Done():
					if r := d.Result(); r.Err != nil || r.Stored != 4 {
						t.Errorf("%+v", r)
					}
				case <-time.After(testkit.Patience):
					t.Error("not delivered")
					return
				}
			}
		})
	}
	all.Wait()
	slices.Sort(want)
	want = slices.Compact(want)
	if got := texts(committed(t, addrs)); !slices.Equal(got, want) {
		t.Errorf("on the topic:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTakeOver: who takes a source over sends of the slot under way only what is missing, and hears of the slots before. The
// earlier writer is out, learns it, and its next slot is not lost.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	var mu sync.Mutex
	found := map[string]int{}
	a := producer(t, addrs, produce.Options{})
	b := producer(t, addrs, produce.Options{Found: func(source string, slot time.Time, n int) {
		mu.Lock()
		defer mu.Unlock()
		found[source+" "+slot.Format(time.TimeOnly)] = n
	}})
	wantResult(t, queue(t, a, at(0), markets(5)...), produce.Result{Stored: 5})
	wantResult(t, queue(t, a, at(1), markets(2)...), produce.Result{Stored: 2})
	if a.Fenced("s") {
		t.Error("fenced by nobody")
	}
	wantResult(t, queue(t, b, at(1), markets(3)...), produce.Result{Stored: 3})
	wantResult(t, queue(t, a, at(1), markets(3)...), produce.Result{Stored: 3}) // is there, and b goes on
	if !a.Fenced("s") || a.Fenced("s") || b.Fenced("s") {
		t.Error("a was fenced, once")
	}
	wantResult(t, queue(t, b, at(2), markets(1)...), produce.Result{Stored: 1})
	if b.Fenced("s") {
		t.Error("a slot that was there took the source back")
	}
	wantResult(t, queue(t, a, at(3), markets(1)...), produce.Result{Stored: 1})
	var want []string
	for slot, n := range []int{5, 3, 1, 1} {
		for m := range n {
			want = append(want, fmt.Sprintf("%s m%d", at(slot).Format(time.TimeOnly), m))
		}
	}
	if got := texts(committed(t, addrs)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := found["s "+at(0).Format(time.TimeOnly)]; n != 5 || len(found) != 1 {
		t.Errorf("found %v", found)
	}
}

// TestTopicMadeAgain: a topic that is deleted and made again is another one; nothing that was known of it counts.
func TestTopicMadeAgain(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	p, adm := producer(t, addrs, produce.Options{}), admin(t, addrs)
	for n := range 3 {
		for slot := range 2 {
			wantResult(t, queue(t, p, at(2*n+slot), markets(2)...), produce.Result{Stored: 2})
		}
		if got := texts(committed(t, addrs)); len(got) != 4 {
			t.Errorf("%q", got)
		}
		if _, err := adm.DeleteTopics(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		if n == 1 { // something is sent while there is none
			if r := result(t, queue(t, p, at(2*n+2), markets(1)...)); r.Err == nil || r.Err.Error() != "topic s does not exist: run cryptoviz apply" {
				t.Errorf("%+v", r)
			}
		}
		if _, err := adm.CreateTopic(t.Context(), int32(1+n), 1, nil, "s"); err != nil { //nolint:gosec // small
			t.Fatal(err)
		}
	}
}

// TestKafkaAway: what was sent waits in order and arrives; what does not fit is refused, with the reason; what still waits at
// the end fails, with the reason.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	m := newMortal(t)
	addrs := []string{m.addr}
	p := producer(t, addrs, produce.Options{Buffer: 10_000})
	wantResult(t, queue(t, p, at(0), markets(1)...), produce.Result{Stored: 1})
	slot := 0
	away := func() (waiting []*produce.Delivery, refused error) {
		m.kill()
		for n := 1; refused == nil; n++ {
			slot++
			d, err := p.Queue(source("s"), at(slot), markets(4))
			if refused = err; err == nil {
				waiting = append(waiting, d)
			}
			if n == 1 {
				for p.Stats().Reason == "" { // until it is known why
					time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the pace of slots, or of looking
				}
			}
		}
		return waiting, refused
	}
	waiting, err := away()
	if len(waiting) != 4 || !strings.HasPrefix(err.Error(), "kafka did not acknowledge what is waiting for it (") || !strings.HasSuffix(err.Error(), "): the buffer of 9.8 KiB is full") {
		t.Errorf("%d wait; %v", len(waiting), err)
	}
	m.start()
	for _, d := range waiting {
		wantResult(t, d, produce.Result{Stored: 4})
	}
	if s := p.Stats(); s != (produce.Stats{}) {
		t.Errorf("%+v", s)
	}
	got := committed(t, addrs)
	if len(got) != 17 {
		t.Errorf("%d records", len(got))
	}
	for i := 1; i < len(got); i++ {
		if got[i].Partition == got[i-1].Partition && record.SlotOf(got[i]).Before(record.SlotOf(got[i-1])) {
			t.Error("out of order")
		}
	}
	waiting, _ = away()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) //nolint:forbidigo // it ends with its context
	defer cancel()
	p.Close(ctx)
	for _, d := range waiting {
		if r := result(t, d); r.Err == nil || !strings.HasPrefix(r.Err.Error(), "the process ended while Kafka had not acknowledged the records (") {
			t.Errorf("%+v", r)
		}
	}
	if _, err := p.Queue(source("s"), at(3000), markets(1)); err == nil {
		t.Error("taken after the end")
	}
}

// TestBrokerDies: the embedded broker is killed inside transactions, and its folder goes on: what was acknowledged is there
// once, nothing else is in the way of what follows, and readers come to the end.
func TestBrokerDies(t *testing.T) {
	t.Parallel()
	m := newMortal(t)
	addrs := []string{m.addr}
	var want []string
	for n := range 4 {
		p := producer(t, addrs, produce.Options{})
		wantResult(t, queue(t, p, at(10*n), markets(4)...), produce.Result{Stored: 4})
		shut(p)
		torn(t, addrs)
		m.kill()
		m.start()
		p = producer(t, addrs, produce.Options{})
		for s := range 3 {
			wantResult(t, queue(t, p, at(10*n+1+s), markets(4)...), produce.Result{Stored: 4})
		}
		for _, s := range []int{0, 1, 2, 3} {
			for k := range 4 {
				want = append(want, fmt.Sprintf("%s m%d", at(10*n+s).Format(time.TimeOnly), k))
			}
		}
	}
	if got := texts(committed(t, addrs)); !slices.Equal(got, want) {
		t.Errorf("%d records:\n%s\nwant %d:\n%s", len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
	}
}

// torn leaves an open transaction of the source.
func torn(t *testing.T, addrs []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID("cryptoviz.s"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), produce.Records(source("s"), at(3500), markets(4))...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestLostAnswer: the broker commits, and its answer is lost: the slot is not sent again.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	addrs := broker(t).ListenAddrs()
	lost := &losing{}
	p := producer(t, addrs, produce.Options{}, kgo.Dialer(lost.dial))
	for n := range 6 {
		wantResult(t, queue(t, p, at(n), markets(2)...), produce.Result{Stored: 2})
	}
	if got := texts(committed(t, addrs)); len(got) != 12 {
		t.Errorf("%q", got)
	}
	if n := lost.ends.Load(); n < 3 {
		t.Errorf("%d ends: no answer was lost", n)
	}
}

// losing is a way to the brokers that loses the answer to every second EndTxn.
type losing struct{ ends atomic.Int32 }

func (l *losing) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return &losingConn{Conn: conn, l: l}, nil
}

type losingConn struct {
	net.Conn
	l    *losing
	lose atomic.Bool
}

func (c *losingConn) Write(p []byte) (int, error) {
	if len(p) > 6 && binary.BigEndian.Uint16(p[4:]) == uint16(kmsg.EndTxn) && c.l.ends.Add(1)%2 == 1 {
		c.lose.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *losingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.lose.Load() {
		_ = c.Close()
		return 0, errBroke
	}
	return n, err
}

// TestLeftover: an instance that has an earlier slot left throws the writer out for a moment, and does not take its place.
func TestLeftover(t *testing.T) {
	addrs := broker(t).ListenAddrs()
	a, b := producer(t, addrs, produce.Options{}), producer(t, addrs, produce.Options{})
	wantResult(t, queue(t, b, at(1), markets(2)...), produce.Result{Stored: 2})
	wantResult(t, queue(t, a, at(0), markets(2)...), produce.Result{Stored: 2}) // it was late
	wantResult(t, queue(t, b, at(2), markets(2)...), produce.Result{Stored: 2})
	if b.Fenced("s") {
		t.Error("the writer was told that it is none")
	}
	if got := texts(committed(t, addrs)); len(got) != 6 {
		t.Errorf("%q", got)
	}
}
