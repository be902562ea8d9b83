package consume

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Who waits, beside the partitions, which wait for the database under their own numbers; the one that knows most first.
const (
	claiming int32 = -1 - iota // partitions, in the database
	watching                   // whether the topic is there, and the same
	reading                    // the topic
)

// blockers is why the worker waits: for each that does a reason. Who entered one takes it out, nobody else: that the
// broker answers one goroutine says nothing about what another one waits for.
type blockers struct {
	mu       sync.Mutex
	why      map[int32]string
	stopping context.Context // of Run: what ends with it does not go on
}

// first is the reason to show, "" for none.
func (r *blockers) first() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.why) == 0 {
		return ""
	}
	return r.why[slices.Max(slices.Collect(maps.Keys(r.why)))]
}

// setBlocker notes why who waits; "" means that it goes on. It logs when the worker as a whole begins to wait and goes
// on.
func (w *Worker) setBlocker(who int32, why string) {
	w.blockers.mu.Lock()
	defer w.blockers.mu.Unlock()
	waited := len(w.blockers.why) > 0
	if why == "" {
		delete(w.blockers.why, who)
	} else {
		w.blockers.why[who] = why
	}
	switch now := len(w.blockers.why) > 0; {
	case now && !waited:
		w.log.Warn("worker waits", "reason", why)
	case !now && waited && w.blockers.stopping.Err() == nil:
		w.log.Info("worker goes on")
	}
}
