package grafanatest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

type folder struct {
	id                 int64
	uid, title, parent string
	version            int64
	createdBy, editor  string
	created, updated   time.Time
	age                int // requests since it was written, for search
}

func (s *Server) dto(o *org, f *folder) map[string]any {
	out := map[string]any{
		"id": f.id, "uid": f.uid, "orgId": o.id, "title": f.title, "url": fmt.Sprintf("/dashboards/f/%s/%s", f.uid,
			s.slug(f.title)), "hasAcl": false,
		"canSave": true, "canEdit": true, "canAdmin": true, "canDelete": true, "createdBy": f.createdBy,
		"created":   f.created.Format(time.RFC3339),
		"updatedBy": f.editor, "updated": f.updated.Format(time.RFC3339), "version": f.version,
	}
	if p := o.folders[f.parent]; p != nil {
		out["parentUid"] = p.uid
		parents := []any{}
		for ; p != nil; p = o.folders[p.parent] {
			parents = append([]any{map[string]any{
				"uid": p.uid, "title": p.title,
				"url": fmt.Sprintf("/dashboards/f/%s/%s", p.uid, s.slug(p.title)),
			}}, parents...)
		}
		out["parents"] = parents
	}
	return out
}

func folderMissing() reply { return failAs(http.StatusNotFound, "not-found", "folder not found") }

func changed() reply {
	return failAs(http.StatusPreconditionFailed, "version-mismatch", "the folder has been changed by someone else")
}

// old is the answer to a PUT with an old version.
func (s *Server) old() reply {
	if s.Profile == V12 {
		return failAs(http.StatusPreconditionFailed, "version-mismatch",
			"The dashboard has been changed by someone else")
	}
	return changed()
}

func (s *Server) listFolders(c call) reply {
	limit, page := paging(c, 1000)
	parent := c.query.Get("parentUid")
	if parent != "" && c.me.org.folders[parent] == nil {
		return folderMissing()
	}
	var all []*folder
	for _, f := range c.me.org.folders {
		if f.parent == parent {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *folder) int {
		return cmp.Or(cmp.Compare(a.title, b.title), cmp.Compare(a.uid, b.uid))
	})
	out := []any{}
	for _, f := range window(all, limit, page) {
		item := map[string]any{"id": f.id, "uid": f.uid, "title": f.title}
		if f.parent != "" {
			item["parentUid"] = f.parent
		}
		out = append(out, item)
	}
	return ok(out)
}

func paging(c call, limit int) (int, int) {
	if n, err := strconv.Atoi(c.query.Get("limit")); err == nil && n > 0 {
		limit = min(n, 5000)
	}
	page, err := strconv.Atoi(c.query.Get("page"))
	if err != nil || page < 1 {
		page = 1
	}
	return limit, page
}

func window[T any](all []T, limit, page int) []T {
	from := min(len(all), limit*(page-1))
	return all[from:min(len(all), from+limit)]
}

func (s *Server) createFolder(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o := c.me.org
	uid, title, parent := text(in["uid"]), text(in["title"]), text(in["parentUid"])
	if bad := badUID(uid); bad != nil {
		return *bad
	}
	if title == "" {
		return fail(http.StatusBadRequest, "folder title cannot be empty")
	}
	if parent != "" && o.folders[parent] == nil {
		return folderMissing()
	}
	switch depth := o.depth(parent); {
	case s.Profile == V12 && depth >= 5:
		return fail(http.StatusInternalServerError, "max folder depth exceeded")
	case s.Profile != V12 && depth >= 4:
		return fail(http.StatusBadRequest, "folder max depth exceeded, max depth is 4")
	}
	if uid != "" && (o.folders[uid] != nil || s.Profile == V11 && o.boards[uid] != nil) {
		if s.Profile == V11 {
			return fail(http.StatusConflict, "a folder/dashboard with the same uid already exists")
		}
		return changed()
	}
	if s.Profile == V11 && o.titleTaken(title, parent) {
		return fail(http.StatusConflict, "a folder with the same name already exists in the current location")
	}
	o.lastID++
	if uid == "" {
		uid = fmt.Sprintf("gen%09d", o.lastID)
	}
	f := &folder{
		id: o.lastID, uid: uid, title: title, parent: parent, version: 1, createdBy: c.me.name,
		editor: c.me.name, created: s.now, updated: s.now,
	}
	o.folders[uid] = f
	return ok(s.dto(o, f))
}

func (o *org) depth(uid string) int {
	n := 0
	for f := o.folders[uid]; f != nil; f = o.folders[f.parent] {
		n++
	}
	return n
}

func (o *org) titleTaken(title, parent string) bool {
	for _, f := range o.folders {
		if f.title == title && f.parent == parent {
			return true
		}
	}
	return false
}

func (s *Server) getFolder(c call) reply {
	f := c.me.org.folders[c.segments[1]]
	if f == nil {
		return folderMissing()
	}
	return ok(s.dto(c.me.org, f))
}

func (s *Server) updateFolder(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	f := c.me.org.folders[c.segments[1]]
	switch {
	case f == nil:
		return folderMissing()
	case !flag(in["overwrite"]) && number(in["version"]) != f.version:
		return s.old()
	case text(in["title"]) == "":
		return fail(http.StatusBadRequest, "folder title cannot be empty")
	}
	f.title, f.editor, f.updated, f.age = text(in["title"]), c.me.name, s.now, 0
	f.version++
	return ok(s.dto(c.me.org, f))
}

func (s *Server) moveFolder(c call) reply {
	in, bad := c.object()
	if bad != nil {
		return *bad
	}
	o := c.me.org
	f, parent := o.folders[c.segments[1]], text(in["parentUid"])
	if f == nil || parent != "" && o.folders[parent] == nil {
		return folderMissing()
	}
	for p := o.folders[parent]; p != nil; p = o.folders[p.parent] {
		if p == f {
			return fail(http.StatusBadRequest, "cannot move a folder under itself or one of its descendants")
		}
	}
	f.parent, f.editor, f.updated, f.age = parent, c.me.name, s.now, 0
	f.version++
	return ok(s.dto(o, f))
}

func (s *Server) deleteFolder(c call) reply {
	o := c.me.org
	f := o.folders[c.segments[1]]
	if f == nil {
		return folderMissing()
	}
	inside := map[string]bool{f.uid: true}
	for grown := true; grown; {
		grown = false
		for _, x := range o.folders {
			if inside[x.parent] && !inside[x.uid] {
				inside[x.uid], grown = true, true
			}
		}
	}
	for _, r := range o.rules {
		if inside[r.folder] && c.query.Get("forceDeleteRules") != "true" {
			if s.Profile == V12 {
				return failID(http.StatusBadRequest, "folder.not-empty",
					"Folder cannot be deleted: folder is not empty")
			}
			return fail(http.StatusBadRequest, "folder cannot be deleted: folder is not empty: contains alert rules")
		}
	}
	for uid, b := range o.boards {
		if inside[b.folder] {
			delete(o.boards, uid)
		}
	}
	for uid, r := range o.rules {
		if inside[r.folder] {
			delete(o.rules, uid)
		}
	}
	for uid := range inside {
		delete(o.folders, uid)
	}
	return ok(map[string]any{"id": f.id, "title": f.title, "message": fmt.Sprintf("Folder %s deleted", f.title)})
}
