package ddl

import (
	"fmt"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// ColumnSQL is a column's definition. Generated columns depend on others, so a table's definition lists all of them.
func ColumnSQL(c *spec.Column) string {
	line := pg.Ident(c.Name) + " " + string(c.Type)
	if !c.Null {
		line += " NOT NULL"
	}
	if c.Default != "" {
		line += " DEFAULT (" + c.Default + ")"
	}
	if c.Generated != "" {
		line += " GENERATED ALWAYS AS (" + c.Generated + ") STORED"
	}
	return line
}

// CreateSQL returns the statements that create a table, in order.
func CreateSQL(t *spec.Table, caps catalog.Capabilities, now time.Time) []string {
	var lines []string
	for _, c := range t.Columns {
		lines = append(lines, ColumnSQL(c))
	}
	if len(t.PrimaryKey) > 0 {
		lines = append(lines, "PRIMARY KEY ("+pg.Idents(t.PrimaryKey)+")")
	}
	create := "CREATE TABLE " + pg.Ident(t.Name) + " (\n  " + strings.Join(lines, ",\n  ") + "\n)"
	native := t.Hypertable != nil && !caps.Hypertables()
	if native {
		create += " PARTITION BY RANGE (" + pg.Ident(t.Hypertable.Time) + ")"
	}
	out := []string{create}
	switch {
	case native:
		for _, p := range partition.Ahead(t, now) {
			out = append(out, p.DDL())
		}
	case t.Hypertable != nil:
		out = append(out, HypertableSQL(t, caps, false))
	}
	for _, idx := range t.Indexes {
		out = append(out, IndexSQL(t.Name, idx, ""))
	}
	if t.Description != "" {
		out = append(out, CommentSQL(t.Name, t.Description))
	}
	for _, c := range t.Columns {
		if c.Description != "" {
			out = append(out, ColumnCommentSQL(t.Name, c.Name, c.Description))
		}
	}
	if h := t.Hypertable; h != nil && caps.Community() {
		if h.Columnstore != nil {
			out = append(out, columnstoreSQL(t.Name, h.Columnstore, caps)...)
		}
		if h.Retention > 0 {
			out = append(out, AddRetentionSQL(t.Name, h.Retention, caps))
		}
	}
	return out
}

// HypertableSQL makes a table a hypertable. The index on time that TimescaleDB would add is not made: indexes are
// declared.
func HypertableSQL(t *spec.Table, caps catalog.Capabilities, migrate bool) string {
	table, column, chunk := pg.Literal(pg.Ident(t.Name)), pg.Literal(t.Hypertable.Time),
		pg.Interval(t.Hypertable.ChunkInterval)
	cut := column + ", chunk_time_interval => " + chunk
	if caps.ByRange {
		cut = caps.Function("by_range") + "(" + column + ", " + chunk + ")"
	}
	more := ""
	if migrate {
		more = ", migrate_data => true"
	}
	return "SELECT " + caps.Function("create_hypertable") + "(" + table + ", " + cut +
		", create_default_indexes => false" + more + ")"
}

// Words of CREATE INDEX.
const (
	IfMissing    = "IF NOT EXISTS "
	Concurrently = "CONCURRENTLY IF NOT EXISTS "
)

// IndexSQL creates an index; how is empty, IfMissing or Concurrently.
func IndexSQL(table string, idx *spec.Index, how string) string {
	unique := ""
	if idx.Unique {
		unique = "UNIQUE "
	}
	return "CREATE " + unique + "INDEX " + how + pg.Ident(idx.Name) + " ON " + pg.Ident(table) + " (" +
		pg.Idents(idx.Columns) + ")"
}

// CommentSQL comments a table.
func CommentSQL(table, text string) string {
	return "COMMENT ON TABLE " + pg.Ident(table) + " IS " + pg.LiteralOrNull(text)
}

// ColumnCommentSQL comments a column.
func ColumnCommentSQL(table, column, text string) string {
	return "COMMENT ON COLUMN " + pg.Ident(table, column) + " IS " + pg.LiteralOrNull(text)
}

// columnstoreSQL switches the columnstore on and sets its policy. What is not declared is set to nothing, so that
// TimescaleDB chooses.
func columnstoreSQL(table string, c *spec.Columnstore, caps catalog.Capabilities) []string {
	return []string{ColumnstoreSettingsSQL(table, c.SegmentBy, c.OrderBy, caps), AddConversionSQL(table, c.After, caps)}
}

// ColumnstoreSettingsSQL switches the columnstore on; nil leaves a setting as it is.
func ColumnstoreSettingsSQL(table string, segmentBy, orderBy []string, caps catalog.Capabilities) string {
	on, segment, order := "timescaledb.compress", "timescaledb.compress_segmentby", "timescaledb.compress_orderby"
	if caps.Columns {
		on, segment, order = "timescaledb.enable_columnstore", "timescaledb.segmentby", "timescaledb.orderby"
	}
	sql := "ALTER TABLE " + pg.Ident(table) + " SET (" + on + " = true"
	if segmentBy != nil {
		sql += ", " + segment + " = " + pg.Literal(pg.Idents(segmentBy))
	}
	if orderBy != nil {
		sql += ", " + order + " = " + pg.Literal(orderList(orderBy))
	}
	return sql + ")"
}

// orderList quotes the columns of an order: "time DESC" becomes `"time" DESC`.
func orderList(order []string) string {
	out := make([]string, len(order))
	for i, o := range order {
		name, direction, _ := strings.Cut(o, " ")
		if out[i] = pg.Ident(name); direction != "" {
			out[i] += " " + direction
		}
	}
	return strings.Join(out, ", ")
}

// ColumnstoreOffSQL switches the columnstore off.
func ColumnstoreOffSQL(table string, caps catalog.Capabilities) string {
	on := "timescaledb.compress"
	if caps.Columns {
		on = "timescaledb.enable_columnstore"
	}
	return "ALTER TABLE " + pg.Ident(table) + " SET (" + on + " = false)"
}

// AddConversionSQL adds the policy that moves chunks into the columnstore.
func AddConversionSQL(table string, after time.Duration, caps catalog.Capabilities) string {
	if caps.Columns {
		return "CALL " + caps.Function("add_columnstore_policy") + "(" + pg.Literal(pg.Ident(table)) + ", after => " +
			pg.Interval(after) + ")"
	}
	return "SELECT " + caps.Function("add_compression_policy") + "(" + pg.Literal(pg.Ident(table)) +
		", compress_after => " + pg.Interval(after) + ")"
}

// RemoveConversionSQL removes that policy.
func RemoveConversionSQL(table string, caps catalog.Capabilities) string {
	if caps.Columns {
		return "CALL " + caps.Function("remove_columnstore_policy") + "(" + pg.Literal(pg.Ident(table)) +
			", if_exists => true)"
	}
	return "SELECT " + caps.Function("remove_compression_policy") + "(" + pg.Literal(pg.Ident(table)) +
		", if_exists => true)"
}

// AddRetentionSQL adds the retention policy of a table.
func AddRetentionSQL(table string, after time.Duration, caps catalog.Capabilities) string {
	return "SELECT " + caps.Function("add_retention_policy") + "(" + pg.Literal(pg.Ident(table)) + ", drop_after => " +
		pg.Interval(after) + ")"
}

// RemoveRetentionSQL removes that policy.
func RemoveRetentionSQL(table string, caps catalog.Capabilities) string {
	return "SELECT " + caps.Function("remove_retention_policy") + "(" + pg.Literal(pg.Ident(table)) +
		", if_exists => true)"
}

// AlterPolicySQL changes the age in a policy that is there, and lets it run: the job and its schedule stay.
func AlterPolicySQL(j *catalog.Job, key string, after time.Duration, caps catalog.Capabilities) string {
	text := strings.TrimPrefix(pg.Interval(after), "interval ")
	return fmt.Sprintf("SELECT %s(%d, scheduled => true, config => (SELECT jsonb_set(config, '{%s}', to_jsonb(text "+
		"%s)) FROM timescaledb_information.jobs WHERE job_id = %d))", caps.Function("alter_job"), j.ID, key, text, j.ID)
}
