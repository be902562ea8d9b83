package timescale

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestAggregateRebuild(t *testing.T) {
	t.Parallel()
	w, a, r := hourly(t)
	user := w.role("watcher")
	w.exec("CREATE ROLE " + pg.Ident(user))
	w.apply(r)
	w.exec("GRANT SELECT ON daily TO " + pg.Ident(user))
	w.exec("CREATE VIEW reader AS SELECT bucket, high FROM daily")
	w.exec("COMMENT ON VIEW reader IS 'mine'")
	w.exec("ALTER VIEW reader ALTER COLUMN high SET DEFAULT 7")
	w.exec("GRANT SELECT ON reader TO " + pg.Ident(user))
	child := &spec.Aggregate{
		Name: "weekly", From: a.From, Query: "SELECT time_bucket('1 day', bucket) AS bucket, max(high) AS high FROM daily GROUP BY 1", RealTime: true,
		Refresh: &spec.Refresh{Start: 9 * day, End: time.Hour, Every: time.Hour}, Description: "of the daily",
	}
	w.p.Aggregates = append(w.p.Aggregates, child)
	rc := w.aggregate(child)
	if have := rc.DependsOn(); !slices.Equal(have, []string{plan.EngineAddress, "table.ticks", "aggregate.daily"}) {
		t.Errorf("depends on %v", have)
	}
	w.expect(w.apply(rc), plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> true (intent)", "refresh.start:  -> 9d (intent)", "refresh.end:  -> 1h (intent)", "refresh.every:  -> 1h (intent)", "description:  -> of the daily (intent)"}, "CV-A10")

	t.Log("another bucket: all of it is created again, and the source has all the data")
	a.Query = strings.Replace(a.Query, "6 hours", "12 hours", 1)
	w.catalog.Reset()
	c := w.plan(r)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03")
	cc := w.plan(rc)
	w.expect(cc, plan.Replace, nil, "CV-A03")
	if len(cc.Steps) != 0 || len(cc.Notes) != 1 {
		t.Errorf("%s", show(cc))
	}
	w.carry(r, c)
	w.carry(rc, cc)
	w.empty(r, rc)
	if have := w.text(`SELECT has_table_privilege($1, 'daily', 'SELECT') || ' ' || has_table_privilege($1, 'reader', 'SELECT') || ' ' || obj_description('reader'::regclass) ||
		(SELECT ' ' || pg_get_expr(adbin, 0) FROM pg_attrdef WHERE adrelid = 'reader'::regclass)`, user); have != "true true mine 7" {
		t.Errorf("after the rebuild: %s", have)
	}
	if n := w.text("SELECT count(*)::text FROM weekly"); n < "10" {
		t.Errorf("%s rows in the child", n)
	}
	if err := r.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}

	t.Log("the source lost its older rows")
	w.exec("DELETE FROM ticks WHERE time < date_trunc('day', now(), 'UTC') - interval '2 days'")
	a.Query = strings.Replace(a.Query, "max(price)", "min(price)", 1)
	w.catalog.Reset()
	c, cc = w.plan(r), w.plan(rc)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A02")
	w.expect(cc, plan.Replace, nil, "CV-A02")
	if own, its := c.Findings[0].Loss, cc.Findings[0].Loss; own.Count < 28 || own.Count > 34 || its.Count < 7 || its.Count > 9 || own.From == "" {
		t.Errorf("loss %+v, of the child %+v", own, its)
	} else {
		t.Logf("loss %+v: %s", own, c.Findings[0].Text)
	}
	w.carry(r, c)
	w.carry(rc, cc)
	w.empty(r, rc)

	t.Log("what cannot be made again")
	a.Query = strings.Replace(a.Query, "AS high", "AS low", 1)
	child.Query = strings.Replace(child.Query, "max(high)", "max(low)", 1)
	c = w.see(r)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03", "CV-A09")
	if text := c.Findings[1].Text; !strings.Contains(text, "view.reader reads column high") || len(c.Steps) > 0 {
		t.Errorf("%s", show(c))
	}
	w.exec("DROP VIEW reader")
	w.exec("CREATE MATERIALIZED VIEW frozen AS SELECT high FROM daily")
	w.expect(w.see(r), plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03", "CV-A09")
	w.exec("DROP MATERIALIZED VIEW frozen")
	w.exec("CREATE RULE quiet AS ON INSERT TO weekly DO INSTEAD NOTHING")
	c = w.see(r)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03", "CV-A09")
	if text := c.Findings[1].Text; text != "rule quiet depends on aggregate.weekly" {
		t.Error(text)
	}
	w.exec("DROP RULE quiet ON weekly")
	w.exec("ALTER MATERIALIZED VIEW weekly SET (timescaledb.compress = true)")
	w.catalog.Reset()
	c, cc = w.plan(r), w.plan(rc)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03")
	w.expect(cc, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03", "CV-A11")
	w.carry(r, c)
	w.carry(rc, cc)
	w.empty(r, rc)
}

// What others set on an aggregate, or on one that reads it, does not come back when it is created again: the plan says so. What the
// block takes off is no news.
func TestAggregateRebuildTellsOfOthers(t *testing.T) {
	t.Parallel()
	w, a, r := hourly(t)
	refresh := a.Refresh
	a.Refresh = nil
	child := &spec.Aggregate{Name: "weekly", From: a.From, Query: "SELECT time_bucket('1 day', bucket) AS bucket, max(high) AS high FROM daily GROUP BY 1", Retention: 50 * day}
	w.p.Aggregates = append(w.p.Aggregates, child)
	rc := w.aggregate(child)
	w.apply(r)
	w.apply(rc)
	query := a.Query
	a.Query = strings.Replace(query, "max(price)", "1 + max(price)", 1)
	w.catalog.Reset()
	w.expect(w.plan(r), plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03")
	w.expect(w.plan(rc), plan.Replace, nil, "CV-A03")

	w.exec("SELECT add_retention_policy('daily', interval '60 days')")
	w.exec("SELECT add_continuous_aggregate_policy('daily', interval '9 days', interval '1 day', interval '2 hours')")
	w.exec("SELECT add_continuous_aggregate_policy('weekly', interval '20 days', interval '1 hour', interval '3 hours')")
	w.exec("CREATE INDEX by_price ON daily (source, high) WHERE high > 1")
	w.exec("CREATE INDEX ON weekly (high)")
	w.exec("CREATE INDEX ON daily (source, high, bucket DESC)")
	w.catalog.Reset()
	c, cc := w.plan(r), w.plan(rc)
	w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A03", "CV-A11")
	w.expect(cc, plan.Replace, nil, "CV-A03", "CV-A11")
	for _, f := range []plan.Finding{c.Findings[1], cc.Findings[1]} {
		t.Log(f.Text)
	}
	for text, all := range map[string][]string{
		c.Findings[1].Text:  {"(refresh from 9d to 1d, every 2h)", "(retention of 60d)", "source_high_bucket_idx (btree (source, high, bucket DESC)), index by_price (btree (source, high) WHERE"},
		cc.Findings[1].Text: {"(refresh from 20d to 1h, every 3h)", "high_idx (btree (high))"},
	} {
		for _, part := range all {
			if !strings.Contains(text, part) {
				t.Errorf("%q lacks %q", text, part)
			}
		}
	}

	t.Log("declared now, and taken off together with the rebuild")
	a.Query, a.Refresh, a.Retention = query, refresh, 60*day
	child.Refresh = &spec.Refresh{Start: 20 * day, End: time.Hour, Every: 3 * time.Hour}
	w.exec("DROP INDEX _timescaledb_internal.by_price")
	w.exec("DROP INDEX _timescaledb_internal." + w.text("SELECT indexname::text FROM pg_indexes WHERE indexname LIKE '%source_high_bucket_idx'"))
	w.catalog.Reset()
	c, cc = w.plan(r), w.plan(rc)
	w.carry(r, c)
	w.carry(rc, cc)
	a.Query, a.Refresh, a.Retention = strings.Replace(query, "max(price)", "1 + max(price)", 1), nil, 0
	w.catalog.Reset()
	w.expect(w.plan(r), plan.Replace, []string{"query: SQL -> SQL (intent)", "refresh.start: 3d ->  (reset)", "refresh.end: 1h ->  (reset)", "refresh.every: 30m ->  (reset)", "retention: 60d ->  (reset)"}, "CV-A03")
}

// carry applies a change as it was planned.
func (w *scene) carry(r resource, c plan.Change) {
	w.t.Helper()
	if err := r.Make(w.t.Context(), c); err != nil {
		w.t.Fatalf("%v\nsteps:\n%s", err, strings.Join(c.Steps, ";\n"))
	}
	w.mark(r)
}

func (w *scene) empty(rs ...resource) {
	w.t.Helper()
	w.catalog.Reset()
	for _, r := range rs {
		if c := w.plan(r); c.Changes() {
			w.t.Errorf("the plan after apply is not empty: %s", show(c))
		}
	}
}

// A new column at the end is added in place where the server can; elsewhere the aggregate is created again.
func TestAggregateColumn(t *testing.T) {
	t.Parallel()
	w, a, r := hourly(t)
	w.apply(r)
	w.exec("CREATE VIEW reader AS SELECT bucket, high FROM daily")
	w.exec("DELETE FROM ticks WHERE time < date_trunc('day', now(), 'UTC') - interval '5 days'")
	a.Query = strings.Replace(a.Query, "AS high", "AS high, min(price) AS low, CASE WHEN count(*) > 1 THEN sum(price) ELSE NULL END AS \"Sum, all\"", 1)
	caps, err := w.catalog.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := w.see(r)
	if !caps.AtLeast(2, 28) {
		w.expect(c, plan.Replace, []string{"query: SQL -> SQL (intent)"}, "CV-A02")
		return
	}
	a.Query = strings.Replace(a.Query, ", CASE WHEN count(*) > 1 THEN sum(price) ELSE NULL END AS \"Sum, all\"", ", sum(price) AS \"Sum, all\"", 1)
	c = w.apply(r)
	w.expect(c, plan.Update, []string{"query: SQL -> SQL (intent)"}, "CV-A06")
	t.Logf("%s\n%s", c.Findings[0].Text, strings.Join(c.Steps, ";\n"))
	if n := w.text("SELECT count(*) FILTER (WHERE low IS NULL) || ' ' || count(*) FILTER (WHERE low IS NOT NULL) FROM daily"); strings.HasPrefix(n, "0 ") || strings.HasSuffix(n, " 0") {
		t.Errorf("NULL and not NULL: %s", n)
	}
	if err := r.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}
	t.Log("with a child that waits for the new column")
	child := &spec.Aggregate{Name: "weekly", From: a.From, Query: "SELECT time_bucket('1 day', bucket) AS bucket, max(high) AS high, max(first) AS first FROM daily GROUP BY 1"}
	a.Query = strings.Replace(a.Query, " FROM", ", first(price, time) AS first FROM", 1)
	w.p.Aggregates = append(w.p.Aggregates, child)
	w.catalog.Reset()
	w.expect(w.plan(r), plan.Update, []string{"query: SQL -> SQL (intent)"}, "CV-A06")
	w.expect(w.plan(w.aggregate(child)), plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> false (intent)"}, "CV-A10")
	w.apply(r)
	w.apply(w.aggregate(child))
}
