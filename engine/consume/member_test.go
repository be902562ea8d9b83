package consume_test

import (
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/consume"
)

// A session that outlasts the test: whoever has to wait for its end fails.
const outlasting = 5 * time.Minute

// TestStopGivesPartitionsAway: the partitions of a static member that stops go to the others at once.
func TestStopGivesPartitionsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", true)
	one, stopOne := r.runs(consume.Options{Instance: "n1", Session: outlasting})
	r.until("the first has both", func() bool { return one.Stats().Partitions == 2 })
	two, _ := r.runs(consume.Options{Instance: "n2", Session: outlasting})
	r.until("each has one", func() bool { return one.Stats().Partitions == 1 && two.Stats().Partitions == 1 })
	stopOne()
	r.until("the second has both", func() bool { return two.Stats().Partitions == 2 })
}

// TestRename: a worker that gets another name leaves its group under the old one, and goes on.
func TestRename(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", true)
	w, _ := r.runs(consume.Options{Instance: "n1", Session: outlasting})
	now := time.Now()
	r.send(now, 0, 10)
	r.until("ten rows", func() bool { return w.Stats().Rows == 10 })
	w.Rename("n2")
	r.send(now, 10, 20)
	r.until("ten more", func() bool { return w.Stats().Rows == 20 })
	next, _ := r.runs(consume.Options{Instance: "n1", Session: outlasting})
	r.until("another has the old name", func() bool { return next.Stats().Partitions == 1 && w.Stats().Partitions == 1 })
	r.exact(20)
}

// TestStays: a member whose partitions wait for it has them again.
func TestStays(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", true)
	opt := consume.Options{Instance: "mine", Stays: true, Session: outlasting}
	for range 2 {
		w, stop := r.runs(opt)
		r.until("it has both", func() bool { return w.Stats().Partitions == 2 })
		stop()
	}
}
