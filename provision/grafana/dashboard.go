package grafana

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	gapi "github.com/grafana/grafana-api-golang-client"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// board is a dashboard as Grafana has it.
type board struct {
	model *dashboard.Model
	meta  boardMeta
	print string // fingerprint of what is stored
}

type boardMeta struct {
	Version     int64  `json:"version"`
	Updated     string `json:"updated"`
	UpdatedBy   string `json:"updatedBy"`
	Provisioned bool   `json:"provisioned"`
	External    string `json:"provisionedExternalId"`
	FolderUID   string `json:"folderUid"`
	APIVersion  string `json:"apiVersion"`
}

func (m boardMeta) provisioned() bool { return m.Provisioned || m.External != "" }

// v2 reports whether a dashboard was last saved in schema version 2, which the classic JSON of a file cannot say.
// 12.4 answers it as classic JSON, and only the resource says how it is stored; 11 has no such resource.
func (c *Client) v2(ctx context.Context, s *snapshot, uid string, live *board) (bool, error) {
	_, elements := live.model.Raw["elements"]
	if elements || strings.HasPrefix(live.meta.APIVersion, "v2") {
		return true, nil
	}
	namespace := "default"
	if s.org > 1 {
		namespace = fmt.Sprintf("org-%d", s.org)
	}
	var in struct {
		Status struct {
			Conversion struct {
				Stored string `json:"storedVersion"`
			} `json:"conversion"`
		} `json:"status"`
	}
	path := []string{"apis", "dashboard.grafana.app", "v0alpha1", "namespaces", namespace, "dashboards", uid}
	err := c.call(ctx, http.MethodGet, path, nil, nil, &in)
	return strings.HasPrefix(in.Status.Conversion.Stored, "v2"), noAccess(err)
}

func (c *Client) board(ctx context.Context, uid string) (*board, error) {
	var in struct {
		Dashboard map[string]any `json:"dashboard"`
		Meta      boardMeta      `json:"meta"`
	}
	err := c.call(ctx, http.MethodGet, []string{"api", "dashboards", "uid", uid}, nil, nil, &in)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if in.Dashboard == nil {
		return nil, fmt.Errorf("the answer about dashboard %s holds no dashboard", uid)
	}
	if in.Meta.Version == 0 {
		in.Meta.Version = jsonvalue.Integer(in.Dashboard["version"])
	}
	if in.Meta.UpdatedBy == "" || in.Meta.UpdatedBy == "Anonymous" { // 12.4 says so of a dashboard that was saved once
		in.Meta.UpdatedBy = "another user"
	}
	raw := jsonvalue.Canonical(in.Dashboard).(map[string]any)
	dashboard.AddPanelIDs(raw)
	m := dashboard.Parse(raw)
	return &board{model: m, meta: in.Meta, print: fingerprint(m)}, nil
}

// Dashboard is the resource of a dashboard block.
type Dashboard struct {
	Spec *spec.Dashboard
	Org  *Org

	once sync.Once
	file *dashboard.Model
	err  error
}

// Address is dashboard.NAME.
func (d *Dashboard) Address() string { return "dashboard." + d.Spec.Name }

// Where is its place in pipeline.hcl.
func (d *Dashboard) Where() string { return where(d.Spec.Range) }

func (d *Dashboard) dependsOn() []string {
	var out []string
	if d.Spec.Folder != nil {
		out = append(out, "folder."+d.Spec.Folder.Name)
	}
	if d.Spec.DataSource != nil {
		out = append(out, "datasource."+d.Spec.DataSource.Name)
	}
	return out
}

// model is the file, read once.
func (d *Dashboard) model() (*dashboard.Model, error) {
	d.once.Do(func() { d.file, d.err = dashboard.Load(d.Spec) })
	return d.file, d.err
}

// want is what the file and the block say.
func (d *Dashboard) want() *plan.State {
	return stateOf(d.file, d.Spec.UID, d.Org.folderName(folderUID(d.Spec.Folder)), d.file)
}

// Observe reads the dashboard.
func (d *Dashboard) Observe(ctx context.Context) (plan.Observation, error) {
	if _, err := d.model(); err != nil {
		return plan.Observation{}, err
	}
	s, err := d.Org.load(ctx)
	if err != nil {
		return plan.Observation{}, err
	}
	live, err := d.live(ctx, s)
	return plan.Observation{Live: d.state(live), Want: d.want(), DependsOn: d.dependsOn(), Assess: d.assess}, err
}

// live is the dashboard, with the file's ids for its rows.
func (d *Dashboard) live(ctx context.Context, s *snapshot) (*board, error) {
	live, err := d.Org.board(ctx, s, d.Spec.UID)
	if err != nil || live == nil {
		return nil, err
	}
	out := *live
	out.model = live.model.WithRowsOf(d.file)
	return &out, nil
}

func (d *Dashboard) state(live *board) *plan.State {
	if live == nil {
		return nil
	}
	return stateOf(live.model, d.Spec.UID, d.Org.folderName(live.meta.FolderUID), d.file)
}

func (d *Dashboard) fresh(ctx context.Context) (*plan.State, error) {
	live, err := d.live(ctx, &snapshot{})
	return d.state(live), err
}

// A version that we save has a message. With the fingerprint of its content it shows later whether it was changed; a
// version that keeps edits of others says whose.
const (
	mark = "cryptoviz apply "
	kept = ", kept edits of "
)

func (d *Dashboard) message(ctx context.Context, live *board, body map[string]any, c plan.Change) (string, error) {
	out := mark + fingerprint(dashboard.Parse(jsonvalue.Canonical(body).(map[string]any)))
	if !slices.ContainsFunc(c.Findings, func(f plan.Finding) bool { return f.Code == codeEditsMerged.ID }) {
		return out, nil
	}
	versions, err := d.Org.client.history(ctx, d.Spec.UID)
	if err != nil && status(err) != http.StatusForbidden && !missing(err) {
		return "", err
	}
	return units.ClipTo(out+kept+strings.Join(editors(versions, live.meta.UpdatedBy), ", "), 400), nil
}

// fingerprint is of all that people can change in a dashboard. The refresh is left out, which Grafana may raise.
func fingerprint(m *dashboard.Model) string {
	return jsonvalue.Digest(jsonvalue.Without(m.Raw, append([]string{"refresh", "schemaVersion"},
		dashboard.ServerKeys...)...))
}

// save saves the dashboard: what is live, with the planned differences over it.
func (d *Dashboard) save(ctx context.Context, c plan.Change) error {
	s, err := d.Org.load(ctx)
	if err != nil {
		return err
	}
	live, err := d.live(ctx, s)
	if err != nil {
		return err
	}
	if live == nil && c.Action != plan.Create {
		return fmt.Errorf("%s is gone: plan again", c.Address)
	}
	if c.Action == plan.Create {
		live = nil
	}
	lib, err := d.Org.client.library(ctx)
	if err != nil {
		return err
	}
	body := d.compose(live, c)
	message, err := d.message(ctx, live, body, c)
	if err != nil {
		return err
	}
	defer s.boards.forget(d.Spec.UID)
	_, err = lib.NewDashboard(gapi.Dashboard{Model: body, FolderUID: folderUID(d.Spec.Folder), Message: message})
	if err == nil {
		return nil
	}
	if err = d.Org.settled(ctx, d, c.Address, clean(err)); err == nil {
		return nil
	}
	return d.explainRejected(ctx, s, c.Address, err)
}

// explainRejected adds what the user needs to know about a rejection.
func (d *Dashboard) explainRejected(ctx context.Context, s *snapshot, address string, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	lower := strings.ToLower(e.Message)
	switch {
	case conflict(e):
		before, _ := s.boards.get(d.Spec.UID, func() (*board, error) { return nil, nil })
		now, rerr := d.Org.client.board(ctx, d.Spec.UID)
		if rerr != nil || now == nil {
			return err
		}
		return fmt.Errorf("%s was saved by %s in the meantime (version %d, %s)%s: nothing was overwritten; plan again",
			address, now.meta.UpdatedBy, now.meta.Version, moment(now.meta.Updated), since(before, now))
	case strings.Contains(lower, "folder") && strings.Contains(lower, "not found"):
		return fmt.Errorf("the folder of %s is missing: apply makes it first, plan again (%w)", address, err)
	case strings.Contains(lower, "refresh interval"):
		return fmt.Errorf("%s: its refresh is shorter than this Grafana allows (min_refresh_interval): write a longer "+
			"one in %s (%w)", address, d.Spec.File, err)
	}
	return err
}

// since words what changed between two states of a dashboard.
func since(before, now *board) string {
	if before == nil {
		return ""
	}
	var out []string
	for _, p := range now.model.Parts {
		if was := before.model.Part(p.Key); was == nil || !jsonvalue.Equal(was.Body, p.Body) {
			out = append(out, p.Name)
		}
	}
	for _, p := range before.model.Parts {
		if now.model.Part(p.Key) == nil {
			out = append(out, p.Name+" deleted")
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + some(out, 8)
}

// moment shows a time of Grafana's.
func moment(s string) string {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return cmp.Or(s, "time unknown")
	}
	return at.UTC().Format("2006-01-02 15:04 UTC")
}

// compose is the dashboard to save: live with the differences of c over it. What is not declared stays; without a
// live one it is the file.
func (d *Dashboard) compose(live *board, c plan.Change) map[string]any {
	if live == nil {
		out := jsonvalue.Without(d.file.Raw, dashboard.ServerKeys...)
		out["uid"] = d.Spec.UID
		return out
	}
	m := merging{want: d.file, live: live.model, c: c, last: renamed(c.Base(), c.Live, c.Want)}
	out := m.keys()
	out["uid"], out["version"] = d.Spec.UID, jsonvalue.Int(live.meta.Version)
	if list := m.list("variable"); len(list) > 0 {
		out["templating"] = map[string]any{"list": list}
	}
	annotations := m.list("annotation")
	for _, a := range slices.Concat(jsonvalue.Objects(live.model.Raw, "annotations", "list"),
		jsonvalue.Objects(d.file.Raw, "annotations", "list")) {
		if a["builtIn"] != nil { // Grafana's own, once
			annotations = append([]any{a}, annotations...)
			break
		}
	}
	if len(annotations) > 0 {
		out["annotations"] = map[string]any{"list": annotations}
	}
	if panels := m.panels(); len(panels) > 0 {
		out["panels"] = panels
	}
	return out
}

// removeBoard deletes a dashboard.
func (o *Org) removeBoard(ctx context.Context, uid string) error {
	lib, err := o.client.library(ctx)
	if err != nil {
		return err
	}
	if err := clean(lib.DeleteDashboardByUID(uid)); err != nil && !missing(err) {
		return err
	}
	return nil
}
