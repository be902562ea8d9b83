package consume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// slow is how long a question may be under way before its worker counts as waiting. Its own end, with a reason, may be
// far.
const slow = 2 * time.Second

// underway is what the worker has asked the database or the broker and has no answer to yet.
type underway struct {
	mu   sync.Mutex
	last int
	all  map[int]question
}

type question struct {
	what  string
	since time.Time
}

// begin notes a question; its end is to be called with the answer.
func (u *underway) begin(what string) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[int]question{}
	}
	u.last++
	n := u.last
	u.all[n] = question{what, time.Now()}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.all, n)
	}
}

// slowest is the oldest question once it is slow; "" for none.
func (u *underway) slowest() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.all) == 0 {
		return ""
	}
	oldest := slices.MinFunc(slices.Collect(maps.Values(u.all)), func(a, b question) int {
		return a.since.Compare(b.since)
	})
	took := time.Since(oldest.since)
	if took < slow {
		return ""
	}
	return fmt.Sprintf("%s, under way since %s", oldest.what, oldest.since.UTC().Format(time.TimeOnly))
}

// watchedStore notes commits while they are under way.
type watchedStore struct {
	Store
	underway *underway
}

func (s watchedStore) Commit(ctx context.Context, t *store.Target, fence store.Fence, b *store.Batch) error {
	defer s.underway.begin(fmt.Sprintf("the database has not answered a commit of partition %d", fence.Partition))()
	return s.Store.Commit(ctx, t, fence, b)
}

// sampled notes the newest sample of a batch that is stored.
func (w *Worker) sampled(b *store.Batch) {
	if b.Stored == 0 || len(b.Rows.Times) == 0 {
		return
	}
	at := slices.Max(b.Rows.Times)
	for was := w.newest.Load(); at > was && !w.newest.CompareAndSwap(was, at); was = w.newest.Load() {
	}
}
