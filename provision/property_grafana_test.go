package provision_test

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func (m *maker) folder(p *spec.Pipeline) *spec.Folder {
	f := &spec.Folder{Name: m.name("folder"), Title: m.title()}
	if len(p.Folders) > 0 && m.one(2) {
		f.Parent = pick(m, p.Folders...)
	}
	return f
}

func (m *maker) dataSource() *spec.DataSource {
	d := &spec.DataSource{
		Name: m.name("ds"), Title: m.title(), Host: pick(m, "db:5432", "/run/postgresql", "[::1]:5432"), Database: pick(m, "x", "it's"), User: pick(m, "x", `a"b`),
		SSLMode: pick(m, "disable", "require", "verify-full"), MinInterval: pick(m, time.Minute, 10*time.Second), Default: m.one(2),
	}
	d.UID = "cv-" + strings.ReplaceAll(d.Name, "_", "-")
	if m.one(2) {
		d.Password = spec.NewSecret(pick(m, "one", "two"))
	}
	return d
}

func (m *maker) dashboard(p *spec.Pipeline) *spec.Dashboard {
	d := &spec.Dashboard{Name: m.name("board"), JSON: m.model(p)}
	if len(p.Folders) > 0 && m.one(2) {
		d.Folder = pick(m, p.Folders...)
	}
	if m.one(2) {
		d.DataSource = pick(m, p.DataSources...)
	}
	return d
}

func (m *maker) model(p *spec.Pipeline) []byte {
	var panels []any
	for id := range m.IntN(4) {
		panel := map[string]any{
			"id": id + 1, "type": pick(m, "table", "timeseries", "text"), "title": m.words(), "gridPos": map[string]any{"h": 8, "w": pick(m, 12, 24), "x": 0, "y": 8 * id},
			"targets": []any{map[string]any{"refId": "A", "format": "table", "rawSql": m.query(p, len(p.Views))}}, "options": map[string]any{"n": m.IntN(2), "deep": []any{1.5, nil, "x"}},
		}
		if m.one(2) {
			panel["description"] = m.words()
		}
		panels = append(panels, panel)
	}
	text, err := json.Marshal(map[string]any{
		"title": m.title(), "schemaVersion": 41, "tags": some(m, []string{"b", "a", "c"}), "refresh": pick(m, "", "5s", "1m"), "panels": panels, "editable": m.one(2),
		"time": map[string]any{"from": pick(m, "now-6h", "now-1d"), "to": "now"}, "templating": map[string]any{"list": m.variables()},
	})
	if err != nil {
		panic(err)
	}
	return text
}

func (m *maker) variables() []any {
	if m.one(2) {
		return nil
	}
	return []any{map[string]any{"name": pick(m, "market", "other"), "type": "custom", "query": pick(m, "a,b", "a")}}
}

func (m *maker) alert(p *spec.Pipeline) *spec.Alert {
	limit := pick(m, 0, 1, -2.5, 1e6)
	a := &spec.Alert{
		Name: m.name("alert"), Title: m.title(), Folder: pick(m, p.Folders...), DataSource: pick(m, p.DataSources...), Query: m.query(p, len(p.Views)), Above: &limit,
		For: pick(m, 0, 5*time.Minute, 90*time.Second), Every: pick(m, time.Minute, 10*time.Second), NoData: pick(m, "ok", "alert", "nodata"), Summary: m.words(), Description: m.words(),
	}
	if m.one(2) {
		a.Above, a.Below = nil, &limit
	}
	if m.one(2) {
		a.Labels = map[string]string{"severity": pick(m, "page", "warn"), "team": pick(m, "it's", "data")}
	}
	return a
}
