package fetch

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/record"
)

// What tests reach inside.
var (
	NewClient  = newClient
	Public     = public
	RetryAfter = retryAfter
)

// RoundTrip puts a server of the test's own in the network's place.
func (p *Poll) RoundTrip(server http.RoundTripper) { p.client.Transport = server }

// Dial puts connections of the test's own in the network's place.
func (s *Stream) Dial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	s.client.Transport = &http.Transport{DialContext: dial}
}

// Plainly is what the ledger says of an error.
func Plainly(err error) string { return redactor{}.describe(err).Reason }

// Trust takes over what a test's client trusts.
func (p *Poll) Trust(c *http.Client) {
	p.client.Transport.(*http.Transport).TLSClientConfig = c.Transport.(*http.Transport).TLSClientConfig.Clone()
}

// Fetch is FetchUntil the end of ctx, or of the interval.
func (p *Poll) Fetch(ctx context.Context) ([]record.Record, error) {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(p.src.Interval)
	}
	return p.FetchUntil(ctx, end)
}
