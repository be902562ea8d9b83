package timescale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store/partition"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Table is the resource of one table block, with its hypertable or native partitions.
type Table struct {
	Spec *spec.Table
	DB   *pgxpool.Pool
	Now  func() time.Time
}

// Address is table.NAME.
func (t *Table) Address() string { return "table." + t.Spec.Name }

// DependsOn is the engine's schema: it brings the extension.
func (t *Table) DependsOn() []string { return []string{EngineAddress} }

// live is a table as the database has it.
type live struct {
	kind    string // r: plain, p: partitioned
	columns []liveColumn
	key     []string
	indexes []string
	hyper   bool
	chunk   time.Duration
}

type liveColumn struct {
	name, typ         string
	null              bool
	defaults, generat bool
}

// Plan reads the table and compares.
func (t *Table) Plan(ctx context.Context) (plan.Change, error) {
	caps, err := Detect(ctx, t.DB)
	if err != nil {
		return plan.Change{}, err
	}
	have, err := t.read(ctx, caps)
	if err != nil {
		return plan.Change{}, fmt.Errorf("read table %s: %w", t.Spec.Name, err)
	}
	return Diff(t.Spec, have, caps, t.Now()), nil
}

// typeNames maps PostgreSQL's long names to the language's.
var typeNames = map[string]string{"timestamp with time zone": "timestamptz"}

func (t *Table) read(ctx context.Context, caps Capabilities) (*live, error) {
	var oid uint32
	out := &live{}
	err := t.DB.QueryRow(ctx, "SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass($1)", quote(t.Spec.Name)).Scan(&oid, &out.kind)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := t.DB.Query(ctx, `SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull, atthasdef AND attgenerated = '', attgenerated <> ''
		FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, oid)
	if err != nil {
		return nil, err
	}
	var c liveColumn
	if _, err := pgx.ForEachRow(rows, []any{&c.name, &c.typ, &c.null, &c.defaults, &c.generat}, func() error {
		if short := typeNames[c.typ]; short != "" {
			c.typ = short
		}
		out.columns = append(out.columns, c)
		return nil
	}); err != nil {
		return nil, err
	}
	if err := t.DB.QueryRow(ctx, `SELECT coalesce((SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i, unnest(i.indkey::int[]) WITH ORDINALITY AS k(att, n), pg_attribute a
		WHERE i.indrelid = $1 AND i.indisprimary AND a.attrelid = $1 AND a.attnum = k.att), '{}'),
		coalesce((SELECT array_agg(c.relname::text) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 AND NOT i.indisprimary), '{}')`, oid).
		Scan(&out.key, &out.indexes); err != nil {
		return nil, err
	}
	if caps.Version != "" {
		err := t.DB.QueryRow(ctx, `SELECT time_interval FROM timescaledb_information.dimensions WHERE hypertable_schema = (SELECT nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE c.oid = $1)
			AND hypertable_name = $2 AND dimension_number = 1`, oid, t.Spec.Name).Scan(&out.chunk)
		out.hyper = err == nil
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, err
		}
	}
	return out, nil
}

// Diff compares; have is nil when the table is missing.
func Diff(want *spec.Table, have *live, caps Capabilities, now time.Time) plan.Change {
	c := plan.Change{Address: "table." + want.Name, Action: plan.None}
	attr := func(name, old, value string) {
		c.Attrs = append(c.Attrs, plan.Attribute{Name: name, Old: old, New: value})
	}
	if have == nil {
		c.Action, c.SQL = plan.Create, CreateSQL(want, caps, now)
		for _, col := range want.Columns {
			attr(col.Name, "", describe(string(col.Type), col.Null, col.Default != "", col.Generated != ""))
		}
		attr("primary_key", "", strings.Join(want.PrimaryKey, ", "))
		for _, idx := range want.Indexes {
			attr("index "+idx.Name, "", strings.Join(idx.Columns, ", "))
		}
		if h := want.Hypertable; h != nil {
			kind := "hypertable, chunks of "
			if !caps.Hypertables() {
				kind = "native partitions of "
			}
			attr("layout", "", kind+spec.FormatDuration(h.ChunkInterval)+" on "+h.Time)
		}
		return c
	}
	if have.kind != "r" && have.kind != "p" {
		c.Action, c.Reason = plan.Block, "there is something of this name that is not a table: rename it or the block"
		return c
	}
	for _, col := range want.Columns {
		w := describe(string(col.Type), col.Null, col.Default != "", col.Generated != "")
		i := slices.IndexFunc(have.columns, func(l liveColumn) bool { return l.name == col.Name })
		if i < 0 {
			attr(col.Name, "missing", w)
			continue
		}
		l := have.columns[i]
		if h := describe(l.typ, l.null, l.defaults, l.generat); h != w {
			attr(col.Name, h, w)
		}
	}
	for _, l := range have.columns {
		if want.Column(l.name) == nil {
			attr(l.name, describe(l.typ, l.null, l.defaults, l.generat), "not in pipeline.hcl")
		}
	}
	if !slices.Equal(have.key, want.PrimaryKey) {
		attr("primary_key", strings.Join(have.key, ", "), strings.Join(want.PrimaryKey, ", "))
	}
	for _, idx := range want.Indexes {
		if !slices.Contains(have.indexes, idx.Name) {
			attr("index "+idx.Name, "missing", strings.Join(idx.Columns, ", "))
		}
	}
	if h := want.Hypertable; h != nil {
		switch {
		case !have.hyper && have.kind == "r":
			attr("layout", "plain table", "hypertable or native partitions")
		case have.hyper && have.chunk != h.ChunkInterval:
			attr("chunk_interval", spec.FormatDuration(have.chunk), spec.FormatDuration(h.ChunkInterval))
		}
	} else if have.hyper || have.kind == "p" {
		attr("layout", "hypertable or native partitions", "plain table")
	}
	if len(c.Attrs) > 0 {
		c.Action, c.Reason = plan.Report, "this version creates what is missing and changes nothing else; change it with ALTER TABLE, or change pipeline.hcl"
	}
	return c
}

func describe(typ string, null, defaults, generated bool) string {
	if !null {
		typ += " not null"
	}
	if defaults {
		typ += " default"
	}
	if generated {
		typ += " generated"
	}
	return typ
}

// CreateSQL returns the statements that create a table, in order.
func CreateSQL(t *spec.Table, caps Capabilities, now time.Time) []string {
	list := func(names []string) string {
		quoted := make([]string, len(names))
		for i, n := range names {
			quoted[i] = quote(n)
		}
		return strings.Join(quoted, ", ")
	}
	var lines []string
	for _, c := range t.Columns {
		line := quote(c.Name) + " " + string(c.Type)
		if !c.Null {
			line += " NOT NULL"
		}
		if c.Default != "" {
			line += " DEFAULT " + c.Default
		}
		if c.Generated != "" {
			line += " GENERATED ALWAYS AS (" + c.Generated + ") STORED"
		}
		lines = append(lines, line)
	}
	lines = append(lines, "PRIMARY KEY ("+list(t.PrimaryKey)+")")
	create := "CREATE TABLE " + quote(t.Name) + " (\n  " + strings.Join(lines, ",\n  ") + "\n)"
	native := t.Hypertable != nil && !caps.Hypertables()
	if native {
		create += " PARTITION BY RANGE (" + quote(t.Hypertable.Time) + ")"
	}
	out := []string{create}
	switch {
	case native:
		for _, p := range partition.Ahead(t, now) {
			out = append(out, p.DDL())
		}
	case t.Hypertable != nil:
		interval := fmt.Sprintf("interval '%d microseconds'", t.Hypertable.ChunkInterval.Microseconds())
		table, column := literal(quote(t.Name)), literal(t.Hypertable.Time)
		if caps.ByRange || caps.Version == "" {
			out = append(out, fmt.Sprintf("SELECT create_hypertable(%s, by_range(%s, %s), create_default_indexes => false)", table, column, interval))
		} else {
			out = append(out, fmt.Sprintf("SELECT create_hypertable(%s, %s, chunk_time_interval => %s, create_default_indexes => false)", table, column, interval))
		}
	}
	for _, idx := range t.Indexes {
		unique := ""
		if idx.Unique {
			unique = "UNIQUE "
		}
		out = append(out, "CREATE "+unique+"INDEX "+quote(idx.Name)+" ON "+quote(t.Name)+" ("+list(idx.Columns)+")")
	}
	if t.Description != "" {
		out = append(out, "COMMENT ON TABLE "+quote(t.Name)+" IS "+literal(t.Description))
	}
	for _, c := range t.Columns {
		if c.Description != "" {
			out = append(out, "COMMENT ON COLUMN "+quote(t.Name, c.Name)+" IS "+literal(c.Description))
		}
	}
	return out
}

func literal(s string) string {
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// Apply creates the table in one transaction. Another instance that did it meanwhile is no error.
func (t *Table) Apply(ctx context.Context, c plan.Change) error {
	if c.Action != plan.Create {
		return nil
	}
	err := pgx.BeginFunc(ctx, t.DB, func(tx pgx.Tx) error {
		for _, sql := range c.SQL {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", firstLine(sql), err)
			}
		}
		return nil
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P07" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create table %s: %w", t.Spec.Name, err)
	}
	return nil
}

func firstLine(s string) string {
	line, _, more := strings.Cut(s, "\n")
	if more {
		line += " …"
	}
	return line
}
