package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/jackc/pgx/v5"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// grafanaObjects reads what lives in Grafana. Without a grafana block there is no place for it.
func (l *loader) grafanaObjects(blocks map[string]hcl.Blocks,
	each func(kind string, read func(*hcl.Block, map[string]hcl.Range)),
) {
	l.once(blocks["grafana"], "A pipeline")
	l.grafana(blocks["grafana"])
	for _, kind := range []string{"folder", "datasource", "dashboard", "alert"} {
		if bs := blocks[kind]; len(bs) > 0 && len(blocks["grafana"]) == 0 {
			l.fail(bs[0].DefRange, "No grafana block",
				"Say where Grafana is: grafana { url = env(\"GRAFANA_URL\", \"http://localhost:3000\") }.")
			break
		}
	}
	folders, sources, dashboards, alerts := taken{}, taken{}, taken{}, taken{}
	inside := map[*spec.Folder]*block{}
	each("folder", func(b *hcl.Block, seen map[string]hcl.Range) { l.folder(b, seen, inside, folders) })
	l.parents(inside)
	each("datasource", func(b *hcl.Block, seen map[string]hcl.Range) { l.dataSource(b, seen, sources) })
	each("dashboard", func(b *hcl.Block, seen map[string]hcl.Range) { l.dashboard(b, seen, dashboards) })
	each("alert", func(b *hcl.Block, seen map[string]hcl.Range) { l.alert(b, seen, alerts) })
}

func (l *loader) grafana(blocks hcl.Blocks) {
	if len(blocks) == 0 {
		return
	}
	b := l.open(blocks[0], &hcl.BodySchema{Attributes: attrs([]string{"url"}, "auth", "timeout")}, l.ctx)
	l.p.Grafana = &spec.Grafana{
		URL:  strings.TrimRight(b.text("url", ""), "/"),
		Auth: b.password("auth", "GRAFANA_AUTH"), Timeout: b.duration("timeout", 15*time.Second, time.Second,
			5*time.Minute), Range: b.rng,
	}
	u, err := url.Parse(l.p.Grafana.URL)
	switch {
	case !b.good["url"]:
	case err == nil && u.User != nil || err != nil && strings.Contains(l.p.Grafana.URL, "@"):
		l.unseen(b.rangeOf("url"), "Password in a URL",
			"Put it into auth: auth = env(\"GRAFANA_AUTH\", \"\"). Change it, if this file was ever shared.")
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" ||
		u.Fragment != "":
		l.fail(b.rangeOf("url"), "Not a URL", "Write Grafana's whole URL: \"https://grafana.example.com\".")
	}
}

// taken holds what is one object's only, such as uids: the value, and the object that has it.
type taken map[string]string

// claim refuses a value that another object of the kind has, in its folder if it has one.
func (t taken) claim(b *block, attr, what string, in *spec.Folder, value, name, remedy string) {
	key := what + " " + value
	if in != nil {
		key += " " + in.Name
	}
	if other, twice := t[key]; twice && other != name {
		b.l.fail(b.rangeOf(attr), "Same "+what, "%s and %q have the same %s, %s: %s.", b.what, units.Clip(other), what,
			b.show(attr, value), remedy)
	}
	t[key] = name
}

// folder reads all but the parent, which may be declared later.
func (l *loader) folder(raw *hcl.Block, seen map[string]hcl.Range, inside map[*spec.Folder]*block, used taken) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"title"}, "parent")}, l.ctx)
	f := &spec.Folder{Name: name, Title: b.text("title", ""), Range: b.rng}
	used.claim(b, "", "uid", nil, uidOf(name), name,
		"it is made of the first letters of the name, so rename one of them")
	l.title(b, f.Title)
	if ok {
		l.folders[name], inside[f] = f, b
		l.p.Folders = append(l.p.Folders, f)
	}
}

// parents sets the parent of each folder, and reports a circle once, where it is cut open.
func (l *loader) parents(inside map[*spec.Folder]*block) {
	done := map[*spec.Folder]bool{}
	for _, f := range l.p.Folders {
		f.Parent, _ = refer(inside[f], "parent", "folder", l.folders)
	}
	for _, first := range l.p.Folders {
		path := map[*spec.Folder]bool{}
		for f := first; f != nil && !done[f]; f = f.Parent {
			path[f], done[f] = true, true
			if !path[f.Parent] {
				continue
			}
			l.fail(inside[f].rangeOf("parent"), "Folder in itself", "%s. A folder at the top has no parent.", circle(f))
			f.Parent = nil
		}
	}
}

// circle tells how a folder comes to be in itself.
func circle(f *spec.Folder) string {
	var in []string
	for up := f.Parent; up != f; up = up.Parent {
		in = append(in, "folder."+up.Name)
	}
	return units.Clip("folder." + f.Name + " is in " + strings.Join(append(in, "itself"), ", that in "))
}

// title refuses a title without a letter.
func (l *loader) title(b *block, title string) {
	if b.good["title"] && strings.TrimSpace(title) == "" {
		l.fail(b.rangeOf("title"), "Empty title", "%s needs a title.", b.what)
	}
}

func (l *loader) dataSource(raw *hcl.Block, seen map[string]hcl.Range, used taken) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "title", "uid", "host", "database", "user", "password",
		"sslmode", "min_interval", "default")}, l.ctx)
	host, database, user, sslmode := l.databaseParts()
	d := &spec.DataSource{
		Name: name, Title: b.text("title", name), UID: b.text("uid", uidOf(name)), Host: b.text("host", host),
		Database: b.text("database", database),
		User:     b.text("user", user), Password: b.password("password", "GRAFANA_DB_PASSWORD"),
		SSLMode:     b.text("sslmode", sslmode),
		MinInterval: b.duration("min_interval", time.Minute, time.Second, 24*time.Hour),
		Default:     b.flag("default", false), Range: b.rng,
	}
	l.title(b, d.Title)
	l.uid(b, "uid", d.UID)
	used.claim(b, "uid", "uid", nil, d.UID, name, "give one of them another, uid = \"…\"")
	used.claim(b, "title", "title", nil, d.Title, name, "Grafana wants each once")
	if other := used["default"]; d.Default && other != "" {
		l.fail(b.rangeOf("default"), "Two defaults", "datasource %q is Grafana's default already: there is one.",
			units.Clip(other))
	} else if d.Default {
		used["default"] = name
	}
	if l.p.Database.URL.Reveal() != "" && (d.Host == "" || d.User == "" || d.Database == "") {
		l.fail(b.rng, "Data source without a database",
			"%s: host, database and user are taken from database.url where they are not given, and it does not say: write host = \"localhost:5432\", database and user.", b.what)
	}
	if b.good["host"] && d.Host != "" && !strings.HasPrefix(d.Host, "/") && !hostPort(d.Host) {
		l.fail(b.rangeOf("host"), "Not a host",
			"%s: Grafana wants host:port, \"localhost:5432\", without postgres:// and one only.",
			b.show("host", d.Host))
	}
	modes := []string{"disable", "require", "verify-ca", "verify-full"}
	if !slices.Contains(modes, d.SSLMode) {
		l.fail(b.rangeOf("sslmode"), "Unknown sslmode", "%s is not known to Grafana.%s", b.show("sslmode", d.SSLMode),
			b.suggest("sslmode", d.SSLMode, modes))
	}
	if ok {
		l.dataSources[name] = d
		l.p.DataSources = append(l.p.DataSources, d)
	}
}

// tlsFiles are the settings of a database URL, or of a keyword/value string, that name files of the machine of the
// pipeline.
var tlsFiles = regexp.MustCompile(`\bssl(rootcert|cert|key)\s*=\s*('([^'\\]|\\.)*'|[^\s&]*)&?`)

// databaseParts reads what a data source needs from the pipeline's database URL, of several hosts the first. All are
// empty when it cannot be read. Where TLS is up to the server, the data source does without: Grafana knows no such
// mode.
func (l *loader) databaseParts() (host, database, user, sslmode string) {
	text := l.p.Database.URL.Reveal()
	if text == "" {
		return "", "", "", "disable"
	}
	cfg, err := pgx.ParseConfig(text)
	if err != nil { // the files may not be on this machine
		cfg, err = pgx.ParseConfig(tlsFiles.ReplaceAllString(text, ""))
	}
	if err != nil {
		return "", "", "", "disable"
	}
	switch optional := len(cfg.Fallbacks) > 0 && cfg.Fallbacks[0].TLSConfig == nil; {
	case cfg.TLSConfig == nil || optional:
		sslmode = "disable"
	case !cfg.TLSConfig.InsecureSkipVerify:
		sslmode = "verify-full"
	case cfg.TLSConfig.VerifyPeerCertificate != nil:
		sslmode = "verify-ca"
	default:
		sslmode = "require"
	}
	if strings.HasPrefix(cfg.Host, "/") { // a socket's folder; Grafana takes no port with it
		return cfg.Host, cfg.Database, cfg.User, sslmode
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), cfg.Database, cfg.User, sslmode
}

var uidForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)

func (l *loader) uid(b *block, attr, uid string) {
	if !uidForm.MatchString(uid) {
		l.fail(b.rangeOf(attr), "Not a uid", "%s: a Grafana uid has 1 to 40 letters, digits, - and _.",
			b.show(attr, uid))
	}
}

// uidOf is the uid of an object that is given none.
func uidOf(name string) string {
	uid := "cv-" + strings.ReplaceAll(name, "_", "-")
	return uid[:min(len(uid), 40)]
}

func (l *loader) dashboard(raw *hcl.Block, seen map[string]hcl.Range, used taken) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"file"}, "folder", "datasource")}, l.ctx)
	d := &spec.Dashboard{Name: name, UID: uidOf(name), Range: b.rng}
	if b.has("folder") {
		d.Folder, _ = refer(b, "folder", "folder", l.folders)
	}
	if b.has("datasource") {
		d.DataSource, _ = refer(b, "datasource", "datasource", l.dataSources)
	}
	switch file := b.text("file", ""); {
	case !b.good["file"]:
	case b.secret["file"]:
		l.fail(b.rangeOf("file"), "Secret path",
			"The path of a dashboard cannot come from the environment or a sensitive variable: its name appears in messages.")
	default:
		d.File = path.Clean(file)
		l.dashboardFile(b, d, file)
		used.claim(b, "file", "uid", nil, d.UID, name, "change it in one of the files")
	}
	if ok {
		l.p.Dashboards = append(l.p.Dashboards, d)
	}
}

// escapedNUL is the escape for the character NUL in JSON, and not a backslash before u0000.
var escapedNUL = regexp.MustCompile(`(?:^|[^\\])(?:\\\\)*\\u0000`)

// dashboardFile reads the JSON of a dashboard.
func (l *loader) dashboardFile(b *block, d *spec.Dashboard, file string) {
	at := b.rangeOf("file")
	src, err := l.readFile(file)
	if err != nil {
		l.fail(at, "Cannot read "+units.Clip(d.File), "%s", diag.Sentence(err.Error()))
		return
	}
	if len(src) > limits.MaxFile {
		l.fail(at, "File too large", "%s is larger than 1 MiB.", units.Clip(d.File))
		return
	}
	if src = bytes.TrimPrefix(src, []byte("\ufeff")); !utf8.Valid(src) {
		l.fail(at, "Not UTF-8", "%s is not UTF-8 text.", units.Clip(d.File))
		return
	}
	var model struct {
		UID        string           `json:"uid"`
		Title      string           `json:"title"`
		APIVersion *json.RawMessage `json:"apiVersion"`
		Elements   *json.RawMessage `json:"elements"`
		Inputs     *json.RawMessage `json:"__inputs"`
	}
	switch err := json.Unmarshal(src, &model); {
	case err != nil:
		l.fail(at, "Not dashboard JSON", "%s: %s", units.Clip(d.File), notDashboard(src, err))
		return
	case model.Elements != nil || model.APIVersion != nil:
		l.fail(at, "Dashboard of schema v2",
			"%s is a version 2 export (it has `elements` or `apiVersion`): export it as classic JSON.",
			units.Clip(d.File))
	case model.Inputs != nil:
		l.fail(at, "Export for sharing",
			"%s holds __inputs: export it without \"share externally\", or use the variable ${datasource}.",
			units.Clip(d.File))
	case escapedNUL.Match(src):
		l.fail(at, "NUL in a text", "%s holds the character NUL (\\u0000), which no PostgreSQL keeps. Take it out.",
			units.Clip(d.File))
	case strings.TrimSpace(model.Title) == "":
		l.fail(at, "Dashboard without a title", "%s has no title.", units.Clip(d.File))
	}
	d.JSON = src
	if model.UID != "" {
		d.UID = model.UID
		l.uid(b, "file", d.UID)
	}
}

// notDashboard says in plain words why a file is no dashboard.
func notDashboard(src []byte, err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fmt.Sprintf("it holds a JSON %s, not an object { … }.", units.Clip(wrong.Value))
		}
		return fmt.Sprintf("%s is a JSON %s; it must be a text.", units.Clip(wrong.Field), units.Clip(wrong.Value))
	}
	if wrong := (*json.SyntaxError)(nil); errors.As(err, &wrong) {
		return fmt.Sprintf("line %d: %s", 1+bytes.Count(src[:min(int(wrong.Offset), len(src))], []byte("\n")),
			diag.Sentence(units.Clip(wrong.Error())))
	}
	return diag.Sentence(units.Clip(err.Error()))
}

func (l *loader) alert(raw *hcl.Block, seen map[string]hcl.Range, used taken) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs([]string{"title", "folder", "datasource", "query"}, "above", "below", "for", "every",
			"no_data", "labels", "summary", "description"),
	}, l.ctx)
	a := &spec.Alert{
		Name: name, Title: b.text("title", ""), For: b.duration("for", 5*time.Minute, 0, 7*24*time.Hour),
		Every:  b.duration("every", time.Minute, 10*time.Second, 24*time.Hour),
		NoData: b.text("no_data", "nodata"), Labels: b.textMap("labels"), Summary: b.text("summary", ""),
		Description: b.text("description", ""),
		Above:       b.float("above"), Below: b.float("below"), Range: b.rng,
	}
	a.Query, a.QueryAt, _ = l.query(b)
	a.Folder, _ = refer(b, "folder", "folder", l.folders)
	a.DataSource, _ = refer(b, "datasource", "datasource", l.dataSources)
	l.title(b, a.Title)
	used.claim(b, "", "uid", nil, uidOf(name), name,
		"it is made of the first letters of the name, so rename one of them")
	if a.Folder != nil && b.good["title"] {
		used.claim(b, "title", "title", a.Folder, a.Title, name, "Grafana wants each once in a folder")
	}
	if b.has("above") == b.has("below") {
		l.fail(b.rng, "One threshold", "%s fires above or below a number: give exactly one of above and below.", b.what)
	}
	if a.Every%(10*time.Second) != 0 {
		l.fail(b.rangeOf("every"), "Not a multiple of 10 s", "Grafana evaluates rules at multiples of ten seconds.")
	}
	states := []string{"nodata", "alert", "ok"}
	if !slices.Contains(states, a.NoData) {
		l.fail(b.rangeOf("no_data"), "Unknown value", "no_data says what an empty result means.%s",
			b.suggest("no_data", a.NoData, states))
	}
	if ok {
		l.p.Alerts = append(l.p.Alerts, a)
	}
}

// float reads a number, nil when it is absent.
func (b *block) float(name string) *float64 {
	v, ok := b.value(name, cty.Number)
	if !ok {
		return nil
	}
	f, _ := v.AsBigFloat().Float64()
	if math.IsInf(f, 0) {
		b.l.fail(b.rangeOf(name), "Number out of range", "%s.%s is not a finite number.", b.what, name)
		return nil
	}
	return &f
}
