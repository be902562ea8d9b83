package grafana

import "time"

// Hurry shortens the waits between attempts.
func (c *Client) Hurry() { c.wire.first = time.Millisecond }

// Limit bounds answers.
func (c *Client) Limit(n int64) { c.wire.limit = n }

// Reset forgets what was read.
func (o *Org) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.snap, o.seconds, o.sent = nil, 0, o.client.Requests()
}

// Quick makes hashes of passwords cheap.
func (o *Org) Quick() *Org {
	o.client.rounds = 1
	return o
}

// Version asks the server for its version.
var Version = (*Client).version
