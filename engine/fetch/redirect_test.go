package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// TestRedirects: on one host, at most three, never from https to http; keys go nowhere else.
func TestRedirects(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") }))
	defer other.Close()
	var steps int
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != headerKey {
			t.Errorf("%s came without its header", r.URL.Path)
		}
		to, status := r.URL.Query().Get("to"), http.StatusFound
		if n, err := fmt.Sscanf(to, "%d", &status); n == 1 && err == nil {
			to = "/"
		}
		if n, err := fmt.Sscanf(r.URL.Path, "/loop/%d", &steps); n == 1 && err == nil {
			to = ""
			if steps > 0 {
				to = fmt.Sprintf("/loop/%d", steps-1)
			}
		}
		if to == "" {
			_, _ = io.WriteString(w, oneRecord)
			return
		}
		w.Header().Set("Location", to)
		w.WriteHeader(status)
	})
	open, sealed := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	sealed.Config.ErrorLog = quietly
	defer open.Close()
	defer sealed.Close()
	at := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	for _, c := range []struct {
		name, url, to string
		want          string
	}{
		{"to its own", open.URL, "/", ""},
		{"301", open.URL, "301", ""},
		{"302", open.URL, "302", ""},
		{"303", open.URL, "303", ""},
		{"307", open.URL, "307", ""},
		{"308", open.URL, "308", ""},
		{"three", open.URL + "/loop/3", "", ""},
		{"four", open.URL + "/loop/4", "", "more than 3 redirects"},
		{"to another port", open.URL, other.URL + "/?api_key=" + queryKey, "redirected to another host, " + at(other) + ": if that is right, write it into the definition's url"},
		{"to another name of the same", open.URL, strings.Replace(open.URL, "127.0.0.1", "localhost", 1), "redirected to another host, " + strings.Replace(at(open), "127.0.0.1", "localhost", 1) + ": if that is right, write it into the definition's url"},
		{"to a private address", open.URL, "http://10.0.0.1/", "redirected to another host, 10.0.0.1: if that is right, write it into the definition's url"},
		{"to the metadata", open.URL, "http://169.254.169.254/latest/", "redirected to another host, 169.254.169.254: if that is right, write it into the definition's url"},
		{"with a password", open.URL, strings.Replace(open.URL, "http://", "http://a:b@", 1), ""},
		{"from https to http", sealed.URL, "http://" + at(sealed) + "/", "redirected from https to http"},
		{"on https", sealed.URL, "/", ""},
		{"to a file", open.URL, "file:///etc/passwd", "redirected from http to file"},
		{"to another scheme", open.URL, "gopher://" + at(open) + "/", "redirected from http to gopher"},
		{"to no URL", open.URL, "http://[::1/?api_key=" + queryKey, "redirected to what is no URL"},
		{"to a control character", open.URL, "/\x7f", `malformed MIME header line: "Location: /\x7f"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := source(t, "1m", poll(c.url, "retries = 0", fmt.Sprintf("allow_private = [%q, %q]", at(open), at(sealed))), jsonDecode)
			if c.to != "" {
				src.Definition.Poll.Query["to"] = c.to
			}
			p := newPoll(t, src, fetch.Options{})
			p.Trust(sealed.Client())
			records, err := p.Fetch(t.Context())
			if c.want == "" && err == nil {
				if len(records) != 1 {
					t.Errorf("%d records", len(records))
				}
				return
			}
			if e := failure(t, err); e.Reason != c.want {
				t.Errorf("the reason is %q\nwant %q", e.Reason, c.want)
			}
		})
	}
}

// TestNoNetwork: what a person reads when there is none, or when something is wrong on the way.
func TestNoNetwork(t *testing.T) {
	resolve(t, nil)
	sealed := httptest.NewTLSServer(http.NotFoundHandler())
	sealed.Config.ErrorLog = quietly
	defer sealed.Close()
	const gone = "127.0.0.1:1" // nobody listens there, and nobody is given it
	sealedAt := sealed.Listener.Addr().String()
	for url, want := range map[string]string{
		"https://api.example.test/v1": "the name api.example.test is not known: no network, or a wrong host",
		"http://" + gone:              gone + " refuses the connection",
		sealed.URL:                    "the source's certificate cannot be trusted: certificate signed by unknown authority",
		"http://" + sealedAt:          "HTTP 400 Bad Request: Client sent an HTTP request to an HTTPS server.",
	} {
		p := newPoll(t, source(t, "1m", poll(url, "retries = 0", fmt.Sprintf("allow_private = [%q, %q]", gone, sealedAt)), jsonDecode), fetch.Options{})
		_, err := p.Fetch(t.Context())
		if e := failure(t, err); e.Reason != want || e.NotTried {
			t.Errorf("%s: %q\nwant %q", url, e.Reason, want)
		}
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("connection refused")
	}}
	p := newPoll(t, source(t, "1m", poll("https://api.example.test/v1", "retries = 0"), jsonDecode), fetch.Options{})
	_, err := p.Fetch(t.Context())
	if e := failure(t, err); e.Reason != "the name api.example.test cannot be looked up: no network, or its name server does not answer" || !e.Temporary {
		t.Error(e.Reason)
	}
}

// TestBadHeader: a key with a line break, as a file gives it.
func TestBadHeader(t *testing.T) {
	t.Parallel()
	src := source(t, "1m", poll(api, "retries = 0"), jsonDecode)
	src.Definition.Poll.Headers["X-Key"] = spec.NewSecret(headerKey + "\n")
	p := newPoll(t, src, fetch.Options{})
	_, err := p.Fetch(t.Context())
	if e := failure(t, err); e.Reason != `invalid header field value for "X-Key"` {
		t.Error(e.Reason)
	}
}

// TestKeyInPart: a source repeats the key alone, and the header holds more.
func TestKeyInPart(t *testing.T) {
	t.Parallel()
	src := source(t, "1m", poll(api, "retries = 0"), jsonDecode)
	src.Definition.Poll.Headers["Authorization"] = spec.NewSecret("Bearer " + queryKey + "-x")
	p := newPoll(t, src, fetch.Options{})
	p.RoundTrip(always(403, "the token "+queryKey+"-x is not valid, nor is api_key%3D"+queryKey))
	_, err := p.Fetch(t.Context())
	if e, ok := errors.AsType[*fetch.Error](err); !ok || e.Reason != "HTTP 403 Forbidden: the token (hidden) is not valid, nor is (hidden)" {
		t.Error(err)
	}
}
