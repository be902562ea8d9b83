package provision_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Pieces of a pipeline with a table m and a topic t.
const (
	agreedTable = `
table "m" {
  column "time" { type = "timestamptz" }
  column "px" {
    type = "TYPE"
    null = true
  }
  MORE
  primary_key = ["time"]
}
`
	gone = "\n  column \"old\" {\n    type = \"text\"\n    null = true\n  }"
)

func tableM(typ string, more ...string) string {
	return strings.NewReplacer("TYPE", typ, "MORE", strings.Join(more, "\n  ")).Replace(agreedTable)
}

// old gives a topic n records of three days ago.
func (w *harness) old(topic string, n int) {
	w.t.Helper()
	for range n {
		r := &kgo.Record{Topic: topic, Value: []byte("x"), Timestamp: time.Now().Add(-72 * time.Hour)}
		if err := w.kafka.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func since(r provision.Result) string {
	var out []string
	for _, s := range r.Since {
		out = append(out, s.What+" "+s.Old+" -> "+s.New)
	}
	return strings.Join(out, "; ")
}

// What arrives after the plan is not destroyed: neither what comes before apply assesses again, nor what comes after, when the turn
// of the object comes. Nothing of that object is done; both numbers are said.
func TestNothingIsLostThatCameLater(t *testing.T) {
	t.Parallel()
	const topic = "topic \"t\" {\n  retention = \"%s\"\n}\n"
	kafka := func(retention string) string { return strings.Replace(topic, "%s", retention, 1) }
	for name, row := range map[string]struct {
		before, after string // pipeline.hcl
		first         string // what is there when the plan is made
		arrives       string
		allow         []string
		address, code string
		says          string
	}{
		"values come out different": {
			tableM("double precision"), tableM("bigint"),
			"INSERT INTO m VALUES (now(), 1)", "INSERT INTO m VALUES (now() + '1s', 1.5)", nil, "table.m", "CV-T10", "1",
		},
		"in a table that was empty": {tableM("double precision"), tableM("bigint"), "SELECT 1", "INSERT INTO m VALUES (now(), 1.5)", nil, "table.m", "CV-T10", "1"},
		"more values than agreed to": {
			tableM("double precision"), tableM("bigint"),
			"INSERT INTO m VALUES (now(), 1.5)", "INSERT INTO m SELECT now() + i * '1s'::interval, 1.5 FROM generate_series(1, 9) i",
			[]string{"CV-T10@table.m"},
			"table.m", "CV-T10", "2 rows agreed to -> 10 rows",
		},
		"a column is dropped": {
			tableM("text", gone), tableM("text"),
			"INSERT INTO m VALUES (now(), 'a', 'b')", "INSERT INTO m SELECT now() + i * '1s'::interval, 'a', 'b' FROM generate_series(1, 9) i",
			[]string{"CV-T06@table.m=5"},
			"table.m", "CV-T06", "5 rows agreed to -> 10 rows",
		},
		"a column is generated": {
			tableM("double precision", "column \"b\" {\n    type = \"double precision\"\n    null = true\n  }"),
			tableM("double precision", "column \"b\" {\n    type = \"double precision\"\n    null = true\n    generated = \"px * 2\"\n  }"),
			"SELECT 1", "INSERT INTO m VALUES (now(), 1, 7)", nil, "table.m", "CV-T33", "1",
		},
		"a table is dropped": {
			tableM("text"), "removed {\n  object = table.m\n}\n",
			"INSERT INTO m VALUES (now(), 'a')", "INSERT INTO m SELECT now() + i * '1s'::interval FROM generate_series(1, 9) i",
			[]string{"CV-T29@table.m"},
			"table.m", "CV-T29", "2 rows agreed to -> 10 rows",
		},
		"records beyond a retention": {kafka("7d"), kafka("1d"), "records 0", "records 3", nil, "topic.t", "CV-K07", "3"},
		"more records than agreed to": {
			kafka("7d"), kafka("1d"), "records 2", "records 3",
			[]string{"CV-K07@topic.t"},
			"topic.t", "CV-K07", "3 records agreed to -> 5 records",
		},
		"a topic is deleted": {
			kafka("7d"), "removed {\n  object = topic.t\n}\n", "records 2", "records 3",
			[]string{"CV-K11@topic.t=4"},
			"topic.t", "CV-K11", "4 records agreed to -> 5 records",
		},
	} {
		for _, when := range []string{"before apply", "at its turn"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				w := newHarness(t, freshDatabase(t))
				topic := "t_" + w.db.Config().ConnConfig.Database
				own := func(s string) string {
					s = strings.ReplaceAll(strings.ReplaceAll(s, `topic "t"`, `topic "`+topic+`"`), "topic.t", "topic."+topic)
					return s
				}
				do := func(what string) {
					if n, records := strings.CutPrefix(what, "records "); records {
						w.old(topic, int(n[0]-'0'))
						return
					}
					w.exec(what)
				}
				w.says(own(row.before))
				w.apply(w.plan())
				do(row.first)
				w.says(own(row.after))
				agreed := saved(t, w.plan())
				opt := provision.Options{By: "test", Version: "0"}
				for _, text := range row.allow {
					opt.Allow = append(opt.Allow, consent(own(text)))
				}
				address := own(row.address)
				if when == "before apply" {
					do(row.arrives)
				} else {
					opt.Progress = func(e provision.Event) {
						if e.Change.Address == address && e.Outcome == "" {
							do(row.arrives)
						}
					}
				}
				results, err := w.open().ApplyAgreed(t.Context(), agreed, opt)
				r := outcomes(results)[address]
				if !errors.Is(err, provision.ErrIncomplete) || r.Outcome != provision.Refused ||
					!strings.Contains(since(r), row.code) || !strings.Contains(since(r), row.says) {
					t.Errorf("%v: %+v: %s", err, r, since(r))
				}
				found := changes(w.plan())[address]
				if loss, lost := found.Lost(row.code); !lost || loss.Count == 0 {
					t.Errorf("it is gone: %s", told(found))
				}
			})
		}
	}
}

// An attacker who edits a saved plan, and its sum with it, can make apply do nothing that pipeline.hcl and the servers do not ask
// for: there is nothing in it to execute.
func TestForgedPlan(t *testing.T) {
	t.Parallel()
	w := newHarness(t, freshDatabase(t))
	w.says(tableM("double precision"))
	w.apply(w.plan())
	w.exec("CREATE TABLE keepme (a integer); INSERT INTO keepme VALUES (1); INSERT INTO m VALUES (now(), 1.5)")
	w.says(tableM("bigint"))
	honest := saved(t, w.plan())
	bad := "DROP TABLE keepme"
	for name, forge := range map[string]func(a map[string]any, c map[string]any){
		"steps":            func(_, c map[string]any) { c["steps"] = []string{bad} },
		"other actions":    func(_, c map[string]any) { c["action"] = "delete"; delete(c, "diffs") },
		"another address":  func(_, c map[string]any) { c["address"] = "table.keepme"; c["action"] = "delete" },
		"text of a diff":   func(_, c map[string]any) { c["diffs"].([]any)[0].(map[string]any)["new"] = "bigint; " + bad },
		"wanted state":     func(_, c map[string]any) { c["want"] = "none"; c["action"] = "delete" },
		"no findings":      func(_, c map[string]any) { delete(c, "findings") },
		"harmless finding": func(_, c map[string]any) { c["findings"].([]any)[0].(map[string]any)["class"] = "safe" },
		"one more change": func(a, _ map[string]any) {
			a["changes"] = append(a["changes"].([]any), map[string]any{"address": "table.keepme", "action": "delete", "live": "x", "want": "none", "steps": []string{bad}})
		},
		"all is agreed to": func(a, _ map[string]any) { // it permits more; what is done is what pipeline.hcl asks for, and is printed
			a["consents"] = []map[string]any{{"code": "CV-T29", "address": "table.keepme", "limit": -1}, {"code": "CV-T29", "address": "table.m", "limit": -1}}
		},
	} {
		text, err := json.Marshal(honest)
		if err != nil {
			t.Fatal(err)
		}
		var a map[string]any
		if err := json.Unmarshal(text, &a); err != nil {
			t.Fatal(err)
		}
		forge(a, a["changes"].([]any)[0].(map[string]any))
		// The sum is made again by the program itself, as an attacker would.
		if text, err = json.Marshal(a); err != nil {
			t.Fatal(err)
		}
		var typed plan.Agreement
		if err := json.Unmarshal(text, &typed); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if err := typed.Write(&file); err != nil {
			t.Fatal(err)
		}
		forged, err := plan.ReadAgreement(&file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		results, err := w.open().ApplyAgreed(t.Context(), forged, provision.Options{})
		t.Logf("%s: %v %s", name, err, said(results, nil))
		var keeps, px string
		row := "SELECT (SELECT count(*) FROM keepme)::text, (SELECT px FROM m)::text"
		if err := w.db.QueryRow(t.Context(), row).Scan(&keeps, &px); err != nil || keeps != "1" || px != "1.5" {
			t.Fatalf("%s: %v: keepme has %s rows, m has %s", name, err, keeps, px)
		}
	}
}

// A plan of other servers is refused before the first change, and both are named. So is the ledger of another Kafka or Grafana,
// until they are said to have moved.
func TestOtherServers(t *testing.T) {
	t.Parallel()
	w := newHarness(t, freshDatabase(t))
	g := grafanatest.New(t, grafanatest.V13)
	topic := "t_" + w.db.Config().ConnConfig.Database
	hcl := "topic \"" + topic + "\" {}\nfolder \"f\" {\n  title = \"F\"\n}\n"
	w.with(g, hcl)
	empty := saved(t, w.plan())
	w.apply(w.plan())
	w.with(g, hcl+tableM("text"))
	agreed := saved(t, w.plan())

	refused := func(what string, a plan.Agreement, says ...string) {
		t.Helper()
		results, err := w.open().ApplyAgreed(t.Context(), a, provision.Options{})
		if err == nil || len(results) > 0 {
			t.Errorf("%s: %v %+v", what, err, results)
			return
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v lacks %s", what, err, s)
			}
		}
	}
	other := agreed
	other.Servers.Kafka = "elsewhere"
	refused("Kafka of the plan", other, "elsewhere", agreed.Servers.Kafka, "plan again")
	other = agreed
	other.Servers.Grafana = "http://other org 1"
	refused("Grafana of the plan", other, "http://other org 1", g.URL)
	other = agreed
	other.Servers.Database.OID++
	refused("database of the plan", other, "PostgreSQL", other.Servers.Database.Ledger)
	here := w.db
	there := newHarness(t, freshDatabase(t))
	w.db = there.db
	refused("an empty database", agreed, "no ledger yet")
	w.db = here
	if r := outcomes(w.applyAgreed(empty))["folder.f"]; r.Outcome != provision.Done {
		t.Errorf("a plan of before the first apply: %+v", r)
	}

	// The ledger: what was applied elsewhere says nothing of what is here.
	w.exec("UPDATE cryptoviz.managed SET server = 'K9' WHERE address LIKE 'topic.%'; UPDATE cryptoviz.managed SET server = 'http://old org 1' WHERE address = 'folder.f'")
	w.with(g, hcl)
	found := w.plan()
	c := changes(found)["topic."+topic]
	if c.Ours || !c.Adopt || !strings.Contains(strings.Join(c.Notes, ""), "last applied on K9") || len(found.Moved) != 2 {
		t.Errorf("%s %v %+v", told(c), c.Notes, found.Moved)
	}
	refused("both moved", plan.Agree(found), "K9", "http://old org 1", "cryptoviz apply --moved kafka --moved grafana")
	_, err := w.open().Apply(t.Context(), found, provision.Options{Moved: []string{"Kafka", "Grafana"}})
	if err != nil {
		t.Error(err)
	}
	if again := w.plan(); len(again.Moved) > 0 {
		t.Errorf("%+v", again.Moved)
	}
	w.empty("after the move")

	// Rows of an earlier version name no server: they are trusted, and filled in.
	w.exec("UPDATE cryptoviz.managed SET server = ''")
	w.empty("rows without a server")
	w.with(g, hcl+tableM("text"))
	w.apply(w.plan())
	var n int
	if err := w.db.QueryRow(t.Context(), "SELECT count(*) FROM cryptoviz.managed WHERE server = ''").Scan(&n); err != nil || n > 0 {
		t.Errorf("%d rows without a server: %v", n, err)
	}

	// A copy of the database has the rows and the ledger's id of the original: it says so once.
	w.exec("UPDATE cryptoviz.meta SET value = '1/2' WHERE key = 'database'")
	if notes := w.plan().Notes; len(notes) != 1 || !strings.Contains(notes[0], "this database is a copy: the last apply was on system and database 1/2") {
		t.Errorf("%q", notes)
	}
	w.with(g, hcl)
	w.with(g, hcl+tableM("text", "description = \"M.\""))
	w.apply(w.plan())
	if notes := w.plan().Notes; len(notes) > 0 {
		t.Errorf("%q", notes)
	}
}

// A change whose ledger row cannot be written is made, and says so; the next plan adopts it.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	w := newHarness(t, freshDatabase(t))
	w.says(tableM("text"))
	w.apply(w.plan())
	w.exec(`CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the ledger is broken'; END $$;
		CREATE TRIGGER no BEFORE INSERT ON cryptoviz.managed FOR EACH ROW WHEN (new.address = 'table.n') EXECUTE FUNCTION no()`)
	w.says(tableM("text") + strings.Replace(tableM("text"), `table "m"`, `table "n"`, 1))
	found := w.plan()
	results, err := w.open().Apply(t.Context(), found, provision.Options{})
	r := outcomes(results)["table.n"]
	if !errors.Is(err, provision.ErrIncomplete) || r.Outcome != provision.Done || r.Recorded || !strings.Contains(r.Reason, "done, not recorded") ||
		!strings.Contains(r.Reason, "the ledger is broken") {
		t.Errorf("%v %+v", err, r)
	}
	w.exec("DROP TRIGGER no ON cryptoviz.managed")
	if c := changes(w.plan())["table.n"]; c.Changes() || !c.Adopt {
		t.Errorf("%s", told(c))
	}
	w.apply(w.plan())
	w.empty("after adoption")
}

// A change that lacks consent holds back only itself: the others of its table are made, and it stays in the plan.
func TestConsentHoldsBackOneChange(t *testing.T) {
	t.Parallel()
	w := newHarness(t, freshDatabase(t))
	w.says(tableM("double precision", gone))
	w.apply(w.plan())
	w.exec("INSERT INTO m VALUES (now(), 1.5, 'x')")
	w.says(tableM("bigint", "column \"new\" {\n    type = \"text\"\n    null = true\n  }", "description = \"M.\"", "index {\n    columns = [\"px\"]\n  }"))
	results := w.apply(w.plan(), consent("CV-T10@table.other"))
	var made, kept bool
	for _, r := range results {
		if r.Address == "table.m" {
			made = made || r.Outcome == provision.Done
			kept = kept || r.Outcome == provision.Skipped && strings.Contains(r.Reason, "column px, column old left as it is: CV-T10") || strings.Contains(r.Reason, "column old, column px left as it is")
		}
	}
	if !made || !kept {
		t.Errorf("%s", said(results, nil))
	}
	c := changes(w.plan())["table.m"]
	if len(c.Diffs) != 2 || c.Diffs[0].Name != "column px" || c.Diffs[0].Cause != plan.Intent || c.Diffs[1].Name != "column old" || c.Diffs[1].Cause != plan.Reset {
		t.Errorf("%s", told(c))
	}
	r := w.apply(w.plan(), consent("CV-T10@table.m=1"))
	if c := changes(w.plan())["table.m"]; len(c.Diffs) != 1 || c.Diffs[0].Name != "column old" {
		t.Errorf("%s %s", said(r, nil), told(c))
	}
	w.apply(w.plan(), consent("CV-T06@table.m=all"))
	w.empty("with all consents")
}

// What a saved plan does not have is left alone, and named; what it has and is done already is no error.
func TestOnlyWhatWasAgreedTo(t *testing.T) {
	t.Parallel()
	w := newHarness(t, freshDatabase(t))
	w.says(tableM("text"))
	agreed := saved(t, w.plan())
	w.says(tableM("text") + strings.Replace(tableM("text"), `table "m"`, `table "n"`, 1))
	results, err := w.open().ApplyAgreed(context.WithoutCancel(t.Context()), agreed, provision.Options{})
	done := outcomes(results)
	if err != nil || done["table.m"].Outcome != provision.Done || done["table.n"].Outcome != provision.Left {
		t.Errorf("%v %s", err, said(results, nil))
	}
	if c := changes(w.plan())["table.n"]; c.Action != plan.Create {
		t.Errorf("%s", told(c))
	}
	for _, r := range w.applyAgreed(agreed) {
		if r.Address != "table.n" && (r.Outcome != provision.Done || r.Reason != "already so") {
			t.Errorf("%+v", r)
		}
	}
}
