package grafana

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Imported is an object as a block of pipeline.hcl.
type Imported struct {
	Address string            // of the block
	HCL     string            // the block
	Files   map[string][]byte // files next to pipeline.hcl that it names
}

var blockName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Block is the block that declares an object as it is, so that the plan after it is empty. name is its uid, or the
// name under which Unmanaged lists it.
func Block(ctx context.Context, o *Org, kind, name string) (Imported, error) {
	s, err := o.load(ctx)
	if err != nil {
		return Imported{}, err
	}
	if err := o.survey(ctx, s); err != nil {
		return Imported{}, err
	}
	uid := o.resolve(s, kind, name)
	live, err := o.object(ctx, kind, uid)
	switch {
	case err != nil:
		return Imported{}, err
	case live == nil:
		return Imported{}, fmt.Errorf("there is no %s %s in Grafana", kind, name)
	}
	switch kind {
	case "folder":
		return o.folderBlock(ctx, s, uid, live)
	case "datasource":
		return o.sourceBlock(ctx, s, uid, live)
	case "dashboard":
		return o.boardBlock(ctx, s, uid)
	}
	return o.ruleBlock(ctx, s, uid, live)
}

// resolve finds the uid of a name: itself, or the one that Unmanaged would list under it.
func (o *Org) resolve(s *snapshot, kind, name string) string {
	var uids []string
	for _, h := range s.hits {
		if h.Type == map[string]string{"folder": "dash-folder", "dashboard": "dash-db"}[kind] {
			uids = append(uids, h.UID)
		}
	}
	if kind == "datasource" {
		uids = s.sourceUIDs()
	}
	if kind == "alert" {
		for _, r := range s.ruleList {
			uids = append(uids, jsonvalue.Text(r["uid"]))
		}
	}
	if i := slices.IndexFunc(uids, func(uid string) bool {
		return nameOf(uid) == name
	}); i >= 0 && !slices.Contains(uids, name) {
		return uids[i]
	}
	return name
}

// exact fails when a block would not declare all that is live.
func exact(address string, live, want *plan.State) error {
	diffs, _ := plan.Compare(nil, live, want)
	diffs = slices.DeleteFunc(diffs, func(d plan.Diff) bool { return d.Secret })
	if len(diffs) == 0 {
		return nil
	}
	var out []string
	for _, d := range diffs {
		out = append(out, fmt.Sprintf("%s is %s, and would be %s", d.Name, cmp.Or(d.Old, "none"),
			cmp.Or(d.New, "none")))
	}
	return fmt.Errorf("no block can say %s as it is: %s", address, some(out, 4))
}

// writer writes one block.
type writer struct {
	file    *hclwrite.File
	body    *hclwrite.Body
	address string
}

func newWriter(kind, name string) writer {
	w := writer{file: hclwrite.NewEmptyFile(), address: kind + "." + name}
	w.body = w.file.Body().AppendNewBlock(kind, []string{name}).Body()
	return w
}

func (w writer) text(name, value string) { w.body.SetAttributeValue(name, cty.StringVal(value)) }

// refer writes a reference such as folder.crypto.
func (w writer) refer(attr, address string) {
	kind, name, _ := strings.Cut(address, ".")
	w.body.SetAttributeTraversal(attr, hcl.Traversal{hcl.TraverseRoot{Name: kind}, hcl.TraverseAttr{Name: name}})
}

func (w writer) done(files map[string][]byte) Imported {
	return Imported{Address: w.address, HCL: string(hclwrite.Format(w.file.Bytes())), Files: files}
}

// ownName is the name of a block whose name makes the uid.
func ownName(kind, uid string) (string, error) {
	name := nameOf(uid)
	if !blockName.MatchString(name) || uidOf(name) != uid {
		return "", fmt.Errorf("the %s %s cannot be declared: a %s block makes its uid of its name, as "+
			"cv-prices of prices", kind, uid, kind)
	}
	return name, nil
}

// folderRef is the folder block of a uid: declared, or to be imported too.
func (o *Org) folderRef(uid string) (*spec.Folder, error) {
	if uid == "" {
		return nil, nil
	}
	for _, f := range o.p.Folders {
		if uidOf(f.Name) == uid {
			return f, nil
		}
	}
	name, err := ownName("folder", uid)
	if err != nil {
		return nil, fmt.Errorf("it is in a folder that no block can declare: %w", err)
	}
	return &spec.Folder{Name: name}, nil
}

func (o *Org) folderBlock(ctx context.Context, s *snapshot, uid string, state *plan.State) (Imported, error) {
	name, err := ownName("folder", uid)
	if err != nil {
		return Imported{}, err
	}
	live, err := o.folder(ctx, s, uid)
	if err != nil {
		return Imported{}, err
	}
	parent, err := o.folderRef(live.ParentUID)
	if err != nil {
		return Imported{}, err
	}
	w := newWriter("folder", name)
	w.text("title", live.Title)
	if parent != nil {
		w.refer("parent", "folder."+parent.Name)
	}
	return w.done(nil), exact(w.address, state,
		(&Folder{Org: o, Spec: &spec.Folder{Name: name, Title: live.Title, Parent: parent}}).want())
}

// freeName is a block's name for an object that has a uid of its own.
func freeName(uid, title string, used func(string) bool) string {
	name := nameOf(uid)
	if !strings.HasPrefix(uid, "cv-") || !blockName.MatchString(name) {
		name = strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(title), "_"), "_")
	}
	if !blockName.MatchString(name) {
		name = "d_" + strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(uid), "_"), "_")
	}
	name = name[:min(len(name), 44)]
	for n, base := 2, name; used(name); n++ {
		name = base + "_" + strconv.Itoa(n)
	}
	return name
}

func (o *Org) sourceBlock(ctx context.Context, s *snapshot, uid string, state *plan.State) (Imported, error) {
	live, err := o.source(ctx, s, uid)
	if err != nil {
		return Imported{}, err
	}
	if !dashboard.IsPostgres(live.Type) {
		return Imported{}, fmt.Errorf("the data source %s is of the type %s: only PostgreSQL data sources "+
			"can be declared", uid, live.Type)
	}
	get := func(name string) string { a, _ := state.Get(name); return a.Value }
	least, err := units.ParseDuration(get("min_interval"))
	if err != nil {
		return Imported{}, fmt.Errorf("its minimal interval %q is no duration", get("min_interval"))
	}
	x := &spec.DataSource{
		Name: freeName(uid, live.Name, func(n string) bool {
			return slices.ContainsFunc(o.p.DataSources, func(d *spec.DataSource) bool { return d.Name == n })
		}),
		Title: live.Name, UID: uid, Host: live.URL, Database: get("database"), User: live.User, SSLMode: get("sslmode"),
		MinInterval: least, Default: live.IsDefault,
	}
	w := newWriter("datasource", x.Name)
	w.text("title", x.Title)
	w.text("uid", x.UID)
	w.text("host", x.Host)
	w.text("database", x.Database)
	w.text("user", x.User)
	if live.Secrets["password"] {
		w.remark("Grafana does not reveal its password; it is left unchanged")
	}
	w.text("sslmode", x.SSLMode)
	w.text("min_interval", units.FormatDuration(x.MinInterval))
	if x.Default {
		w.body.SetAttributeValue("default", cty.True)
	}
	return w.done(nil), exact(w.address, state, (&DataSource{Org: o, Spec: x}).want())
}

func (w writer) remark(text string) {
	w.body.AppendUnstructuredTokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte("# " + text + "\n")}})
}

func (o *Org) boardBlock(ctx context.Context, s *snapshot, uid string) (Imported, error) {
	live, err := o.board(ctx, s, uid)
	if err != nil {
		return Imported{}, err
	}
	folder, err := o.folderRef(live.meta.FolderUID)
	if err != nil {
		return Imported{}, err
	}
	src, err := fileText(live.model.Raw, uid)
	if err != nil {
		return Imported{}, err
	}
	x := &spec.Dashboard{
		UID: uid, JSON: src, Folder: folder,
		Name: freeName(uid, jsonvalue.Text(live.model.Raw["title"]), func(n string) bool {
			return slices.ContainsFunc(o.p.Dashboards, func(d *spec.Dashboard) bool { return d.Name == n })
		}),
	}
	x.File = "dashboards/" + x.Name + ".json"
	w := newWriter("dashboard", x.Name)
	w.text("file", x.File)
	if folder != nil {
		w.refer("folder", "folder."+folder.Name)
	}
	for _, d := range o.p.DataSources {
		if d.UID == live.model.Source {
			with := *x
			with.DataSource = d
			if o.declares(&with, live) == nil {
				w.refer("datasource", "datasource."+d.Name)
				x = &with
			}
		}
	}
	return w.done(map[string][]byte{x.File: src}), o.declares(x, live)
}

// declares fails when a dashboard block would not declare a live dashboard as it is.
func (o *Org) declares(x *spec.Dashboard, live *board) error {
	d := &Dashboard{Org: o, Spec: x}
	if _, err := d.model(); err != nil {
		return err
	}
	return exact(d.Address(), d.state(live), d.want())
}

// fileText is a dashboard as a file: readable, and without what belongs to the server it came from.
func fileText(raw map[string]any, uid string) ([]byte, error) {
	raw = jsonvalue.Without(raw, dashboard.ServerKeys...)
	raw["uid"] = uid
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(raw)
	return buf.Bytes(), err
}

func (o *Org) ruleBlock(ctx context.Context, s *snapshot, uid string, state *plan.State) (Imported, error) {
	name, err := ownName("alert", uid)
	if err != nil {
		return Imported{}, err
	}
	live, err := o.rule(ctx, s, uid)
	if err != nil {
		return Imported{}, err
	}
	folder, err := o.folderRef(jsonvalue.Text(live.body["folderUID"]))
	if err != nil {
		return Imported{}, err
	}
	get := func(name string) plan.Attr { a, _ := state.Get(name); return a }
	x := &spec.Alert{
		Name: name, Title: get("title").Value, Folder: folder, Query: get("query").Raw,
		NoData: get("no_data").Value, Labels: map[string]string{}, Summary: get("summary").Value,
		Description: get("description").Value,
	}
	if i := slices.IndexFunc(o.p.DataSources, func(d *spec.DataSource) bool {
		return d.UID == get("datasource").Raw
	}); i >= 0 {
		x.DataSource = o.p.DataSources[i]
	} else {
		return Imported{}, fmt.Errorf("alert.%s reads the data source %s, which pipeline.hcl does not declare: "+
			"import that first", name, get("datasource").Raw)
	}
	word, limit, _ := strings.Cut(get("threshold").Value, " ")
	if f, ferr := strconv.ParseFloat(limit, 64); ferr == nil {
		*map[string]**float64{"above": &x.Above, "below": &x.Below}[word] = &f
	}
	x.For, _ = units.ParseDuration(get("for").Value) // what it cannot read, exact finds
	x.Every = time.Duration(live.interval) * time.Second
	for _, a := range state.Attrs {
		if k, is := strings.CutPrefix(a.Name, "label "); is {
			x.Labels[k] = a.Value
		}
	}
	w := newWriter("alert", name)
	w.alert(x)
	a := &Alert{Org: o, Spec: x}
	return w.done(nil), exact(w.address, o.ruleState(live, a.rule()), a.want())
}

func (w writer) alert(x *spec.Alert) {
	w.text("title", x.Title)
	w.refer("folder", "folder."+x.Folder.Name)
	w.refer("datasource", "datasource."+x.DataSource.Name)
	spec.WriteQuery(w.body, "query", x.Query)
	for name, limit := range map[string]*float64{"above": x.Above, "below": x.Below} {
		if limit != nil {
			w.body.SetAttributeValue(name, cty.NumberFloatVal(*limit))
		}
	}
	w.text("for", units.FormatDuration(x.For))
	w.text("every", units.FormatDuration(x.Every))
	w.text("no_data", x.NoData)
	if len(x.Labels) > 0 {
		labels := map[string]cty.Value{}
		for k, v := range x.Labels {
			labels[k] = cty.StringVal(v)
		}
		w.body.SetAttributeValue("labels", cty.ObjectVal(labels))
	}
	for _, note := range [][2]string{{"summary", x.Summary}, {"description", x.Description}} {
		if note[1] != "" {
			w.text(note[0], note[1])
		}
	}
}
