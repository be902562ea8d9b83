package grafana

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	gapi "github.com/grafana/grafana-api-golang-client"
	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// parallel is how many requests are under way at once.
const parallel = 8

// Org is what the pipeline's resources share of one Grafana: each declared object, read once, by its uid and never by
// search, which lags behind from Grafana 12 on. It is read on first use.
type Org struct {
	client *Client
	p      *spec.Pipeline

	mu      sync.Mutex
	snap    *snapshot
	sent    int // requests before the snapshot
	seconds time.Duration
}

// NewOrg makes the snapshot; nothing is read yet.
func NewOrg(c *Client, p *spec.Pipeline) *Org { return &Org{client: c, p: p, sent: c.Requests()} }

// Describe says what was read.
func (o *Org) Describe() plan.Read {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := plan.Read{
		System: "Grafana", Text: o.client.where(), Requests: o.client.Requests() - o.sent,
		Seconds: o.seconds.Seconds(),
	}
	s := o.snap
	if s == nil || s.err != nil {
		return r
	}
	version := "version hidden"
	if s.version != "" {
		version = s.version
	}
	r.Text += fmt.Sprintf(" (%s, %s)", version, s.name)
	if s.searched {
		found := map[string]int{}
		for _, h := range s.hits {
			found[h.Type]++
		}
		r.Text += fmt.Sprintf(": %s, %s, %s, %s", plan.Counted(found["dash-folder"], "folder"),
			plan.Counted(len(s.sourceList), "data source"), plan.Counted(found["dash-db"], "dashboard"),
			plan.Counted(len(s.ruleList), "alert rule"))
	}
	return r
}

// snapshot is what was read. An object that could not be read keeps its error, and does not hide the others.
type snapshot struct {
	version string
	major   int
	name    string // of the org
	org     int64
	rights  map[string][]string // scopes by action, of the credentials; nil when Grafana does not say
	err     error               // nothing can be read

	folders cells[folder]
	sources cells[source]
	boards  cells[board]
	rules   cells[rule]

	sourceList []*gapi.DataSource
	listErr    error
	ruleList   []map[string]any
	rulesErr   error
	hits       []gapi.FolderDashboardSearchResponse
	searched   bool
}

// cells are objects by uid, read at most once each; nil is an object that is not there.
type cells[T any] struct{ read sync.Map }

func (c *cells[T]) get(uid string, read func() (*T, error)) (*T, error) {
	once, _ := c.read.LoadOrStore(uid, sync.OnceValues(read))
	return once.(func() (*T, error))()
}

// forget makes the next get read an object again: it was changed.
func (c *cells[T]) forget(uid string) { c.read.Delete(uid) }

// load reads all that the pipeline declares.
func (o *Org) load(ctx context.Context) (*snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.snap != nil {
		return o.snap, o.snap.err
	}
	started := time.Now()
	s := &snapshot{}
	s.err = o.read(ctx, s)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	o.snap = s
	o.seconds += time.Since(started)
	return s, s.err
}

func (o *Org) read(ctx context.Context, s *snapshot) error {
	probe, pctx := errgroup.WithContext(ctx)
	probe.Go(func() (err error) { s.org, s.name, err = o.client.organization(pctx); return err })
	probe.Go(func() (err error) { s.rights, err = o.client.rights(pctx); return err })
	probe.Go(func() (err error) { s.version, s.major, err = o.client.version(pctx); return err })
	if err := probe.Wait(); err != nil {
		return err
	}
	group := errgroup.Group{}
	group.SetLimit(parallel)
	run := func(do func()) { group.Go(func() error { do(); return nil }) }
	if len(o.p.DataSources)+len(o.p.Dashboards) > 0 {
		run(func() { s.sourceList, s.listErr = o.client.dataSources(ctx) })
	}
	if len(o.p.Alerts) > 0 {
		run(func() {
			s.ruleList, s.rulesErr = o.client.rules(ctx)
			o.groups(ctx, s)
		})
	}
	for _, f := range o.p.Folders {
		run(func() { _, _ = o.folder(ctx, s, uidOf(f.Name)) })
	}
	for _, d := range o.p.DataSources {
		run(func() { _, _ = o.source(ctx, s, d.UID) })
	}
	for _, d := range o.p.Dashboards {
		run(func() { _, _ = o.board(ctx, s, d.UID) })
	}
	return group.Wait()
}

// groups reads the groups of the declared rules: the interval is theirs.
func (o *Org) groups(ctx context.Context, s *snapshot) {
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for _, a := range o.p.Alerts {
		group.Go(func() error { _, _ = o.rule(ctx, s, uidOf(a.Name)); return nil })
	}
	_ = group.Wait()
}

func (o *Org) folder(ctx context.Context, s *snapshot, uid string) (*folder, error) {
	return s.folders.get(uid, func() (*folder, error) { return o.client.folder(ctx, uid) })
}

func (o *Org) source(ctx context.Context, s *snapshot, uid string) (*source, error) {
	return s.sources.get(uid, func() (*source, error) { return o.client.source(ctx, uid) })
}

func (o *Org) board(ctx context.Context, s *snapshot, uid string) (*board, error) {
	return s.boards.get(uid, func() (*board, error) { return o.client.board(ctx, uid) })
}

// rule finds a rule in the list of all, and asks for the interval of its group.
func (o *Org) rule(ctx context.Context, s *snapshot, uid string) (*rule, error) {
	if s.rulesErr != nil {
		return nil, s.rulesErr
	}
	return s.rules.get(uid, func() (*rule, error) {
		i := slices.IndexFunc(s.ruleList, func(r map[string]any) bool { return r["uid"] == uid })
		if i < 0 {
			return nil, nil
		}
		return o.client.interval(ctx, s.ruleList[i])
	})
}

// uidOf is the uid of a declared object that has none of its own.
func uidOf(name string) string {
	uid := "cv-" + strings.ReplaceAll(name, "_", "-")
	return uid[:min(len(uid), 40)]
}

// nameOf is the name that a block of an object would have.
func nameOf(uid string) string {
	return strings.ReplaceAll(strings.TrimPrefix(uid, "cv-"), "-", "_")
}

// named is an object as the block is called that makes its uid, also when that block is gone or renamed: what the
// last apply set has the name of then.
func named(kind, uid string) string {
	if strings.HasPrefix(uid, "cv-") {
		return kind + "." + nameOf(uid)
	}
	return "uid " + uid
}

// folderName is a folder as pipeline.hcl names it.
func (o *Org) folderName(uid string) string {
	if uid == "" || uid == "general" {
		return "root"
	}
	for _, f := range o.p.Folders {
		if uidOf(f.Name) == uid {
			return "folder." + f.Name
		}
	}
	return named("folder", uid)
}

func folderUID(f *spec.Folder) string {
	if f == nil {
		return ""
	}
	return uidOf(f.Name)
}

// sourceName is a data source as pipeline.hcl names it.
func (o *Org) sourceName(uid string) string {
	for _, d := range o.p.DataSources {
		if d.UID == uid {
			return "datasource." + d.Name
		}
	}
	return named("datasource", uid)
}

// Unmanaged lists what is there and not declared. Search is good enough for that: what it does not show yet, the next
// plan does.
func (o *Org) Unmanaged(ctx context.Context) ([]string, error) {
	s, err := o.load(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.survey(ctx, s); err != nil {
		return nil, err
	}
	declared := map[string]bool{}
	for _, f := range o.p.Folders {
		declared["folder "+uidOf(f.Name)] = true
	}
	for _, d := range o.p.DataSources {
		declared["datasource "+d.UID] = true
	}
	for _, d := range o.p.Dashboards {
		declared["dashboard "+d.UID] = true
	}
	for _, a := range o.p.Alerts {
		declared["alert "+uidOf(a.Name)] = true
	}
	var out []string
	add := func(kind, uid string) {
		if uid != "" && !declared[kind+" "+uid] {
			out = append(out, kind+"."+nameOf(uid))
		}
	}
	for _, h := range s.hits {
		add(map[string]string{"dash-folder": "folder", "dash-db": "dashboard"}[h.Type], h.UID)
	}
	for _, d := range s.sourceList {
		add("datasource", d.UID)
	}
	for _, r := range s.ruleList {
		add("alert", jsonvalue.Text(r["uid"]))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// survey reads the lists that only Unmanaged and an import need.
func (o *Org) survey(ctx context.Context, s *snapshot) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.searched {
		return nil
	}
	started := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { s.hits, err = o.client.search(gctx, nil); return err })
	if len(o.p.DataSources)+len(o.p.Dashboards) == 0 {
		group.Go(func() (err error) { s.sourceList, err = o.client.dataSources(gctx); return noAccess(err) })
	}
	if s.ruleList == nil && s.rulesErr == nil {
		group.Go(func() (err error) { s.ruleList, err = o.client.rules(gctx); return noAccess(err) })
	}
	err := group.Wait()
	s.searched = err == nil
	o.seconds += time.Since(started)
	return err
}

// noAccess forgives a list that these credentials may not see, or that this Grafana has not: the pipeline declares
// nothing in it.
func noAccess(err error) error {
	if s := status(err); s == http.StatusForbidden || s == http.StatusNotFound {
		return nil
	}
	return err
}

// searchPage is the number of hits in one answer.
const searchPage = 1000

// search lists dashboards and folders, page by page.
func (c *Client) search(ctx context.Context, query url.Values) ([]gapi.FolderDashboardSearchResponse, error) {
	lib, err := c.library(ctx)
	if err != nil {
		return nil, err
	}
	var out []gapi.FolderDashboardSearchResponse
	for page := 1; ; page++ {
		q := url.Values{"limit": {fmt.Sprint(searchPage)}, "page": {fmt.Sprint(page)}}
		maps.Copy(q, query)
		hits, err := lib.FolderDashboardSearch(q)
		if err != nil {
			return nil, clean(err)
		}
		out = append(out, hits...)
		if len(hits) < searchPage {
			return out, nil
		}
	}
}
