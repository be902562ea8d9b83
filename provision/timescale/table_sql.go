package timescale

import (
	"fmt"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// columnSQL is a column's definition. Generated columns depend on others, so a table's definition lists all of them.
func columnSQL(c *spec.Column) string {
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
func CreateSQL(t *spec.Table, caps Capabilities, now time.Time) []string {
	var lines []string
	for _, c := range t.Columns {
		lines = append(lines, columnSQL(c))
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
		out = append(out, hypertableSQL(t, caps, false))
	}
	for _, idx := range t.Indexes {
		out = append(out, indexSQL(t.Name, idx, ""))
	}
	if t.Description != "" {
		out = append(out, commentSQL(t.Name, t.Description))
	}
	for _, c := range t.Columns {
		if c.Description != "" {
			out = append(out, columnCommentSQL(t.Name, c.Name, c.Description))
		}
	}
	if h := t.Hypertable; h != nil && caps.Community() {
		if h.Columnstore != nil {
			out = append(out, columnstoreSQL(t.Name, h.Columnstore, caps)...)
		}
		if h.Retention > 0 {
			out = append(out, addRetentionSQL(t.Name, h.Retention, caps))
		}
	}
	return out
}

// hypertableSQL makes a table a hypertable. The index on time that TimescaleDB would add is not made: indexes are declared.
func hypertableSQL(t *spec.Table, caps Capabilities, migrate bool) string {
	table, column, chunk := pg.Literal(pg.Ident(t.Name)), pg.Literal(t.Hypertable.Time), pg.Interval(t.Hypertable.ChunkInterval)
	cut := column + ", chunk_time_interval => " + chunk
	if caps.ByRange {
		cut = caps.fn("by_range") + "(" + column + ", " + chunk + ")"
	}
	more := ""
	if migrate {
		more = ", migrate_data => true"
	}
	return "SELECT " + caps.fn("create_hypertable") + "(" + table + ", " + cut + ", create_default_indexes => false" + more + ")"
}

// Words of CREATE INDEX.
const (
	ifMissing    = "IF NOT EXISTS "
	concurrently = "CONCURRENTLY IF NOT EXISTS "
)

func indexSQL(table string, idx *spec.Index, how string) string {
	unique := ""
	if idx.Unique {
		unique = "UNIQUE "
	}
	return "CREATE " + unique + "INDEX " + how + pg.Ident(idx.Name) + " ON " + pg.Ident(table) + " (" + pg.Idents(idx.Columns) + ")"
}

func commentSQL(table, text string) string {
	return "COMMENT ON TABLE " + pg.Ident(table) + " IS " + pg.LiteralOrNull(text)
}

func columnCommentSQL(table, column, text string) string {
	return "COMMENT ON COLUMN " + pg.Ident(table, column) + " IS " + pg.LiteralOrNull(text)
}

// columnstoreSQL switches the columnstore on and sets its policy. What is not declared is set to nothing, so that TimescaleDB
// chooses.
func columnstoreSQL(table string, c *spec.Columnstore, caps Capabilities) []string {
	return []string{columnstoreSettingsSQL(table, c.SegmentBy, c.OrderBy, caps), addConversionSQL(table, c.After, caps)}
}

func columnstoreSettingsSQL(table string, segmentBy, orderBy []string, caps Capabilities) string {
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

func columnstoreOffSQL(table string, caps Capabilities) string {
	on := "timescaledb.compress"
	if caps.Columns {
		on = "timescaledb.enable_columnstore"
	}
	return "ALTER TABLE " + pg.Ident(table) + " SET (" + on + " = false)"
}

func addConversionSQL(table string, after time.Duration, caps Capabilities) string {
	if caps.Columns {
		return "CALL " + caps.fn("add_columnstore_policy") + "(" + pg.Literal(pg.Ident(table)) + ", after => " + pg.Interval(after) + ")"
	}
	return "SELECT " + caps.fn("add_compression_policy") + "(" + pg.Literal(pg.Ident(table)) + ", compress_after => " + pg.Interval(after) + ")"
}

func removeConversionSQL(table string, caps Capabilities) string {
	if caps.Columns {
		return "CALL " + caps.fn("remove_columnstore_policy") + "(" + pg.Literal(pg.Ident(table)) + ", if_exists => true)"
	}
	return "SELECT " + caps.fn("remove_compression_policy") + "(" + pg.Literal(pg.Ident(table)) + ", if_exists => true)"
}

func addRetentionSQL(table string, after time.Duration, caps Capabilities) string {
	return "SELECT " + caps.fn("add_retention_policy") + "(" + pg.Literal(pg.Ident(table)) + ", drop_after => " + pg.Interval(after) + ")"
}

func removeRetentionSQL(table string, caps Capabilities) string {
	return "SELECT " + caps.fn("remove_retention_policy") + "(" + pg.Literal(pg.Ident(table)) + ", if_exists => true)"
}

// alterPolicySQL changes the age in a policy that is there, and lets it run: the job and its schedule stay.
func alterPolicySQL(j *job, key string, after time.Duration, caps Capabilities) string {
	text := strings.TrimPrefix(pg.Interval(after), "interval ")
	return fmt.Sprintf("SELECT %s(%d, scheduled => true, config => (SELECT jsonb_set(config, '{%s}', to_jsonb(text %s)) FROM timescaledb_information.jobs WHERE job_id = %d))", caps.fn("alter_job"), j.id, key, text, j.id)
}
