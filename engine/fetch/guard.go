package fetch

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

const maxRedirects = 3

// newClient returns a client that connects only where it may. free lifts the guard; allow lists "host:port" exceptions.
func newClient(free bool, allow []string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
				if !free && !slices.Contains(allow, addr) {
					d.Control = guard(addr)
				}
				return d.DialContext(ctx, network, addr)
			},
			ForceAttemptHTTP2: true, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			from := via[len(via)-1].URL
			switch {
			case len(via) > maxRedirects:
				return &Error{Reason: fmt.Sprintf("more than %d redirects", maxRedirects)}
			case req.URL.Scheme != "https" && (req.URL.Scheme != "http" || from.Scheme == "https"):
				return &Error{Reason: "redirected from " + from.Scheme + " to " + units.Clip(req.URL.Scheme)}
			case !strings.EqualFold(from.Host, req.URL.Host):
				return &Error{Reason: fmt.Sprintf("redirected to another host, %s: if that is right, write it into "+
					"the definition's url", units.Clip(req.URL.Host))}
			}
			return nil
		},
	}
}

// guard returns the check of a dialer for addr, a "host:port". It sees the address after name resolution, so that no
// name, redirect or rebinding gets around it.
func guard(addr string) func(network, address string, c syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(address); err != nil || !public(at.Addr()) {
			host, _, _ := net.SplitHostPort(address)
			return &Error{Reason: fmt.Sprintf("refused to connect to %s: %s is not a public address. If you trust it: "+
				"allow_private = [%q]", units.Clip(addr), host, addr)}
		}
		return nil
	}
}

// reserved are the ranges inside IPv4 and allocated that belong to no host of the open Internet, and that netip has no
// question for.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("168.63.129.16/32"), // the metadata service of Azure's machines
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"),
}

var (
	allocated = netip.MustParsePrefix("2000::/3") // IPv6 that is given out
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
)

// public tells whether an address belongs to the open Internet.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) { // an IPv4 host, as a network that has IPv6 alone sees it
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !a.IsValid() || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsMulticast() ||
		a.IsUnspecified() {
		return false
	}
	if a.Is6() && !allocated.Contains(a) {
		return false
	}
	return !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}
