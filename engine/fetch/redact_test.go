package fetch_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// secret is a key that comes from the environment, with what each encoding changes.
const secret = `s3cr3t/"key"+å-98765`

// secretSource has the secret in a parameter, and these blocks.
func secretSource(t testing.TB, blocks ...string) *spec.Source {
	t.Helper()
	p, d := load.Load(fstest.MapFS{
		"pipeline.hcl": {Data: []byte(`
kafka { brokers = ["localhost:9092"] }
database { url = "postgres://localhost/a" }
topic "a" { partitions = 1 }
source "a" {
	definition = "a.hcl"
	interval   = "1m"
	params     = { pairs = ["BTC/USDT-LONG"], login = { token = env("TOKEN"), keys = [env("TOKEN")] } }
	topic      = topic.a
	table      = table.t
}
table "t" {
	column "time"  { type = "timestamptz" }
	column "price" { type = "double precision" }
	primary_key = ["time"]
}`)},
		"a.hcl": {Data: []byte("param \"pairs\" {}\nparam \"login\" {}\n" + strings.Join(blocks, "\n") + "\nrow {\n\ttime = slot\n\tprice = 1\n}")},
	}, "pipeline.hcl", load.Options{Env: func(string) (string, bool) { return secret, true }})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	return p.Sources[0]
}

// silent fails when a text holds a good part of the secret, in any form.
func silent(t testing.TB, where, text string) {
	t.Helper()
	low := strings.ToLower(text)
	for _, part := range []string{"s3cr3t", "98765", "0123456789abcdef", "4f7c"} {
		if strings.Contains(low, part) {
			t.Errorf("%s shows %q: %s", where, part, text)
		}
	}
}

// echoes are ways in which a source repeats what it was sent.
var echoes = []string{
	secret, strings.ToUpper(secret), "x" + secret + "y", `s3cr3t/\"key\"+å-98765`, "s3cr3t%2F%22key%22%2B%C3%A5-98765", "s3cr3t%2F%22key%22+%C3%A5-98765",
	"s3cr\u200b3t/\"key\"+å-98765", strings.Repeat(" ", 490) + secret + secret, strings.Repeat(" ", 4080) + secret,
	"LITERAL0123456789abcdef", "/v1/LITERAL0123456789abcdef/prices", "123E4567-4f7c-4f7c-4f7c-426614174000",
}

// TestStreamEchoes: what a stream's messages repeat of the subscription and of the URL is in no log and no reason.
func TestStreamEchoes(t *testing.T) {
	t.Parallel()
	for i, echo := range echoes {
		for _, kind := range []string{"error", "refused", "close", "strange", "handshake"} {
			t.Run(fmt.Sprint(i, " ", kind), func(t *testing.T) {
				inBubble(t, func(f *feed, _ int, c *websocket.Conn) {
					for range 2 {
						_, _, _ = c.Read(context.Background())
					}
					switch kind {
					case "error":
						f.say(c, fmt.Sprintf(`{"type":"error","message":%q}`, "no such market (hint): "+echo))
					case "refused":
						f.say(c, fmt.Sprintf(`{"type":"refused","message":%q,"s":%q}`, echo, echo))
					case "close":
						_ = c.Close(websocket.StatusPolicyViolation, echo[:min(len(echo), 123)])
					case "strange":
						f.say(c, "BTC/USDT-LONG "+echo)
					}
					idle(c)
				}, func(f *feed) {
					if kind == "handshake" {
						f.raw = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, echo, http.StatusForbidden) }
					}
					f.src = secretSource(t, `stream {
	url       = "ws://feed.example/v1/LITERAL0123456789abcdef/${urlencode(param.login.token)}"
	subscribe = [jsonencode({ pairs = param.pairs, token = param.login.token }), "LOGIN 123E4567-4f7c-4f7c-4f7c-426614174000"]
}`, tickers)
					f.start()
					defer f.stop()
					synctest.Wait()
					why := f.down()
					silent(t, "the reason", why)
					silent(t, "the slot", f.s.Said(time.Time{}))
					silent(t, "the log", f.log.String())
					if kind == "error" && !strings.HasPrefix(why, "the source says: no such market (hint):") {
						t.Errorf("it hides more than the key: %s", why)
					}
					if kind == "strange" && !strings.Contains(f.log.String(), "BTC/USDT-LONG") {
						t.Errorf("it hides more than the key: %s", f.log.String())
					}
				})
			})
		}
	}
}

// TestPollEchoes: the same of a request, whose URL is repeated by many servers.
func TestPollEchoes(t *testing.T) {
	t.Parallel()
	for i, echo := range echoes {
		for name, answer := range map[string]func() *http.Response{
			"status":   func() *http.Response { return reply(404, "Cannot GET "+echo) },
			"error":    func() *http.Response { return reply(200, fmt.Sprintf(`{"code":1,"msg":%q}`, echo)) },
			"not JSON": func() *http.Response { return reply(200, "<pre>"+echo, "Content-Type", echo) },
			"redirect": func() *http.Response { return reply(302, "", "Location", "https://other.example/"+echo) },
		} {
			t.Run(fmt.Sprint(i, " ", name), func(t *testing.T) {
				p := newPoll(t, secretSource(t, `poll {
	url     = "https://api.example/v1/LITERAL0123456789abcdef/${urlencode(param.login.token)}"
	headers = { Authorization = "Bearer 123E4567-4f7c-4f7c-4f7c-426614174000" }
	retries = 0
}`, jsonDecode), fetch.Options{})
				p.RoundTrip(&server{answer: func(int, *http.Request) (*http.Response, error) { return answer(), nil }})
				_, err := p.Fetch(context.Background())
				silent(t, "the reason", failure(t, err).Reason)
			})
		}
	}
}
