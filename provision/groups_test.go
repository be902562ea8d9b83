package provision_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// tableOf is a table with the key id and nullable columns, each "name type", "name type was=old" or "name type gen=expression".
func tableOf(name string, columns ...string) string {
	out := fmt.Sprintf("table %q {\n  column \"id\" {\n    type = \"bigint\"\n  }\n  column \"time\" {\n    type = \"timestamptz\"\n  }\n", name)
	for _, c := range columns {
		parts := strings.SplitN(c, " ", 3)
		out += fmt.Sprintf("  column %q {\n    type = %q\n    null = true\n", parts[0], parts[1])
		if len(parts) == 3 {
			what, text, _ := strings.Cut(parts[2], "=")
			out += fmt.Sprintf("    %s = %q\n", map[string]string{"was": "was", "gen": "generated"}[what], text)
		}
		out += "  }\n"
	}
	return out + "  primary_key = [\"id\", \"time\"]\n}\n"
}

func hypertableOf(name string, columns ...string) string {
	return strings.TrimSuffix(tableOf(name, columns...), "}\n") + "  hypertable {\n    time           = \"time\"\n    chunk_interval = \"1d\"\n  }\n}\n"
}

func viewOf(name, query string) string {
	return fmt.Sprintf("view %q {\n  query = %q\n}\n", name, query)
}

func aggregateOf(name, from, query string) string {
	return fmt.Sprintf("aggregate %q {\n  from      = %s\n  real_time = true\n  query     = %q\n}\n", name, from, query)
}

func removedOf(address string) string { return fmt.Sprintf("removed {\n  object = %s\n}\n", address) }

// together is one change of a pipeline in which declared objects stand in each other's way.
type together struct {
	name          string
	before, after string
	sql           string // between: what others set
	check, want   string // a query, and its one value afterwards
}

const rowsOfT = "; INSERT INTO t (id, time) SELECT i, now() - i * interval '1 hour' FROM generate_series(1, 50) i"

var togetherOnPostgres = []together{
	{
		name:   "a view loses a column that its reader does not read",
		before: tableOf("t", "a integer", "b text") + viewOf("v1", "SELECT id, a, b FROM t") + viewOf("v2", "SELECT a, max(id) AS top FROM v1 GROUP BY 1"),
		after:  tableOf("t", "a integer", "b text") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a, max(id) AS top FROM v1 GROUP BY 1"),
		sql: `GRANT SELECT ON v1 TO reader WITH GRANT OPTION; GRANT SELECT (top), UPDATE (a) ON v2 TO reader; COMMENT ON VIEW v2 IS 'by hand'; COMMENT ON COLUMN v2.top IS 'highest';
			ALTER VIEW v2 SET (security_barrier = true); ALTER VIEW v1 ALTER COLUMN a SET DEFAULT 7; ALTER VIEW v1 SET (security_invoker = true);
			CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER put INSTEAD OF INSERT ON v1 FOR EACH ROW EXECUTE FUNCTION noted();
			CREATE RULE quiet AS ON DELETE TO v2 DO INSTEAD NOTHING; COMMENT ON RULE quiet ON v2 IS 'why'; COMMENT ON TRIGGER put ON v1 IS 'how';
			ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC`,
		check: `SELECT concat_ws(' ', has_table_privilege('reader', 'v1', 'SELECT WITH GRANT OPTION'), has_column_privilege('reader', 'v2', 'top', 'SELECT'), has_column_privilege('reader', 'v2', 'a', 'SELECT'),
			has_column_privilege('reader', 'v2', 'a', 'UPDATE'), obj_description('v2'::regclass), col_description('v2'::regclass, 2), (SELECT reloptions FROM pg_class WHERE relname = 'v2'),
			(SELECT reloptions FROM pg_class WHERE relname = 'v1'), (SELECT pg_get_expr(adbin, 0) FROM pg_attrdef WHERE adrelid = 'v1'::regclass),
			(SELECT tgname || obj_description(oid, 'pg_trigger') FROM pg_trigger WHERE tgrelid = 'v1'::regclass), (SELECT rulename || obj_description(oid, 'pg_rewrite') FROM pg_rewrite WHERE ev_class = 'v2'::regclass AND rulename <> '_RETURN'))`,
		want: "t t f t by hand highest {security_barrier=true} {security_invoker=true} 7 puthow quietwhy",
	},
	{
		name:   "a column's type under views on views",
		before: tableOf("t", "a integer", "b text") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a + 1 AS a1 FROM v1") + viewOf("v3", "SELECT max(a1) AS top FROM v2") + viewOf("other", "SELECT b FROM t"),
		after:  tableOf("t", "a bigint", "b text") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a + 1 AS a1 FROM v1") + viewOf("v3", "SELECT max(a1) AS top FROM v2") + viewOf("other", "SELECT b FROM t"),
		sql:    "GRANT SELECT ON v3 TO reader" + rowsOfT,
		check:  "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attrelid::regclass::text, attnum) || has_table_privilege('reader', 'v3', 'SELECT') FROM pg_attribute WHERE attrelid IN ('v1'::regclass, 'v2'::regclass, 'v3'::regclass) AND attnum > 0",
		want:   "id bigint, a bigint, a1 bigint, top biginttrue",
	},
	{
		name:   "a column is dropped that the new text does not read",
		before: tableOf("t", "a integer", "b text") + viewOf("v1", "SELECT id, a, b FROM t") + viewOf("v2", "SELECT b FROM v1"),
		after:  tableOf("t", "a integer") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a::text AS b FROM v1"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "a column is renamed, retyped and read by views of three levels",
		before: tableOf("t", "a integer") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a FROM v1") + viewOf("v3", "SELECT a FROM v2"),
		after:  tableOf("t", "b bigint was=a") + viewOf("v1", "SELECT id, b FROM t") + viewOf("v2", "SELECT b FROM v1") + viewOf("v3", "SELECT b AS a FROM v2"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "a column is renamed",
		before: tableOf("t", "a integer") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a FROM v1"),
		after:  tableOf("t", "b integer was=a") + viewOf("v1", "SELECT id, b FROM t") + viewOf("v2", "SELECT b FROM v1"),
	},
	{
		name:   "two views change roles",
		before: tableOf("t", "a integer") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a, id AS n FROM v1"),
		after:  tableOf("t", "a integer") + viewOf("v2", "SELECT id, a FROM t") + viewOf("v1", "SELECT a, id AS n FROM v2"),
	},
	{
		name:   "two views change roles with the same columns",
		before: tableOf("t", "a integer") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT id, a FROM v1"),
		after:  tableOf("t", "a integer") + viewOf("v2", "SELECT id, a FROM t") + viewOf("v1", "SELECT id, a FROM v2"),
	},
	{
		name:   "a view becomes a table",
		before: tableOf("t", "a integer") + viewOf("x", "SELECT id, time, a FROM t") + viewOf("v", "SELECT a FROM x"),
		after:  tableOf("t", "a integer") + tableOf("x", "a integer") + viewOf("v", "SELECT a FROM x") + removedOf("view.x"),
		check:  "SELECT relkind::text FROM pg_class WHERE relname = 'x'", want: "r",
	},
	{
		name:   "a table becomes a view",
		before: tableOf("t", "a integer") + tableOf("x", "a integer") + viewOf("v", "SELECT a FROM x"),
		after:  tableOf("t", "a integer") + viewOf("x", "SELECT id, a FROM t") + viewOf("v", "SELECT a FROM x") + removedOf("table.x"),
		check:  "SELECT relkind::text FROM pg_class WHERE relname = 'x'", want: "v",
	},
	{
		name:   "a removed view reads what changes",
		before: tableOf("t", "a integer", "b text") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a FROM v1"),
		after:  tableOf("t", "a bigint") + viewOf("v1", "SELECT id, a FROM t") + removedOf("view.v2"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "what reads a removed view and a removed table does not any more",
		before: tableOf("t", "a integer") + tableOf("u", "a integer") + viewOf("v1", "SELECT a FROM u") + viewOf("v2", "SELECT a FROM v1") + viewOf("v3", "SELECT a FROM u"),
		after:  tableOf("t", "a integer") + viewOf("v2", "SELECT a FROM t") + viewOf("v3", "SELECT a FROM t") + removedOf("table.u") + removedOf("view.v1"),
	},
	{
		name:   "two tables change under one view, a new view stands between, and another reads a third table",
		before: tableOf("t", "a integer") + tableOf("u", "b integer") + viewOf("v", "SELECT t.a, u.b FROM t JOIN u USING (id)"),
		after: tableOf("t", "a bigint", "c text") + tableOf("u", "b bigint") + tableOf("w", "d text") + viewOf("mid", "SELECT t.id, c, d FROM t JOIN w USING (id)") +
			viewOf("v", "SELECT t.a, u.b, mid.c, mid.d FROM t JOIN u USING (id) JOIN mid USING (id)"),
		sql: "SELECT 1" + rowsOfT,
	},
	{
		name:   "a generated column and what it reads",
		before: tableOf("t", "a integer", "g integer gen=a + 1") + viewOf("v", "SELECT g FROM t"),
		after:  tableOf("t", "a bigint", "g integer gen=a + 1") + viewOf("v", "SELECT g FROM t"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "another expression",
		before: tableOf("t", "a integer", "g integer gen=a + 1") + viewOf("v", "SELECT g FROM t") + viewOf("v2", "SELECT g FROM v"),
		after:  tableOf("t", "a integer", "g bigint gen=a + 2") + viewOf("v", "SELECT g FROM t") + viewOf("v2", "SELECT g FROM v"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "a view with * over views with *",
		before: tableOf("t", "a integer", "b text") + viewOf("v1", "SELECT * FROM t") + viewOf("v2", "SELECT * FROM v1"),
		after:  tableOf("t", "b text", "a bigint", "c text") + viewOf("v1", "SELECT * FROM t") + viewOf("v2", "SELECT * FROM v1"),
		sql:    "SELECT 1" + rowsOfT,
	},
}

var togetherOnTimescale = []together{
	{
		name:   "a column's type under an aggregate, an aggregate on it, and views",
		before: hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + dailyOf + viewOf("v", "SELECT high FROM daily") + viewOf("w", "SELECT a FROM t"),
		after:  hypertableOf("t", "a bigint") + hourlyOf("max(a) AS high") + dailyOf + viewOf("v", "SELECT high FROM daily") + viewOf("w", "SELECT a FROM t"),
		sql:    "GRANT SELECT ON hourly, daily, v TO reader" + rowsOfT,
		check: `SELECT concat_ws(' ', has_table_privilege('reader', 'hourly', 'SELECT'), has_table_privilege('reader', 'daily', 'SELECT'), has_table_privilege('reader', 'v', 'SELECT'),
			(SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'v'::regclass AND attnum = 1), (SELECT count(*) > 10 FROM hourly))`,
		want: "t t t bigint t",
	},
	{
		name:   "an aggregate is renamed with its view",
		before: hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + viewOf("v", "SELECT bucket, high FROM hourly"),
		after:  hypertableOf("t", "a integer") + strings.ReplaceAll(hourlyOf("max(a) AS high"), `"hourly"`, `"per_hour"`) + viewOf("v", "SELECT bucket, high FROM per_hour") + removedOf("aggregate.hourly"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "an aggregate and its view are renamed, and columns too",
		before: hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + viewOf("v", "SELECT bucket, high FROM hourly"),
		after:  hypertableOf("t", "a integer") + strings.ReplaceAll(hourlyOf("max(a) AS top"), `"hourly"`, `"per_hour"`) + viewOf("nv", "SELECT bucket, top FROM per_hour") + removedOf("aggregate.hourly") + removedOf("view.v"),
	},
	{
		name:   "a view becomes an aggregate",
		before: hypertableOf("t", "a integer") + viewOf("hourly", "SELECT time_bucket('1 hour', time) AS bucket, max(a) AS high FROM t GROUP BY 1") + viewOf("v", "SELECT high FROM hourly"),
		after:  hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + viewOf("v", "SELECT high FROM hourly") + removedOf("view.hourly"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "an aggregate becomes a view",
		before: hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + dailyOf + viewOf("v", "SELECT high FROM hourly"),
		after:  hypertableOf("t", "a integer") + viewOf("hourly", "SELECT time_bucket('1 hour', time) AS bucket, max(a) AS high FROM t GROUP BY 1") + viewOf("v", "SELECT high FROM hourly") + removedOf("aggregate.hourly") + removedOf("aggregate.daily"),
	},
	{
		name:   "an aggregate loses a column that its view does not read, and a column under both is dropped",
		before: hypertableOf("t", "a integer", "b integer") + hourlyOf("max(a) AS high, max(b) AS b") + viewOf("v", "SELECT high FROM hourly"),
		after:  hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + viewOf("v", "SELECT high FROM hourly"),
		sql:    "SELECT 1" + rowsOfT,
	},
	{
		name:   "a column is renamed under an aggregate",
		before: hypertableOf("t", "a integer") + hourlyOf("max(a) AS high") + viewOf("v", "SELECT high FROM hourly"),
		after:  hypertableOf("t", "b integer was=a") + hourlyOf("max(b) AS high") + viewOf("v", "SELECT high FROM hourly"),
		sql:    "SELECT 1" + rowsOfT,
	},
}

func hourlyOf(columns string) string {
	return aggregateOf("hourly", "table.t", "SELECT time_bucket('1 hour', time) AS bucket, "+columns+" FROM t GROUP BY 1")
}

var dailyOf = aggregateOf("daily", "table.t", "SELECT time_bucket('1 day', bucket) AS bucket, max(high) AS high FROM hourly GROUP BY 1")

// What is declared is not in its own way: one apply does it, and keeps what others set.
func TestTogetherOnPostgres(t *testing.T) {
	t.Parallel()
	kafka := client(t, testkit.Kafka(t).Addr())
	for _, c := range togetherOnPostgres {
		t.Run(c.name, func(t *testing.T) { c.run(small(t, kafka, c.before)) })
	}
}

func TestTogetherOnTimescale(t *testing.T) {
	t.Parallel()
	kafka := client(t, testkit.Kafka(t).Addr())
	for _, c := range togetherOnTimescale {
		t.Run(c.name, func(t *testing.T) {
			w := &harness{t: t, db: database(t, testkit.Timescale(t)), kafka: kafka}
			w.says(c.before)
			c.run(w)
		})
	}
}

func (c together) run(w *harness) {
	w.t.Helper()
	w.done("at first")
	if w.t.Failed() {
		return
	}
	reader := "reader_of_" + w.db.Config().ConnConfig.Database
	named := func(sql string) string {
		return strings.NewReplacer("TO reader", "TO "+reader, "'reader'", "'"+reader+"'").Replace(sql)
	}
	if strings.Contains(c.sql, "reader") {
		w.exec("CREATE ROLE " + reader)
		w.t.Cleanup(func() {
			if _, err := w.db.Exec(context.WithoutCancel(w.t.Context()), "DROP OWNED BY "+reader+"; DROP ROLE "+reader); err != nil {
				w.t.Error(err)
			}
		})
	}
	if c.sql != "" {
		w.exec(named(c.sql))
	}
	w.says(c.after)
	found := w.plan()
	for _, change := range found.Changes {
		for _, f := range change.Findings {
			if f.Class == plan.Impossible {
				w.t.Errorf("%s %s: %s", change.Address, f.Code, f.Text)
			}
		}
	}
	for _, r := range w.apply(found, everything(found)...) {
		if r.Outcome != provision.Done {
			w.t.Errorf("%s %s: %s\n%s", r.Outcome, r.Address, r.Reason, told(changes(found)[r.Address]))
		}
	}
	w.empty("afterwards")
	if w.t.Failed() {
		for _, change := range found.Changes {
			if change.Changes() {
				w.t.Log(told(change))
			}
		}
	}
	if c.check == "" || w.t.Failed() {
		return
	}
	if have := collect(w.t, w.db, named(c.check))[0]; have != c.want {
		w.t.Errorf("have %s\nwant %s", have, c.want)
	}
}

// A failure in the middle leaves all as it was.
func TestTogetherOrNotAtAll(t *testing.T) {
	t.Parallel()
	kafka := client(t, testkit.Kafka(t).Addr())
	w := small(t, kafka, tableOf("t", "a integer", "b text")+viewOf("v1", "SELECT id, a FROM t")+viewOf("v2", "SELECT b, id FROM t"))
	w.done("at first")
	w.exec("INSERT INTO t (id, time, b) VALUES (1, now(), 'kept')")
	w.says(tableOf("t", "a bigint") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT id FROM t"))
	shape := "SELECT string_agg(attrelid::regclass || ' ' || attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attrelid::regclass::text, attnum) FROM pg_attribute WHERE attrelid IN ('t'::regclass, 'v1'::regclass, 'v2'::regclass) AND attnum > 0 AND NOT attisdropped"
	before := collect(t, w.db, shape)[0]
	found := w.plan()

	// An event trigger fails on the second view, after the table was changed.
	w.exec(`CREATE FUNCTION fails() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
		IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.v2') THEN RAISE EXCEPTION 'not today'; END IF; END $$;
		CREATE EVENT TRIGGER fails ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION fails()`)
	for _, r := range w.apply(found, everything(found)...) {
		if r.Outcome == provision.Done {
			t.Errorf("with a failure in the middle: %+v", r)
		}
	}
	if after := collect(t, w.db, shape)[0]; after != before {
		t.Errorf("with a failure in the middle:\n%s\n%s", before, after)
	}
	w.exec("DROP EVENT TRIGGER fails")
	w.done("afterwards")
}

// A target takes what is changed in the same transaction with it.
func TestTogetherAsTargets(t *testing.T) {
	t.Parallel()
	w := small(t, client(t, testkit.Kafka(t).Addr()), tableOf("t", "a integer", "b text")+viewOf("v1", "SELECT id, a FROM t"))
	w.done("at first")
	w.says(tableOf("t", "a bigint", "b text") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT b FROM t"))
	found, err := w.plan().Target([]string{"view.v1"})
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, c := range found.Changes {
		if c.Changes() {
			addresses = append(addresses, c.Address)
		}
	}
	if slices.Sort(addresses); !slices.Equal(addresses, []string{"table.t", "view.v1"}) {
		t.Errorf("%v", addresses)
	}
	for _, r := range w.apply(found, everything(found)...) {
		if r.Outcome != provision.Done {
			t.Errorf("%+v", r)
		}
	}
}

// What nobody declares still stands in the way, and is named.
func TestUndeclaredDependents(t *testing.T) {
	t.Parallel()
	w := small(t, client(t, testkit.Kafka(t).Addr()), tableOf("t", "a integer", "b text")+viewOf("v1", "SELECT id, a FROM t")+viewOf("v2", "SELECT id, a FROM v1"))
	w.done("at first")
	w.exec("CREATE VIEW foreign_view AS SELECT a FROM v2")
	w.says(tableOf("t", "a bigint", "b text") + viewOf("v1", "SELECT id, a FROM t") + viewOf("v2", "SELECT a FROM v1"))
	found := changes(w.plan())
	for address, code := range map[string]string{"table.t": "CV-T20", "view.v2": "CV-V03"} {
		c := found[address]
		if len(c.Findings) == 0 || !c.Impossible() || c.Findings[0].Code != code || !strings.Contains(c.Findings[0].Text, "view.foreign_view") {
			t.Errorf("%s: %+v", address, c.Findings)
		}
	}
}
