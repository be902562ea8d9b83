package grafanatest

import (
	"cmp"
	"slices"
)

type hit struct {
	uid, title string
	body       map[string]any
}

// search lists dashboards and folders. From 12 on it does not see what was written a moment ago.
func (s *Server) search(c call) reply {
	limit, page := paging(c, 1000)
	o := c.me.org
	kind := c.query.Get("type")
	var all []hit
	visible := func(age int) bool { return s.Profile == V11 || age > s.lag }
	for _, f := range o.folders {
		if (kind == "" || kind == "dash-folder") && visible(f.age) && within(c, f.parent) {
			all = append(all, s.hit(o, f.id, f.uid, f.title, "dash-folder", "/dashboards/f/", f.parent, nil))
		}
	}
	for _, b := range o.boards {
		if (kind == "" || kind == "dash-db") && visible(b.age) && within(c, b.folder) && tagged(c, tags(b.model)) {
			all = append(all, s.hit(o, b.id, b.uid, text(b.model["title"]), "dash-db", "/d/", b.folder, tags(b.model)))
		}
	}
	slices.SortFunc(all, func(a, b hit) int { return cmp.Or(cmp.Compare(a.title, b.title), cmp.Compare(a.uid, b.uid)) })
	out := []any{}
	for _, h := range window(all, limit, page) {
		out = append(out, h.body)
	}
	return ok(out)
}

func (s *Server) hit(o *org, id int64, uid, title, kind, route, folder string, tags []any) hit {
	if tags == nil {
		tags = []any{}
	}
	body := map[string]any{
		"id": id, "uid": uid, "orgId": o.id, "title": title, "uri": "db/" + s.slug(title), "url": route + uid + "/" +
			s.slug(title), "slug": "",
		"type": kind, "tags": tags, "isStarred": false, "sortMeta": 0, "isDeleted": false,
	}
	if f := o.folders[folder]; f != nil {
		body["folderId"], body["folderUid"], body["folderTitle"], body["folderUrl"] = f.id, f.uid, f.title,
			"/dashboards/f/"+f.uid+"/"+s.slug(f.title)
	}
	return hit{uid: uid, title: title, body: body}
}

func within(c call, folder string) bool {
	wanted := c.query["folderUIDs"]
	return len(wanted) == 0 || slices.Contains(wanted, folder)
}

func tagged(c call, have []any) bool {
	return !slices.ContainsFunc(c.query["tag"], func(t string) bool { return !slices.Contains(have, any(t)) })
}
