package grafanatest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

type dataSource struct {
	id       int64
	uid      string
	fields   map[string]any // name, type, url, user, …
	json     map[string]any
	secrets  map[string]string
	version  int64
	readOnly bool
}

// full is the body of one data source: the names of its secrets, never their values.
func (d *dataSource) full(o *org) map[string]any {
	out := d.item(o)
	delete(out, "typeName")
	set := map[string]any{}
	for k, v := range d.secrets {
		if v != "" {
			set[k] = true
		}
	}
	out["secureJsonFields"], out["version"], out["withCredentials"], out["basicAuthUser"] = set, d.version,
		flag(d.fields["withCredentials"]), text(d.fields["basicAuthUser"])
	return out
}

// item is the body in the list, which lacks secureJsonFields and version.
func (d *dataSource) item(o *org) map[string]any {
	out := map[string]any{
		"id": d.id, "uid": d.uid, "orgId": o.id, "typeLogoUrl": "public/plugins/" + text(d.fields["type"]) +
			"/img/logo.svg", "typeName": "PostgreSQL",
		"readOnly": d.readOnly, "jsonData": d.json, "basicAuth": flag(d.fields["basicAuth"]),
		"isDefault": flag(d.fields["isDefault"]),
	}
	for _, k := range []string{"name", "type", "access", "url", "user", "database"} {
		out[k] = text(d.fields[k])
	}
	return out
}

func sourceMissing() reply { return fail(http.StatusNotFound, "Data source not found") }

func (s *Server) listSources(c call) reply {
	var all []*dataSource
	for _, d := range c.me.org.sources {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *dataSource) int {
		return cmp.Compare(text(a.fields["name"]), text(b.fields["name"]))
	})
	out := []any{}
	for _, d := range all {
		out = append(out, d.item(c.me.org))
	}
	return ok(out)
}

// fields takes over what a request sets; "postgres" is an alias, answered with the plugin's id.
func (d *dataSource) set(in map[string]any) {
	d.fields = maps.Clone(in)
	for _, k := range []string{"id", "uid", "orgId", "jsonData", "secureJsonData", "version", "readOnly"} {
		delete(d.fields, k)
	}
	if d.fields["type"] == "postgres" {
		d.fields["type"] = "grafana-postgresql-datasource"
	}
	d.json, _ = in["jsonData"].(map[string]any)
	if d.json == nil {
		d.json = map[string]any{}
	}
	secrets, _ := in["secureJsonData"].(map[string]any)
	for k, v := range secrets {
		d.secrets[k] = text(v)
	}
}

func (o *org) sourceNamed(name string) *dataSource {
	for _, d := range o.sources {
		if d.fields["name"] == name {
			return d
		}
	}
	return nil
}

func (o *org) onlyDefault(d *dataSource) {
	if flag(d.fields["isDefault"]) {
		for _, x := range o.sources {
			if x != d {
				x.fields["isDefault"] = false
			}
		}
	}
}

func (s *Server) createSource(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o, uid, name := c.me.org, text(in["uid"]), text(in["name"])
	if bad := badUID(uid); bad != nil {
		return *bad
	}
	switch {
	case name == "" || text(in["type"]) == "":
		return fail(http.StatusBadRequest, "bad request data")
	case o.sourceNamed(name) != nil:
		return fail(http.StatusConflict, "data source with the same name already exists")
	case uid != "" && o.sources[uid] != nil:
		return fail(http.StatusConflict, "data source with the same uid already exists")
	}
	o.lastID++
	if uid == "" {
		uid = fmt.Sprintf("P%012d", o.lastID)
	}
	d := &dataSource{id: o.lastID, uid: uid, secrets: map[string]string{}, version: 1}
	d.set(in)
	if s.Profile == V12 && len(o.sources) == 0 { // the first one is the default, whatever it says
		d.fields["isDefault"] = true
	}
	o.sources[uid] = d
	o.onlyDefault(d)
	return ok(map[string]any{"id": d.id, "name": name, "message": "Datasource added", "datasource": d.full(o)})
}

func (s *Server) getSource(c call) reply {
	d := c.me.org.sources[c.segments[2]]
	if d == nil {
		return sourceMissing()
	}
	return ok(d.full(c.me.org))
}

func (s *Server) updateSource(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o := c.me.org
	d, name := o.sources[c.segments[2]], text(in["name"])
	switch other := o.sourceNamed(name); {
	case d == nil:
		return sourceMissing()
	case d.readOnly:
		return fail(http.StatusForbidden, "Cannot update read-only data source")
	case s.Profile == V12 && text(in["uid"]) != "" && text(in["uid"]) != d.uid:
		return fail(http.StatusInternalServerError, "Failed to update datasource")
	case s.Profile >= V13 && text(in["uid"]) != "" && text(in["uid"]) != d.uid:
		return fail(http.StatusBadRequest, "data source uid in the body does not match the one in the URL")
	case number(in["version"]) != 0 && number(in["version"]) != d.version:
		return fail(http.StatusConflict,
			"Datasource has already been updated by someone else. Please reload and try again")
	case other != nil && other != d:
		return fail(http.StatusConflict, "data source with the same name already exists")
	}
	d.set(in)
	d.version++
	o.onlyDefault(d)
	return ok(map[string]any{"id": d.id, "name": name, "message": "Datasource updated", "datasource": d.full(o)})
}

func (s *Server) deleteSource(c call) reply {
	d := c.me.org.sources[c.segments[2]]
	switch {
	case d == nil:
		return sourceMissing()
	case d.readOnly:
		return fail(http.StatusForbidden, "Cannot delete read-only data source")
	}
	delete(c.me.org.sources, d.uid)
	return ok(map[string]any{"message": "Data source deleted", "id": d.id})
}

func (s *Server) sourceByName(c call) reply {
	d := c.me.org.sourceNamed(c.segments[2])
	if d == nil {
		return sourceMissing()
	}
	return ok(d.full(c.me.org))
}

func (s *Server) sourceID(c call) reply {
	d := c.me.org.sourceNamed(c.segments[2])
	if d == nil {
		return sourceMissing()
	}
	return ok(map[string]any{"id": d.id})
}

// sourceByNumber are the routes that 12.4 and 13 have switched off.
func (s *Server) sourceByNumber(c call) reply {
	id, err := strconv.ParseInt(c.segments[1], 10, 64)
	if err != nil || s.Profile >= V12 {
		return fail(http.StatusNotFound, "Not found")
	}
	for uid, d := range c.me.org.sources {
		if d.id != id {
			continue
		}
		c.segments = []string{"datasources", "uid", uid}
		return map[string]func(call) reply{
			http.MethodGet: s.getSource, http.MethodPut: s.updateSource,
			http.MethodDelete: s.deleteSource,
		}[c.method](c)
	}
	return sourceMissing()
}
