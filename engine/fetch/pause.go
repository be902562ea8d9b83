package fetch

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Pauses keeps until when sources asked to wait, over restarts and for all instances.
type Pauses interface {
	// Pause keeps one, d from now. Of two for a name the longer counts.
	Pause(ctx context.Context, name string, d time.Duration, reason string) error
	// Paused calls f with each that is not over, and what is left of it.
	Paused(ctx context.Context, f func(name string, left time.Duration, reason string)) error
}

// How the keeper of pauses is asked. While it does not answer, what this process knows counts, and no slot is lost to
// it.
const (
	pausesFresh = 500 * time.Millisecond // what was read so long ago is news
	pausesAway  = 10 * time.Second       // after a failure it is not asked for so long
)

// keeper exchanges pauses with where they are kept.
type keeper struct {
	pauses Pauses // nil: this process alone knows
	log    *slog.Logger
	asking chan struct{} // full while it is asked; guards next and lost
	next   time.Time
	lost   bool // it did not answer

	mu     sync.Mutex
	unkept map[*rateLimiter]bool
}

// hold keeps a limiter's requests back for d, in all instances.
func (b *Budgets) hold(ctx context.Context, a *rateLimiter, d time.Duration, reason string) {
	if d <= 0 || !a.hold(d, reason) {
		return
	}
	b.keeper.mu.Lock()
	b.keeper.unkept[a] = true
	b.keeper.mu.Unlock()
	b.exchange(ctx, time.Second)
}

// exchange writes down what sources asked of this process, and learns what they asked of others. It takes a moment at
// most.
func (b *Budgets) exchange(ctx context.Context, within time.Duration) {
	k := &b.keeper
	if k.pauses == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(within, time.Second))
	defer cancel()
	select {
	case k.asking <- struct{}{}:
		defer func() { <-k.asking }()
	case <-ctx.Done():
		return
	}
	unkept := k.take()
	if now := time.Now(); now.Before(k.next) && (k.lost || len(unkept) == 0) {
		k.giveBack(unkept)
		return
	}
	var err error
	for i, a := range unkept {
		left, reason := a.held(time.Now())
		if err = k.pauses.Pause(ctx, a.name, left, reason); err != nil {
			k.giveBack(unkept[i:])
			break
		}
	}
	if err == nil {
		err = k.pauses.Paused(ctx, func(name string, left time.Duration, reason string) {
			b.named(name).hold(left, reason)
		})
	}
	k.next = time.Now().Add(pausesFresh)
	if err != nil {
		k.next = time.Now().Add(pausesAway)
		if !k.lost {
			k.log.Debug("what sources ask to wait for is known to this process alone: the database does not answer",
				"error", err.Error())
		}
	}
	k.lost = err != nil
}

func (k *keeper) take() (out []*rateLimiter) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for a := range k.unkept {
		out = append(out, a)
	}
	clear(k.unkept)
	return out
}

func (k *keeper) giveBack(unkept []*rateLimiter) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range unkept {
		k.unkept[a] = true
	}
}

// hold lets no request through for a while; false: that was so already.
func (a *rateLimiter) hold(d time.Duration, reason string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	const same = time.Second // what is written and read again is never quite the same
	until := time.Now().Add(d)
	if !until.After(a.until.Add(same)) {
		return false
	}
	a.until, a.reason = until, reason
	return true
}

// held is what is left of a hold, and why it is.
func (a *rateLimiter) held(now time.Time) (left time.Duration, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.until.Sub(now), a.reason
}

// heed keeps to what a reply asks for, whatever its status is.
func (p *Poll) heed(ctx context.Context, resp *http.Response) {
	p.opt.Budgets.hold(ctx, p.limiter, retryAfter(resp.Header.Get("Retry-After"), time.Now()), status(resp.StatusCode))
}
