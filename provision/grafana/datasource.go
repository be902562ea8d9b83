package grafana

import (
	"cmp"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	gapi "github.com/grafana/grafana-api-golang-client"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// source is a data source as Grafana has it. The library's type lacks the names of the secrets.
type source struct {
	gapi.DataSource
	Secrets map[string]bool `json:"secureJsonFields"`
}

func (c *Client) source(ctx context.Context, uid string) (*source, error) {
	var s source
	err := c.call(ctx, http.MethodGet, []string{"api", "datasources", "uid", uid}, nil, nil, &s)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

func (c *Client) dataSources(ctx context.Context) ([]*gapi.DataSource, error) {
	lib, err := c.library(ctx)
	if err != nil {
		return nil, err
	}
	out, err := lib.DataSources()
	return out, clean(err)
}

// DataSource is the resource of a datasource block.
type DataSource struct {
	Spec *spec.DataSource
	Org  *Org
}

// Address is datasource.NAME.
func (d *DataSource) Address() string { return "datasource." + d.Spec.Name }

// Where is its place in pipeline.hcl.
func (d *DataSource) Where() string { return where(d.Spec.Range) }

// hash is what the ledger keeps of the password: salted with the data source's own name, and slow to try out.
func (d *DataSource) hash() string {
	hashed, known := d.Org.client.hashes.Load(*d.Spec)
	if !known {
		key, err := pbkdf2.Key(sha256.New, d.Spec.Password.Reveal(), []byte("cryptoviz data source "+d.Spec.UID),
			d.Org.client.rounds, 16)
		if err != nil {
			panic("grafana: hash a password: " + err.Error()) // its parameters are constant
		}
		hashed, _ = d.Org.client.hashes.LoadOrStore(*d.Spec, hex.EncodeToString(key))
	}
	return hashed.(string)
}

// want is what the block says.
func (d *DataSource) want() *plan.State {
	x := d.Spec
	s := &plan.State{Attrs: []plan.Attr{
		{Name: "uid", Value: x.UID},
		{Name: "title", Value: x.Title},
		{Name: "type", Value: dashboard.PostgresType},
		{Name: "host", Value: x.Host},
		{Name: "database", Value: x.Database},
		{Name: "user", Value: x.User},
		{Name: "sslmode", Value: x.SSLMode},
		{Name: "min_interval", Value: units.FormatDuration(x.MinInterval)},
	}}
	if x.Default {
		s.Set(plan.Attr{Name: "default", Value: "true"})
	}
	switch p := x.Password; {
	case p.Reveal() != "":
		s.Set(plan.Attr{Name: "password", Value: d.hash(), Secret: true})
	case p.Unset() != "" || p.Null():
		s.Set(plan.Attr{Name: "password", Secret: true, Unset: p.Unset()})
	}
	return s
}

// present stands for a secret that is set: Grafana never reveals its value.
const present = "set"

func (s *source) state() *plan.State {
	if s == nil {
		return nil
	}
	kind := s.Type
	if dashboard.IsPostgres(kind) {
		kind = dashboard.PostgresType
	}
	out := &plan.State{Attrs: []plan.Attr{
		{Name: "uid", Value: s.UID},
		{Name: "title", Value: s.Name},
		{Name: "type", Value: kind},
		{Name: "host", Value: s.URL},
		{Name: "database", Value: cmp.Or(jsonvalue.Text(s.JSONData["database"]), s.Database)},
		{Name: "user", Value: s.User},
	}}
	optional := func(name, key, fallback string, read func(string) string) {
		a := plan.Attr{Name: name, Value: fallback, Origin: "Grafana's default"}
		if v := jsonvalue.Text(s.JSONData[key]); v != "" {
			a = plan.Attr{Name: name, Value: read(v), Raw: v}
		}
		out.Set(a)
	}
	optional("sslmode", "sslmode", "verify-full", strings.TrimSpace)
	optional("min_interval", "timeInterval", "1m", func(v string) string {
		if d, err := units.ParseDuration(v); err == nil {
			return units.FormatDuration(d)
		}
		return v
	})
	if s.IsDefault {
		out.Set(plan.Attr{Name: "default", Value: "true"})
	}
	if s.Secrets["password"] {
		out.Set(plan.Attr{Name: "password", Value: present, Secret: true})
	}
	for _, k := range slices.Sorted(maps.Keys(s.JSONData)) {
		if !slices.Contains([]string{"database", "sslmode", "timeInterval"}, k) {
			out.Set(plan.Attr{Name: "jsonData." + k, Value: jsonvalue.Describe(jsonvalue.Canonical(s.JSONData[k]))})
		}
	}
	return out
}

// Observe reads the data source.
func (d *DataSource) Observe(ctx context.Context) (plan.Observation, error) {
	live, err := d.Org.object(ctx, "datasource", d.Spec.UID)
	return plan.Observation{Live: live, Want: d.want(), Assess: d.assess}, err
}

func (d *DataSource) fresh(ctx context.Context) (*plan.State, error) {
	live, err := d.Org.client.source(ctx, d.Spec.UID)
	return live.state(), err
}

// assess compares the password with the ledger, and finds what cannot be done.
func (d *DataSource) assess(ctx context.Context, c *plan.Change) error {
	s, err := d.Org.load(ctx)
	if err != nil {
		return err
	}
	live, err := d.Org.source(ctx, s, d.Spec.UID)
	if err != nil {
		return err
	}
	readOnly := live != nil && live.ReadOnly
	d.password(c, readOnly)
	if len(c.Diffs) == 0 {
		if c.Action == plan.Update {
			c.Action = plan.None
		}
		return nil
	}
	if readOnly {
		c.Find(codeProvisioned, "", "%s is provisioned from a file on Grafana's server, and read-only", c.Address)
	}
	if s.listErr != nil {
		return s.listErr
	}
	s.foresee(c)
	renamedUID(c, "data source", d.Spec.UID)
	d.risks(c, s)
	verb := "POST /api/datasources "
	if c.Action == plan.Update {
		verb = fmt.Sprintf("PUT /api/datasources/uid/%s ", d.Spec.UID)
	}
	shown := d.compose(live, *c)
	if shown.SecureJSONData != nil && !d.Spec.Password.Null() {
		shown.SecureJSONData = map[string]any{"password": d.Spec.Password.String()}
	}
	c.Steps, c.Do = []string{verb + jsonvalue.Encode(shown)}, d.make
	return nil
}

// password takes the difference away where Grafana's secret is the one that the last apply had set.
func (d *DataSource) password(c *plan.Change, readOnly bool) {
	diff, differs := c.Diff("password")
	if !differs || c.Action != plan.Update {
		return
	}
	was, known := c.Base().Get("password")
	set := diff.Old == present
	switch {
	case set && readOnly:
		c.Note("its password is not compared: Grafana does not reveal it")
	case set && known && diff.New != "" && was.Value == diff.New:
	case set && !known && diff.New != "":
		c.Note("the password is set: Grafana does not say whether it has this one")
		return
	default:
		for i := range c.Diffs {
			if c.Diffs[i].Name == "password" { // "set" is not what it was changed to
				c.Diffs[i].Cause, c.Diffs[i].Applied = plan.Intent, ""
				if known && set == (was.Value == "") {
					c.Diffs[i].Cause = plan.Drift
				}
			}
		}
		return
	}
	c.Diffs = slices.DeleteFunc(c.Diffs, func(x plan.Diff) bool { return x.Name == "password" })
}

func (d *DataSource) risks(c *plan.Change, s *snapshot) {
	for _, other := range s.sourceList {
		if other.Name == d.Spec.Title && other.UID != d.Spec.UID {
			c.Find(codeTitleTaken, "title", "there is a data source %q already, with the uid %s: uid = %q adopts it",
				other.Name, other.UID, other.UID)
		}
		if _, def := c.Diff("default"); def && other.IsDefault && other.UID != d.Spec.UID && d.Spec.Default {
			c.Find(codeDefaultChanges, "default",
				"%q is the default now: panels without a data source of their own read this one from then on",
				other.Name)
		}
	}
	if c.Action != plan.Update {
		return
	}
	if diff, other := c.Diff("type"); other {
		c.Find(codeOtherType, "type", "the uid %s is a data source of the type %s: give this one another uid",
			d.Spec.UID, diff.Old)
	}
	for _, name := range []string{"host", "database"} {
		if diff, moved := c.Diff(name); moved {
			c.Find(codeOtherDatabase, name, "all panels and alerts on it read from %s instead of %s", diff.New,
				diff.Old)
		}
	}
}

// compose is the data source to send: what is live, with the changes of c over it. Secrets that are not sent stay.
func (d *DataSource) compose(live *source, c plan.Change) *gapi.DataSource {
	x := d.Spec
	out := &gapi.DataSource{
		UID: x.UID, Name: x.Title, Type: dashboard.PostgresType, Access: "proxy", URL: x.Host,
		User: x.User, IsDefault: x.Default, JSONData: map[string]any{},
	}
	if live != nil {
		out.Access, out.BasicAuth, out.BasicAuthUser, out.WithCredentials = live.Access, live.BasicAuth,
			live.BasicAuthUser, live.WithCredentials
		out.Version, out.Database = live.Version, live.Database
		out.IsDefault = live.IsDefault || x.Default
		if diff, changed := c.Diff("default"); changed && diff.Cause == plan.Reset {
			out.IsDefault = false
		}
		maps.Copy(out.JSONData, live.JSONData)
	}
	out.JSONData["database"], out.JSONData["sslmode"] = x.Database, x.SSLMode
	if _, changed := c.Diff("min_interval"); changed || live == nil {
		out.JSONData["timeInterval"] = interval(x.MinInterval)
	}
	if _, changed := c.Diff("password"); changed { // "" removes it
		out.SecureJSONData = map[string]any{"password": x.Password.Reveal()}
	}
	return out
}

// interval writes a duration in one unit, as Grafana wants it: "90s", not "1m30s".
func interval(d time.Duration) string {
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if d >= u.size && d%u.size == 0 {
			return fmt.Sprintf("%d%s", d/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// make creates or changes it.
func (d *DataSource) make(ctx context.Context, c plan.Change) error {
	s, err := d.Org.load(ctx)
	if err != nil {
		return err
	}
	live, err := d.Org.source(ctx, s, d.Spec.UID)
	if err != nil {
		return err
	}
	lib, err := d.Org.client.library(ctx)
	if err != nil {
		return err
	}
	switch body := d.compose(live, c); {
	case c.Action == plan.Create:
		body.Version = 0
		_, err = lib.NewDataSource(body)
	case live == nil:
		return fmt.Errorf("%s is gone: plan again", c.Address)
	default:
		err = lib.UpdateDataSourceByUID(body)
	}
	s.sources.forget(d.Spec.UID)
	_, secret := c.Diff("password")
	switch err = d.hide(clean(err)); {
	case err == nil:
		return nil
	case secret && c.Action == plan.Update: // whether it was set cannot be read
		return err
	}
	return d.Org.settled(ctx, d, c.Address, err)
}

// hide keeps the password out of an error, should a server repeat it.
func (d *DataSource) hide(err error) error {
	if e, ok := errors.AsType[*Error](err); ok && d.Spec.Password.Reveal() != "" {
		out := *e
		out.Message = strings.ReplaceAll(e.Message, d.Spec.Password.Reveal(), d.Spec.Password.String())
		return &out
	}
	return err
}

// removeSource deletes a data source by its uid: the library knows only numbers and names.
func (o *Org) removeSource(ctx context.Context, uid string) error {
	err := o.client.call(ctx, http.MethodDelete, []string{"api", "datasources", "uid", uid}, nil, nil, nil)
	if missing(err) {
		return nil
	}
	return err
}
