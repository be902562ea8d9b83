// Package grafana makes folders, data sources, dashboards and alert rules match pipeline.hcl.
//
// It speaks Grafana's /api routes, which 11, 12 and 13 have in common, and none with a numeric id in it.
package grafana

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gapi "github.com/grafana/grafana-api-golang-client"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Client speaks to one Grafana. All calls go through one transport: the library's, and the few that the library has
// not.
type Client struct {
	base  *url.URL
	wire  *wire
	pool  *http.Transport
	count atomic.Int64

	hashes sync.Map // of passwords, by data source: a hash takes a while
	rounds int      // of such a hash
}

// defaultTimeout is of one request.
const defaultTimeout = 15 * time.Second

// NewClient prepares a client; nothing is sent yet.
func NewClient(g *spec.Grafana) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(g.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("grafana.url is not a URL: write Grafana's whole address, as " +
			"https://grafana.example.com")
	}
	if base.User != nil {
		return nil, errors.New("grafana.url holds a password: put it into grafana.auth, as user:password")
	}
	auth := g.Auth.Reveal()
	if auth == "" {
		return nil, errors.New("grafana.auth is empty: give a service account's token, or user:password")
	}
	// The library prints requests, with passwords, when GF_LOG is in the environment.
	if err := os.Unsetenv("GF_LOG"); err != nil {
		return nil, err
	}
	c := &Client{base: base, rounds: 100_000, pool: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: parallel,
		IdleConnTimeout:     30 * time.Second,
	}}
	timeout := g.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	c.wire = &wire{
		pool: c.pool, timeout: timeout, first: 250 * time.Millisecond, limit: maxReply, count: &c.count,
		host: base.Host, prefix: base.Path,
	}
	c.wire.authorize(auth)
	c.wire.secrets = append(c.wire.secrets, base.Path)
	return c, nil
}

// where is Grafana's address for messages. A path in it may be what a proxy lets in by, so it is left out.
func (c *Client) where() string {
	out := c.base.Scheme + "://" + c.base.Host
	if strings.Trim(c.base.Path, "/") != "" {
		out += "/…"
	}
	return out
}

// Close gives idle connections back.
func (c *Client) Close() { c.pool.CloseIdleConnections() }

// Requests is how many requests were sent so far, repeated ones included.
func (c *Client) Requests() int { return int(c.count.Load()) }

// library returns the library's client for calls of one context.
func (c *Client) library(ctx context.Context, header ...string) (*gapi.Client, error) {
	cfg := gapi.Config{Client: &http.Client{Transport: bound{ctx, c.wire}}}
	if len(header) == 2 {
		cfg.HTTPHeaders = map[string]string{header[0]: header[1]}
	}
	return gapi.New(c.base.String(), cfg)
}

// call sends a request that the library cannot express. Each segment of the path is escaped; in and out may be nil.
func (c *Client) call(ctx context.Context, method string, path []string, query url.Values, in, out any,
	header ...string,
) error {
	u := *c.base
	plain, escaped := strings.Builder{}, strings.Builder{}
	for _, s := range path {
		if s == "" || s == "." || s == ".." {
			return fmt.Errorf("%q cannot be a part of a Grafana route", s)
		}
		plain.WriteString("/" + s)
		escaped.WriteString("/" + url.PathEscape(s))
	}
	u.RawPath = u.EscapedPath() + escaped.String()
	u.Path += plain.String()
	u.RawQuery = query.Encode()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := c.wire.send(ctx, req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // in memory
	if out == nil || resp.ContentLength == 0 {
		return nil
	}
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return &Error{
			Method: method, Path: strings.TrimPrefix(u.Path, c.base.Path), Status: resp.StatusCode,
			Message: "with JSON of another form than expected",
		}
	}
	return nil
}

// clean takes the library's and net/http's wrapping off an error.
func clean(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the answer of Grafana is JSON of another form than expected: %q is a %s", e.Field, e.Value)
	}
	return err
}

// version reads the server's version: its text, and its first number. Both are empty where the server hides it, and
// nothing here depends on them but the refusal of versions before 11.
func (c *Client) version(ctx context.Context) (text string, major int, err error) {
	lib, err := c.library(ctx)
	if err != nil {
		return "", 0, err
	}
	health, err := lib.Health()
	if err != nil {
		return "", 0, clean(err)
	}
	first, _, _ := strings.Cut(health.Version, ".")
	major, _ = strconv.Atoi(first)
	if major > 0 && major < 11 {
		return health.Version, major, fmt.Errorf("this Grafana is %s: version 11 or later is needed", health.Version)
	}
	return health.Version, major, nil
}

// organization is the org that the credentials belong to; asking for it proves that they are good.
func (c *Client) organization(ctx context.Context) (id int64, name string, err error) {
	var org struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
	err = c.call(ctx, http.MethodGet, []string{"api", "org"}, nil, nil, &org)
	return org.ID, org.Name, err
}

// Annotate puts a marker on the time line of all dashboards that show these tags.
func (c *Client) Annotate(ctx context.Context, text string, tags []string) error {
	lib, err := c.library(ctx)
	if err != nil {
		return err
	}
	_, err = lib.NewAnnotation(&gapi.Annotation{Time: time.Now().UnixMilli(), Text: text, Tags: tags})
	if err != nil {
		return fmt.Errorf("annotate: %w", clean(err))
	}
	return nil
}
