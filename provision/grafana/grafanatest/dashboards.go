package grafanatest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type dashboard struct {
	id                int64
	uid, folder       string
	model             map[string]any
	version           int64
	createdBy, editor string
	created, updated  time.Time
	provisioned       bool
	stored            string    // the version of its schema, since 12: "v0alpha1", or "v2beta1" when it was saved so
	history           []edition // oldest first
	age               int       // requests since it was written, for search
}

type edition struct {
	version     int64
	at          time.Time
	by, message string
	model       map[string]any
}

// minRefresh is Grafana's min_refresh_interval as it is shipped.
const minRefresh = 5 * time.Second

func (s *Server) saveDashboard(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	model, _ := in["dashboard"].(map[string]any)
	folder, uid := text(in["folderUid"]), text(model["uid"])
	if flag(in["isFolder"]) {
		return fail(http.StatusBadRequest, "Use folders endpoint for saving folders.")
	}
	if model == nil {
		return fail(http.StatusBadRequest, "bad request data")
	}
	if r := s.refuseModel(model, uid, text(in["message"])); r != nil {
		return *r
	}
	o := c.me.org
	old := o.boards[uid]
	if id := number(model["id"]); id != 0 {
		byID := o.byID(id)
		switch {
		case byID == nil && (s.Profile < V13 || uid == ""):
			return failAs(http.StatusNotFound, "not-found", "Dashboard not found")
		case byID != nil && old != nil && byID != old:
			return fail(http.StatusBadRequest, "A dashboard with the same uid already exists")
		case old == nil && byID != nil:
			old = byID
		}
	}
	if folder != "" && o.folders[folder] == nil {
		switch s.Profile {
		case V11:
			return fail(http.StatusNotFound, "Folder not found")
		default:
			return fail(http.StatusBadRequest, "folder not found")
		}
	}
	if old != nil && old.provisioned {
		return fail(http.StatusBadRequest, "Cannot save provisioned dashboard")
	}
	if old != nil && !flag(in["overwrite"]) && number(model["version"]) != old.version {
		if s.Profile >= V13 {
			return fail(http.StatusConflict, "Dashboard already exists. Use overwrite flag to update.")
		}
		return failAs(http.StatusPreconditionFailed, "version-mismatch",
			"The dashboard has been changed by someone else")
	}
	if r := s.fixRefresh(model); r != nil {
		return *r
	}
	b := s.store(o, old, uid, folder, model, c.me.name, text(in["message"]))
	out := map[string]any{
		"status": "success", "id": b.id, "uid": b.uid, "url": s.url(b), "slug": s.slug(text(b.model["title"])),
		"version": b.version,
	}
	if b.folder != "" {
		out["folderUid"] = b.folder
	}
	return ok(out)
}

// refuseModel checks what is wrong with the dashboard itself.
func (s *Server) refuseModel(model map[string]any, uid, note string) *reply {
	refuse := func(r reply) *reply { return &r }
	_, elements := model["elements"]
	title := strings.TrimSpace(text(model["title"]))
	switch {
	case elements && s.Profile >= V13:
		return refuse(fail(http.StatusBadRequest,
			"dashboard appears to be in v2 format; send it as a resource with apiVersion, kind, metadata and spec"))
	case title == "" && s.Profile >= V13:
		return refuse(fail(http.StatusBadRequest, "Dashboard spec is missing required title property"))
	case title == "":
		return refuse(failAs(http.StatusBadRequest, "empty-name", "Dashboard title cannot be empty"))
	case len(title) > 5000:
		return refuse(fail(http.StatusBadRequest, "Dashboard title cannot contain more than 5000 characters"))
	case len(note) > 500:
		return refuse(fail(http.StatusBadRequest, "message too long, max 500 characters"))
	}
	return badUID(uid)
}

// fixRefresh is where the versions part: 11 and 12 raise a refresh that is too short, 13 refuses it.
func (s *Server) fixRefresh(model map[string]any) *reply {
	refresh, err := time.ParseDuration(text(model["refresh"]))
	if err != nil || refresh >= minRefresh {
		return nil
	}
	if s.Profile >= V13 {
		r := fail(http.StatusBadRequest, "Dashboard refresh interval is too low")
		return &r
	}
	model["refresh"] = "5s"
	return nil
}

func (s *Server) store(o *org, old *dashboard, uid, folder string, model map[string]any, by, note string) *dashboard {
	for _, k := range []string{"id", "version"} {
		delete(model, k)
	}
	if s.Profile == V11 {
		model["title"] = strings.TrimSpace(text(model["title"]))
	} else {
		model = withoutBOM(model).(map[string]any)
	}
	b := old
	if b == nil {
		o.lastID++
		if uid == "" {
			uid = fmt.Sprintf("gen%09d", o.lastID)
		}
		b = &dashboard{id: o.lastID, uid: uid, createdBy: by, created: s.now}
		o.boards[uid] = b
	}
	model["uid"] = b.uid
	same := old != nil && string(plainText(b.model)) == string(plainText(model)) && b.folder == folder
	b.model, b.folder, b.editor, b.updated, b.age, b.stored = model, folder, by, s.now, 0, "v0alpha1"
	if !same || s.Profile == V11 {
		b.version++
		b.history = append(b.history, edition{
			version: b.version, at: s.now, by: by, message: note,
			model: clone(model),
		})
	}
	return b
}

func plainText(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

func withoutBOM(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "\ufeff", "")
	case map[string]any:
		for k, x := range v {
			v[k] = withoutBOM(x)
		}
	case []any:
		for i, x := range v {
			v[i] = withoutBOM(x)
		}
	}
	return v
}

func (o *org) byID(id int64) *dashboard {
	for _, b := range o.boards {
		if b.id == id {
			return b
		}
	}
	return nil
}

func (s *Server) url(b *dashboard) string {
	return fmt.Sprintf("/d/%s/%s", b.uid, s.slug(text(b.model["title"])))
}

func (s *Server) getDashboard(c call) reply {
	o := c.me.org
	b := o.boards[c.segments[2]]
	if b == nil {
		return fail(http.StatusNotFound, "Dashboard not found")
	}
	model := clone(b.model)
	model["id"], model["uid"], model["version"] = b.id, b.uid, b.version
	created, updated := b.createdBy, b.editor
	if s.Profile == V12 { // what a create names is only in the versions
		created = "Anonymous"
		if b.version == 1 {
			updated = created
		}
	}
	meta := map[string]any{
		"type": "db", "canSave": true, "canEdit": true, "canAdmin": true, "canStar": true, "canDelete": true,
		"slug": s.slug(text(b.model["title"])), "url": s.url(b),
		"expires": "0001-01-01T00:00:00Z", "created": b.created.Format(time.RFC3339),
		"updated": b.updated.Format(time.RFC3339), "updatedBy": updated,
		"createdBy": created, "version": b.version, "hasAcl": false, "isFolder": false, "folderId": 0, "folderUid": "",
		"folderTitle": "General",
		"folderUrl":   "", "provisioned": b.provisioned, "provisionedExternalId": "",
	}
	if s.Profile >= V12 {
		meta["apiVersion"] = "v0alpha1"
	}
	if s.Profile < V13 {
		meta["isStarred"] = false
	}
	if b.provisioned {
		meta["provisionedExternalId"] = s.slug(text(b.model["title"])) + ".json"
	}
	if f := o.folders[b.folder]; f != nil {
		meta["folderId"], meta["folderUid"], meta["folderTitle"], meta["folderUrl"] = f.id, f.uid, f.title,
			"/dashboards/f/"+f.uid+"/"+s.slug(f.title)
	}
	return ok(map[string]any{"dashboard": model, "meta": meta})
}

func (s *Server) deleteDashboard(c call) reply {
	b := c.me.org.boards[c.segments[2]]
	switch {
	case b == nil:
		return fail(http.StatusNotFound, "Dashboard not found")
	case b.provisioned:
		return fail(http.StatusBadRequest, "provisioned dashboard cannot be deleted")
	}
	delete(c.me.org.boards, b.uid)
	title := text(b.model["title"])
	out := map[string]any{"title": title, "message": fmt.Sprintf("Dashboard %s deleted", title), "uid": b.uid}
	if s.Profile == V11 {
		out["id"] = b.id
	}
	return ok(out)
}

// versions answers a bare list on 11, and a list in an object later; the newest comes first.
func (s *Server) versions(c call) reply {
	b := c.me.org.boards[c.segments[2]]
	if b == nil {
		return fail(http.StatusNotFound, "Dashboard not found")
	}
	limit, err := strconv.Atoi(c.query.Get("limit"))
	if err != nil || limit <= 0 {
		limit = 1000
	}
	out := []any{}
	for i := len(b.history) - 1; i >= 0 && len(out) < limit; i-- {
		e := b.history[i]
		v := b.edition(i)
		switch {
		case s.Profile != V12:
			delete(v, "data")
		case e.version == 1: // has no parent: the list does not look at its message
			v["message"] = "Initial save"
		}
		out = append(out, v)
	}
	if s.Profile == V11 {
		return ok(out)
	}
	return ok(map[string]any{"continueToken": "", "versions": out})
}

// edition is one entry of the history, whole.
func (b *dashboard) edition(i int) map[string]any {
	e, parent := b.history[i], int64(0)
	if i > 0 {
		parent = b.history[i-1].version
	}
	return map[string]any{
		"id": e.version, "dashboardId": b.id, "uid": b.uid, "parentVersion": parent, "restoredFrom": 0,
		"version": e.version,
		"created": e.at.Format(time.RFC3339), "createdBy": e.by, "message": e.message, "data": clone(e.model),
	}
}

func (s *Server) getVersion(c call) reply {
	b := c.me.org.boards[c.segments[2]]
	if b == nil {
		return fail(http.StatusNotFound, "Dashboard not found")
	}
	for i, e := range b.history {
		if strconv.FormatInt(e.version, 10) == c.segments[4] {
			return ok(b.edition(i))
		}
	}
	return fail(http.StatusNotFound, "Dashboard version not found")
}

// resource is a dashboard of the API that begins with /apis, which 11 lacks.
func (s *Server) resource(c call) reply {
	b := c.me.org.boards[c.segments[6]]
	if b == nil || s.Profile == V11 {
		return reply{status: http.StatusNotFound, body: map[string]any{
			"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
			"message": "not found",
		}}
	}
	last := b.history[len(b.history)-1]
	notes := map[string]any{
		"grafana.app/createdBy": b.createdBy, "grafana.app/updatedBy": b.editor,
		"grafana.app/message": last.message,
	}
	if b.folder != "" {
		notes["grafana.app/folder"] = b.folder
	}
	spec := clone(b.model)
	delete(spec, "uid")
	out := map[string]any{
		"kind": "Dashboard", "apiVersion": "dashboard.grafana.app/v0alpha1", "spec": spec, "status": map[string]any{},
		"metadata": map[string]any{
			"name": b.uid, "namespace": c.segments[4], "generation": b.version,
			"annotations": notes,
		},
	}
	if b.stored != "v0alpha1" {
		out["status"] = map[string]any{"conversion": map[string]any{"failed": false, "storedVersion": b.stored}}
	}
	return ok(out)
}

var tagForm = regexp.MustCompile(`\S`)

func tags(model map[string]any) []any {
	list, _ := model["tags"].([]any)
	out := []any{}
	for _, t := range list {
		if tagForm.MatchString(text(t)) {
			out = append(out, t)
		}
	}
	return out
}
