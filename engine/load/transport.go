package load

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Defaults and bounds of transports.
const (
	defaultTimeout    = 10 * time.Second
	defaultMaxBody    = 16 << 20
	defaultMaxPage    = 5 << 20 // a page costs its parser many times its size
	defaultMaxMessage = 16 << 20
	maxBody           = 256 << 20
	maxURL            = 8 << 10
)

func (l *loader) endpoint(b *block, schemes ...string) string {
	text := b.text("url", "")
	if !b.good["url"] {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || !slices.Contains(schemes, u.Scheme) || len(text) > maxURL:
		l.fail(b.rangeOf("url"), "Not a URL", "Write a whole URL with %s:// and a host.",
			strings.Join(schemes, ":// or "))
	case u.User != nil:
		l.unseen(b.rangeOf("url"), "Password in a URL",
			"Put credentials into headers, from a parameter that pipeline.hcl fills with env().")
	case u.Fragment != "":
		l.fail(b.rangeOf("url"), "Not a URL", "The part after # never reaches the server: leave it out.")
	}
	return text
}

func (l *loader) private(b *block) []string {
	out := b.texts("allow_private")
	for _, address := range out {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" || !hostPort(address) {
			l.fail(b.rangeOf("allow_private"), "Not an address", "%s is not HOST:PORT, such as \"10.0.0.5:8080\".",
				b.show("allow_private", address))
		}
	}
	return out
}

func (l *loader) poll(raw *hcl.Block, ctx *hcl.EvalContext) *spec.Poll {
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs([]string{"url"}, "query", "headers", "timeout", "retries", "max_body", "allow_private"),
		Blocks:     named("budget"),
	}, ctx)
	p := &spec.Poll{
		URL: l.endpoint(b, "https", "http"), Query: b.textMap("query"), Headers: map[string]spec.Secret{},
		Timeout: b.duration("timeout", defaultTimeout, 100*time.Millisecond, 10*time.Minute),
		Retries: int(b.integer("retries", 3, 0, 20)), MaxBody: b.size("max_body", 0, 1, maxBody),
		AllowPrivate: l.private(b), Range: b.rng,
	}
	headers := b.textMap("headers")
	for _, name := range sortedKeys(headers) {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(headers[name]) {
			l.fail(b.rangeOf("headers"), "Not a header",
				"HTTP does not allow the header %s, or its value: a name has letters, digits and '-', a value is one line.", b.show("headers", name))
		}
		p.Headers[name] = spec.NewSecret(headers[name])
	}
	l.once(b.content.Blocks, "A poll block")
	if len(b.content.Blocks) > 0 {
		p.Budget = l.budget(b.content.Blocks[0], ctx)
	}
	return p
}

func (l *loader) budget(raw *hcl.Block, ctx *hcl.EvalContext) *spec.Budget {
	name, _ := l.name(raw, map[string]hcl.Range{})
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"limit", "per"}, "cost", "used")}, ctx)
	out := &spec.Budget{
		Name: name, Limit: int(b.integer("limit", 1, 1, 1e9)), Per: b.duration("per", time.Minute, time.Second,
			24*time.Hour),
		Cost: int(b.integer("cost", 1, 1, 1e9)), Used: l.expression(b, "used", "header", "param"),
	}
	if b.good["limit"] && out.Cost > out.Limit {
		l.fail(b.rangeOf("cost"), "Cost above the limit",
			"One request costs %d and the budget allows %d: it could never be sent.", out.Cost, out.Limit)
	}
	return out
}

func (l *loader) stream(raw *hcl.Block, ctx *hcl.EvalContext) *spec.Stream {
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"url"}, "subscribe", "ping", "ping_every", "silence",
		"max_message", "allow_private")}, ctx)
	s := &spec.Stream{
		URL: l.endpoint(b, "wss", "ws"), Subscribe: b.texts("subscribe"), Ping: b.text("ping", ""),
		PingEvery: b.duration("ping_every", 0, time.Second, time.Hour),
		Silence:   b.duration("silence", 60*time.Second, time.Second, time.Hour), MaxMessage: b.size("max_message",
			defaultMaxMessage, 1, maxBody), AllowPrivate: l.private(b), Range: b.rng,
	}
	if s.Ping != "" && !b.has("ping_every") {
		l.fail(b.rangeOf("ping"), "Ping without a rhythm", "Say how often: ping_every = \"20s\".")
	}
	return s
}
