package timescale

import (
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// What hangs on a column is found by the catalog: of a large table an empty copy is tried, and nothing hangs on that.
func TestTableColumnInUse(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source, note) SELECT now() + i * interval '1 second', 'a', repeat('x', 600) FROM generate_series(1, 30000) i")
	w.exec("CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'")
	part := w.text("SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'm'::regclass")
	for _, test := range []struct{ make, drop, text string }{
		{"CREATE POLICY few ON m USING (n > 0)", "DROP POLICY few ON m", "policy few on table m depends on it"},
		{"CREATE TRIGGER t BEFORE UPDATE OF n ON m FOR EACH ROW EXECUTE FUNCTION noted()", "DROP TRIGGER t ON m", "trigger t on table m depends on it"},
		{"CREATE TRIGGER t BEFORE UPDATE ON " + part + " FOR EACH ROW WHEN (new.n > 0) EXECUTE FUNCTION noted()", "DROP TRIGGER t ON " + part, "trigger t on table " + part + " depends on it"},
		{"CREATE RULE r AS ON UPDATE TO m WHERE new.n > 9 DO INSTEAD NOTHING", "DROP RULE r ON m", "rule r on table m depends on it"},
		{"CREATE VIEW one AS SELECT n FROM " + part, "DROP VIEW one", "view one depends on it"},
		{"CREATE FUNCTION most() RETURNS integer BEGIN ATOMIC SELECT max(n) FROM m; END", "DROP FUNCTION most", "function most() depends on it"},
		{"CREATE PUBLICATION p FOR TABLE m (n, source, time) WITH (publish_via_partition_root)", "DROP PUBLICATION p", "publication of table m in publication p depends on it"},
		{"CREATE TABLE whole (row m)", "DROP TABLE whole", "column row of table whole depends on it"},
	} {
		w.exec(test.make)
		column(s, "n").Type = spec.Bigint
		c := w.plan(w.table(s))
		w.expect(c, "column n intent", "CV-T09 CV-T36")
		if f := c.Findings[0]; f.Code != "CV-T36" || f.Text != test.text || f.Attr != "column n" {
			t.Errorf("%s: %+v", test.make, f)
		}
		if _, err := w.cat.DB.Exec(t.Context(), "ALTER TABLE m ALTER COLUMN n TYPE bigint USING n::bigint"); err == nil {
			t.Fatalf("%s does not forbid it", test.make)
		}
		column(s, "n").Type = spec.Integer
		if c := w.plan(w.table(s)); c.Changes() {
			t.Errorf("%+v", c.Diffs)
		}
		w.exec(test.drop)
	}
	// A column that goes takes none of them along, but leaves whole rows elsewhere.
	w.exec("CREATE TRIGGER t BEFORE UPDATE OF bid ON m FOR EACH ROW EXECUTE FUNCTION noted(); CREATE TABLE whole (row m)")
	without(s, "bid")
	w.expect(w.plan(w.table(s)), "column bid reset", "CV-T06 CV-T36")
	w.exec("DROP TRIGGER t ON m")
	w.apply(w.table(s))
	w.exec("DROP TABLE whole")

	// The copy has the constraints and indexes, which the new type must suit.
	for _, test := range []struct{ make, drop string }{
		{"ALTER TABLE m ADD CONSTRAINT long CHECK (length(note) > 0)", "ALTER TABLE m DROP CONSTRAINT long"},
		{"CREATE INDEX low ON m (lower(note))", "DROP INDEX low"},
	} {
		w.exec("UPDATE m SET note = '7'")
		w.exec(test.make)
		column(s, "note").Type, column(s, "note").Default = spec.Integer, ""
		c := w.plan(w.table(s))
		w.expect(c, "column note intent", "CV-T09 CV-T28")
		w.exec(test.drop)
		if c := w.plan(w.table(s)); c.Impossible() {
			t.Errorf("without %s: %+v", test.make, c.Findings)
		}
	}
}

// A table that others need does not go, and the plan says so also while a view depends on it that goes by the same plan.
func TestTableInUseIsNotDropped(t *testing.T) {
	t.Parallel()
	w := newTableHarness(t, testkit.Postgres(t))
	s := sample("m", false)
	s.Hypertable, s.PrimaryKey, s.Indexes = nil, []string{"source"}, nil
	w.apply(w.table(s))
	w.exec("CREATE VIEW v AS SELECT price FROM m; ALTER TABLE m ADD COLUMN id bigserial")
	w.cat.Pipeline.Removed = []*spec.Removed{{Kind: "view", Name: "v"}}
	w.expect(w.plan(w.removed("m")), "", "CV-T29")
	for _, test := range []struct{ make, drop, text string }{
		{"CREATE TABLE theirs (m text CONSTRAINT of_m REFERENCES m)", "DROP TABLE theirs", "constraint of_m on table theirs depends on it"},
		{"CREATE TABLE theirs (a m[])", "DROP TABLE theirs", "column a of table theirs depends on it"},
		{"CREATE TABLE theirs (id bigint DEFAULT nextval('m_id_seq'))", "DROP TABLE theirs", "default value for column id of table theirs depends on it"},
		{"CREATE TABLE theirs () INHERITS (m)", "DROP TABLE theirs", "default value for column id of table theirs, table theirs depend on it"},
		{"CREATE TABLE theirs (a int); CREATE POLICY p ON theirs USING (a IN (SELECT n FROM m))", "DROP TABLE theirs", "policy p on table theirs depends on it"},
		{"CREATE FUNCTION all_m() RETURNS SETOF m LANGUAGE sql AS 'SELECT * FROM v'", "DROP FUNCTION all_m", "function all_m() depends on it"},
		{"CREATE VIEW theirs AS SELECT NULL::m AS a", "DROP VIEW theirs", "column a of view theirs, view theirs depend on it"},
	} {
		w.exec("SET check_function_bodies = off; " + test.make)
		c := w.plan(w.removed("m"))
		w.expect(c, "", "CV-T29 CV-T36")
		if f := c.Findings[0]; f.Text != test.text || len(c.Steps) > 0 {
			t.Errorf("%s: %+v", test.make, f)
		}
		w.exec("DROP VIEW v")
		if _, err := w.cat.DB.Exec(t.Context(), "DROP TABLE m"); err == nil {
			t.Fatalf("%s does not forbid it", test.make)
		}
		w.exec("CREATE VIEW v AS SELECT price FROM m; " + test.drop)
	}
	theirs := w.as("CREATE ROLE %s LOGIN; GRANT SELECT ON m TO %[1]s")
	theirs.expect(theirs.plan(theirs.removed("m")), "", "CV-T28 CV-T29")
	// What is the table's own goes with it.
	w.exec(`CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
		CREATE TRIGGER t BEFORE UPDATE OF n ON m FOR EACH ROW EXECUTE FUNCTION noted(); CREATE POLICY few ON m USING (n > 0); CREATE RULE r AS ON UPDATE TO m WHERE new.n > 9 DO INSTEAD NOTHING;
		CREATE PUBLICATION p FOR TABLE m (n, source); CREATE STATISTICS st ON n, bid FROM m; ALTER TABLE m ADD CONSTRAINT long CHECK (length(note) > 0), ADD up text REFERENCES m;
		CREATE VIEW whole AS SELECT m FROM m`)
	w.cat.Pipeline.Removed = append(w.cat.Pipeline.Removed, &spec.Removed{Kind: "view", Name: "whole"})
	w.expect(w.plan(w.removed("m")), "", "CV-T29")
	w.exec("DROP VIEW v, whole")
	w.apply(w.removed("m"))

	// So do partitions, unless somebody needs one.
	w.apply(w.table(sample("n", false)))
	part := w.text("SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'n'::regclass")
	w.exec("CREATE VIEW v AS SELECT price FROM n; CREATE VIEW one AS SELECT price FROM " + part)
	c := w.plan(w.removed("n"))
	if w.expect(c, "", "CV-T29 CV-T36"); !strings.Contains(c.Findings[0].Text, "view one") {
		t.Errorf("%+v", c.Findings)
	}
	w.exec("DROP VIEW one")
	w.expect(w.plan(w.removed("n")), "", "CV-T29")
	w.exec("DROP VIEW v")
	w.apply(w.removed("n"))
}

// hangings is the same on hypertables, whose chunks have copies of triggers.
func hangings(t *testing.T, w *tableHarness) {
	s := sample("m", true)
	s.Hypertable.Columnstore = nil
	w.apply(w.table(s))
	w.exec("INSERT INTO m (time, source, note) SELECT now() + i * interval '1 minute', 'a', repeat('x', 600) FROM generate_series(1, 30000) i")
	w.exec("CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER t BEFORE UPDATE OF n ON m FOR EACH ROW EXECUTE FUNCTION noted()")
	column(s, "n").Type = spec.Bigint
	c := w.plan(w.table(s))
	w.expect(c, "column n intent", "CV-T09 CV-T36")
	if f := c.Findings[0]; f.Text != "trigger t on table m depends on it" {
		t.Errorf("%+v", f)
	}
	w.exec("CREATE MATERIALIZED VIEW hours WITH (timescaledb.continuous) AS SELECT time_bucket('1 hour', time) AS hour, max(price) AS high FROM m GROUP BY 1 WITH NO DATA")
	w.cat.Pipeline.Removed = []*spec.Removed{{Kind: "aggregate", Name: "hours"}}
	w.expect(w.plan(w.removed("m")), "", "CV-T29")
	w.exec("CREATE TABLE theirs (source text, time timestamptz, FOREIGN KEY (source, time) REFERENCES m)")
	c = w.plan(w.removed("m"))
	if w.expect(c, "", "CV-T29 CV-T36"); c.Findings[0].Text != "constraint theirs_source_time_fkey on table theirs depends on it" {
		t.Errorf("%+v", c.Findings)
	}
	w.exec("DROP TABLE theirs; DROP MATERIALIZED VIEW hours")
	w.apply(w.removed("m"))
}
