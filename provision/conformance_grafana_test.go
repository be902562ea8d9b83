package provision_test

import (
	"encoding/json"
	"slices"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

const grafanaObjects = `
folder "crypto" {
  title = "Crypto"
}
folder "other" {
  title = "Other"
}
datasource "main" {
  title        = "Main"
  uid          = "cv-main-db"
  host         = "db:5432"
  database     = "prices"
  user         = "reader"
  password     = env("SECRET_6f6e65")
  sslmode      = "require"
  min_interval = "30s"
  default      = false
}
datasource "spare" {
  title    = "Spare"
  host     = "spare:5432"
  database = "prices"
  user     = "reader"
}
`

func grafanaSubjects() []subject {
	folder := func(edit func(title, parent *string)) func(*conformance) {
		return func(c *conformance) { c.grafana.Folder("cv-detail", edit) }
	}
	source := func(edit func(fields, data map[string]any, secrets map[string]string)) func(*conformance) {
		return func(c *conformance) { c.grafana.Source("cv-main-db", edit) }
	}
	rule := func(edit func(body map[string]any, folder *string)) func(*conformance) {
		return func(c *conformance) {
			c.grafana.Rule("cv-stale", func(body map[string]any, folder, _, _ *string) { edit(body, folder) })
		}
	}
	in := func(body map[string]any, key string) map[string]any { m, _ := body[key].(map[string]any); return m }
	stage := func(body map[string]any, i int) map[string]any {
		list, _ := body["data"].([]any)
		m, _ := list[i].(map[string]any)
		return m
	}
	return []subject{
		{
			kind: "folder", address: "folder.detail",
			files: map[string]string{"pipeline.hcl": grafanaObjects + `
folder "detail" {
  title  = "Detail"
  parent = folder.crypto
}
`},
			attributes: []attribute{
				{
					fields: "Folder.Title", edit: []string{`"Detail"`, `"Details"`}, shows: []string{"title: Detail -> Details"},
					drift: folder(func(title, _ *string) { *title = "x" }), driftShows: []string{"title: x -> Details"},
				},
				{
					fields: "Folder.Parent", edit: []string{"parent = folder.crypto", "parent = folder.other"}, shows: []string{"parent"}, codes: "CV-G10",
					drift: folder(func(_, parent *string) { *parent = "" }), driftShows: []string{"parent"}, driftCodes: "CV-G10",
				},
				{
					fields: "Folder.Parent", edit: []string{"  parent = folder.other\n", ""}, shows: []string{"parent"}, codes: "CV-G10",
					drift: folder(func(_, parent *string) { *parent = "cv-crypto" }), driftShows: []string{"parent"}, driftCodes: "CV-G10",
				},
			},
		},
		{
			kind: "datasource", address: "datasource.main", removed: "CV-G06",
			files: map[string]string{"pipeline.hcl": grafanaObjects},
			attributes: []attribute{
				{
					fields: "DataSource.Title", edit: []string{`"Main"`, `"Prices"`}, shows: []string{"title: Main -> Prices"},
					drift: source(func(f, _ map[string]any, _ map[string]string) { f["name"] = "x" }), driftShows: []string{"title: x -> Prices"},
				},
				{
					fields: "DataSource.UID", edit: []string{`"cv-main-db"`, `"cv-other-db"`}, action: plan.Create,
					shows: []string{"uid", "title", "type", "host", "database", "user", "sslmode", "min_interval", "password"}, codes: "CV-G11 CV-G08",
					fixed: "Grafana keeps it as long as the data source lives",
				},
				{
					fields: "DataSource.Host", edit: []string{`"db:5432"`, `"db2:5432"`}, shows: []string{"host: db:5432 -> db2:5432"}, codes: "CV-G13",
					drift:      source(func(f, _ map[string]any, _ map[string]string) { f["url"] = "x:5432" }),
					driftShows: []string{"host: x:5432 -> db2:5432"}, driftCodes: "CV-G13",
				},
				{
					fields: "DataSource.Database", edit: []string{"\"prices\"\n  user         =", "\"rates\"\n  user         ="},
					shows: []string{"database: prices -> rates"}, codes: "CV-G13",
					drift: source(func(_, j map[string]any, _ map[string]string) { j["database"] = "x" }), driftShows: []string{"database: x -> rates"}, driftCodes: "CV-G13",
				},
				{
					fields: "DataSource.User", edit: []string{"user         = \"reader\"", "user         = \"viewer\""}, shows: []string{"user: reader -> viewer"},
					drift: source(func(f, _ map[string]any, _ map[string]string) { f["user"] = "x" }), driftShows: []string{"user: x -> viewer"},
				},
				{
					fields: "DataSource.Password", edit: []string{"SECRET_6f6e65", "SECRET_74776f"}, shows: []string{"password"},
					drift: source(func(_, _ map[string]any, secrets map[string]string) { delete(secrets, "password") }), driftShows: []string{"password"},
				},
				{
					fields: "DataSource.Password", edit: []string{`env("SECRET_74776f")`, "null"}, shows: []string{"password"},
				},
				{
					fields: "DataSource.SSLMode", edit: []string{`"require"`, `"verify-ca"`}, shows: []string{"sslmode: require -> verify-ca"},
					drift: source(func(_, j map[string]any, _ map[string]string) { j["sslmode"] = "disable" }), driftShows: []string{"sslmode: disable -> verify-ca"},
				},
				{
					fields: "DataSource.MinInterval", edit: []string{`"30s"`, `"1m30s"`}, shows: []string{"min_interval: 30s -> 1m30s"},
					drift: source(func(_, j map[string]any, _ map[string]string) { j["timeInterval"] = "10s" }), driftShows: []string{"min_interval: 10s -> 1m30s"},
				},
				{
					fields: "DataSource.Default", edit: []string{"= false", "= true"}, shows: []string{"default:  -> true"},
					drift: source(func(f, _ map[string]any, _ map[string]string) { f["isDefault"] = false }), driftShows: []string{"default:  -> true"},
				},
				{fields: "DataSource.Default", edit: []string{"= true", "= false"}, shows: []string{"default: true -> "}},
			},
		},
		{
			kind: "dashboard", address: "dashboard.board", removed: "CV-G05",
			files: map[string]string{"board.json": `{"uid": "cv-board-1", "title": "Board", "schemaVersion": 41, "tags": ["a", "b"], "templating": {"list": [
  {"name": "datasource", "type": "datasource", "query": "grafana-postgresql-datasource", "current": {"text": "x", "value": "x"}}]},
 "panels": [{"id": 1, "type": "table", "title": "Latest", "gridPos": {"h": 8, "w": 24, "x": 0, "y": 0}, "targets": [{"refId": "A", "format": "table", "rawSql": "SELECT 1 AS a"}]}]}`, "pipeline.hcl": grafanaObjects + `
dashboard "board" {
  file       = "board.json"
  folder     = folder.crypto
  datasource = datasource.main
}
`},
			attributes: []attribute{
				{
					fields: "Dashboard.Folder", edit: []string{"= folder.crypto", "= folder.other"}, shows: []string{"folder"},
					drift: func(c *conformance) { c.grafana.MoveDashboard("cv-board-1", "cv-crypto") }, driftShows: []string{"folder"},
				},
				{
					fields: "Dashboard.DataSource", edit: []string{"= datasource.main", "= datasource.spare"}, shows: []string{"datasource", "panel Latest (id 1)"},
					drift: save(func(m map[string]any) {
						list, _ := in(m, "templating")["list"].([]any)
						in(list[0].(map[string]any), "current")["value"] = "cv-main-db"
					}), driftShows: []string{"datasource"},
				},
				{
					fields: "Dashboard.JSON", edit: []string{`"Board"`, `"The board"`}, shows: []string{"title: Board -> The board"},
					drift: save(func(m map[string]any) { m["title"] = "x" }), driftShows: []string{"title: x -> The board"},
				},
				{
					fields: "Dashboard.JSON", edit: []string{`["a", "b"]`, `["a", "c"]`}, shows: []string{"tags: a, b -> a, c"},
					drift: save(func(m map[string]any) { m["tags"] = []any{"x"} }), driftShows: []string{"tags: x -> a, c"},
				},
				{
					fields: "Dashboard.JSON", edit: []string{"SELECT 1 AS a", "SELECT 2 AS a"}, shows: []string{"panel Latest (id 1)"},
					drift: save(func(m map[string]any) { panelIn(m)["title"] = "x" }), driftShows: []string{"panel Latest (id 1)"}, driftCodes: "CV-G02",
				},
				{
					fields: "Dashboard.JSON", edit: []string{`"w": 24`, `"w": 12`}, shows: []string{"layout"},
					drift: save(func(m map[string]any) { in(panelIn(m), "gridPos")["h"] = json.Number("4") }), driftShows: []string{"layout"}, driftCodes: "CV-G02",
				},
				{
					fields: "Dashboard.UID", edit: []string{`"cv-board-1"`, `"cv-board-2"`}, action: plan.Create,
					shows: []string{"uid", "folder", "title", "tags", "schemaVersion", "datasource", "variables", "variable datasource", "panel Latest (id 1)", "layout"}, codes: "CV-G11",
					left:  func(c *conformance) { c.grafana.DeleteDashboard("cv-board-1") }, // what CV-G11 says
					fixed: "Grafana keeps it as long as the dashboard lives",
				},
			},
		},
		{
			kind: "alert", address: "alert.stale", removed: "CV-G07",
			files: map[string]string{"pipeline.hcl": grafanaObjects + `
alert "stale" {
  title       = "Stale"
  folder      = folder.crypto
  datasource  = datasource.main
  query       = "SELECT 1 AS age"
  above       = 300
  for         = "5m"
  every       = "2m"
  no_data     = "alert"
  labels      = { severity = "page", team = "data" }
  summary     = "No sample."
  description = "For five minutes."
}
`},
			attributes: []attribute{
				{
					fields: "Alert.Title", edit: []string{`"Stale"`, `"Is stale"`}, shows: []string{"title: Stale -> Is stale"},
					drift: rule(func(b map[string]any, _ *string) { b["title"] = "x" }), driftShows: []string{"title: x -> Is stale"},
				},
				{
					fields: "Alert.DataSource", edit: []string{"datasource.main", "datasource.spare"}, shows: []string{"datasource"},
					drift: rule(func(b map[string]any, _ *string) { stage(b, 0)["datasourceUid"] = "cv-main-db" }), driftShows: []string{"datasource"},
				},
				{
					fields: "Alert.Query", edit: []string{"SELECT 1 AS age", "SELECT 2 AS age"}, shows: []string{"query"},
					drift: rule(func(b map[string]any, _ *string) { in(stage(b, 0), "model")["rawSql"] = "SELECT 3 AS age" }), driftShows: []string{"query"},
				},
				{
					fields: "Alert.Above", edit: []string{"above       = 300", "above       = 2.5"}, shows: []string{"threshold: above 300 -> above 2.5"},
					drift:      rule(func(b map[string]any, _ *string) { evaluator(stage(b, 1))["params"] = []any{json.Number("1")} }),
					driftShows: []string{"threshold: above 1 -> above 2.5"},
				},
				{
					fields: "Alert.Below", edit: []string{"above       = 2.5", "below       = 2.5"}, shows: []string{"threshold: above 2.5 -> below 2.5"},
					drift: rule(func(b map[string]any, _ *string) { evaluator(stage(b, 1))["type"] = "gt" }), driftShows: []string{"threshold: above 2.5 -> below 2.5"},
				},
				{
					fields: "Alert.For", edit: []string{`"5m"`, `"1m30s"`}, shows: []string{"for: 5m -> 1m30s"},
					drift: rule(func(b map[string]any, _ *string) { b["for"] = "1h" }), driftShows: []string{"for: 1h -> 1m30s"},
				},
				{
					fields: "Alert.Every", edit: []string{`"2m"`, `"1m"`}, shows: []string{"every: 2m -> 1m"},
					drift: func(c *conformance) { c.grafana.Interval("cv-crypto", "cv-stale", 300) }, driftShows: []string{"every: 5m -> 1m"},
				},
				{
					fields: "Alert.NoData", edit: []string{`"alert"`, `"ok"`}, shows: []string{"no_data: alert -> ok"},
					drift: rule(func(b map[string]any, _ *string) { b["noDataState"] = "NoData" }), driftShows: []string{"no_data: nodata -> ok"},
				},
				{
					fields: "Alert.Labels", edit: []string{`"page"`, `"mail"`}, shows: []string{"label severity: page -> mail"},
					drift: rule(func(b map[string]any, _ *string) { in(b, "labels")["severity"] = "x" }), driftShows: []string{"label severity: x -> mail"},
				},
				{
					fields: "Alert.Labels", edit: []string{`, team = "data"`, ""}, shows: []string{"label team: data -> "},
				},
				{
					fields: "Alert.Summary", edit: []string{`"No sample."`, `"It is stale."`}, shows: []string{"summary: No sample. -> It is stale."},
					drift: rule(func(b map[string]any, _ *string) { in(b, "annotations")["summary"] = "x" }), driftShows: []string{"summary: x -> It is stale."},
				},
				{
					fields: "Alert.Description", edit: []string{`"For five minutes."`, `"See the runbook."`},
					shows: []string{"description: For five minutes. -> See the runbook."},
					drift: rule(func(b map[string]any, _ *string) { delete(in(b, "annotations"), "description") }), driftShows: []string{"description:  -> See the runbook."},
				},
				{
					fields: "Alert.Folder", edit: []string{"folder.crypto", "folder.other"}, shows: []string{"folder"},
					drift: rule(func(_ map[string]any, folder *string) { *folder = "cv-crypto" }), driftShows: []string{"folder"},
				},
			},
		},
	}
}

// save changes the dashboard as a script does.
func save(edit func(model map[string]any)) func(*conformance) {
	return func(c *conformance) { c.grafana.SaveByAPI(c.t, "cv-board-1", "alice", "", edit) }
}

func panelIn(model map[string]any) map[string]any {
	list, _ := model["panels"].([]any)
	i := slices.IndexFunc(list, func(p any) bool { return p.(map[string]any)["id"] == json.Number("1") })
	return list[i].(map[string]any)
}

func evaluator(stage map[string]any) map[string]any {
	model, _ := stage["model"].(map[string]any)
	list, _ := model["conditions"].([]any)
	condition, _ := list[0].(map[string]any)
	out, _ := condition["evaluator"].(map[string]any)
	return out
}
