package timescale

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store/schema"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// EngineAddress names the engine's own tables.
const EngineAddress = "engine.schema"

// Engine is the resource of the schema cryptoviz and its list of sources.
type Engine struct {
	Pipeline *spec.Pipeline
	DB       *pgxpool.Pool
}

// Address is engine.schema.
func (e *Engine) Address() string { return EngineAddress }

// DependsOn is nothing.
func (e *Engine) DependsOn() []string { return nil }

// Plan compares the schema's version and the rows of cryptoviz.source.
func (e *Engine) Plan(ctx context.Context) (plan.Change, error) {
	c := plan.Change{Address: e.Address(), Action: plan.None}
	caps, err := Detect(ctx, e.DB)
	if err != nil {
		return c, err
	}
	if !caps.Hypertables() {
		c.Notes = append(c.Notes, caps.Name()+": tables become native daily partitions, which the engine makes ahead and drops; no columnstore, no continuous aggregates")
		if e.Pipeline.Database.OnMissing == "error" {
			c.Action, c.Reason = plan.Block, "the server has no TimescaleDB and on_missing = \"error\": install and preload it, or set on_missing = \"degrade\" for native partitions"
			return c, nil
		}
	}
	extension := caps.Version == "" && caps.Available != ""
	var version string
	err = e.DB.QueryRow(ctx, "SELECT value FROM cryptoviz.meta WHERE key = 'schema_version'").Scan(&version)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "3F000") || errors.Is(err, pgx.ErrNoRows) {
		c.Action = plan.Create
		c.Attrs = []plan.Attribute{{Name: "schema_version", New: strconv.Itoa(schema.Version)}}
		if extension {
			c.SQL = append(c.SQL, "CREATE EXTENSION IF NOT EXISTS timescaledb")
			c.Attrs = append(c.Attrs, plan.Attribute{Name: "extension timescaledb", New: caps.Available})
		}
		c.SQL = append(c.SQL, schema.SQL)
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the engine's tables: %w", err)
	}
	if n, _ := strconv.Atoi(version); n > schema.Version {
		c.Action, c.Reason = plan.Block, fmt.Sprintf("the database was prepared by a newer cryptoviz (schema_version %s, this one knows %d): use that version", version, schema.Version)
		return c, nil
	}
	if c.Attrs, err = e.sources(ctx); err != nil {
		return c, err
	}
	if len(c.Attrs) > 0 {
		c.Action = plan.Update
	}
	return c, nil
}

type sourceRow struct {
	enabled            bool
	every              time.Duration
	topic, table       string
	describe, attribut string
}

func (r sourceRow) String() string {
	state := "enabled"
	if !r.enabled {
		state = "disabled"
	}
	return fmt.Sprintf("%s, every %s, %s -> %s", state, spec.FormatDuration(r.every), r.topic, r.table)
}

func (e *Engine) want() map[string]sourceRow {
	out := map[string]sourceRow{}
	for _, s := range e.Pipeline.Sources {
		out[s.Name] = sourceRow{s.Enabled, s.Interval, s.Topic.Name, s.Table.Name, s.Definition.Description, s.Definition.Attribution}
	}
	return out
}

// sources lists the differences of cryptoviz.source. A source that left pipeline.hcl stays, disabled: its rows may live on.
func (e *Engine) sources(ctx context.Context) ([]plan.Attribute, error) {
	have := map[string]sourceRow{}
	rows, err := e.DB.Query(ctx, "SELECT name, enabled, every, topic, table_name, description, attribution FROM cryptoviz.source")
	if err != nil {
		return nil, fmt.Errorf("read cryptoviz.source: %w", err)
	}
	var name string
	var r sourceRow
	if _, err := pgx.ForEachRow(rows, []any{&name, &r.enabled, &r.every, &r.topic, &r.table, &r.describe, &r.attribut}, func() error {
		have[name] = r
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read cryptoviz.source: %w", err)
	}
	var out []plan.Attribute
	want := e.want()
	for _, s := range e.Pipeline.Sources {
		w := want[s.Name]
		if h, found := have[s.Name]; !found {
			out = append(out, plan.Attribute{Name: "source." + s.Name, New: w.String()})
		} else if h != w {
			out = append(out, plan.Attribute{Name: "source." + s.Name, Old: h.String(), New: w.String()})
		}
		delete(have, s.Name)
	}
	for name, h := range have {
		if h.enabled {
			w := h
			w.enabled = false
			out = append(out, plan.Attribute{Name: "source." + name, Old: h.String(), New: w.String()})
		}
	}
	return out, nil
}

// Apply creates the schema, and writes the sources. Both are safe to repeat.
func (e *Engine) Apply(ctx context.Context, c plan.Change) error {
	return pgx.BeginFunc(ctx, e.DB, func(tx pgx.Tx) error {
		for _, sql := range c.SQL {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("create the engine's tables: %w", err)
			}
		}
		var names []string
		for name, w := range e.want() {
			names = append(names, name)
			if _, err := tx.Exec(ctx, `INSERT INTO cryptoviz.source (name, enabled, every, per_hour, topic, table_name, description, attribution)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
				ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled, every = excluded.every, per_hour = excluded.per_hour, topic = excluded.topic,
				table_name = excluded.table_name, description = excluded.description, attribution = excluded.attribution, updated_at = now()`,
				name, w.enabled, w.every, max(1, int64(time.Hour/w.every)), w.topic, w.table, w.describe, w.attribut); err != nil {
				return fmt.Errorf("write source %s: %w", name, err)
			}
		}
		_, err := tx.Exec(ctx, "UPDATE cryptoviz.source SET enabled = false, updated_at = now() WHERE enabled AND NOT name = ANY($1)", names)
		return err
	})
}
