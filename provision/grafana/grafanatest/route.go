package grafanatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// call is one authenticated request.
type call struct {
	me       who
	method   string
	segments []string // of the path behind /api
	query    url.Values
	header   http.Header
	body     []byte
}

func segments(path string) []string {
	var out []string
	for s := range strings.SplitSeq(strings.Trim(strings.TrimPrefix(path, "/api/"), "/"), "/") {
		text, err := url.PathUnescape(s)
		if err != nil {
			text = s
		}
		out = append(out, text)
	}
	return out
}

// is matches a method and a path, where * stands for any one segment.
func (c call) is(method, pattern string) bool {
	want := strings.Split(pattern, "/")
	if c.method != method || len(want) != len(c.segments) {
		return false
	}
	for i, w := range want {
		if w != "*" && w != c.segments[i] {
			return false
		}
	}
	return true
}

// handler answers one kind of request.
type handler struct {
	method, pattern string
	role            Role
	permission      string
	do              func(call) reply
}

func (s *Server) handlers() []handler {
	reader, editor := Admin, Editor // who may read data sources, and rules
	if s.Profile == V12 {
		reader, editor = Viewer, Viewer
	}
	return []handler{
		{"GET", "org", Viewer, "", s.getOrg},
		{"GET", "search", Viewer, "", s.search},
		{"GET", "folders", Viewer, "", s.listFolders},
		{"POST", "folders", Editor, "folders:create", s.createFolder},
		{"GET", "folders/*", Viewer, "", s.getFolder},
		{"PUT", "folders/*", Editor, "folders:write", s.updateFolder},
		{"DELETE", "folders/*", Editor, "folders:delete", s.deleteFolder},
		{"POST", "folders/*/move", Editor, "folders:write", s.moveFolder},
		// "dashboards:write" where there is one
		{"POST", "dashboards/db", Editor, "dashboards:create", s.saveDashboard},
		{"GET", "dashboards/uid/*", Viewer, "", s.getDashboard},
		{"DELETE", "dashboards/uid/*", Editor, "dashboards:delete", s.deleteDashboard},
		{"GET", "dashboards/uid/*/versions", Editor, "dashboards:write", s.versions},
		{"GET", "dashboards/uid/*/versions/*", Editor, "dashboards:write", s.getVersion},
		{"GET", "apis/dashboard.grafana.app/v0alpha1/namespaces/*/dashboards/*", Viewer, "", s.resource},
		{"GET", "access-control/user/permissions", Viewer, "", s.permissions},
		{"GET", "datasources", reader, "datasources:read", s.listSources},
		{"POST", "datasources", Admin, "datasources:create", s.createSource},
		{"GET", "datasources/uid/*", reader, "datasources:read", s.getSource},
		{"PUT", "datasources/uid/*", Admin, "datasources:write", s.updateSource},
		{"DELETE", "datasources/uid/*", Admin, "datasources:delete", s.deleteSource},
		{"GET", "datasources/name/*", reader, "datasources:read", s.sourceByName},
		{"GET", "datasources/id/*", reader, "datasources.id:read", s.sourceID},
		{"GET", "datasources/*", reader, "datasources:read", s.sourceByNumber},
		{"PUT", "datasources/*", Admin, "datasources:write", s.sourceByNumber},
		{"DELETE", "datasources/*", Admin, "datasources:delete", s.sourceByNumber},
		{"POST", "annotations", Editor, "annotations:create", s.annotate},
		{"GET", "annotations", Viewer, "", s.annotations},
		{"GET", "v1/provisioning/alert-rules", editor, "alert.provisioning:read", s.listRules},
		{"POST", "v1/provisioning/alert-rules", Editor, "alert.provisioning:write", s.createRule},
		{"GET", "v1/provisioning/alert-rules/*", editor, "alert.provisioning:read", s.getRule},
		{"PUT", "v1/provisioning/alert-rules/*", Editor, "alert.provisioning:write", s.updateRule},
		{"DELETE", "v1/provisioning/alert-rules/*", Editor, "alert.provisioning:write", s.deleteRule},
		{"GET", "v1/provisioning/folder/*/rule-groups/*", editor, "alert.provisioning:read", s.getGroup},
		{"PUT", "v1/provisioning/folder/*/rule-groups/*", Editor, "alert.provisioning:write", s.putGroup},
	}
}

func (s *Server) route(c call) reply {
	for _, h := range s.handlers() {
		if !c.is(h.method, h.pattern) {
			continue
		}
		if c.me.role < h.role {
			return reply{status: http.StatusForbidden, body: map[string]any{
				"message": "You'll need additional permissions to perform this action. Permissions needed: " +
					h.permission,
				"title": "Access denied", "accessErrorId": "ACE0000000000",
			}}
		}
		return h.do(c)
	}
	return fail(http.StatusNotFound, "Not found")
}

func (s *Server) getOrg(c call) reply {
	return ok(map[string]any{"id": c.me.org.id, "name": c.me.org.name, "address": map[string]any{
		"address1": "",
		"address2": "", "city": "", "zipCode": "", "state": "", "country": "",
	}})
}

// permissions are the caller's own: each action with the scopes that it has it for.
func (s *Server) permissions(c call) reply {
	out := map[string]any{"dashboards:read": []any{"folders:*"}, "folders:read": []any{"folders:*"}}
	for _, h := range s.handlers() {
		if h.permission != "" && c.me.role >= h.role {
			out[h.permission] = []any{"*"}
		}
	}
	if c.me.role >= Editor { // they may write rules without the right to provision them
		delete(out, "alert.provisioning:write")
		for _, action := range []string{"create", "write", "delete"} {
			out["alert.rules:"+action] = []any{"folders:*"}
		}
	}
	return ok(out)
}

func (s *Server) annotate(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	if text(in["text"]) == "" {
		return fail(http.StatusBadRequest, "text field should not be empty")
	}
	o := c.me.org
	o.lastID++
	in["id"] = o.lastID
	o.notes = append(o.notes, in)
	return ok(map[string]any{"id": o.lastID, "message": "Annotation added"})
}

func (s *Server) annotations(c call) reply {
	out := []any{}
	for _, n := range c.me.org.notes {
		have, _ := n["tags"].([]any)
		if slices.ContainsFunc(c.query["tags"], func(tag string) bool { return !slices.Contains(have, any(tag)) }) {
			continue
		}
		out = append(out, n)
	}
	return ok(out)
}

// object decodes the request's body.
func (c call) object() (map[string]any, *reply) {
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil || out == nil {
		r := fail(http.StatusBadRequest, "bad request data")
		return nil, &r
	}
	return out, nil
}

func ok(body any) reply { return reply{status: http.StatusOK, body: body} }

func fail(status int, format string, args ...any) reply {
	return reply{status: status, body: message(fmt.Sprintf(format, args...))}
}

func failAs(status int, kind, text string) reply {
	return reply{status: status, body: map[string]any{"status": kind, "message": text}}
}

func failID(status int, id, text string) reply {
	return reply{status: status, body: map[string]any{
		"message": text, "messageId": id, "statusCode": status,
		"traceID": "",
	}}
}

func message(text string) map[string]any { return map[string]any{"message": text} }

var uidForm = regexp.MustCompile(`^[a-zA-Z0-9_-]*$`)

// badUID is the refusal of a uid, nil when it is fine.
func badUID(uid string) *reply {
	var r reply
	switch {
	case !uidForm.MatchString(uid):
		r = fail(http.StatusBadRequest, "uid contains illegal characters")
	case len(uid) > 40:
		r = fail(http.StatusBadRequest, "uid too long, max 40 characters")
	default:
		return nil
	}
	return &r
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func number(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}

func flag(v any) bool {
	b, _ := v.(bool)
	return b
}

var (
	slugForm = regexp.MustCompile(`[^a-z0-9]+`)
	signForm = regexp.MustCompile(`[!-,./:-@\[-^` + "`" + `{-~]`)
)

// slug is what a title is in an address; 12 writes a sign as its number.
func (s *Server) slug(title string) string {
	title = strings.ToLower(title)
	if s.Profile == V12 {
		title = signForm.ReplaceAllStringFunc(title, func(sign string) string { return fmt.Sprintf("%x", sign) })
	}
	return strings.Trim(slugForm.ReplaceAllString(title, "-"), "-")
}

// clone copies a JSON value through its text, so that nobody shares it.
func clone[T any](v T) T {
	var out T
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		panic(err)
	}
	return out
}

// shuffled encodes JSON with the keys of every object in another order each time, and < > & escaped.
func shuffled(v any) []byte {
	var buf bytes.Buffer
	shuffle(&buf, clone(v))
	return buf.Bytes()
}

func shuffle(buf *bytes.Buffer, v any) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		buf.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				buf.WriteByte(',')
			}
			shuffle(buf, k)
			buf.WriteByte(':')
			shuffle(buf, v[k])
		}
		buf.WriteByte('}')
	case []any:
		buf.WriteByte('[')
		for i, x := range v {
			if i > 0 {
				buf.WriteByte(',')
			}
			shuffle(buf, x)
		}
		buf.WriteByte(']')
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		buf.Write(raw)
	}
}
