package provision_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
)

// sqlText is a text as a constant in SQL, as a user writes it.
func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// hostilePipeline has every text in every place that takes one: descriptions, defaults, queries, titles, labels.
func hostilePipeline(texts []string) *spec.Pipeline {
	p := &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}}
	p.Topics = []*spec.Topic{{Name: "h_kept", Partitions: 1, Replication: 1}}
	i := 0
	for part := range slices.Chunk(texts, 40) {
		table := &spec.Table{Name: fmt.Sprint("h_", i), Description: part[0], Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}}, PrimaryKey: []string{"id"}}
		query, labels := "SELECT 0 AS id", map[string]string{}
		folder := &spec.Folder{Name: fmt.Sprint("h_", i), Title: part[0] + fmt.Sprint(" in folder ", i)}
		source := &spec.DataSource{
			Name: fmt.Sprint("h_", i), Title: part[1] + fmt.Sprint(" of source ", i), UID: fmt.Sprint("cv-h-", i), Host: "db:5432", Database: part[2], User: part[3],
			Password: spec.NewSecret(part[4]), SSLMode: "require", MinInterval: time.Minute,
		}
		panels := []any{}
		for k, text := range part {
			table.Columns = append(table.Columns, &spec.Column{Name: fmt.Sprint("c_", k), Type: spec.Text, Null: true, Default: sqlText(text), Description: text})
			query += fmt.Sprintf(", %s::text AS c_%d", sqlText(text), k)
			labels[fmt.Sprint("l_", k)] = text
			panels = append(panels, map[string]any{"id": k + 1, "type": "text", "title": text, "options": map[string]any{"content": text, text: "as a key"}, "gridPos": map[string]any{"h": 1, "w": 1, "x": 0, "y": k}})
		}
		board, err := json.Marshal(map[string]any{"title": part[5] + fmt.Sprint(" as board ", i), "schemaVersion": 41, "description": part[6], "panels": panels})
		if err != nil {
			panic(err)
		}
		zero := 0.0
		p.Tables = append(p.Tables, table)
		p.Views = append(p.Views, &spec.View{Name: fmt.Sprint("v_", i), Description: part[7], Query: query})
		p.Folders = append(p.Folders, folder)
		p.DataSources = append(p.DataSources, source)
		p.Dashboards = append(p.Dashboards, &spec.Dashboard{Name: fmt.Sprint("h_", i), JSON: board, Folder: folder, DataSource: source})
		p.Alerts = append(p.Alerts, &spec.Alert{
			Name: fmt.Sprint("h_", i), Title: part[8] + fmt.Sprint(" as alert ", i), Folder: folder, DataSource: source, Query: query, Above: &zero, Every: time.Minute, NoData: "ok",
			Labels: labels, Summary: part[9], Description: part[10],
		})
		i++
	}
	return p
}

// What is a text, and no name, arrives as it is: a description, a default, a constant in a query, a title, a label. Nothing
// else is created, changed or dropped.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	texts := slices.DeleteFunc(hostileTexts(), func(s string) bool { return strings.ContainsRune(s, 0) })
	w := &harness{t: t, db: database(t, testkit.Postgres(t)), kafka: client(t, testkit.Kafka(t).Addr())}
	g := grafanatest.New(t, grafanatest.V13)
	w.exec("CREATE TABLE victim (a text); COMMENT ON TABLE victim IS 'mine'; INSERT INTO victim VALUES ('here')")
	before := inventory(t, w.db, w.kafka, "h_kept")
	w.p = mustLoad(t, written(hostilePipeline(texts)), map[string]string{"GRAFANA_URL": g.URL, "GRAFANA_AUTH": g.Token})
	found := w.plan()
	if d := differ(before, inventory(t, w.db, w.kafka, "h_kept")); len(d) > 0 {
		t.Errorf("plan changes something: %q", d)
	}
	for _, c := range found.Changes {
		for _, f := range c.Findings {
			t.Errorf("%s %s: %s", c.Address, f.Code, f.Text)
		}
	}
	for _, r := range w.applyAgreed(saved(t, found)) {
		if r.Outcome != provision.Done {
			t.Errorf("%s: %s", r.Address, r.Reason)
		}
	}
	w.empty("after apply")
	ours := regexp.MustCompile(`^\+ (schema cryptoviz |((relation|column|constraint|comment|query) (cryptoviz|public)\.|index CREATE (UNIQUE )?INDEX \S+ ON (cryptoviz|public)\.)(h_|v_|\S+ )|ledger |meta |topic h_kept )`)
	for _, l := range differ(before, inventory(t, w.db, w.kafka, "h_kept")) {
		if !ours.MatchString(l) || strings.Contains(l, "victim.") {
			t.Errorf("%s", l)
		}
	}
	var names []string
	for i := range w.p.Tables {
		names = append(names, fmt.Sprint("h_", i), fmt.Sprintf("h_%d_pkey", i), fmt.Sprint("v_", i))
	}
	names = append(names, "victim")
	slices.Sort(names)
	if got := collect(t, w.db, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname COLLATE \"C\""); !slices.Equal(got, names) {
		t.Errorf("%q, want %q", got, names)
	}
	w.arrived(g)
}

// arrived compares what is there, text by text, with what the pipeline says.
func (w *harness) arrived(g *grafanatest.Server) {
	w.t.Helper()
	same := func(what, got, want string) {
		w.t.Helper()
		if want = strings.ReplaceAll(want, "\ufeff", ""); strings.ReplaceAll(got, "\ufeff", "") != want { // Grafana takes these out, where it likes
			w.t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for i, table := range w.p.Tables {
		w.exec(fmt.Sprintf("INSERT INTO %s (id) VALUES (1)", table.Name))
		for k, c := range table.Columns[1:] {
			row := collect(w.t, w.db, fmt.Sprintf("SELECT col_description('%[1]s'::regclass, %[2]d) FROM %[1]s UNION ALL SELECT c_%[3]d FROM %[1]s UNION ALL SELECT c_%[3]d FROM v_%[4]d UNION ALL SELECT obj_description('%[1]s'::regclass)", table.Name, k+2, k, i))
			want := strings.ReplaceAll(c.Default[1:len(c.Default)-1], "''", "'")
			same("description", row[0], c.Description)
			same("default", row[1], want)
			same("query", row[2], want)
			same("table", row[3], table.Description)
		}
		same("view", collect(w.t, w.db, fmt.Sprintf("SELECT obj_description('v_%d'::regclass)", i))[0], w.p.Views[i].Description)
		g.Folder(fmt.Sprint("cv-h-", i), func(title, _ *string) { same("folder", *title, w.p.Folders[i].Title) })
		g.Source(fmt.Sprint("cv-h-", i), func(fields, more map[string]any, secrets map[string]string) {
			d := w.p.DataSources[i]
			same("source", fmt.Sprint(fields["name"], more["database"], fields["user"], secrets["password"]), d.Title+d.Database+d.User+d.Password.Reveal())
		})
		g.Rule(fmt.Sprint("cv-h-", i), func(body map[string]any, _, _, _ *string) {
			a := w.p.Alerts[i]
			same("alert", fmt.Sprint(body["title"]), a.Title)
			for k, v := range a.Labels {
				labels, _ := body["labels"].(map[string]any)
				same("label", fmt.Sprint(labels[k]), v)
			}
			notes, _ := body["annotations"].(map[string]any)
			same("summary", fmt.Sprint(notes["summary"], notes["description"]), a.Summary+a.Description)
		})
		var want map[string]any
		if err := json.Unmarshal(w.p.Dashboards[i].JSON, &want); err != nil {
			w.t.Fatal(err)
		}
		got, _ := json.Marshal(g.Dashboard(fmt.Sprint("cv-h-", i))["panels"])
		expected, _ := json.Marshal(want["panels"])
		same("panels", string(got), string(expected))
	}
}

// PostgreSQL keeps no text with NUL, so there is none in a pipeline.
func TestHostileNul(t *testing.T) {
	for _, place := range []string{
		"topic \"x\" {\n  config = { \"a\" = TEXT }\n}\n", "topic \"x\" {\n  config = { TEXT = \"a\" }\n}\n", "view \"x\" {\n  query = TEXT\n}\n", "folder \"x\" {\n  title = TEXT\n}\n",
		"table \"x\" {\n  description = TEXT\n  column \"a\" {\n    type = \"text\"\n  }\n  primary_key = [\"a\"]\n}\n", "datasource \"x\" {\n  title = TEXT\n}\n",
		"table \"x\" {\n  column \"a\" {\n    type    = \"text\"\n    default = TEXT\n  }\n  primary_key = [\"a\"]\n}\n",
	} {
		if _, good := loadText(t, place, "'a\x00'; DROP TABLE victim; --"); good {
			t.Errorf("%s takes it", place)
		}
	}
}

// Hostile texts as SQL: as a default, as a generated column, as a query. What the server does not take is impossible; nothing of
// it is carried out by plan, and what apply makes is what is declared, and no more.
func TestHostileSQL(t *testing.T) {
	t.Parallel()
	w := &harness{t: t, db: database(t, testkit.Postgres(t)), kafka: client(t, testkit.Kafka(t).Addr())}
	g := grafanatest.New(t, grafanatest.V13)
	w.exec("CREATE TABLE victim (a text); INSERT INTO victim VALUES ('here'); CREATE ROLE h_victim; CREATE SEQUENCE drawn")
	defer w.exec("DROP ROLE h_victim")
	p := hostilePipeline(hostileTexts()[:40])
	p.Tables, p.Views = p.Tables[:1], nil
	alert := *p.Alerts[0]
	p.Alerts = nil
	var panels []any
	word := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	for i, text := range slices.Concat(hostileTexts(), []string{
		"0); DROP TABLE victim; --", "0); DROP TABLE victim; CREATE TABLE victim (a int", "0) STORED, b int DEFAULT (0", "1 AS a; DROP TABLE victim", "SELECT 1 AS a; DROP TABLE victim", "SELECT 1 AS a; DROP TABLE victim; --",
		"SELECT 1 AS a); DROP TABLE victim; SELECT (1", "ANALYZE SELECT nextval('drawn')", "(ANALYZE) SELECT nextval('drawn')", "VERBOSE SELECT nextval('drawn')", "SELECT nextval('drawn') AS a", "nextval('drawn')",
		"DELETE FROM victim", "DELETE FROM victim RETURNING a", "WITH x AS (DELETE FROM victim RETURNING a) SELECT a FROM x", "TABLE victim", "COMMIT", "SELECT 1 AS a; COMMIT; DROP TABLE victim",
		"0); COMMIT; DROP TABLE victim; --", "'x', PRIMARY KEY (id)); COMMIT; DROP TABLE victim; --", "'x'; COMMIT; DROP TABLE victim; --", "'x') STORED, PRIMARY KEY (id)); COMMIT; DROP TABLE victim; --", "'x') STORED; COMMIT; DROP TABLE victim; --", "set_config('search_path', 'pg_catalog', false)",
		"(SELECT 1 FROM victim)", "currval('drawn')", "$1", "pg_terminate_backend(pg_backend_pid())", "SELECT pg_terminate_backend(pg_backend_pid()) AS a", "lo_import('/etc/passwd')", "(CREATE TABLE x (a int))",
	}) {
		if strings.ContainsRune(text, 0) || strings.TrimSpace(strings.Trim(strings.TrimSpace(text), ";")) == "" {
			continue
		}
		if !word.MatchString(strings.TrimSpace(text)) { // a column's name is no default: validate says so
			p.Tables = append(p.Tables, &spec.Table{Name: fmt.Sprint("h_d", i), Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "a", Type: spec.Text, Null: true, Default: text}}, PrimaryKey: []string{"id"}})
		}
		if i%4 == 0 || i >= 500 {
			p.Tables = append(p.Tables, &spec.Table{Name: fmt.Sprint("h_g", i), Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}, {Name: "a", Type: spec.Text, Null: true, Generated: text}}, PrimaryKey: []string{"id"}})
			p.Views = append(p.Views, &spec.View{Name: fmt.Sprint("v_q", i), Query: text})
			one := alert
			one.Name, one.Title, one.Query = fmt.Sprint("h_", i), fmt.Sprint("alert ", i), text
			p.Alerts = append(p.Alerts, &one)
			panels = append(panels, map[string]any{"id": i, "type": "table", "title": "x", "gridPos": map[string]any{"h": 1, "w": 1, "x": 0, "y": i}, "targets": []any{map[string]any{"refId": "A", "format": "table", "rawSql": text}}})
		}
	}
	p.Dashboards[0].JSON, _ = json.Marshal(map[string]any{"title": "x", "panels": panels})
	w.p = mustLoad(t, written(p), map[string]string{"GRAFANA_URL": g.URL, "GRAFANA_AUTH": g.Token})
	before := inventory(t, w.db, w.kafka, "h_")
	victims := func(when string) {
		t.Helper()
		got := collect(t, w.db, "SELECT a FROM victim UNION ALL SELECT last_value::text || is_called FROM drawn")
		if !slices.Equal(got, []string{"here", "1false"}) {
			t.Errorf("%s: %q", when, got)
		}
	}
	found := w.plan()
	if d := differ(before, inventory(t, w.db, w.kafka, "h_")); len(d) > 0 {
		t.Errorf("plan changes something: %q", d)
	}
	victims("after plan")
	excused := without(found)
	for _, r := range w.apply(found) {
		if r.Outcome != provision.Done && !excused[r.Address] {
			t.Errorf("%s: %s\n%s", r.Address, r.Reason, told(changes(found)[r.Address]))
		}
	}
	victims("after apply")
	next := w.plan()
	for _, c := range next.Changes {
		if (c.Changes() || c.Marks()) && !excused[c.Address] {
			t.Errorf("after apply: %s", told(c))
		}
	}
	victims("at the end")
	t.Logf("%d of %d objects are impossible", len(excused), len(found.Changes))
	names := []string{"victim", "drawn"}
	for _, c := range found.Changes {
		if kind, name, _ := strings.Cut(c.Address, "."); (kind == "table" || kind == "view") && !excused[c.Address] {
			if names = append(names, name); kind == "table" {
				names = append(names, name+"_pkey")
			}
		}
	}
	slices.Sort(names)
	if got := collect(t, w.db, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname COLLATE \"C\""); !slices.Equal(got, names) {
		t.Errorf("%q, want %q", got, names)
	}
}
