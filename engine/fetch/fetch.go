package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
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
	// Endpoint gives another place for a source, the simulator's: it replaces scheme, host and path, keeps the query, and
	// lifts the address guard. nil, or "": the definition's own URL.
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
		o.Budgets = NewBudgets()
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

const maxRedirects = 3

// newClient returns a client that connects only where it may. free lifts the guard; allow lists "host:port" exceptions.
func newClient(free bool, allow []string) *http.Client {
	plain := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	guarded := *plain
	// The check sees the address after name resolution, so that no name, redirect or rebinding gets around it.
	guarded.Control = func(_, address string, _ syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(address); err != nil || !public(at.Addr()) {
			return &Error{Reason: fmt.Sprintf("refused to connect to %s: it is not a public address. If you trust it, list its host:port in allow_private", address)}
		}
		return nil
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if free || slices.Contains(allow, addr) {
					return plain.DialContext(ctx, network, addr)
				}
				return guarded.DialContext(ctx, network, addr)
			},
			ForceAttemptHTTP2: true, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			from := via[len(via)-1].URL
			switch {
			case len(via) > maxRedirects:
				return &Error{Reason: fmt.Sprintf("more than %d redirects", maxRedirects)}
			case from.Scheme == "https" && req.URL.Scheme != "https":
				return &Error{Reason: "redirected from https to " + spec.Clip(req.URL.Scheme)}
			case !strings.EqualFold(from.Host, req.URL.Host):
				return &Error{Reason: fmt.Sprintf("redirected to another host, %s: if that is right, write it into the definition's url", spec.Clip(req.URL.Host))}
			}
			return nil
		},
	}
}

// reserved are the ranges that netip has no question for.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

// public tells whether an address belongs to the open Internet.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return false
	}
	return !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

// plainly says in a few words why no answer came. URLs stay out: their query may hold a key.
func plainly(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return &Error{Reason: "the name " + spec.Clip(e.Name) + " is not known: no network, or a wrong host", Temporary: true}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Reason: "no whole answer in time", Temporary: true}
	}
	return &Error{Reason: spec.Clip(err.Error()), Temporary: true}
}
