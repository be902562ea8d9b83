package timescale

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
)

func TestTableBlockOnPostgres(t *testing.T) {
	t.Parallel()
	tableBlocks(t, newTableHarness(t, testkit.Postgres(t)), false)
}

// withBlocks is the shipped pipeline with more text.
type withBlocks struct {
	fs.FS
	text string
}

func (w withBlocks) Open(name string) (fs.File, error) {
	if name != "pipeline.hcl" {
		return w.FS.Open(name)
	}
	shipped, err := fs.ReadFile(w.FS, name)
	if err != nil {
		return nil, err
	}
	return fstest.MapFS{name: {Data: append(shipped, w.text...)}}.Open(name)
}

// loadTable reads a block as part of a pipeline.
func loadTable(t *testing.T, name, text string) *spec.Table {
	t.Helper()
	p, d := load.Load(withBlocks{os.DirFS("../.."), "\n" + text}, "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatalf("%v\n%s", d.Diags, text)
	}
	i := slices.IndexFunc(p.Tables, func(s *spec.Table) bool { return s.Name == name })
	return p.Tables[i]
}

// The block of a live table declares it exactly: the plan after an import is empty.
func tableBlocks(t *testing.T, w *tableHarness, timescale bool) {
	s := sample("m", timescale)
	column(s, "note").Description = "A ${template} and a %{directive}, \"quoted\"\nin lines."
	w.apply(w.table(s))
	w.exec(`ALTER TABLE m ADD COLUMN tags text[]; CREATE INDEX by_tag ON m USING gin (tags)`)
	w.exec(`CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY, "Odd" integer, name text PRIMARY KEY DEFAULT 'it''s', "user" numeric(9,2) NOT NULL DEFAULT 1, at timestamptz NOT NULL DEFAULT now())`)
	w.exec(`ALTER TABLE plain ADD CONSTRAINT both_unique UNIQUE (name, at); CREATE INDEX desc_idx ON plain (at DESC); CREATE INDEX plain_at_idx ON plain (at)`)
	names := []string{"m", "plain"}
	if timescale {
		w.exec(`CREATE TABLE odd (time timestamptz PRIMARY KEY, v integer); SELECT create_hypertable('odd', by_range('time', interval '7 days'));
			ALTER TABLE odd SET (timescaledb.enable_columnstore = true, timescaledb.orderby = 'time DESC NULLS LAST, v'); CALL add_columnstore_policy('odd', interval '90 days');
			SELECT add_retention_policy('odd', drop_created_before => interval '1 year')`)
		names = append(names, "odd")
	}
	for _, name := range names {
		w.cat.Reset()
		text, err := table.Block(t.Context(), w.cat, name)
		if err != nil {
			t.Fatal(err)
		}
		declared := loadTable(t, name, text)
		c := w.plan(w.table(declared))
		if c.Action != plan.None || len(c.Findings) > 0 || !c.Adopt && name != "m" {
			t.Errorf("%s: %s %+v %+v\n%s", name, c.Action, c.Diffs, c.Findings, text)
		}
		if name == "m" && !timescale {
			for _, want := range []string{`name    = "m_u"`, `unique  = true`, `chunk_interval = "1d"`, `# column tags: its type is text[]`, `# index by_tag is of a kind`, `generated   = "(price * (2)::double precision)"`} {
				if !strings.Contains(text, want) {
					t.Errorf("%s lacks %q", text, want)
				}
			}
			if declared.Indexes[0].Name != "m_price_idx" || strings.Contains(text, `"m_price_idx"`) {
				t.Errorf("the usual name is written: %s", text)
			}
		}
	}
	w.exec(`CREATE TABLE keyless (a int); CREATE VIEW v AS SELECT 1 AS a; CREATE TABLE "Upper" (a int PRIMARY KEY); CREATE TABLE listed (a int PRIMARY KEY) PARTITION BY LIST (a); CREATE TABLE short (a varchar(9) PRIMARY KEY)`)
	w.cat.Reset()
	for name, want := range map[string]string{
		"keyless": "no primary key", "v": "is a view", "Upper": "cannot be a block's", "listed": "LIST (a)", "nothing": "there is no table", "short": "character varying(9)",
	} {
		if text, err := table.Block(t.Context(), w.cat, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %s", name, err, text)
		}
	}
}
