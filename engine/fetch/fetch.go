package fetch

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Options of NewPoll and NewStream. The zero value works.
type Options struct {
	Clock     clock.Clock
	Log       *slog.Logger
	UserAgent string
	Budgets   *Budgets // shared by all sources of a process; nil: each its own
	// Endpoint gives another place for a source, the simulator's: it replaces scheme, host and path, keeps the query,
	// and lifts the address guard. nil, or "": the definition's own URL.
	Endpoint func(*spec.Source) string
}

func (o *Options) fill() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.UserAgent == "" {
		o.UserAgent = "cryptoviz"
	}
	if o.Budgets == nil {
		o.Budgets = NewBudgets(nil, o.Log)
	}
}

// ErrNotModified means that the source has nothing new.
var ErrNotModified = errors.New("not modified")

// Error is a failed fetch.
type Error struct {
	Reason     string        // for the ledger; holds no secrets
	Temporary  bool          // worth another attempt inside the slot
	RetryAfter time.Duration // the source asked to wait this long; 0: it did not
	NotTried   bool          // no request was sent: the source had asked to wait, or the budget is spent
}

// Error is the reason.
func (e *Error) Error() string { return e.Reason }

// target returns where a source is asked, and whether the address guard is lifted for it.
func (o *Options) target(src *spec.Source, raw string, query map[string]string) (u *url.URL, free bool, err error) {
	if u, err = url.Parse(raw); err != nil {
		return nil, false, fmt.Errorf("source %s: its URL cannot be read", src.Name)
	}
	values := u.Query()
	for k, v := range query {
		values.Set(k, v)
	}
	u.RawQuery = values.Encode()
	if o.Endpoint == nil {
		return u, false, nil
	}
	other := o.Endpoint(src)
	if other == "" {
		return u, false, nil
	}
	at, err := url.Parse(other)
	if err != nil {
		return nil, false, fmt.Errorf("source %s: its endpoint cannot be read", src.Name)
	}
	at.RawQuery = u.RawQuery
	return at, true, nil
}
