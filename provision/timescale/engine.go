package timescale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
)

const createExtension = "CREATE EXTENSION IF NOT EXISTS timescaledb"

// Engine is the resource of the schema cryptoviz, its list of sources, and TimescaleDB's extension where the server has
// it.
type Engine struct {
	Pipeline *spec.Pipeline
	Catalog  *catalog.Catalog
	Leaving  bool // the pipeline goes, and others need the schema

	caps    catalog.Capabilities
	version int                  // of the live schema; 0: there is none
	sources map[string]sourceRow // live
}

// Observe reads the engine's tables.
func (e *Engine) Observe(ctx context.Context) (plan.Observation, error) {
	return plan.Observed(ctx, &Engine{Pipeline: e.Pipeline, Catalog: e.Catalog, Leaving: e.Leaving})
}

// Address is engine.schema.
func (e *Engine) Address() string { return plan.EngineAddress }

// Where is the database block.
func (e *Engine) Where() string {
	return spec.Place(e.Pipeline.Database.Range)
}

// DependsOn is nothing.
func (e *Engine) DependsOn() []string { return nil }

type sourceRow struct {
	enabled                  bool
	every                    time.Duration
	topic, table             string
	description, attribution string
	pipeline                 string
}

func (r sourceRow) attrs(name string) []plan.Attr {
	state := "enabled"
	if !r.enabled {
		state = "disabled"
	}
	out := []plan.Attr{{Name: "source." + name, Value: fmt.Sprintf("%s, every %s, %s -> %s", state,
		units.FormatDuration(r.every), r.topic, r.table)}}
	if r.pipeline != "" && r.pipeline != spec.DefaultName {
		out = append(out, plan.Attr{Name: "source." + name + " pipeline", Value: r.pipeline})
	}
	if r.description != "" {
		out = append(out, plan.Attr{Name: "source." + name + " description", Value: r.description})
	}
	if r.attribution != "" {
		out = append(out, plan.Attr{Name: "source." + name + " attribution", Value: r.attribution})
	}
	return out
}

// declared lists the rows of cryptoviz.source. A source that left pipeline.hcl stays, disabled: its rows may live on.
// Those of other pipelines stay as they are.
func (e *Engine) declared() map[string]sourceRow {
	out := map[string]sourceRow{}
	for name, r := range e.sources {
		r.enabled = r.enabled && !e.owns(r)
		out[name] = r
	}
	if e.Leaving {
		return out
	}
	for _, s := range e.Pipeline.Sources {
		out[s.Name] = sourceRow{
			s.Enabled, s.Interval, s.Topic.Name, s.Table.Name, s.Definition.Description,
			s.Definition.Attribution, e.Pipeline.Name,
		}
	}
	return out
}

// owns tells whether a source is one of this pipeline.
func (e *Engine) owns(r sourceRow) bool { return r.pipeline == "" || r.pipeline == e.Pipeline.Name }

// Want is the schema of this version, with the sources of pipeline.hcl.
func (e *Engine) Want() *plan.State {
	s := &plan.State{}
	s.Set(plan.Attr{Name: "schema_version", Value: strconv.Itoa(schema.Version)})
	if e.caps.Hypertables() {
		s.Set(plan.Attr{Name: "extension", Value: "timescaledb"})
	}
	putSources(s, e.declared())
	return s
}

func putSources(s *plan.State, rows map[string]sourceRow) {
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		for _, a := range rows[name].attrs(name) {
			s.Set(a)
		}
	}
}

// Read is the live schema, nil when there is none.
func (e *Engine) Read(ctx context.Context) (*plan.State, error) {
	var err error
	if e.caps, err = e.Catalog.Capabilities(ctx); err != nil {
		return nil, err
	}
	e.version, e.sources = 0, nil
	var version string
	err = e.Catalog.QueryRow(ctx, "SELECT value FROM cryptoviz.meta WHERE key = 'schema_version'").Scan(&version)
	switch state := pg.Code(err); {
	case pg.NoTable(state) || errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case state == "42501":
		return nil, fmt.Errorf("read the engine's tables: %w; GRANT USAGE ON SCHEMA cryptoviz and SELECT on its "+
			"tables, or use the user that owns it", err)
	case err != nil:
		return nil, fmt.Errorf("read the engine's tables: %w", err)
	}
	if e.version, err = strconv.Atoi(version); err != nil {
		return nil, fmt.Errorf("read the engine's tables: schema_version in cryptoviz.meta is %q, which is no number",
			version)
	}
	rows, err := e.Catalog.Query(ctx, "SELECT name, enabled, every, topic, table_name, description, attribution, "+
		"coalesce(to_jsonb(s) ->> 'pipeline', '') FROM cryptoviz.source s") // the column is there from version 5 on
	if err != nil {
		return nil, fmt.Errorf("read cryptoviz.source: %w", err)
	}
	e.sources = map[string]sourceRow{}
	var name string
	var r sourceRow
	if _, err := pgx.ForEachRow(rows, []any{
		&name, &r.enabled, &r.every, &r.topic, &r.table, &r.description,
		&r.attribution, &r.pipeline,
	}, func() error {
		e.sources[name] = r
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read cryptoviz.source: %w", err)
	}
	s := &plan.State{}
	s.Set(plan.Attr{Name: "schema_version", Value: version})
	if e.caps.Version != "" {
		s.Set(plan.Attr{Name: "extension", Value: "timescaledb"})
	}
	putSources(s, e.sources)
	return s, nil
}

// Assess fills in the statements.
func (e *Engine) Assess(ctx context.Context, c *plan.Change) error {
	if c.Want == nil {
		return e.assessDelete(ctx, c)
	}
	if !e.caps.Hypertables() {
		if e.Pipeline.Database.OnMissing == "error" {
			c.Find(table.CodeNoTimescaleDB, "extension", "%s", e.caps.Name())
		} else {
			c.Note("%s: tables become native partitions, which the engine makes ahead and drops; no columnstore, no "+
				"continuous aggregates, no policies", e.caps.Name())
		}
	}
	if e.version > schema.Version {
		c.Find(codeNewerSchema, "schema_version", "schema_version is %d, and this program knows %d", e.version,
			schema.Version)
	}
	for _, s := range e.Pipeline.Sources {
		if was, known := e.sources[s.Name]; known && !e.owns(was) && !e.Leaving {
			c.Find(plan.CodeOtherPipeline, "source."+s.Name,
				"source %q is one of pipeline %q; apply makes it one of pipeline %q", s.Name, was.pipeline,
				e.Pipeline.Name)
		}
	}
	if c.Action == plan.None || c.Impossible() {
		return nil
	}
	if err := e.findReassigned(ctx, c); err != nil {
		return err
	}
	steps := []string{"BEGIN", fmt.Sprintf("SET LOCAL lock_timeout = '%s'", pg.LockWait)}
	if e.caps.Version == "" && e.caps.Available != "" {
		steps = append(steps, createExtension)
	}
	if e.version != schema.Version {
		steps = append(steps, schema.SQL)
	}
	want := e.declared()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if w := want[name]; w != e.sources[name] {
			steps = append(steps, sourceSQL(name, w))
		}
	}
	if err := e.try(ctx, c, steps[2:]); err != nil || c.Impossible() {
		return err
	}
	c.Steps = append(steps, "COMMIT")
	return nil
}

// findReassigned warns of a source that takes another one's topic over, as one does that got a new name: how far a
// topic is stored is known by source.
func (e *Engine) findReassigned(ctx context.Context, c *plan.Change) error {
	if e.version == 0 {
		return nil
	}
	for _, s := range e.Pipeline.Sources {
		if was, known := e.sources[s.Name]; known && was.topic == s.Topic.Name || !s.Enabled {
			continue
		}
		var other string
		err := e.Catalog.QueryRow(ctx,
			"SELECT source FROM cryptoviz.position AS p WHERE topic = $2 AND next_offset > 0 AND source <> $1 "+
				"AND NOT EXISTS (SELECT FROM cryptoviz.position WHERE topic = p.topic AND source = $1) LIMIT 1", s.Name,
			s.Topic.Name).Scan(&other)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return fmt.Errorf("read how far topic.%s is stored: %w", s.Topic.Name, err)
		default:
			c.Find(codeTopicReassigned, "source."+s.Name,
				"source %q has stored topic.%s until now; %q stores all of it again that is still there", other,
				s.Topic.Name, s.Name)
		}
	}
	return nil
}

// try runs the statements in a transaction that is rolled back; not the extension's, which loads a library.
func (e *Engine) try(ctx context.Context, c *plan.Change, steps []string) error {
	err := e.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		for _, sql := range steps {
			if sql == createExtension {
				continue
			}
			if _, err := tx.Exec(ctx, sql); err != nil {
				return &pg.StatementError{SQL: sql, Err: err}
			}
		}
		return nil
	})
	switch state := pg.Code(err); {
	case err == nil:
	case state == "55P03":
		c.Note("not tried on the server: another session holds a lock")
	case state == "25006":
		c.Note("not tried on the server: %s", catalog.ReadOnlyServer)
	case state == "42501" && e.caps.ReadOnly != "":
		c.Note("not tried on the server: the server says %s", pg.ServerText(err))
	case state == "42501":
		c.Find(table.CodeRejected, "", "%s", e.Catalog.LackingForEngine(ctx, err))
	case pg.Refuses(state):
		c.Find(table.CodeRejected, "", "%v", err)
	default:
		return fmt.Errorf("try the engine's tables: %w", err)
	}
	return nil
}

// assessDelete drops the engine's own tables, and the schema when nothing else is in it: a user named cryptoviz has his
// tables there. The extension stays.
func (e *Engine) assessDelete(ctx context.Context, c *plan.Change) error {
	if c.Action != plan.Delete {
		return nil
	}
	var slots, dead, bytes int64
	err := e.Catalog.QueryRow(ctx, `SELECT (SELECT count(*) FROM cryptoviz.slot), (SELECT count(*) FROM cryptoviz.dead_letter),
		(SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c WHERE c.relnamespace = 'cryptoviz'::regnamespace AND c.relkind = 'r' AND c.relname::text = ANY($1))`, catalog.EngineRelations).
		Scan(&slots, &dead, &bytes)
	if err != nil {
		return fmt.Errorf("measure the engine's tables: %w", err)
	}
	loss := ddl.RowsLost(slots+dead, true, "at once")
	loss.Bytes = bytes
	c.Recounts = append(c.Recounts, plan.Recount{
		Address: c.Address, Code: codeEngineDropped.ID, Size: "0",
		Query: "SELECT (SELECT count(*) FROM cryptoviz.slot) + (SELECT count(*) FROM cryptoviz.dead_letter)",
	})
	c.Find(codeEngineDropped, "", "%d slots, %d dead letters, how far each source is stored, and what apply has set",
		slots, dead).Loss = loss
	c.Steps = []string{
		"BEGIN", fmt.Sprintf("SET LOCAL lock_timeout = '%s'", pg.LockWait),
		"DROP VIEW IF EXISTS cryptoviz.mode",
	}
	for _, name := range catalog.EngineRelations {
		if name != "mode" {
			c.Steps = append(c.Steps, "DROP TABLE IF EXISTS cryptoviz."+name)
		}
	}
	c.Steps = append(c.Steps,
		"DO $$ BEGIN DROP SCHEMA IF EXISTS cryptoviz; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$",
		"COMMIT")
	return nil
}

// sourceSQL writes one row of cryptoviz.source.
func sourceSQL(name string, r sourceRow) string {
	values := []string{
		pg.Literal(name), strconv.FormatBool(r.enabled), pg.Interval(r.every),
		strconv.FormatInt(max(1, int64(time.Hour/r.every)), 10), pg.Literal(r.topic), pg.Literal(r.table),
		pg.Literal(r.description), pg.Literal(r.attribution), pg.Literal(r.pipeline),
	}
	return "INSERT INTO cryptoviz.source (name, enabled, every, per_hour, topic, table_name, description, attribution, pipeline) VALUES (" + strings.Join(values, ", ") + `)
ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled, every = excluded.every, per_hour = excluded.per_hour, topic = excluded.topic,
  table_name = excluded.table_name, description = excluded.description, attribution = excluded.attribution, pipeline = excluded.pipeline, updated_at = now()`
}

// Make creates the schema, or brings it up to this version, and writes the sources. All of it is safe to repeat.
func (e *Engine) Make(ctx context.Context, c plan.Change) error {
	if c.Impossible() {
		return errors.New("prepare the database: it cannot be done, as the plan says")
	}
	if err := ddl.Execute(ctx, e.Catalog.DB, c); err != nil {
		return fmt.Errorf("prepare the database: %w", ddl.Explain(ctx, e.Catalog.DB, err))
	}
	return nil
}
