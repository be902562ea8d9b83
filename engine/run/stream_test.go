package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// fakeTopic takes records, or refuses them as told.
type fakeTopic struct {
	paused string
	took   time.Duration // of a send
	refuse func(n int) error
	n      int
	got    []string // slot, market and value of each record
	at     []time.Time
}

func (f *fakeTopic) Paused() string { return f.paused }

func (f *fakeTopic) Send(ctx context.Context, src *spec.Source, slot time.Time, records []record.Record) error {
	if _, ok := ctx.Deadline(); !ok || src.Name != "a" {
		return errors.New("called wrongly")
	}
	time.Sleep(f.took)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.n++
	if f.refuse != nil {
		if err := f.refuse(f.n - 1); err != nil {
			return err
		}
	}
	for _, r := range records {
		f.at = append(f.at, time.Now())
		f.got = append(f.got, fmt.Sprintf("%s %s %s", slot.Format(time.TimeOnly), r.Key, r.Value))
	}
	return nil
}

// sampling is a sampler in a bubble, whose connection the test plays.
type sampling struct {
	topic fakeTopic
	box   *inbox
	why   atomic.Pointer[string]
	said  string
}

// goesDown sets why no records come; "": they do.
func (s *sampling) goesDown(why string) { s.why.Store(&why) }

func (s *sampling) Down(time.Time) error {
	if why := s.why.Load(); why != nil && *why != "" {
		return &fetch.Error{Reason: *why, NotTried: strings.HasPrefix(*why, "the source asked to wait")}
	}
	return nil
}

func (s *sampling) Said(time.Time) string { return s.said }

// comes gives a record of now, as the connection does: it never waits.
func (s *sampling) comes(market, value string) {
	s.box.put([]record.Record{{Key: market, Value: []byte(value), Received: time.Now()}})
}

// frame gives a record of each of n markets at once.
func (s *sampling) frame(n int) {
	records := make([]record.Record, n)
	for i := range records {
		records[i] = record.Record{Key: fmt.Sprint("M", i), Value: []byte("1"), Received: time.Now()}
	}
	s.box.put(records)
}

// minute runs the slot of this minute to its end.
func (s *sampling) minute(t *testing.T) schedule.Outcome {
	at := time.Now().Truncate(time.Minute)
	ctx, cancel := context.WithDeadline(t.Context(), at.Add(time.Minute))
	defer cancel()
	out := sample(ctx, schedule.Slot{Source: "a", At: at}, &spec.Source{Name: "a"}, s, sender{&s.topic, t.Context()}, s.box)
	if !out.At.Equal(at) {
		t.Errorf("the outcome is of %s", out.At)
	}
	return out
}

func inSampling(t *testing.T, test func(t *testing.T, s *sampling)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &sampling{box: newInbox(&spec.Source{Interval: time.Minute})}) })
}

func (s *sampling) sent(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(s.topic.got, want) {
		t.Errorf("sent\n  %s\nwant\n  %s", strings.Join(s.topic.got, "\n  "), strings.Join(want, "\n  "))
	}
}

// later runs f while a slot is under way.
func later(d time.Duration, f func()) { time.AfterFunc(d, f) }

func is(t *testing.T, out schedule.Outcome, kind schedule.Kind, records int, reason string) {
	t.Helper()
	if out.Kind != kind || out.Records != records || out.Reason != reason {
		t.Errorf("the slot ended as %s, %d records, %q; want %s, %d, %q", out.Kind, out.Records, out.Reason, kind, records, reason)
	}
}

// TestSampleFirst: the first record of each market, once a slot, at once.
func TestSampleFirst(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		for i := range 110 {
			later(time.Duration(i)*time.Second+500*time.Millisecond, func() {
				s.comes("BTC", fmt.Sprint(i))
				if i%20 == 5 {
					s.comes("ETH", fmt.Sprint(i))
				}
			})
		}
		began := time.Now()
		is(t, s.minute(t), schedule.OK, 2, "")
		is(t, s.minute(t), schedule.OK, 2, "")
		s.sent(t, "00:00:00 BTC 0", "00:00:00 ETH 5", "00:01:00 BTC 60", "00:01:00 ETH 65")
		for i, d := range []time.Duration{500 * time.Millisecond, 5500 * time.Millisecond, 60500 * time.Millisecond, 65500 * time.Millisecond} {
			if got := s.topic.at[i].Sub(began); got != d {
				t.Errorf("record %d was sent after %s, want %s", i, got, d)
			}
		}
	})
}

// TestSampleOldRecords: what came before the slot belongs to none, and what came in it before the sampler began does count.
func TestSampleOldRecords(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		time.Sleep(59 * time.Second)
		for range 300 {
			s.comes("BTC", "old")
		}
		time.Sleep(time.Second)
		is(t, s.minute(t), schedule.Failed, 0, "no record came")
		s.sent(t)

		s.comes("BTC", "old")
		time.Sleep(time.Second)
		s.comes("ETH", "in the slot")
		time.Sleep(2 * time.Second) // the claim took that long
		later(time.Second, func() { s.comes("BTC", "too") })
		is(t, s.minute(t), schedule.OK, 2, "")
	})
}

// TestSampleSendFails: a record that was not taken is sent again, and it stays the one of its market.
func TestSampleSendFails(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		s.topic.refuse = func(n int) error {
			if n < 3 {
				return errors.New("write topic a: down")
			}
			return nil
		}
		later(1*time.Second, func() { s.comes("BTC", "1"); s.comes("ETH", "1") })
		later(2*time.Second, func() { s.comes("BTC", "2") })
		later(3*time.Second, func() { s.comes("SOL", "3") })
		is(t, s.minute(t), schedule.OK, 3, "")
		s.sent(t, "00:00:00 BTC 1", "00:00:00 ETH 1", "00:00:00 SOL 3")

		s.topic.refuse = func(int) error { return errors.New("write topic a: down") }
		s.goesDown("the source closed the connection")
		later(time.Second, func() { s.comes("BTC", "5") })
		is(t, s.minute(t), schedule.Failed, 0, "write topic a: down")

		n := s.topic.n
		s.topic.refuse = func(i int) error {
			if i == n {
				return nil
			}
			return errors.New("write topic a: down")
		}
		later(time.Second, func() { s.comes("BTC", "6") })
		later(2*time.Second, func() { s.comes("ETH", "6") })
		is(t, s.minute(t), schedule.OK, 1, "1 of 2 records were not written: write topic a: down")
	})
}

// TestSampleNothing: why no record came.
func TestSampleNothing(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		is(t, s.minute(t), schedule.Failed, 0, "no record came")
		s.goesDown("connect: HTTP 403 Forbidden")
		is(t, s.minute(t), schedule.Failed, 0, "connect: HTTP 403 Forbidden")
		s.goesDown("the source asked to wait until noon")
		is(t, s.minute(t), schedule.Skipped, 0, "the source asked to wait until noon")
		s.topic.paused = "the disk is nearly full"
		began := time.Now()
		is(t, s.minute(t), schedule.Skipped, 0, "the disk is nearly full")
		if !time.Now().Equal(began) {
			t.Error("a paused slot waited")
		}
	})
}

// TestSampleReconnect: the connection is lost in the midst of a slot and comes back.
func TestSampleReconnect(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		later(time.Second, func() { s.comes("BTC", "1") })
		later(10*time.Second, func() { s.goesDown("the source broke the connection off") })
		later(40*time.Second, func() { s.goesDown(""); s.comes("BTC", "2"); s.comes("ETH", "2") })
		later(70*time.Second, func() { s.goesDown("the source broke the connection off") })
		later(110*time.Second, func() { s.goesDown(""); s.comes("BTC", "3") })
		is(t, s.minute(t), schedule.OK, 2, "")
		is(t, s.minute(t), schedule.OK, 1, "")
		s.sent(t, "00:00:00 BTC 1", "00:00:00 ETH 2", "00:01:00 BTC 3")
	})
}

// TestSampleWide: whatever comes at once, before the slot is claimed or while Kafka takes its time, is sent, each market once.
func TestSampleWide(t *testing.T) {
	for _, n := range []int{2_000, 50_000} {
		inSampling(t, func(t *testing.T, s *sampling) {
			s.topic.took = 20 * time.Second
			s.frame(n)
			time.Sleep(200 * time.Millisecond) // of the claim
			for i := range 59 {
				later(time.Duration(i)*time.Second, func() { s.frame(n) })
			}
			later(59*time.Second, func() { s.comes("at the end", "1") })
			later(59500*time.Millisecond, func() { s.frame(n + 1) })
			out := s.minute(t)
			is(t, out, schedule.OK, n+2, "")
			s.frame(n) // of the next slot, and no room for the last one is kept
			if len(s.topic.got) != n+2 || len(s.box.slots) != 1 {
				t.Errorf("%d records sent, %d slots kept", len(s.topic.got), len(s.box.slots))
			}
		})
	}
}

// TestInboxIsBounded: by the markets of a slot; what is beyond the limits is counted and told.
func TestInboxIsBounded(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		const dropped = " records were dropped: a slot takes 100 markets, 1.0 KiB, and 1,000 records without a market"
		s.box.markets, s.box.bytes = 100, 1<<10
		for i := range 180 { // nobody samples, as in another instance
			s.frame(50)
			time.Sleep(time.Second)
			if len(s.box.slots) != 1 {
				t.Fatalf("%d slots after %d s", len(s.box.slots), i)
			}
		}
		s.frame(150)
		s.comes("M7", "again")
		later(time.Second, func() { s.comes("further", "1") })
		is(t, s.minute(t), schedule.OK, 100, "51"+dropped)
		s.comes("long", strings.Repeat("x", 1<<10))
		s.comes("longer", "x")
		is(t, s.minute(t), schedule.OK, 1, "1"+dropped)
		if n := s.box.droppedSoFar(); n != 52 {
			t.Errorf("%d counted", n)
		}
	})
}

// TestSampleFaults: records whose market is not known are all sent, so that each ends as a dead letter; but not without end.
func TestSampleFaults(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		fault := func(value string) {
			s.box.put([]record.Record{{Value: []byte(value), Fault: "no key", Received: time.Now()}})
		}
		s.comes("BTC", "1")
		for i := range 5 {
			fault(fmt.Sprint(i))
			fault(fmt.Sprint(i)) // the same again
		}
		is(t, s.minute(t), schedule.OK, 6, "")
		for i := range 1500 {
			fault(fmt.Sprint(i))
		}
		is(t, s.minute(t), schedule.OK, 1000, "500 records were dropped: a slot takes 200,000 markets, 256 MiB, and 1,000 records without a market")
	})
}

// TestSampleSaid: what the source reports beside its records is in the slot.
func TestSampleSaid(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		s.said = "GONE/USD: the source says: does not exist"
		s.comes("BTC", "1")
		is(t, s.minute(t), schedule.OK, 1, s.said)
	})
}

// TestSampleSlowTopic: a send that the slot's end overtakes is still finished, and records that come meanwhile wait.
func TestSampleSlowTopic(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		s.topic.took = 8 * time.Second
		for i := range 59 {
			later(time.Duration(i)*time.Second, func() { s.comes(fmt.Sprint("M", i), "1") })
		}
		out := s.minute(t)
		is(t, out, schedule.OK, len(s.topic.got), "")
		if n := len(s.topic.got); n < 50 {
			t.Errorf("%d records", n)
		}
		if d := time.Since(out.At); d < time.Minute || d > time.Minute+16*time.Second {
			t.Errorf("it ended after %s", d)
		}
		// Kafka that never answers: 30 seconds a try, and the reason is Kafka's.
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		s.topic.took = time.Hour
		s.topic.got = nil
		later(50*time.Second, func() { s.comes("BTC", "1") })
		done := make(chan schedule.Outcome, 1)
		go func() { done <- s.minute(t) }()
		is(t, <-done, schedule.Failed, 0, context.DeadlineExceeded.Error())
	})
}

// TestSampleFlood: ten thousand records a second leave one of each market.
func TestSampleFlood(t *testing.T) {
	inSampling(t, func(t *testing.T, s *sampling) {
		s.topic.took = 5 * time.Millisecond
		for i := range 20_000 {
			later(time.Duration(i)*100*time.Microsecond, func() { s.comes(fmt.Sprint("M", i%50), "1") })
		}
		is(t, s.minute(t), schedule.OK, 50, "")
		if len(s.topic.got) != 50 {
			t.Errorf("%d records sent", len(s.topic.got))
		}
	})
}
