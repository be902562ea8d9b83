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

var (
	IntervalOf = intervalOf
	InUnit     = inUnit
)

// Expand runs one query through variables and macros.
func Expand(sql string, from, to time.Time, interval time.Duration, timescale bool, vars map[string]Var) (string, error) {
	x := expansion{from: from, to: to, interval: interval, timescale: timescale, variables: map[string]value{}}
	for k, v := range vars {
		x.variables[k] = value{texts: v.Values, quoted: v.Multi, raw: v.Raw}
	}
	return x.expand(sql)
}

// Var is the value of a variable.
type Var struct {
	Values     []string
	Multi, Raw bool
}

// Version asks the server for its version.
var Version = (*Client).version
