package provision_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// subject is one resource type, as an object that says everything which the type can say.
type subject struct {
	kind       string
	address    string
	files      map[string]string // pipeline.hcl without its head, and the files that it names
	rows       string            // SQL that fills its tables, once they are there
	attributes []attribute
	removed    string // the codes of its deletion
}

// attribute is one change of pipeline.hcl, and the same attribute changed outside.
type attribute struct {
	fields     string             // of package spec, which this is the case of: "Topic.Config"
	edit       []string           // old, new, …: each old one stands once in the files; after it pipeline.hcl stays so, unless it is refused
	action     plan.Action        // what the object's change is; "": update
	shows      []string           // exactly what plan shows: "retention: 7d -> 1d", or the name alone where the value is a digest
	codes      string             // exactly the findings
	drift      func(*conformance) // changes exactly this attribute outside
	driftShows []string           // exactly what plan shows of that
	driftCodes string
	yield      []string           // an edit that makes pipeline.hcl follow a drift that cannot be set back
	fixed      string             // why there is no drift
	left       func(*conformance) // takes away what the change or the drift leaves behind, as plan says
}

// conformance is the harness of one subject.
type conformance struct {
	*harness
	subject subject
	kind    string // for messages
	address string
	grafana *grafanatest.Server
	files   map[string]string
	paths   map[string]bool // of all Grafana objects that it ever declared
	reader  string          // a role's name that no other database has
	now     []string        // what is outside, after the last apply
}

// Every resource type keeps one contract: created, planned again: empty. Each attribute changed: plan shows exactly it; applied:
// empty. Each attribute changed outside: plan shows it as drift; applied: it is back, and the plan is empty. Removed: it is gone.
func TestConformance(t *testing.T) {
	t.Parallel()
	var seeds []string
	for _, b := range testkit.KafkaCluster(t, 2) {
		seeds = append(seeds, b.Addr())
	}
	kafka := client(t, seeds...)
	t.Run("timescale", func(t *testing.T) { // one server, which takes seconds to start
		t.Parallel()
		db := database(t, testkit.Timescale(t))
		for _, s := range timescaleSubjects() {
			t.Run(s.kind, func(t *testing.T) { conforms(t, s, db, kafka, grafanatest.V13) })
		}
	})
	for _, s := range slices.Concat(kafkaSubjects(), tableSubjects(), databaseSubjects()) {
		t.Run(s.kind, func(t *testing.T) {
			t.Parallel()
			conforms(t, s, database(t, freshDatabase(t)), kafka, grafanatest.V13)
		})
	}
	for _, profile := range []grafanatest.Profile{grafanatest.V11, grafanatest.V13} {
		for _, s := range grafanaSubjects() {
			t.Run(s.kind+" "+profile.String(), func(t *testing.T) {
				t.Parallel()
				conforms(t, s, database(t, testkit.Postgres(t)), kafka, profile)
			})
		}
	}
}

func conforms(t *testing.T, s subject, db *pgxpool.Pool, kafka *kgo.Client, profile grafanatest.Profile) {
	t.Helper()
	c := &conformance{
		harness: &harness{t: t, db: db, kafka: kafka}, subject: s, kind: s.kind, grafana: grafanatest.New(t, profile), files: s.files, paths: map[string]bool{},
		reader: "reader_of_" + db.Config().ConnConfig.Database,
	}
	c.address = strings.ReplaceAll(s.address, "READER", c.reader)
	nothing := c.create()
	for i, a := range s.attributes {
		name := strings.Fields(a.fields)[0]
		t.Run(fmt.Sprintf("%d %s", i+1, name), func(t *testing.T) {
			c.t = t
			if len(a.edit) > 0 && !c.change(a) {
				return
			}
			if a.drift != nil {
				c.drifts(a)
			}
		})
		c.t = t
	}
	if !t.Failed() {
		c.remove(nothing)
	}
}

// create makes what the subject hangs on, then the subject itself. It returns what there was before that.
func (c *conformance) create() []string {
	c.t.Helper()
	what := c.kind + ", creation"
	c.say(c.without())
	if !c.engine() {
		c.do(what+" of what it hangs on", c.plan(), nil)
	}
	nothing := c.outside()
	c.say(c.subject.files)
	found := c.plan()
	if !c.engine() {
		c.only(what, found, plan.Create)
	}
	for _, d := range c.of(found).Diffs {
		if d.Cause != plan.Intent {
			c.t.Errorf("%s: %s is %s, want %s", what, d.Name, d.Cause, plan.Intent)
		}
	}
	c.do(what, found, nothing)
	if c.subject.rows != "" {
		c.exec(c.subject.rows)
	}
	c.empty(c.kind + ", created")
	c.now = c.outside()
	return nothing
}

// change edits pipeline.hcl and applies it. It returns false for what is refused, which it takes back.
func (c *conformance) change(a attribute) bool {
	c.t.Helper()
	what, before, files := c.kind+", "+a.fields, c.now, c.files
	c.edit(a.edit)
	found := c.plan()
	c.only(what, found, cmp.Or(a.action, plan.Update))
	c.shows(what, found, a.shows, a.codes, func(d plan.Diff) plan.Cause {
		if d.New == "" && !d.Secret { // a secret is given up by null alone
			return plan.Reset
		}
		return plan.Intent
	})
	if c.refuses(what, found, before) {
		c.say(files)
		c.empty(what + ", taken back")
		return false
	}
	c.do(what, found, before)
	c.empty(what + ", applied")
	if a.left != nil {
		a.left(c)
	}
	if c.now = c.outside(); len(differ(before, c.now)) == 0 {
		c.t.Errorf("%s: apply changed nothing", what)
	}
	return true
}

// drifts changes an attribute outside, and has apply set it back.
func (c *conformance) drifts(a attribute) {
	c.t.Helper()
	what, before := c.kind+", "+a.fields+" changed outside", c.now
	a.drift(c)
	after := c.outside()
	if len(differ(before, after)) == 0 {
		c.t.Fatalf("%s: nothing is", what)
	}
	found := c.plan()
	c.only(what, found, plan.Update, plan.Replace)
	c.shows(what, found, a.driftShows, a.driftCodes, func(plan.Diff) plan.Cause { return plan.Drift })
	if c.refuses(what, found, after) {
		c.edit(a.yield)
		c.do(what, c.plan(), after)
		c.empty(what + ", accepted")
		c.now = c.outside()
		return
	}
	c.do(what, found, after)
	c.empty(what + ", set back")
	if a.left != nil {
		a.left(c)
	}
	c.now = c.outside()
	for _, d := range differ(before, c.now) {
		c.t.Errorf("%s and set back: %s", what, d)
	}
}

// remove deletes the subject with a removed block.
func (c *conformance) remove(nothing []string) {
	c.t.Helper()
	what, w := c.kind+", removed", c.open()
	if c.engine() {
		w = w.Destroying(nil)
	} else {
		files := c.without()
		files["pipeline.hcl"] += "removed {\n  object = " + c.subject.address + "\n}\n"
		c.say(files)
		w = c.open()
	}
	found, err := w.Plan(c.t.Context())
	if err != nil || len(found.Errors) > 0 {
		c.t.Fatalf("%s: %v %+v", what, err, found.Errors)
	}
	if !c.engine() {
		c.only(what, found, plan.Delete)
	}
	c.shows(what, found, nil, c.subject.removed, nil)
	c.agreed(what, w, found, c.now)
	for _, d := range differ(nothing, c.outside()) {
		c.t.Errorf("%s: %s", what, d)
	}
	if !c.engine() {
		c.empty(what)
	}
}

// engine tells whether the subject is the engine's own tables. They come before everything else, and go with destroy alone.
func (c *conformance) engine() bool { return c.address == plan.EngineAddress }

// only wants nothing but the subject to be changed.
func (c *conformance) only(what string, found plan.Plan, actions ...plan.Action) {
	c.t.Helper()
	for _, x := range found.Changes {
		switch {
		case x.Address == c.address && !slices.Contains(actions, x.Action):
			c.t.Errorf("%s: %s is to %s, want %s", what, x.Address, x.Action, actions)
		case x.Address != c.address && (x.Changes() || x.Marks() || len(x.Findings) > 0):
			c.t.Errorf("%s: something else changes: %s", what, told(x))
		}
	}
}

func (c *conformance) of(found plan.Plan) plan.Change {
	c.t.Helper()
	x, there := changes(found)[c.address]
	if !there {
		c.t.Fatalf("%s: plan does not know %s", c.kind, c.address)
	}
	return x
}

// shows wants exactly these differences, for these causes, and these findings.
func (c *conformance) shows(what string, found plan.Plan, want []string, codes string, cause func(plan.Diff) plan.Cause) {
	c.t.Helper()
	x := c.of(found)
	var got []string
	for i, d := range x.Diffs {
		text := d.Name
		if i < len(want) && strings.Contains(want[i], ": ") {
			text += ": " + d.Old + " -> " + d.New
		}
		got = append(got, text)
		if d.Cause != cause(d) {
			c.t.Errorf("%s: %s is %s, want %s", what, d.Name, d.Cause, cause(d))
		}
	}
	if !slices.Equal(got, want) {
		c.t.Errorf("%s shows %q, want %q\n%s", what, got, want, told(x))
	}
	var has []string
	for _, f := range x.Findings {
		has = append(has, f.Code)
	}
	if have := strings.Join(has, " "); have != codes {
		c.t.Errorf("%s has the findings %q, want %q\n%s", what, have, codes, told(x))
	}
}

// refuses tells whether the change is impossible; then apply must leave everything as it is.
func (c *conformance) refuses(what string, found plan.Plan, before []string) bool {
	c.t.Helper()
	if !c.of(found).Impossible() {
		return false
	}
	c.leaves(what, c.open(), found, before, everything(found)...)
	return true
}

// leaves wants apply to skip the subject, and to change nothing.
func (c *conformance) leaves(what string, w *provision.Stack, found plan.Plan, before []string, allow ...plan.Consent) {
	c.t.Helper()
	results, _ := w.Apply(c.t.Context(), found, provision.Options{Allow: allow, By: "test", Version: "0"})
	if r := outcomes(results)[c.address]; r.Outcome != provision.Skipped {
		c.t.Errorf("%s: %s is %s, want %s", what, c.address, r.Outcome, provision.Skipped)
	}
	for _, d := range differ(before, c.outside()) {
		c.t.Errorf("%s: apply may not, and does: %s", what, d)
	}
}

func (c *conformance) do(what string, found plan.Plan, before []string) {
	c.t.Helper()
	c.agreed(what, c.open(), found, before)
}

// agreed applies with consent; without it, what destroys is left alone.
func (c *conformance) agreed(what string, w *provision.Stack, found plan.Plan, before []string) {
	c.t.Helper()
	if x, there := changes(found)[c.address]; there && x.Class() == plan.Destroys {
		c.leaves(what+" without consent", w, found, before)
	}
	results, err := w.Apply(c.t.Context(), found, provision.Options{Allow: everything(found), By: "test", Version: "0"})
	if err != nil {
		c.t.Errorf("%s: %v\n%s", what, err, said(results, nil))
	}
}

// edit changes the files. What is replaced stands in them once.
func (c *conformance) edit(pairs []string) {
	c.t.Helper()
	files := maps.Clone(c.files)
	for pair := range slices.Chunk(pairs, 2) {
		in, n := "", 0
		for name, text := range files {
			if k := strings.Count(text, pair[0]); k > 0 {
				in, n = name, n+k
			}
		}
		if n != 1 {
			c.t.Fatalf("%s: %q stands %d times in the files", c.kind, pair[0], n)
		}
		files[in] = strings.Replace(files[in], pair[0], pair[1], 1)
	}
	c.say(files)
}

// say takes the files as the pipeline.
func (c *conformance) say(files map[string]string) {
	c.t.Helper()
	all := fstest.MapFS{}
	for name, text := range files {
		if name == "pipeline.hcl" {
			text = hostileHead + strings.ReplaceAll(text, "READER", c.reader)
		}
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	c.files = files
	c.p = mustLoad(&fresh{TB: c.t}, all, map[string]string{"GRAFANA_URL": c.grafana.URL, "GRAFANA_AUTH": c.grafana.Token})
	uid := func(name string) string { return "cv-" + strings.ReplaceAll(name, "_", "-") }
	for _, f := range c.p.Folders {
		c.paths["folders/"+uid(f.Name)] = true
	}
	for _, d := range c.p.DataSources {
		c.paths["datasources/uid/"+d.UID] = true
	}
	for _, d := range c.p.Dashboards {
		c.paths["dashboards/uid/"+d.UID] = true
	}
	for _, a := range c.p.Alerts {
		c.paths["v1/provisioning/alert-rules/"+uid(a.Name)] = true
		c.paths["v1/provisioning/folder/"+uid(a.Folder.Name)+"/rule-groups/"+uid(a.Name)] = true
	}
}

// fresh is a test that has not failed yet.
type fresh struct {
	testing.TB
	failed bool
}

func (f *fresh) Errorf(format string, args ...any) {
	f.failed = true
	f.TB.Errorf(format, args...)
}

func (f *fresh) Failed() bool { return f.failed }

// without is the pipeline without the subject's own block.
func (c *conformance) without() map[string]string {
	kind, name, _ := strings.Cut(c.subject.address, ".")
	out := maps.Clone(c.files)
	text := out["pipeline.hcl"]
	if from := strings.Index(text, fmt.Sprintf("%s %q {\n", kind, name)); from >= 0 {
		_, rest, _ := strings.Cut(text[from:], "\n}\n")
		out["pipeline.hcl"] = text[:from] + rest
	}
	return out
}
