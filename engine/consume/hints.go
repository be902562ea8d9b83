package consume

import (
	"context"
	"sync"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// hints are what the newest slots say of the definition: each is logged once, and kept in the database for status.
type hints struct {
	mu    sync.Mutex
	known map[string]*store.Hint // by kind
	sent  time.Time
}

// hintEvery is how often the database is told that hints still hold.
const hintEvery = 30 * time.Second

// slotEnded takes what a partition's program has seen in a slot.
func (w *Worker) slotEnded(found []row.Hint, now time.Time) {
	w.hints.mu.Lock()
	defer w.hints.mu.Unlock()
	for _, h := range found {
		k := w.hints.known[h.Kind]
		if k == nil {
			w.log.Warn("the definition may have a mistake", "what", h.Kind, "reason", h.Detail)
			if w.hints.known == nil {
				w.hints.known = map[string]*store.Hint{}
			}
			k = &store.Hint{Kind: h.Kind, Detail: h.Detail}
			w.hints.known[h.Kind], w.hints.sent = k, time.Time{}
		}
		k.At = now
	}
}

// now counts the hints of the newest slots.
func (h *hints) now(at time.Time, interval time.Duration) (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.known {
		if at.Sub(k.At) < store.HintHolds(interval) {
			n++
		}
	}
	return n
}

// tell keeps the hints in the database, now and then. What it cannot keep is kept the next time.
func (h *hints) tell(ctx context.Context, source string, st Store) {
	h.mu.Lock()
	var out []store.Hint
	if time.Since(h.sent) > hintEvery {
		for _, k := range h.known {
			out = append(out, *k)
		}
	}
	h.mu.Unlock()
	if len(out) > 0 && st.Hint(ctx, source, out) == nil {
		h.mu.Lock()
		h.sent = time.Now()
		h.mu.Unlock()
	}
}
