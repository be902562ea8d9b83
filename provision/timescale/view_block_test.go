package timescale

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/role"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// declared is a small pipeline with a source, its table, and more blocks.
func declared(t *testing.T, more string) *spec.Pipeline {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "..", "sources", "fear_greed.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"sources/fear_greed.hcl": {Data: source}}
	files["pipeline.hcl"] = &fstest.MapFile{Data: []byte(`
kafka { brokers = ["localhost:9092"] }
database { url = "postgres://localhost/x" }
topic "fear_greed" {}
source "fear_greed" {
  definition = "sources/fear_greed.hcl"
  interval   = "1h"
  topic      = topic.fear_greed
  table      = table.crypto_sentiment
}
table "crypto_sentiment" {
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "value" { type = "integer" }
  column "classification" { type = "text" }
  primary_key = ["source", "time"]
  hypertable {
    time           = "time"
    chunk_interval = "1d"
  }
}
` + more)}
	p, d := load.Load(fs.FS(files), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatalf("%v\n%s", d.Diags, more)
	}
	return p
}

func TestBlocksOnPostgres(t *testing.T) {
	t.Parallel()
	w := newScene(t, testkit.Postgres)
	if caps, err := w.catalog.Capabilities(t.Context()); err != nil || caps.Available != "" {
		t.Skip("this server has TimescaleDB")
	}
	adopts(t, w, false)
}

func TestBlocksOnTimescale(t *testing.T) { adopts(t, newScene(t, timescaleURL), true) }

// The block of a live object declares it as it is: adopting it changes nothing.
func adopts(t *testing.T, w *scene, aggregates bool) {
	caps, err := w.catalog.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := declared(t, "")
	reader := w.role("reader")
	sql := append(ddl.CreateSQL(p.Tables[0], caps, time.Now()), schema.SQL,
		"CREATE VIEW latest AS SELECT source, value, 'It''s ${x} %{y} SQL'::text AS note, CASE WHEN value > 50 THEN 'greed' ELSE 'fear' END AS mood FROM crypto_sentiment WHERE time > now() - interval '1 day'",
		"COMMENT ON VIEW latest IS 'The newest, \"so far\".'", "CREATE VIEW plain WITH (security_barrier) AS SELECT 1 AS a, 'a\n   \n\n b'::text AS blank",
		"CREATE ROLE "+pg.Ident(reader)+" LOGIN PASSWORD 'x'", "ALTER ROLE "+pg.Ident(reader)+" SET default_transaction_read_only = on", "ALTER ROLE "+pg.Ident(reader)+" SET statement_timeout = '90s'", "ALTER ROLE "+pg.Ident(reader)+" SET work_mem = '1MB'",
		"GRANT SELECT ON latest, plain TO "+pg.Ident(reader), "GRANT SELECT, INSERT, TRUNCATE ON crypto_sentiment TO "+pg.Ident(reader),
		"GRANT USAGE ON SCHEMA cryptoviz TO "+pg.Ident(reader), "GRANT SELECT ON ALL TABLES IN SCHEMA cryptoviz TO "+pg.Ident(reader))
	if aggregates {
		sql = append(sql,
			"CREATE MATERIALIZED VIEW daily WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS SELECT time_bucket('1 day', time) AS bucket, source, max(value) AS high FROM crypto_sentiment GROUP BY 1, 2 WITH NO DATA",
			"SELECT add_continuous_aggregate_policy('daily', interval '10 days', interval '1 hour', interval '90 minutes')", "SELECT add_retention_policy('daily', interval '400 days')", "COMMENT ON VIEW daily IS 'by the day'",
			"CREATE MATERIALIZED VIEW weekly WITH (timescaledb.continuous) AS SELECT time_bucket('7 days', bucket) AS bucket, max(high) AS high FROM daily GROUP BY 1 WITH NO DATA",
			"SELECT add_continuous_aggregate_policy('weekly', NULL, interval '1 hour', interval '90 minutes')", "GRANT SELECT ON daily TO "+pg.Ident(reader))
	}
	for _, s := range sql {
		w.exec(s)
	}
	w.catalog.Reset()
	var text strings.Builder
	add := func(block string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(block)
	}
	add(view.Block(t.Context(), w.catalog, "latest"))
	add(view.Block(t.Context(), w.catalog, "plain"))
	if aggregates {
		add(view.AggregateBlock(t.Context(), w.catalog, "daily"))
		add(view.AggregateBlock(t.Context(), w.catalog, "weekly"))
	}
	add(role.Block(t.Context(), w.catalog, reader))
	t.Log(text.String())
	*w.p = *declared(t, text.String())
	resources := []resource{w.roleOf(w.p.Roles[0])}
	for _, v := range w.p.Views {
		resources = append(resources, w.view(v))
	}
	for _, a := range w.p.Aggregates {
		resources = append(resources, w.aggregate(a))
	}
	w.catalog.Reset()
	for _, r := range resources {
		if c := w.plan(r); c.Changes() || len(c.Diffs) > 0 || !c.Adopt || len(c.Findings) > 0 {
			t.Errorf("%s", show(c))
		}
	}
	for _, name := range []string{"none", "crypto_sentiment"} {
		if _, err := view.Block(t.Context(), w.catalog, name); err == nil {
			t.Errorf("a view block of %s", name)
		}
		if _, err := view.AggregateBlock(t.Context(), w.catalog, name); err == nil {
			t.Errorf("an aggregate block of %s", name)
		}
		if _, err := role.Block(t.Context(), w.catalog, name); err == nil {
			t.Errorf("a role block of %s", name)
		}
	}
	if _, err := role.Block(t.Context(), w.catalog, w.text("SELECT current_user::text")); err == nil {
		t.Error("a role block of a superuser")
	}
}
