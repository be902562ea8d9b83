package grafana

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	gapi "github.com/grafana/grafana-api-golang-client"
	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// folder is a folder as Grafana has it.
type folder struct {
	UID       string `json:"uid"`
	Title     string `json:"title"`
	ParentUID string `json:"parentUid"`
	Version   int64  `json:"version"`
}

func (c *Client) folder(ctx context.Context, uid string) (*folder, error) {
	var f folder
	err := c.call(ctx, http.MethodGet, []string{"api", "folders", uid}, nil, nil, &f)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &f, nil
}

// Folder is the resource of a folder block.
type Folder struct {
	Spec *spec.Folder
	Org  *Org
}

// Address is folder.NAME.
func (f *Folder) Address() string { return "folder." + f.Spec.Name }

// Where is its place in pipeline.hcl.
func (f *Folder) Where() string { return where(f.Spec.Range) }

func where(r hcl.Range) string {
	if r.Filename == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line)
}

func (f *Folder) dependsOn() []string {
	if f.Spec.Parent == nil {
		return nil
	}
	return []string{"folder." + f.Spec.Parent.Name}
}

func (f *Folder) uid() string { return uidOf(f.Spec.Name) }

// want is what the block says.
func (f *Folder) want() *plan.State {
	return f.Org.folderState(&folder{UID: f.uid(), Title: f.Spec.Title, ParentUID: folderUID(f.Spec.Parent)})
}

func (o *Org) folderState(f *folder) *plan.State {
	if f == nil {
		return nil
	}
	return &plan.State{Attrs: []plan.Attr{
		{Name: "uid", Value: f.UID}, {Name: "title", Value: f.Title}, {
			Name: "parent", Value: o.folderName(f.ParentUID),
			Raw: f.ParentUID,
		},
	}}
}

// Observe reads the folder.
func (f *Folder) Observe(ctx context.Context) (plan.Observation, error) {
	live, err := f.Org.object(ctx, "folder", f.uid())
	return plan.Observation{Live: live, Want: f.want(), DependsOn: f.dependsOn(), Assess: f.assess}, err
}

// assess finds what a move means, and lists the requests.
func (f *Folder) assess(ctx context.Context, c *plan.Change) error {
	s, err := f.Org.load(ctx)
	if err != nil {
		return err
	}
	s.foresee(c)
	c.Do = f.make
	switch c.Action {
	case plan.Create:
		c.Steps = []string{"POST /api/folders " + jsonvalue.Encode(f.body())}
	case plan.Update:
		if d, titled := c.Diff("title"); titled {
			c.Steps = append(c.Steps, fmt.Sprintf("PUT /api/folders/%s %s", f.uid(),
				jsonvalue.Encode(map[string]any{"title": d.New})))
		}
		if d, moved := c.Diff("parent"); moved {
			c.Find(codeFolderMoves, "parent", "%s moves from %s to %s: who may see and edit it follows from there",
				c.Address, d.Old, d.New)
			c.Steps = append(c.Steps, fmt.Sprintf("POST /api/folders/%s/move %s", f.uid(),
				jsonvalue.Encode(map[string]any{"parentUid": d.NewRaw})))
		}
	default:
	}
	return nil
}

func (f *Folder) body() map[string]any {
	out := map[string]any{"uid": f.uid(), "title": f.Spec.Title}
	if f.Spec.Parent != nil {
		out["parentUid"] = folderUID(f.Spec.Parent)
	}
	return out
}

// make creates, renames or moves it.
func (f *Folder) make(ctx context.Context, c plan.Change) error {
	s, err := f.Org.load(ctx)
	if err != nil {
		return err
	}
	if err := f.apply(ctx, s, c); err != nil {
		return f.Org.settled(ctx, f, c.Address, err)
	}
	return nil
}

func (f *Folder) apply(ctx context.Context, s *snapshot, c plan.Change) error {
	path := []string{"api", "folders", f.uid()}
	defer s.folders.forget(f.uid())
	if c.Action == plan.Create {
		return f.Org.client.call(ctx, http.MethodPost, path[:2], nil, f.body(), nil)
	}
	live, err := f.Org.folder(ctx, s, f.uid())
	if err != nil {
		return err
	}
	if live == nil {
		return fmt.Errorf("%s is gone: plan again", c.Address)
	}
	if _, titled := c.Diff("title"); titled {
		in := map[string]any{"title": f.Spec.Title, "version": live.Version}
		if err := f.Org.client.call(ctx, http.MethodPut, path, nil, in, nil); err != nil {
			return err
		}
	}
	if _, moved := c.Diff("parent"); moved {
		in := map[string]any{"parentUid": folderUID(f.Spec.Parent)}
		if err := f.Org.client.call(ctx, http.MethodPost, append(path, "move"), nil, in, nil); err != nil {
			return err
		}
	}
	return nil
}

// fresh reads the one object again, past the snapshot.
func (f *Folder) fresh(ctx context.Context) (*plan.State, error) {
	live, err := f.Org.client.folder(ctx, f.uid())
	return f.Org.folderState(live), err
}

// object is what settled needs of a resource.
type object interface {
	want() *plan.State
	fresh(ctx context.Context) (*plan.State, error)
}

// settled looks at a write that failed: an answer may be lost, or the same write may have been made before. If the
// object is as it is wanted, all is well; if it changed underneath, the error says so.
func (o *Org) settled(ctx context.Context, r object, address string, failure error) error {
	if s := status(failure); !conflict(failure) && s != 0 && s < 500 || ctx.Err() != nil {
		return failure
	}
	live, err := r.fresh(ctx)
	if err != nil || live == nil {
		return failure
	}
	diffs, _ := plan.Compare(nil, live, r.want())
	diffs = slices.DeleteFunc(diffs, func(d plan.Diff) bool { return d.Secret })
	if len(diffs) == 0 {
		return nil
	}
	if !conflict(failure) {
		return failure
	}
	var names []string
	for _, d := range diffs {
		names = append(names, fmt.Sprintf("%s is %s", d.Name, cmp.Or(d.Old, "none")))
	}
	return fmt.Errorf("%s was changed by another user in the meantime (%s): plan again (%w)",
		address, some(names, 6), failure)
}

// held is one object in a folder. Titles may be there twice, uids not.
type held struct{ kind, title, uid string }

func (h held) String() string { return fmt.Sprintf("%s %q", h.kind, h.title) }

// exact names the object alone.
func (h held) exact() string { return fmt.Sprintf("%s %q (uid %q)", h.kind, h.title, h.uid) }

// contents lists what a folder holds, and what the folders in it hold.
func (o *Org) contents(ctx context.Context, uid string) (out []held, rules bool, err error) {
	inside := []string{uid}
	for i := 0; i < len(inside); i++ {
		var children []folder
		if err := o.client.call(ctx, http.MethodGet, []string{"api", "folders"}, url.Values{"parentUid": {inside[i]}},
			nil, &children); err != nil {
			return nil, false, err
		}
		for _, f := range children {
			out, inside = append(out, held{"folder", f.Title, f.UID}), append(inside, f.UID)
		}
	}
	hits, err := o.client.search(ctx, url.Values{"folderUIDs": inside, "type": {"dash-db"}})
	if err != nil {
		return nil, false, err
	}
	for _, h := range hits {
		out = append(out, held{"dashboard", h.Title, h.UID})
	}
	list, err := o.client.rules(ctx)
	if noAccess(err) != nil {
		return nil, false, err
	}
	for _, r := range list {
		if slices.Contains(inside, jsonvalue.Text(r["folderUID"])) {
			out, rules = append(out, held{"alert rule", jsonvalue.Text(r["title"]), jsonvalue.Text(r["uid"])}), true
		}
	}
	slices.SortFunc(out, func(a, b held) int { return strings.Compare(a.exact(), b.exact()) })
	return out, rules, nil
}

// assessFolder is about a folder that a removed block wants gone.
func (o *Org) assessFolder(ctx context.Context, uid string, c *plan.Change) error {
	found, rules, err := o.contents(ctx, uid)
	if err != nil {
		return err
	}
	c.Steps = []string{deleteFolder(uid, rules)}
	c.Do = func(ctx context.Context, c plan.Change) error { return o.removeFolder(ctx, uid, c, found) }
	if len(found) == 0 {
		return nil
	}
	var names, exact []string
	for _, h := range found {
		names, exact = append(names, h.String()), append(exact, h.exact())
	}
	f := c.Find(codeFolderDeleted, "", "with it go %s", some(names, 12))
	f.Loss = &plan.Loss{Unit: plan.Objects, Count: int64(len(found)), Known: true, When: "at once"}
	c.Steps = append(c.Steps, "holding "+strings.Join(exact, ", "))
	return nil
}

func deleteFolder(uid string, rules bool) string {
	return fmt.Sprintf("DELETE /api/folders/%s?forceDeleteRules=%t", uid, rules)
}

// removeFolder deletes a folder, if it holds what it held when it was assessed, or less.
func (o *Org) removeFolder(ctx context.Context, uid string, c plan.Change, known []held) error {
	s, err := o.load(ctx)
	if err != nil {
		return err
	}
	defer s.folders.forget(uid)
	found, rules, err := o.contents(ctx, uid)
	if err != nil {
		if missing(err) {
			return nil
		}
		return err
	}
	for _, h := range found {
		if !slices.Contains(known, h) {
			return fmt.Errorf("%s contains something new, %s: plan again", c.Address, h.exact())
		}
	}
	lib, err := o.client.library(ctx)
	if err != nil {
		return err
	}
	var force []url.Values
	if rules {
		force = append(force, gapi.ForceDeleteFolderRules())
	}
	if err := lib.DeleteFolder(uid, force...); err != nil && !missing(clean(err)) {
		return clean(err)
	}
	return nil
}
