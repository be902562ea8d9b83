package timescale

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

const day = 24 * time.Hour

// hourly is the scene of a hypertable with a row an hour and source, ten days back, and an aggregate of it that is not made yet.
func hourly(t *testing.T) (*scene, *spec.Aggregate, *view.Aggregate) {
	t.Helper()
	w := newScene(t, timescaleURL)
	w.exec(ticks)
	w.exec("SELECT create_hypertable('ticks', by_range('time', interval '1 day'), create_default_indexes => false)")
	w.exec("INSERT INTO ticks SELECT date_trunc('hour', now(), 'UTC') - i * interval '1 hour', s, i FROM generate_series(0, 239) i, unnest('{a,b}'::text[]) s")
	table := &spec.Table{Name: "ticks", Hypertable: &spec.Hypertable{Time: "time", ChunkInterval: day}}
	w.p.Tables = []*spec.Table{table}
	a := &spec.Aggregate{
		Name: "daily", From: table, QueryAt: "sql/daily.sql", Query: "SELECT time_bucket('6 hours', time) AS bucket, source, max(price) AS high FROM ticks GROUP BY 1, 2",
		Refresh: &spec.Refresh{Start: 3 * day, End: time.Hour, Every: 30 * time.Minute},
	}
	w.p.Aggregates = []*spec.Aggregate{a}
	return w, a, w.aggregate(a)
}

func (w *scene) aggregate(a *spec.Aggregate) *view.Aggregate {
	return &view.Aggregate{Queries: w.queries, Spec: a}
}

func TestAggregate(t *testing.T) {
	t.Parallel()
	w, a, r := hourly(t)
	if have := r.DependsOn(); !slices.Equal(have, []string{plan.EngineAddress, "table.ticks"}) {
		t.Errorf("depends on %v", have)
	}
	c := w.apply(r)
	w.expect(c, plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> false (intent)", "refresh.start:  -> 3d (intent)", "refresh.end:  -> 1h (intent)", "refresh.every:  -> 30m (intent)"}, "CV-A10")
	if !strings.HasPrefix(c.Steps[len(c.Steps)-1], "CALL refresh_continuous_aggregate") {
		t.Errorf("steps %q", c.Steps)
	}
	if n := w.text("SELECT count(*)::text FROM daily WHERE bucket < now() - interval '7 days'"); n < "1" || n == "0" {
		t.Errorf("the first refresh left out what the policy does not look at: %s rows", n)
	}
	if err := r.Make(t.Context(), c); err != nil {
		t.Errorf("apply again: %v", err)
	}
	a.Query = strings.ToLower(a.Query) + " -- the same"
	w.expect(w.see(r), plan.None, nil)

	for _, step := range []struct {
		name  string
		do    func()
		diffs []string
		codes []string
	}{
		{"real time", func() { a.RealTime = true }, []string{"real_time: false -> true (intent)"}, nil},
		{"refresh", func() { a.Refresh = &spec.Refresh{Start: 4 * day, End: 90 * time.Minute, Every: time.Hour} }, []string{"refresh.start: 3d -> 4d (intent)", "refresh.end: 1h -> 1h30m (intent)", "refresh.every: 30m -> 1h (intent)"}, nil},
		{"every", func() { a.Refresh.Every = 2 * time.Hour }, []string{"refresh.every: 1h -> 2h (intent)"}, nil},
		{"retention", func() { a.Retention = 100 * day }, []string{"retention:  -> 100d (intent)"}, nil},
		{"retention, longer", func() { a.Retention = 200 * day }, []string{"retention: 100d -> 200d (intent)"}, nil},
		{"comment", func() { a.Description = "By the day." }, []string{"description:  -> By the day. (intent)"}, nil},
		{"drift of real time", func() { w.exec("ALTER MATERIALIZED VIEW daily SET (timescaledb.materialized_only = true)") }, []string{"real_time: false -> true (drift)"}, nil},
		{"drift of the window", func() {
			w.exec("SELECT remove_continuous_aggregate_policy('daily')")
			w.exec("SELECT add_continuous_aggregate_policy('daily', interval '9 days', interval '1 day', interval '2 hours')")
		}, []string{"refresh.start: 9d -> 4d (drift)", "refresh.end: 1d -> 1h30m (drift)"}, nil},
		{"drift: an open window", func() {
			w.exec("SELECT remove_continuous_aggregate_policy('daily')")
			w.exec("SELECT add_continuous_aggregate_policy('daily', NULL, interval '90 minutes', interval '2 hours')")
		}, []string{"refresh.start: open -> 4d (drift)"}, nil},
		{"drift: no policy", func() { w.exec("SELECT remove_continuous_aggregate_policy('daily')") }, []string{"refresh.start:  -> 4d (drift)", "refresh.end:  -> 1h30m (drift)", "refresh.every:  -> 2h (drift)"}, nil},
		{"drift of every", func() {
			w.exec("SELECT alter_job(job_id, schedule_interval => interval '5 minutes') FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'")
		}, []string{"refresh.every: 5m -> 2h (drift)"}, nil},
		{"drift: paused", func() {
			w.exec("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'")
		}, []string{"refresh.every: 2h (paused) -> 2h (drift)"}, nil},
		{"drift of retention", func() { w.exec("SELECT remove_retention_policy('daily')") }, []string{"retention:  -> 200d (drift)"}, nil},
		{"drift of the comment", func() { w.exec("COMMENT ON VIEW daily IS NULL") }, []string{"description:  -> By the day. (drift)"}, nil},
		{"two policies", func() {
			w.exec("SELECT remove_continuous_aggregate_policy('daily')")
			w.exec("SELECT add_continuous_aggregate_policy('daily', interval '20 days', interval '10 days', interval '2 hours')")
			w.exec("SELECT add_continuous_aggregate_policy('daily', interval '4 days', interval '90 minutes', interval '3 hours')")
		}, []string{"refresh.every: 3h -> 2h (drift)"}, nil},
		{"one policy", func() {
			w.exec("SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE (config->>'start_offset')::interval = interval '20 days'")
			a.Description = "By the day, newly."
		}, []string{"description: By the day. -> By the day, newly. (intent)"}, nil},
		{"reset", func() { a.Refresh, a.Retention, a.Description = nil, 0, "" }, []string{"refresh.start: 4d ->  (reset)", "refresh.end: 1h30m ->  (reset)", "refresh.every: 2h ->  (reset)", "retention: 200d ->  (reset)", "description: By the day, newly. ->  (reset)"}, nil},
	} {
		t.Log(step.name)
		step.do()
		w.expect(w.apply(r), plan.Update, step.diffs, step.codes...)
	}
	if n := w.text("SELECT count(*)::text FROM timescaledb_information.jobs WHERE proc_name IN ('policy_retention', 'policy_refresh_continuous_aggregate')"); n != "0" {
		t.Errorf("%s jobs are left", n)
	}

	t.Log("what others set is left alone")
	w.exec("SELECT add_retention_policy('daily', interval '50 days')")
	c = w.see(r)
	w.expect(c, plan.None, nil)
	if len(c.Extra) != 1 || c.Extra[0].Value != "50d" {
		t.Errorf("extra %v", c.Extra)
	}

	t.Log("deletion")
	gone := &view.Aggregate{Queries: w.queries, Removed: &spec.Removed{Kind: "aggregate", Name: "daily"}}
	w.p.Aggregates = nil
	w.expect(w.see(gone), plan.Delete, nil)
	w.exec("DELETE FROM ticks WHERE time < now() - interval '2 days'")
	c = w.see(gone)
	w.expect(c, plan.Delete, nil, "CV-A08")
	if l := c.Findings[0].Loss; l.Count < 60 || l.Count > 66 || l.From == "" || l.To == "" {
		t.Errorf("loss %+v", l)
	}
	w.exec("CREATE VIEW reader AS SELECT high FROM daily")
	w.expect(w.see(gone), plan.Delete, nil, "CV-A09")
	w.p.Removed = []*spec.Removed{{Kind: "view", Name: "reader"}}
	w.expect(w.see(gone), plan.Delete, nil, "CV-A08")
	w.exec("DROP VIEW reader")
	w.apply(gone)
	w.expect(w.see(gone), plan.None, nil)
	if err := r.Assess(t.Context(), &plan.Change{Action: plan.None}); err != nil { // nothing to delete
		t.Error(err)
	}
}

// A shorter retention tells what goes, and when.
func TestAggregateRetention(t *testing.T) {
	t.Parallel()
	w, a, r := hourly(t)
	c := w.see(r)
	if err := ddl.Execute(t.Context(), w.db, plan.Change{Steps: c.Steps[:len(c.Steps)-1]}); err != nil {
		t.Fatal(err)
	}
	w.exec("SELECT set_chunk_time_interval(format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass, interval '1 day') FROM timescaledb_information.continuous_aggregates")
	w.exec(c.Steps[len(c.Steps)-1])
	w.mark(r)
	a.Retention = 5 * day
	c = w.see(r)
	w.expect(c, plan.Update, []string{"retention:  -> 5d (intent)"}, "CV-A07")
	l := c.Findings[0].Loss
	rows := w.text("SELECT count(*)::text FROM daily WHERE bucket < date_trunc('day', now() - interval '5 days', 'UTC')")
	if fmt.Sprint(l.Count) != rows || l.Chunks < 4 || l.Chunks > 6 || l.From == "" || l.To == "" || !strings.Contains(l.When, "within a minute") || l.Bytes == 0 {
		t.Errorf("loss %+v, want %s rows", l, rows)
	}
	w.exec("SELECT drop_chunks('daily', now() - interval '5 days')")
	w.expect(w.apply(r), plan.Update, []string{"retention:  -> 5d (intent)"})
}

func TestAggregateRefused(t *testing.T) {
	t.Parallel()
	w, a, r := hourly(t)
	good := *a
	for _, c := range []struct {
		name string
		do   func()
		code string
		want string
	}{
		{"window", func() { a.Refresh = &spec.Refresh{Start: 8 * time.Hour, End: time.Hour, Every: time.Hour} }, "CV-A04", "policy refresh window too small"},
		{"no bucket", func() { a.Query = "SELECT source, max(price) FROM ticks GROUP BY 1" }, "CV-A04", "time bucket"},
		{"column", func() { a.Query = "SELECT time_bucket('6 hours', time), max(prise) FROM ticks GROUP BY 1" }, "CV-V02", "sql/daily.sql:1:42: column \"prise\" does not exist"},
		{"no hypertable", func() { a.Query = "SELECT time_bucket('6 hours', now()), max(oid) FROM pg_class GROUP BY 1" }, "CV-A04", "hypertable"},
	} {
		t.Log(c.name)
		*a = good
		c.do()
		change := w.see(r)
		if len(change.Findings) != 1 || change.Findings[0].Code != c.code || !strings.Contains(change.Findings[0].Text, c.want) || len(change.Steps) > 0 {
			t.Errorf("%s", show(change))
		}
	}
	*a = good
	w.exec("CREATE VIEW daily AS SELECT 1 AS a")
	w.expect(w.see(r), plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> false (intent)", "refresh.start:  -> 3d (intent)", "refresh.end:  -> 1h (intent)", "refresh.every:  -> 30m (intent)"}, "CV-V01")
	w.exec("DROP VIEW daily")
	w.apply(r)
	view := w.view(&spec.View{Name: "daily", Query: "SELECT 1 AS a"})
	w.p.Aggregates, w.p.Views = nil, []*spec.View{view.Spec}
	w.expect(w.see(view), plan.Create, []string{"query:  -> SELECT 1 AS a (intent)"}, "CV-V01")
	w.p.Aggregates, w.p.Views = []*spec.Aggregate{a}, nil
	a.Refresh = &spec.Refresh{Start: 8 * time.Hour, End: time.Hour, Every: time.Hour}
	w.expect(w.see(r), plan.Update, []string{"refresh.start: 3d -> 8h (intent)", "refresh.every: 30m -> 1h (intent)"}, "CV-A04")

	t.Log("the source's rows go before the refresh looks at them")
	*a = good
	a.From.Hypertable.Retention = 2 * day
	w.p.Rollups = []*spec.Rollup{{Name: "r", From: a.From}}
	a.Refresh = &spec.Refresh{Start: 4 * day, End: time.Hour, Every: time.Hour}
	w.expect(w.see(r), plan.Update, []string{"refresh.start: 3d -> 4d (intent)", "refresh.every: 30m -> 1h (intent)"}, "CV-A05", "CV-A05")
}

// A first refresh that did not come to an end is done again; an aggregate that has nothing to hold is left in peace.
func TestAggregateFirstRefresh(t *testing.T) {
	t.Parallel()
	w, _, r := hourly(t)
	c := w.see(r)
	c.Steps = c.Steps[:len(c.Steps)-1]
	if err := r.Make(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c = w.see(r) // without a mark in the ledger
	w.expect(c, plan.Update, nil, "CV-A10")
	w.apply(r)
	if n := w.text("SELECT count(*)::text FROM daily"); n == "0" {
		t.Error("still empty")
	}
	b := &spec.Aggregate{Name: "none", From: w.p.Tables[0], Query: "SELECT time_bucket('6 hours', time) AS bucket, max(price) FROM ticks WHERE source = 'none' GROUP BY 1", Refresh: w.p.Aggregates[0].Refresh}
	w.p.Aggregates = append(w.p.Aggregates, b)
	w.apply(w.aggregate(b))
}

func TestAggregateWithItsTable(t *testing.T) {
	t.Parallel()
	w := newScene(t, timescaleURL)
	table := &spec.Table{
		Name: "ticks", PrimaryKey: []string{"source", "time"}, Hypertable: &spec.Hypertable{Time: "time", ChunkInterval: day},
		Columns: []*spec.Column{{Name: "time", Type: spec.Timestamptz}, {Name: "source", Type: spec.Text}, {Name: "price", Type: spec.Double, Null: true}},
	}
	a := &spec.Aggregate{Name: "daily", From: table, Query: "SELECT time_bucket('1 day', time) AS bucket, max(price) AS high FROM ticks GROUP BY 1", RealTime: true, Refresh: &spec.Refresh{Start: 3 * day, Every: time.Hour}}
	b := &spec.Aggregate{Name: "weekly", From: table, Query: "SELECT time_bucket('7 days', bucket) AS bucket, max(high) AS high FROM daily GROUP BY 1", Refresh: &spec.Refresh{Start: 13 * day, Every: time.Hour}}
	v := &spec.View{Name: "top", Query: "SELECT max(high) AS highest FROM weekly"}
	w.p.Tables, w.p.Aggregates, w.p.Views = []*spec.Table{table}, []*spec.Aggregate{b, a}, []*spec.View{v}
	w.expect(w.plan(w.aggregate(a)), plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> true (intent)", "refresh.start:  -> 3d (intent)", "refresh.end:  -> 0s (intent)", "refresh.every:  -> 1h (intent)"})
	w.expect(w.plan(w.aggregate(b)), plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> false (intent)", "refresh.start:  -> 13d (intent)", "refresh.end:  -> 0s (intent)", "refresh.every:  -> 1h (intent)"}, "CV-A04")
	b.Refresh.Start = 21 * day
	w.catalog.Reset()
	w.expect(w.plan(w.view(v)), plan.Create, []string{"query:  -> SQL (intent)"})
	w.exec(ticks)
	w.exec("SELECT create_hypertable('ticks', by_range('time', interval '1 day'), create_default_indexes => false)")
	w.apply(w.aggregate(a))
	w.apply(w.aggregate(b))
	w.apply(w.view(v))
}

// Plain PostgreSQL has no continuous aggregates.
func TestAggregateMissing(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	if caps, err := w.catalog.Capabilities(t.Context()); err != nil || caps.Available != "" {
		t.Skip("this server has TimescaleDB")
	}
	w.exec(ticks)
	table := &spec.Table{Name: "ticks", Hypertable: &spec.Hypertable{Time: "time", ChunkInterval: day}}
	a := &spec.Aggregate{Name: "daily", From: table, Query: "SELECT time_bucket('1 day', time) AS bucket, max(price) AS high FROM ticks GROUP BY 1"}
	v := &spec.View{Name: "top", Query: "SELECT max(high) AS high FROM daily"}
	top := &spec.View{Name: "above", Query: "SELECT high FROM top"}
	w.p.Tables, w.p.Aggregates, w.p.Views = []*spec.Table{table}, []*spec.Aggregate{a}, []*spec.View{v, top}
	w.expect(w.plan(w.aggregate(a)), plan.Create, []string{"query:  -> SQL (intent)", "real_time:  -> false (intent)"}, "CV-A01")
	w.expect(w.plan(w.view(v)), plan.Create, []string{"query:  -> SQL (intent)"}, "CV-V02")
	w.p.Database.OnMissing = "degrade"
	for _, r := range []resource{w.aggregate(a), w.view(v), w.view(top)} {
		c := w.see(r)
		w.expect(c, plan.None, nil)
		if len(c.Notes) != 1 {
			t.Errorf("notes %q", c.Notes)
		}
	}
}
