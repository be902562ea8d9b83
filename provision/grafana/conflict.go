package grafana

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// assess separates what the file changes and what people changed in Grafana since the last apply. What both changed,
// and what only people changed where the file changes nothing, is overwritten with consent only; where the file
// changes other places, both are kept.
func (d *Dashboard) assess(ctx context.Context, c *plan.Change) error {
	m, err := d.model()
	if err != nil {
		return err
	}
	s, err := d.Org.load(ctx)
	if err != nil {
		return err
	}
	renamedUID(c, "dashboard", d.Spec.UID)
	if c.Action == plan.Create {
		c.Diffs = slices.DeleteFunc(c.Diffs, func(x plan.Diff) bool { return x.New == "" })
		d.finish(c, s, nil)
		return nil
	}
	live, err := d.live(ctx, s)
	if err != nil || live == nil {
		return err
	}
	j := assessment{d: d, c: c, want: m, live: live, last: renamed(c.Base(), c.Live, c.Want)}
	j.compare()
	if len(c.Diffs) == 0 {
		c.Action = plan.None
		return nil
	}
	c.Action = plan.Update
	if live.meta.provisioned() {
		c.Find(codeProvisioned, "", "%s is provisioned from %s on Grafana's server: it cannot be saved", c.Address,
			cmp.Or(live.meta.External, "a file"))
		return nil
	}
	if v2, err := d.Org.client.v2(ctx, s, d.Spec.UID, live); err != nil {
		return err
	} else if v2 {
		c.Find(codeSchemaV2, "", "%s was saved in the layout of schema version 2, by %s, %s",
			c.Address, live.meta.UpdatedBy, moment(live.meta.Updated))
		return nil
	}
	if err := j.conflict(ctx); err != nil {
		return err
	}
	d.finish(c, s, live)
	return nil
}

// renamedUID finds a dashboard or data source that lives under another uid now.
func renamedUID(c *plan.Change, what, uid string) {
	if was, known := c.Last.Get("uid"); known && was.Value != uid {
		c.Find(codeNewUID, "uid",
			"the uid changed from %s: the %s of that uid stays, unmanaged, and what links to it stays with it",
			was.Value, what)
	}
}

// finish adds the request and the warnings to a change that is to be made.
func (d *Dashboard) finish(c *plan.Change, s *snapshot, live *board) {
	if len(c.Diffs) == 0 {
		c.Action = plan.None
		return
	}
	s.foresee(c)
	c.Do = d.save
	body := d.compose(live, *c)
	at := "new"
	if live != nil {
		at = fmt.Sprintf("version %d", live.meta.Version)
	}
	c.Steps = []string{fmt.Sprintf("POST /api/dashboards/db uid %s, %s, folder %s, overwrite false: %d bytes, %s",
		d.Spec.UID, at, cmp.Or(folderUID(d.Spec.Folder), "root"), len(jsonvalue.Encode(body)), jsonvalue.Digest(body))}
	for _, warning := range append(dashboard.Lint(d.Spec), d.unknownSources(s)...) {
		c.Note("%s", warning)
	}
}

// unknownSources names data sources that the dashboard reads and that will not be there.
func (d *Dashboard) unknownSources(s *snapshot) []string {
	if s.listErr != nil {
		return nil
	}
	known := func(uid string) bool {
		return slices.ContainsFunc(d.Org.p.DataSources, func(x *spec.DataSource) bool { return x.UID == uid }) ||
			slices.ContainsFunc(s.sourceUIDs(), func(x string) bool { return x == uid })
	}
	var out []string
	for _, p := range d.file.Parts {
		ref, _ := p.Body["datasource"].(map[string]any)
		if uid := jsonvalue.Text(ref["uid"]); uid != "" && !strings.ContainsAny(uid, "$[") &&
			!strings.HasPrefix(uid, "-- ") && uid != "grafana" && uid != "__expr__" && !known(uid) {
			out = append(out, fmt.Sprintf("%s reads the data source %s, which Grafana does not have", p.Name, uid))
		}
	}
	return out
}

func (s *snapshot) sourceUIDs() (out []string) {
	for _, d := range s.sourceList {
		out = append(out, d.UID)
	}
	return out
}

// assessment is the three-way comparison of one dashboard that exists.
type assessment struct {
	d    *Dashboard
	c    *plan.Change
	want *dashboard.Model
	live *board
	last *plan.State // with today's names
}

// compare finds the differences again, with what the last apply had set piece by piece: fields that left a panel's
// file go, fields that are not declared are no difference, and the causes are exact.
func (j *assessment) compare() {
	c := j.c
	c.Diffs, c.Extra = plan.Compare(j.last, c.Live, c.Want)
	for i := range c.Diffs {
		c.Diffs[i] = j.cause(c.Diffs[i])
	}
	for _, w := range c.Want.Attrs {
		was, known := j.last.Get(w.Name)
		have, there := c.Live.Get(w.Name)
		if _, differs := c.Diff(w.Name); differs || !known || !there || was.Raw == "" || w.Raw == "" {
			continue
		}
		if gone := jsonvalue.Dropped(parsed(have.Raw), parsed(w.Raw), parsed(was.Raw)); len(gone) > 0 {
			c.Diffs = append(c.Diffs, plan.Diff{
				Name: w.Name, Old: "with " + some(gone, 3), New: w.Value,
				OldRaw: have.Raw, NewRaw: w.Raw, Cause: plan.Intent,
			})
		}
	}
}

// cause works out who made a difference in a piece whose earlier content is known.
func (j *assessment) cause(d plan.Diff) plan.Diff {
	was, known := j.last.Get(d.Name)
	have, there := j.c.Live.Get(d.Name)
	if !known || !there || was.Raw == "" {
		return d
	}
	theirs, ours := !jsonvalue.Covers(parsed(have.Raw), parsed(was.Raw)), d.NewRaw != was.Raw
	switch {
	case d.Name == "layout": // panels that come and go are no move of the others
		theirs, ours = len(moved(parsed(have.Raw), parsed(was.Raw))) > 0,
			len(moved(parsed(d.NewRaw), parsed(was.Raw))) > 0
	case keyOf(d.Name) == "":
		theirs = have.Value != was.Value
	}
	switch {
	case d.Cause == plan.Reset:
		if d.Applied = ""; theirs {
			d.Applied = was.Value
		}
	case theirs && ours:
		d.Cause, d.Applied = plan.Both, was.Value
	case theirs:
		d.Cause, d.Applied = plan.Drift, ""
	default:
		d.Cause, d.Applied = plan.Intent, ""
	}
	return d
}

// moved are the keys of the panels that have another place in one layout than in another; what only one of them has
// is left out.
func moved(a, b any) (keys []string) {
	from, _ := a.(map[string]any)
	to, _ := b.(map[string]any)
	for _, k := range slices.Sorted(maps.Keys(from)) {
		if place, there := to[k]; there && !jsonvalue.Equal(jsonvalue.Project(from[k], place), place) {
			keys = append(keys, k)
		}
	}
	return keys
}

// edition is one version in a dashboard's history.
type edition struct {
	Version int64  `json:"version"`
	Created string `json:"created"`
	By      string `json:"createdBy"`
	Message string `json:"message"`
}

// history lists versions, the newest first. Version 11 answers a bare list, later ones an object.
func (c *Client) history(ctx context.Context, uid string) ([]edition, error) {
	var in json.RawMessage
	err := c.call(ctx, http.MethodGet, []string{"api", "dashboards", "uid", uid, "versions"},
		url.Values{"limit": {"20"}}, nil, &in)
	if err != nil {
		return nil, err
	}
	var page struct {
		Versions []edition `json:"versions"`
	}
	if json.Unmarshal(in, &page) != nil && json.Unmarshal(in, &page.Versions) != nil {
		return nil, fmt.Errorf("the answer about the versions of dashboard %s is of another form than expected", uid)
	}
	i := slices.IndexFunc(page.Versions, func(v edition) bool {
		return v.Version == 1 || strings.HasPrefix(v.Message, mark)
	})
	if i < 0 || strings.HasPrefix(page.Versions[i].Message, mark) {
		return page.Versions, nil
	}
	// In the list of 12.4, version 1 is an "Initial save", whatever it was saved with.
	path := []string{"api", "dashboards", "uid", uid, "versions", "1"}
	err = c.call(ctx, http.MethodGet, path, nil, nil, &page.Versions[i])
	return page.Versions, err
}

// savedByUs reports whether the newest version is one that we saved, and nothing was changed since.
func (j *assessment) savedByUs(versions []edition) bool {
	if len(versions) == 0 || versions[0].Version != j.live.meta.Version {
		return false
	}
	return versions[0].Message == mark+j.live.print
}

// conflict assesses what people changed.
func (j *assessment) conflict(ctx context.Context) error {
	c := j.c
	_, refresh := c.Diff("refresh")
	if !c.Adopt && !refresh && !slices.ContainsFunc(c.Diffs, func(d plan.Diff) bool { return d.Cause != plan.Intent }) {
		j.noteDetails("", nil)
		return nil
	}
	versions, err := j.d.Org.client.history(ctx, j.d.Spec.UID)
	if err != nil && status(err) != http.StatusForbidden && !missing(err) {
		return err
	}
	if j.savedByUs(versions) {
		j.asSaved()
		return nil
	}
	ours, theirs, both := j.split()
	who := j.who(versions)
	switch {
	case len(theirs)+len(both) == 0:
		back := slices.DeleteFunc(slices.Clone(c.Diffs), func(d plan.Diff) bool {
			return d.Cause == plan.Intent || d.Name == "folder"
		})
		if len(back) > 0 {
			c.Note("%s; apply sets back %s", who, some(names(back), 8))
		}
		j.noteDetails(who, nil)
	case len(both) == 0 && len(ours) > 0:
		c.Find(codeEditsMerged, "", "%s: %s: these edits are kept, and the file's changes are made in the other places",
			who, some(j.edited(theirs), 8))
		for _, d := range theirs {
			c.Note("kept %s as it is in Grafana: %s", d.Name, some(j.edits(d), 6))
		}
		c.Diffs = slices.DeleteFunc(c.Diffs, func(d plan.Diff) bool { return slices.Contains(names(theirs), d.Name) })
		j.noteDetails(who, nil)
	default:
		lost := append(both, theirs...)
		f := c.Find(codeEditsLost, "", "%s: these edits of %s would be lost", who, some(j.edited(lost), 12))
		f.Loss = &plan.Loss{Unit: plan.Objects, Count: 1, Known: true, When: "at once"}
		j.noteDetails(who, names(lost))
	}
	return nil
}

// asSaved is a dashboard that is as we saved it: nothing in it is another user's, and a longer refresh is Grafana's
// minimum.
func (j *assessment) asSaved() {
	c := j.c
	for i := range c.Diffs {
		// a move makes no version
		if c.Diffs[i].Name != "folder" && (c.Diffs[i].Cause == plan.Drift || c.Diffs[i].Cause == plan.Both) {
			c.Diffs[i].Cause, c.Diffs[i].Applied = plan.Intent, ""
		}
	}
	if d, differs := c.Diff("refresh"); differs && d.Cause != plan.Reset && shorter(d.New, d.Old) && j.asked(d.New) {
		c.Note("Grafana raises the refresh of %s to %s, its min_refresh_interval", d.New, d.Old)
		c.Diffs = slices.DeleteFunc(c.Diffs, func(x plan.Diff) bool { return x.Name == "refresh" })
	}
	j.noteDetails("", nil)
}

// asked reports whether the last apply had asked for this refresh already.
func (j *assessment) asked(refresh string) bool {
	was, known := j.last.Get("refresh")
	return !known || was.Value == refresh
}

func shorter(a, b string) bool {
	x, errA := units.ParseDuration(a)
	y, errB := units.ParseDuration(b)
	return errA == nil && errB == nil && x < y
}

// split sorts the differences: ours, those of people in what the file does not touch, and those that both touched.
// Without the ledger, all that differs there is theirs. What is no work, or is shown in full, as a title, is set back
// without consent.
func (j *assessment) split() (ours, theirs, both []plan.Diff) {
	for _, d := range j.c.Diffs {
		work := d.Old != "" && isDigest(d)
		switch {
		case work && (j.last == nil || d.Cause == plan.Both), keyOf(d.Name) != "" && d.Cause == plan.Reset &&
			d.Applied != "":
			both = append(both, d)
		case work && d.Cause == plan.Drift:
			theirs = append(theirs, d)
		case d.Cause != plan.Drift:
			ours = append(ours, d)
		}
	}
	return ours, theirs, both
}

// isDigest reports whether a value is too long to be shown: a panel, a variable, the layout, a list of links.
func isDigest(d plan.Diff) bool {
	return strings.HasPrefix(d.OldRaw, "{") && d.Name != "time" && !strings.HasPrefix(d.Old, "{") ||
		strings.HasPrefix(d.OldRaw, "[") && d.Name != "tags" && !strings.HasPrefix(d.Old, "[")
}

// edited names what people edited: of the layout, the panels that they moved.
func (j *assessment) edited(diffs []plan.Diff) (out []string) {
	for _, d := range diffs {
		name := d.Name
		if name == "layout" {
			before := j.before(name)
			if before == nil {
				before = parsed(d.NewRaw)
			}
			var panels []string
			for _, key := range moved(parsed(d.OldRaw), before) {
				panels = append(panels, j.want.Part(key).Name)
			}
			name = "the place of " + some(panels, 6)
		}
		out = append(out, name)
	}
	return out
}

func names(diffs []plan.Diff) (out []string) {
	for _, d := range diffs {
		out = append(out, d.Name)
	}
	return out
}

// editors are those whose work a dashboard may hold: who saved it since our last version, and whose edits that
// version kept. last is who saved the newest version, should the history not be readable.
func editors(versions []edition, last string) []string {
	var out []string
	add := func(name string) {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, v := range versions {
		if strings.HasPrefix(v.Message, mark) {
			_, names, _ := strings.Cut(v.Message, kept)
			for name := range strings.SplitSeq(names, ", ") {
				add(name)
			}
			break
		}
		add(v.By)
	}
	if len(out) == 0 {
		add(last)
	}
	return out
}

// who names who saved the dashboard last, and since which version of ours.
func (j *assessment) who(versions []edition) string {
	meta, own := j.live.meta, ""
	by := strings.Join(editors(versions, meta.UpdatedBy), ", before by ")
	for _, v := range versions {
		if !strings.HasPrefix(v.Message, mark) {
			continue
		}
		if v.Version == meta.Version {
			return fmt.Sprintf("edited in Grafana by %s, and kept by the last apply (version %d)", by, meta.Version)
		}
		own = fmt.Sprintf(" (the last apply's is %d)", v.Version)
		break
	}
	return fmt.Sprintf("saved in Grafana by %s, %s, version %d%s", by, moment(meta.Updated), meta.Version, own)
}

// noteDetails notes which fields differ inside of each piece.
func (j *assessment) noteDetails(who string, lost []string) {
	for _, d := range j.c.Diffs {
		if d.Old == "" || d.New == "" || d.OldRaw == "" || d.NewRaw == "" || d.Name == "tags" || d.Name == "time" {
			continue
		}
		list := jsonvalue.Differences(jsonvalue.Project(parsed(d.OldRaw), parsed(d.NewRaw)), parsed(d.NewRaw))
		if gone := jsonvalue.Dropped(parsed(d.OldRaw), parsed(d.NewRaw), j.before(d.Name)); len(gone) > 0 {
			list = append(list, "without "+some(gone, 4))
		}
		if len(list) == 0 || keyOf(d.Name) == "" && d.Name != "layout" && len(d.Old) <= 60 && len(d.New) <= 60 &&
			!strings.HasPrefix(d.OldRaw, "{") && !strings.HasPrefix(d.OldRaw, "[") {
			continue
		}
		tail := ""
		if who != "" && slices.Contains(lost, d.Name) && j.last != nil {
			tail = fmt.Sprintf("; in Grafana it was changed: %s", some(j.edits(d), 6))
		}
		j.c.Note("%s: %s%s", d.Name, some(list, 6), tail)
	}
}

func (j *assessment) before(attr string) any {
	a, _ := j.last.Get(attr)
	return parsed(a.Raw)
}

// edits are what people changed in a piece since the last apply.
func (j *assessment) edits(d plan.Diff) []string {
	was, have := j.before(d.Name), parsed(d.OldRaw)
	// panels that the file had, and those that it has now
	if layout, is := was.(map[string]any); is && d.Name == "layout" {
		now, _ := have.(map[string]any)
		maps.DeleteFunc(layout, func(key string, _ any) bool { return now[key] == nil })
	}
	return jsonvalue.Differences(was, jsonvalue.Project(have, was))
}
