package provision_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// large is a pipeline with n topics, n/5 tables, n/10 views and n/20 dashboards.
func large(n int) (fstest.MapFS, int) {
	var hcl strings.Builder
	fmt.Fprint(&hcl, "kafka {\n  brokers = [\"x:1\"]\n}\ndatabase {\n  url        = \"postgres://x@x/x\"\n  on_missing = \"degrade\"\n}\ngrafana {\n  url  = env(\"GRAFANA_URL\")\n  auth = env(\"GRAFANA_AUTH\")\n}\n")
	fmt.Fprint(&hcl, "folder \"many\" {\n  title = \"Many\"\n}\ndatasource \"main\" {\n  host     = \"db:5432\"\n  database = \"x\"\n  user     = \"x\"\n}\n")
	for i := range n {
		fmt.Fprintf(&hcl, "topic \"t%d\" {\n  partitions = 1\n  retention  = \"%dd\"\n}\n", i, 1+i%7)
	}
	for i := range n / 5 {
		fmt.Fprintf(&hcl, "table \"r%d\" {\n  description = \"Table %d\"\n  column \"time\" {\n    type = \"timestamptz\"\n  }\n  column \"key\" {\n    type = \"text\"\n  }\n  column \"value\" {\n    type    = \"double precision\"\n    default = \"0\"\n  }\n  primary_key = [\"key\", \"time\"]\n  index {\n    columns = [\"value\"]\n  }\n}\n", i, i)
	}
	for i := range n / 10 {
		fmt.Fprintf(&hcl, "view \"v%d\" {\n  query = \"SELECT key, max(value) AS top FROM r%d GROUP BY key\"\n}\n", i, i%max(1, n/5))
	}
	files := fstest.MapFS{}
	for i := range n / 20 {
		fmt.Fprintf(&hcl, "dashboard \"d%d\" {\n  file       = \"d%d.json\"\n  folder     = folder.many\n  datasource = datasource.main\n}\n", i, i)
		files[fmt.Sprintf("d%d.json", i)] = &fstest.MapFile{Data: fmt.Appendf(nil,
			`{"title":"Board %d","schemaVersion":41,"panels":[{"id":1,"type":"table","title":"Rows","gridPos":{"h":8,"w":24,"x":0,"y":0},"targets":[{"refId":"A","format":"table","rawSql":"SELECT key, value FROM r%d LIMIT 9"}]}]}`, i, i%max(1, n/5))}
	}
	fmt.Fprint(&hcl, "source \"one\" {\n  definition = \"one.hcl\"\n  interval   = \"1m\"\n  topic      = topic.t0\n  table      = table.r0\n}\n")
	files["one.hcl"] = &fstest.MapFile{Data: []byte("source {\n  description = \"x\"\n}\npoll {\n  url = \"https://example.com\"\n}\ndecode \"json\" {\n  records = body\n}\nrow {\n  time = slot\n  key  = r.k\n}\n")}
	files["pipeline.hcl"] = &fstest.MapFile{Data: []byte(hcl.String())}
	return files, n + n/5 + n/10 + n/20 + 3
}

// BenchmarkScale plans and applies large pipelines against a real broker, a real PostgreSQL and the Grafana contract server:
// go test -run - -bench Scale -benchtime 1x ./provision. CRYPTOVIZ_TEST_SCALE lists the numbers of topics; 100 and 1000 without.
func BenchmarkScale(b *testing.B) {
	sizes := []int{100, 1000}
	if text := os.Getenv("CRYPTOVIZ_TEST_SCALE"); text != "" {
		sizes = nil
		for n := range strings.SplitSeq(text, ",") {
			size, err := strconv.Atoi(n)
			if err != nil {
				b.Fatal(err)
			}
			sizes = append(sizes, size)
		}
	}
	for _, n := range sizes {
		b.Run(fmt.Sprint(n, "_topics"), func(b *testing.B) {
			for b.Loop() {
				scale(b, n)
			}
		})
	}
}

func scale(b *testing.B, n int) {
	g := grafanatest.New(b, grafanatest.V13)
	files, objects := large(n)
	env := map[string]string{"GRAFANA_URL": g.URL, "GRAFANA_AUTH": g.Token}
	began := time.Now()
	p, d := load.Load(files, "pipeline.hcl", load.Options{Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if d.HasErrors() {
		b.Fatal(d.Diags)
	}
	b.ReportMetric(time.Since(began).Seconds(), "load-s")
	db, err := pgxpool.New(b.Context(), testkit.Postgres(b))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	kafka, err := kgo.NewClient(kgo.SeedBrokers(testkit.Kafka(b).Addr()))
	if err != nil {
		b.Fatal(err)
	}
	defer kafka.Close()
	open := func() *provision.Stack {
		w, err := provision.NewStack(p, provision.Clients{Kafka: kafka, DB: db})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(w.Close)
		return w
	}
	timed := func(name string, f func()) {
		began := time.Now()
		f()
		b.ReportMetric(time.Since(began).Seconds(), name)
	}
	w := open()
	var found plan.Plan
	timed("first_plan-s", func() {
		if found, err = w.Plan(b.Context()); err != nil || len(found.Errors) > 0 || found.Pending() != objects {
			b.Fatalf("%v, %+v, %d changes of %d", err, found.Errors[:min(1, len(found.Errors))], found.Pending(), objects)
		}
	})
	timed("apply-s", func() {
		results, err := w.Apply(b.Context(), found, provision.Options{})
		for _, r := range results {
			if r.Outcome != provision.Done {
				b.Fatalf("%v: %+v", err, r)
			}
		}
	})
	timed("plan-s", func() {
		found, err := open().Plan(b.Context())
		if err != nil || found.Pending() != 0 {
			b.Fatalf("%v, %d changes", err, found.Pending())
		}
		requests := 0
		for _, r := range found.Reads {
			requests += r.Requests
		}
		b.ReportMetric(float64(requests), "requests")
	})
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "MiB_in_all")
	b.ReportMetric(0, "ns/op")
}
