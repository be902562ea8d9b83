package grafanatest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

type rule struct {
	id            int64
	uid           string
	folder, group string
	body          map[string]any
	provenance    string
	updated       time.Time
}

// provenanceOf is what a write stores: "api", or "" with X-Disable-Provenance, whatever its value.
func provenanceOf(c call) string {
	if len(c.header.Values("X-Disable-Provenance")) > 0 {
		return ""
	}
	return "api"
}

func mismatch(given, stored string) reply {
	return reply{status: http.StatusConflict, body: map[string]any{
		"message":   fmt.Sprintf("cannot update with provided provenance '%s', needs '%s'", given, stored),
		"messageId": "alerting.provenanceMismatch", "statusCode": 409, "traceID": "",
	}}
}

func (r *rule) dto(o *org) map[string]any {
	out := clone(r.body)
	out["id"], out["uid"], out["orgID"], out["folderUID"], out["ruleGroup"] = r.id, r.uid, o.id, r.folder, r.group
	out["updated"] = r.updated.Format(time.RFC3339)
	if r.provenance != "" {
		out["provenance"] = r.provenance
	}
	return out
}

func ruleMissing() reply { return reply{status: http.StatusNotFound} }

// check refuses a rule that Grafana would refuse, and fills in what Grafana fills in.
func (s *Server) check(o *org, in map[string]any, self *rule) *reply {
	refuse := func(status int, format string, args ...any) *reply { r := fail(status, format, args...); return &r }
	folder, title := text(in["folderUID"]), text(in["title"])
	data, _ := in["data"].([]any)
	switch {
	case title == "":
		return refuse(http.StatusBadRequest, "invalid alert rule: title is empty")
	case o.folders[folder] == nil:
		return refuse(http.StatusBadRequest, "invalid alert rule: folder does not exist")
	case text(in["ruleGroup"]) == "":
		return refuse(http.StatusBadRequest, "invalid alert rule: rule group is empty")
	case len(data) == 0:
		return refuse(http.StatusBadRequest, "invalid alert rule: no queries or expressions are found")
	}
	for _, r := range o.rules {
		if s.Profile != V12 && r != self && r.folder == folder && text(r.body["title"]) == title {
			return refuse(http.StatusConflict,
				"a conflicting alert rule is found: rule title under the same organisation and folder should be unique")
		}
	}
	found := false
	for _, d := range data {
		q, _ := d.(map[string]any)
		found = found || text(q["refId"]) == text(in["condition"])
		window, _ := q["relativeTimeRange"].(map[string]any)
		if text(q["datasourceUid"]) != "__expr__" && number(window["from"]) <= number(window["to"]) {
			return refuse(http.StatusBadRequest, "invalid alert rule: invalid relative time range")
		}
		if number(window["from"]) > 365*24*3600 {
			return refuse(http.StatusBadRequest, "invalid alert rule: invalid relative time range")
		}
		if model, isModel := q["model"].(map[string]any); isModel {
			for k, v := range map[string]json.Number{"intervalMs": "1000", "maxDataPoints": "43200"} {
				if model[k] == nil {
					model[k] = v
				}
			}
		}
	}
	if !found {
		return refuse(http.StatusBadRequest, "invalid alert rule: condition %q does not exist", text(in["condition"]))
	}
	d, err := time.ParseDuration(text(in["for"]))
	if err != nil && text(in["for"]) != "" {
		return refuse(http.StatusBadRequest, "invalid alert rule: bad for")
	}
	in["for"] = duration(d)
	if in["isPaused"] == nil {
		in["isPaused"] = false
	}
	return nil
}

// duration writes as Prometheus does: "5m", "1h30m", "0s".
func duration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var out strings.Builder
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u.name)
			d -= n * u.size
		}
	}
	return out.String()
}

func (s *Server) putBody(r *rule, in map[string]any) {
	r.folder, r.group = text(in["folderUID"]), text(in["ruleGroup"])
	for _, k := range []string{"id", "uid", "orgID", "orgId", "folderUID", "ruleGroup", "updated", "provenance"} {
		delete(in, k)
	}
	r.body, r.updated = in, s.now
}

func (s *Server) listRules(c call) reply {
	var all []*rule
	for _, r := range c.me.org.rules {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *rule) int { return cmp.Compare(a.uid, b.uid) })
	out := []any{}
	for _, r := range all {
		out = append(out, r.dto(c.me.org))
	}
	return ok(out)
}

func (s *Server) createRule(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o, uid := c.me.org, text(in["uid"])
	if bad := badUID(uid); bad != nil {
		return *bad
	}
	if uid != "" && o.rules[uid] != nil {
		if s.Profile == V12 {
			return failID(http.StatusConflict, "alerting.alert-rule.conflict",
				"Conflicting alert rule found: rule UID under the same organisation should be unique")
		}
		return fail(http.StatusConflict,
			"a conflicting alert rule is found: rule UID under the same organisation should be unique")
	}
	if bad := s.check(o, in, nil); bad != nil {
		return *bad
	}
	o.lastID++
	if uid == "" {
		uid = fmt.Sprintf("gen%09d", o.lastID)
	}
	r := &rule{id: o.lastID, uid: uid, provenance: provenanceOf(c)}
	s.putBody(r, in)
	o.rules[uid] = r
	return reply{status: http.StatusCreated, body: r.dto(o)}
}

func (s *Server) getRule(c call) reply {
	r := c.me.org.rules[c.segments[3]]
	if r == nil {
		return ruleMissing()
	}
	return ok(r.dto(c.me.org))
}

func (s *Server) updateRule(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o := c.me.org
	r := o.rules[c.segments[3]]
	if r == nil {
		return ruleMissing()
	}
	given := provenanceOf(c)
	if r.provenance != "" && r.provenance != given {
		if s.Profile == V12 {
			return fail(http.StatusInternalServerError, "Internal Server Error")
		}
		return mismatch(given, r.provenance)
	}
	if bad := s.check(o, in, r); bad != nil {
		return *bad
	}
	s.putBody(r, in)
	r.provenance = given
	return ok(r.dto(o))
}

func (s *Server) deleteRule(c call) reply {
	r := c.me.org.rules[c.segments[3]]
	if r == nil {
		return reply{status: http.StatusNoContent}
	}
	if given := provenanceOf(c); r.provenance != "" && r.provenance != given {
		return mismatch(given, r.provenance)
	}
	delete(c.me.org.rules, r.uid)
	return reply{status: http.StatusNoContent}
}

func (o *org) group(folder, name string) []*rule {
	var out []*rule
	for _, r := range o.rules {
		if r.folder == folder && r.group == name {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *rule) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (s *Server) groupDTO(o *org, folder, name string) map[string]any {
	rules := []any{}
	for _, r := range o.group(folder, name) {
		rules = append(rules, r.dto(o))
	}
	interval := o.interval[folder+"/"+name]
	if interval == 0 {
		interval = 60
	}
	return map[string]any{"title": name, "folderUid": folder, "interval": interval, "rules": rules}
}

func (s *Server) getGroup(c call) reply {
	o, folder, name := c.me.org, c.segments[3], c.segments[5]
	if len(o.group(folder, name)) == 0 {
		return ruleMissing()
	}
	return ok(s.groupDTO(o, folder, name))
}

// putGroup replaces a group: its interval and all its rules. A rule that is left out is deleted.
func (s *Server) putGroup(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o, folder, name, given := c.me.org, c.segments[3], c.segments[5], provenanceOf(c)
	interval := number(in["interval"])
	if interval <= 0 || interval%10 != 0 {
		return fail(http.StatusBadRequest, "invalid alert rule: interval should be a positive multiple of 10 seconds")
	}
	rules, _ := in["rules"].([]any)
	kept := map[string]bool{}
	for _, x := range rules {
		body, _ := x.(map[string]any)
		r := o.rules[text(body["uid"])]
		if r == nil {
			return fail(http.StatusInternalServerError, "Internal Server Error")
		}
		if r.provenance != "" && r.provenance != given {
			return mismatch(given, r.provenance)
		}
		body["folderUID"], body["ruleGroup"] = folder, name
		if bad := s.check(o, body, r); bad != nil {
			return *bad
		}
		kept[r.uid] = true
		s.putBody(r, body)
		r.provenance = given
	}
	for _, r := range o.group(folder, name) {
		if !kept[r.uid] {
			delete(o.rules, r.uid)
		}
	}
	o.interval[folder+"/"+name] = interval
	return ok(s.groupDTO(o, folder, name))
}
