package grafanatest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"testing"
)

// What people and other tools do to a Grafana, without the API of this program. All of it happens in org 1.

// SaveInBrowser changes a dashboard as its editor does: it edits the model, and the browser adds the defaults of
// everything, moves the model to its own schema version and saves.
func (s *Server) SaveInBrowser(t testing.TB, uid, by string, edit func(model map[string]any)) {
	t.Helper()
	s.change(t, uid, by, "", func(model map[string]any) {
		edit(model)
		model["schemaVersion"] = map[Profile]json.Number{V11: "41", V12: "42", V13: "42"}[s.Profile]
		for k, v := range map[string]any{
			"fiscalYearStartMonth": json.Number("0"), "liveNow": false, "preload": false,
			"weekStart": "",
		} {
			if model[k] == nil {
				model[k] = v
			}
		}
		panels, _ := model["panels"].([]any)
		for _, p := range panels {
			panel, _ := p.(map[string]any)
			panel["pluginVersion"] = s.Profile.String()
			options, _ := panel["options"].(map[string]any)
			if options == nil {
				options = map[string]any{}
			}
			options["addedByBrowser"] = map[string]any{"showLegend": true, "calcs": []any{}}
			panel["options"] = options
		}
		templating, _ := model["templating"].(map[string]any)
		list, _ := templating["list"].([]any)
		for _, v := range list {
			variable, _ := v.(map[string]any)
			variable["options"] = []any{}
			if variable["type"] == "query" {
				variable["current"] = map[string]any{"text": "btc", "value": "btc"}
			}
		}
	})
}

// SaveByAPI changes a dashboard as a script does: exactly what edit does.
func (s *Server) SaveByAPI(t testing.TB, uid, by, note string, edit func(model map[string]any)) {
	t.Helper()
	s.change(t, uid, by, note, edit)
}

// SaveInV2 changes a dashboard as the editor of 12 and 13 does with dynamic layouts: it is stored in schema version
// 2. As classic JSON it looks as before, but for the ids of its rows, which are new.
func (s *Server) SaveInV2(t testing.TB, uid, by string, edit func(model map[string]any)) {
	t.Helper()
	s.change(t, uid, by, "", func(model map[string]any) {
		edit(model)
		panels, _ := model["panels"].([]any)
		next := int64(0)
		var rows []map[string]any
		for i := 0; i < len(panels); i++ {
			panel, _ := panels[i].(map[string]any)
			if next = max(next, number(panel["id"])); panel["type"] == "row" {
				rows = append(rows, panel)
			}
			nested, _ := panel["panels"].([]any)
			panels = append(slices.Clip(panels), nested...)
		}
		for _, row := range rows {
			next++
			row["id"] = json.Number(strconv.FormatInt(next, 10))
		}
	})
	s.with(func(o *org) { o.boards[uid].stored = "v2beta1" })
}

func (s *Server) change(t testing.TB, uid, by, note string, edit func(model map[string]any)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orgs[1]
	b := o.boards[uid]
	if b == nil {
		t.Fatalf("no dashboard %s", uid)
	}
	model := clone(b.model)
	edit(model)
	s.store(o, b, uid, b.folder, clone(model), by, note)
}

// Dashboard returns the stored model, nil when there is none.
func (s *Server) Dashboard(uid string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.orgs[1].boards[uid]; b != nil {
		return clone(b.model)
	}
	return nil
}

// Put stores a dashboard as somebody else's.
func (s *Server) Put(t testing.TB, folder, by string, text []byte) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var model map[string]any
	if err := d.Decode(&model); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	uid, _ := model["uid"].(string)
	s.store(s.orgs[1], s.orgs[1].boards[uid], uid, folder, model, by, "")
}

// MoveDashboard puts a dashboard into another folder.
func (s *Server) MoveDashboard(uid, folder string) {
	s.with(func(o *org) { o.boards[uid].folder = folder })
}

// Provision marks a dashboard as one of a file provider.
func (s *Server) Provision(uid string) { s.with(func(o *org) { o.boards[uid].provisioned = true }) }

// DeleteDashboard removes a dashboard.
func (s *Server) DeleteDashboard(uid string) { s.with(func(o *org) { delete(o.boards, uid) }) }

// Folder changes a folder.
func (s *Server) Folder(uid string, edit func(title, parent *string)) {
	s.with(func(o *org) { f := o.folders[uid]; f.version++; edit(&f.title, &f.parent) })
}

// Source changes a data source: its fields, its jsonData and its secrets.
func (s *Server) Source(uid string, edit func(fields, jsonData map[string]any, secrets map[string]string)) {
	s.with(func(o *org) { d := o.sources[uid]; d.version++; edit(d.fields, d.json, d.secrets) })
}

// ReadOnly marks a data source as one of a file provider.
func (s *Server) ReadOnly(uid string) { s.with(func(o *org) { o.sources[uid].readOnly = true }) }

// Secret returns the value of a data source's secret.
func (s *Server) Secret(uid, name string) (value string) {
	s.with(func(o *org) {
		if d := o.sources[uid]; d != nil {
			value = d.secrets[name]
		}
	})
	return value
}

// Rule changes an alert rule: its body, its folder and group, and its provenance.
func (s *Server) Rule(uid string, edit func(body map[string]any, folder, group, provenance *string)) {
	s.with(func(o *org) { r := o.rules[uid]; edit(r.body, &r.folder, &r.group, &r.provenance) })
}

// Interval sets the evaluation interval of a group, in seconds.
func (s *Server) Interval(folder, group string, seconds int64) {
	s.with(func(o *org) { o.interval[folder+"/"+group] = seconds })
}

// Notes returns the annotations.
func (s *Server) Notes() (out []map[string]any) {
	s.with(func(o *org) { out = clone(o.notes) })
	return out
}

func (s *Server) with(do func(o *org)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do(s.orgs[1])
}
