// Package grafanatest is a Grafana for tests: a contract server in memory, which speaks as much of the HTTP API as
// package grafana uses, in three profiles: V11, V12 and V13.
//
// What it is made from: Grafana's own documentation and error texts for 11.6, 12.4 and 13.2 (routes, bodies, status
// codes, limits, which version answers a conflict with 409 and which with 412, the search that lags behind from 12
// on, the numeric routes that 13 no longer has). A test decodes every kind of reply with the models of Grafana's
// official OpenAPI client, so names and types of fields are theirs. V12 was put right by what a real Grafana 12.4.0
// answered (sqlite, open source).
//
// What it is not: no server of 11 and 13 was run. Their texts of 401 and 403, of a folder whose title is taken (11)
// and of a data source whose name is taken are written from memory; nothing here evaluates a rule, opens a data
// source or checks a permission finer than Viewer, Editor and Admin. It is no proof that a real Grafana behaves so,
// only that this program keeps the contract as it is written down.
package grafanatest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Profile is a line of Grafana versions.
type Profile int

// The profiles.
const (
	V11 Profile = 11
	V12 Profile = 12
	V13 Profile = 13
)

// String is the version that /api/health tells.
func (p Profile) String() string {
	return map[Profile]string{V11: "11.6.4", V12: "12.4.0", V13: "13.2.3"}[p]
}

// Profiles are all of them.
func Profiles() []Profile { return []Profile{V11, V12, V13} }

// Role is what a token may do.
type Role int

// The roles.
const (
	Viewer Role = iota
	Editor
	Admin
)

// The basic-auth user that every server has, as "user:password".
const (
	User     = "admin"
	Password = "open-sesame"
)

// Request is one entry of the log.
type Request struct {
	Method, Path, Query string
	Body                string
	Status              int // 0: the connection was cut
	Org                 int64
}

// Fault changes the answers to the requests that match it.
type Fault struct {
	Method string        // "": any
	Path   string        // prefix, without the sub-path; "": any
	After  int           // this many matching requests are served as usual first
	Times  int           // then this many fail; 0: all
	Status int           // answer this status with Body …
	Body   string        // … or, when empty, a plausible one
	Header http.Header   // added to the answer
	Delay  time.Duration // wait before answering
	Cut    bool          // close the connection without an answer
	Served bool          // carry the request out before it fails: the answer is lost
}

// Server is one Grafana.
type Server struct {
	URL     string // with the sub-path
	Token   string // of an Admin's service account in org 1
	Profile Profile

	path   string
	mu     sync.Mutex
	orgs   map[int64]*org
	tokens map[string]token
	faults []*Fault
	log    []Request
	lag    int
	hidden bool
	now    time.Time
}

type token struct {
	role Role
	org  int64
	name string
}

// org is everything that belongs to one organisation.
type org struct {
	id       int64
	name     string
	folders  map[string]*folder
	boards   map[string]*dashboard
	sources  map[string]*dataSource
	rules    map[string]*rule
	interval map[string]int64 // seconds, by folder uid and group
	notes    []map[string]any
	lastID   int64
}

// New starts a server at the root of its address; it stops with the test.
func New(t testing.TB, p Profile) *Server { return NewAt(t, p, "") }

// NewAt starts a server under a sub-path: "/grafana".
func NewAt(t testing.TB, p Profile, path string) *Server {
	t.Helper()
	s := &Server{
		Profile: p, path: strings.TrimRight(path, "/"), orgs: map[int64]*org{}, tokens: map[string]token{},
		now: time.Date(2026, 1, 9, 14, 0, 0, 0, time.UTC),
	}
	for id, name := range map[int64]string{1: "Main Org.", 2: "Second Org."} {
		s.orgs[id] = &org{
			id: id, name: name, folders: map[string]*folder{}, boards: map[string]*dashboard{},
			sources: map[string]*dataSource{}, rules: map[string]*rule{}, interval: map[string]int64{},
		}
	}
	s.Token = s.AddToken(Admin, "sa-cryptoviz")
	web := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(web.Close)
	s.URL = web.URL + s.path
	return s
}

// AddToken makes a service-account token of org 1.
func (s *Server) AddToken(role Role, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "glsa_" + rand.Text()
	s.tokens[text] = token{role: role, org: 1, name: name}
	return text
}

// HideVersion makes /api/health keep its version to itself.
func (s *Server) HideVersion() { s.mu.Lock(); s.hidden = true; s.mu.Unlock() }

// SearchLag makes search see what was written only after n further requests. Version 11 has no lag.
func (s *Server) SearchLag(n int) { s.mu.Lock(); s.lag = n; s.mu.Unlock() }

// Fail adds a fault; the returned function takes it away.
func (s *Server) Fail(f Fault) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &f
	s.faults = append(s.faults, p)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(x *Fault) bool { return x == p })
	}
}

// Requests is the log since the last Forget.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Writes are the logged requests that are no GET.
func (s *Server) Writes() []Request {
	return slices.DeleteFunc(s.Requests(), func(r Request) bool { return r.Method == http.MethodGet })
}

// Forget empties the log.
func (s *Server) Forget() { s.mu.Lock(); s.log = nil; s.mu.Unlock() }

// reply is an answer before it is sent.
type reply struct {
	status int
	body   any    // encoded with shuffled keys; nil: none
	html   string // instead of body
	header http.Header
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return
	}
	path, inside := strings.CutPrefix(r.URL.EscapedPath(), s.path)
	inside = inside || s.Profile == V12 // it answers without its sub-path, too
	fault := s.match(r.Method, path)
	if fault != nil && fault.Delay > 0 {
		select {
		case <-time.After(fault.Delay):
		case <-r.Context().Done():
		}
	}
	var out reply
	if fault == nil || fault.Served || !fault.Cut && fault.Status == 0 {
		out = s.answer(r, path, inside, body)
	}
	if fault != nil && fault.Status != 0 {
		out = fault.reply()
	}
	if fault != nil && fault.Cut {
		out.status = 0
	}
	s.mu.Lock()
	id, _ := strconv.ParseInt(r.Header.Get("X-Grafana-Org-Id"), 10, 64)
	s.log = append(s.log, Request{
		Method: r.Method, Path: path, Query: r.URL.RawQuery, Body: string(body),
		Status: out.status, Org: id,
	})
	s.mu.Unlock()
	if out.status == 0 {
		panic(http.ErrAbortHandler)
	}
	out.send(w)
}

func (s *Server) match(method, path string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Method != "" && f.Method != method || !strings.HasPrefix(path, f.Path) {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		if f.Times < 0 {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		c := *f
		return &c
	}
	return nil
}

func (f *Fault) reply() reply {
	out := reply{status: f.Status, header: f.Header}
	switch {
	case strings.HasPrefix(strings.TrimSpace(f.Body), "<"):
		out.html = f.Body
	case f.Body != "":
		out.body = json.RawMessage(f.Body)
	default:
		out.body = message(http.StatusText(f.Status))
	}
	return out
}

func (out reply) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), out.header)
	if out.html != "" {
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(out.status)
		_, _ = io.WriteString(w, out.html)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(out.status)
	if out.body != nil {
		_, _ = w.Write(shuffled(out.body))
	}
}

// who is an authenticated caller.
type who struct {
	role Role
	org  *org
	name string
}

func (s *Server) answer(r *http.Request, path string, inside bool, body []byte) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !inside || !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/apis/") {
		return reply{
			status: http.StatusNotFound,
			html:   "<!DOCTYPE html><html><head><title>Grafana</title></head><body>Page not found</body></html>",
		}
	}
	if path == "/api/health" {
		out := map[string]any{"database": "ok", "version": s.Profile.String(), "commit": "0000000000"}
		if s.hidden {
			out = map[string]any{"database": "ok"}
		}
		return ok(out)
	}
	me, refusal := s.authenticate(r)
	if refusal != nil {
		return *refusal
	}
	s.now = s.now.Add(time.Second)
	for _, b := range me.org.boards {
		b.age++
	}
	for _, f := range me.org.folders {
		f.age++
	}
	return s.route(call{
		me: me, method: r.Method, segments: segments(path), query: r.URL.Query(), header: r.Header,
		body: body,
	})
}

func (s *Server) authenticate(r *http.Request) (who, *reply) {
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	id, _ := strconv.ParseInt(r.Header.Get("X-Grafana-Org-Id"), 10, 64)
	deny := func(id, text string) (who, *reply) {
		return who{}, &reply{status: http.StatusUnauthorized, body: map[string]any{
			"message": text, "messageId": id,
			"statusCode": 401, "traceID": "",
		}}
	}
	switch scheme {
	case "Bearer":
		t, known := s.tokens[credentials]
		if !known {
			return deny("api-key.invalid", "Invalid API key")
		}
		if id != 0 && id != t.org {
			return deny("api-key.organization-mismatch", "API key does not belong to the requested organization")
		}
		return who{role: t.role, org: s.orgs[t.org], name: t.name}, nil
	case "Basic":
		if text, err := base64.StdEncoding.DecodeString(credentials); err != nil || string(text) != User+":"+Password {
			return deny("password-auth.failed", "Invalid username or password")
		}
		o := s.orgs[max(id, 1)]
		if o == nil {
			return deny("auth.unauthorized", "Unauthorized")
		}
		return who{role: Admin, org: o, name: User}, nil
	}
	return deny("auth.unauthorized", "Unauthorized")
}
