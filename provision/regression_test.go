package provision_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// What the property tests, the faults and the hostile texts found, each made small.
func TestFound(t *testing.T) {
	t.Parallel()
	kafka := client(t, testkit.Kafka(t).Addr())
	for name, try := range map[string]func(*testing.T, *kgo.Client){
		"view of all": viewOfAll, "default NULL": defaultNull, "many roles": manyRoles, "destroy of what is live": destroyOfWhatIsLive, "query that commits": queryThatCommits,
	} {
		t.Run(name, func(t *testing.T) { try(t, kafka) })
	}
}

// small is a harness on PostgreSQL alone.
func small(t *testing.T, kafka *kgo.Client, hcl string) *harness {
	t.Helper()
	w := &harness{t: t, db: database(t, freshDatabase(t)), kafka: kafka}
	w.says(hcl)
	return w
}

// says gives the harness another pipeline. READER is the name of a role of this database.
func (w *harness) says(hcl string) { w.saysWith(hcl, nil) }

// saysWith adds files.
func (w *harness) saysWith(hcl string, more map[string]string) {
	w.t.Helper()
	const head = "kafka {\n  brokers = [\"localhost:9092\"]\n}\ndatabase {\n  url        = \"postgres://x@x/x\"\n  on_missing = \"degrade\"\n}\n"
	hcl = strings.ReplaceAll(hcl, "READER", "reader_of_"+w.db.Config().ConnConfig.Database)
	files := fstest.MapFS{"pipeline.hcl": &fstest.MapFile{Data: []byte(head + hcl)}}
	for name, text := range more {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	w.p = mustLoad(w.t, files, nil)
}

// done applies everything, and wants nothing left.
func (w *harness) done(when string) {
	w.t.Helper()
	found := w.plan()
	for _, r := range w.apply(found, everything(found)...) {
		if r.Outcome != provision.Done {
			w.t.Errorf("%s: %s %s", when, r.Address, r.Reason)
		}
	}
	w.empty(when)
}

const idTable = `
table "x" {
  column "id" {
    type = "bigint"
  }
  primary_key = ["id"]
}
`

// A view with * follows its table in one apply, also when the new column is not declared as the last one.
func viewOfAll(t *testing.T, kafka *kgo.Client) {
	const view = "\nview \"v\" {\n  query = \"SELECT * FROM x\"\n}\n"
	w := small(t, kafka, idTable+view)
	w.done("at first")
	w.says(`
table "x" {
  column "made" {
    type      = "bigint"
    null      = true
    generated = "id + 1"
  }
  column "more" {
    type = "text"
    null = true
  }
  column "id" {
    type = "bigint"
  }
  primary_key = ["id"]
}
` + view)
	w.done("with more columns")
	if got := collect(t, w.db, "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'v'::regclass")[0]; got != "id more made" {
		t.Error(got)
	}
}

// PostgreSQL keeps no default that is NULL.
func defaultNull(t *testing.T, kafka *kgo.Client) {
	w := small(t, kafka, strings.Replace(idTable, "  primary_key", "  column \"a\" {\n    type    = \"text\"\n    null    = true\n    default = \"NULL\"\n  }\n  primary_key", 1))
	w.done("at first")
	w.says(strings.Replace(idTable, "  primary_key", "  column \"a\" {\n    type    = \"text\"\n    null    = true\n    default = \"NULL::text\"\n  }\n  column \"b\" {\n    type    = \"integer\"\n    null    = true\n    default = \"NULL::bigint\"\n  }\n  primary_key", 1))
	w.done("with a cast")
}

// Many roles with grants on the same schema and tables are made at once, and taken away again together with the table.
func manyRoles(t *testing.T, kafka *kgo.Client) {
	role := "\nrole \"READER_N\" {\n  grant {\n    privileges = [\"select\"]\n    on         = [table.x, cryptoviz]\n  }\n}\n"
	var roles, gone string
	for n := range 12 {
		roles += strings.ReplaceAll(role, "READER_N", fmt.Sprint("READER_", n))
		gone += fmt.Sprintf("removed {\n  object = role.READER_%d\n}\n", n)
	}
	w := small(t, kafka, idTable+roles)
	w.done("at first")
	w.says(idTable + gone + "removed {\n  object = view.other\n}\n")
	w.p.Tables = nil
	w.p.Removed[len(w.p.Removed)-1].Kind, w.p.Removed[len(w.p.Removed)-1].Name = "table", "x"
	w.done("when all goes")
	if n := collect(t, w.db, "SELECT count(*)::text FROM pg_roles WHERE rolname LIKE 'reader_of_' || current_database() || '_%'")[0]; n != "0" {
		t.Errorf("%s roles are left", n)
	}
}

// Destroy goes by what hangs on what now: a view may read another table than its block says, when that could not be applied.
func destroyOfWhatIsLive(t *testing.T, kafka *kgo.Client) {
	hcl := ""
	for i := range 8 {
		hcl += strings.Replace(idTable, `"x"`, fmt.Sprintf("\"x_%d\"", i), 1) + fmt.Sprintf("view \"v_%d\" {\n  query = \"SELECT id FROM x_%d\"\n}\n", i, i)
	}
	w := small(t, kafka, hcl+"role \"READER\" {\n  grant {\n    privileges = [\"select\"]\n    on         = [table.x_0, view.v_0]\n  }\n}\n")
	w.done("at first")
	for _, v := range w.p.Views {
		v.Query = "SELECT one FROM nothing"
	}
	going := w.open().Destroying(nil)
	found, err := going.Plan(t.Context())
	if err != nil || len(found.Errors) > 0 {
		t.Fatalf("%v %+v", err, found.Errors)
	}
	for _, c := range found.Changes {
		if c.Action != plan.Delete || c.Impossible() || c.Where == "" || strings.HasPrefix(c.Where, ":") {
			t.Errorf("%s at %q", told(c), c.Where)
		}
	}
	results, err := going.Apply(t.Context(), found, provision.Options{Allow: everything(found)})
	if err != nil {
		t.Errorf("%s", said(results, err))
	}
	if left := collect(t, w.db, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// A query of several statements, COMMIT among them, is refused: plan runs none of them.
func queryThatCommits(t *testing.T, kafka *kgo.Client) {
	g := grafanatest.New(t, grafanatest.V13)
	w := &harness{t: t, db: database(t, freshDatabase(t)), kafka: kafka}
	w.exec("CREATE TABLE victim (a text)")
	w.p = mustLoad(t, fstest.MapFS{"pipeline.hcl": &fstest.MapFile{Data: []byte(hostileHead + idTable + `
view "v" {
  query = "SELECT 1 AS a; COMMIT; DROP TABLE victim"
}
folder "f" {
  title = "F"
}
datasource "d" {
}
alert "a" {
  title      = "A"
  folder     = folder.f
  datasource = datasource.d
  query      = "SELECT id FROM x"
  above      = 1
}
`)}}, map[string]string{"GRAFANA_URL": g.URL, "GRAFANA_AUTH": g.Token})
	found, err := w.open().Plan(t.Context())
	w.exec("SELECT FROM victim")
	if c := changes(found)["view.v"]; err != nil || !c.Impossible() {
		t.Errorf("%v %s", err, told(c))
	}
}

// A default is one expression, in a new table and in one that is there: no statement behind it is run, by plan or by apply.
func TestFoundStatementsBehindADefault(t *testing.T) {
	broker := testkit.Kafka(t).Addr()
	for _, there := range []bool{false, true} {
		for _, text := range []string{"'x'; COMMIT; DROP TABLE victim; --", "'x', PRIMARY KEY (id)); COMMIT; DROP TABLE victim; --"} {
			w := &harness{t: t, db: database(t, testkit.Postgres(t)), kafka: client(t, broker)}
			w.exec("CREATE TABLE victim (a text)")
			ticks := &spec.Table{Name: "ticks", Columns: []*spec.Column{{Name: "id", Type: spec.Bigint}}, PrimaryKey: []string{"id"}}
			w.p = &spec.Pipeline{Tables: []*spec.Table{ticks}, Rollups: []*spec.Rollup{{Name: "r", Query: "SELECT id FROM ticks"}}}
			if there {
				w.apply(w.plan())
			}
			ticks.Columns = append(ticks.Columns, &spec.Column{Name: "a", Type: spec.Text, Null: true, Default: text})
			found := w.plan()
			if c := changes(found)["table.ticks"]; !c.Impossible() {
				t.Errorf("table there %v, %s: %s", there, text, told(c))
			}
			w.apply(found)
			if got := collect(t, w.db, "SELECT relname::text FROM pg_class WHERE relname = 'victim'"); len(got) != 1 {
				t.Errorf("table there %v, %s: a table was dropped", there, text)
			}
		}
	}
}
