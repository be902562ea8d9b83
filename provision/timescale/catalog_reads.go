package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// reading is one view or aggregate that reads a column of a relation; the column "" stands for the relation itself.
type reading struct{ relation, column, reader string }

// Reads lists the views and aggregates that read a column of a table, view or aggregate directly: "view.latest". The column ""
// means any. A query that PostgreSQL does not keep, such as a dashboard's, is not among them.
func (c *Catalog) Reads(ctx context.Context, table, column string) ([]string, error) {
	all, err := cached(ctx, c, "reads", c.readings)
	if err != nil {
		return nil, fmt.Errorf("read what depends on %s: %w", table, err)
	}
	var out []string
	for _, r := range all {
		if r.relation == table && (column == "" || r.column == column) && !slices.Contains(out, r.reader) {
			out = append(out, r.reader)
		}
	}
	slices.Sort(out)
	return out, nil
}

// readings reads all dependencies of views at once.
func (c *Catalog) readings(ctx context.Context) ([]reading, error) {
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]string{}
	for name, r := range s.relations {
		byOID[r.oid] = name
	}
	// An aggregate reads through inner views with the number of its hypertable: _partial_view_7, _materialized_hypertable_7.
	inner := map[string]string{}
	for name, a := range s.aggregates {
		if number, is := strings.CutPrefix(a.storedName, "_materialized_hypertable_"); is {
			inner["_partial_view_"+number], inner["_direct_view_"+number] = name, name
		}
	}
	rows, err := c.query(ctx, `SELECT DISTINCT d.refobjid, coalesce(a.attname::text, ''), v.oid, n.nspname::text, v.relname::text, v.relkind::text
		FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace
		LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
		WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid AND n.nspname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		return nil, err
	}
	var out []reading
	var oid, reader uint32
	var column, schema, name, kind string
	_, err = pgx.ForEachRow(rows, []any{&oid, &column, &reader, &schema, &name, &kind}, func() error {
		relation := byOID[oid]
		if relation == "" {
			return nil
		}
		address := map[string]string{"v": "view", "m": "materialized view"}[kind] + " " + schema + "." + name
		aggregate := inner[name]
		if byOID[reader] == name && s.aggregates[name] != nil {
			aggregate = name
		}
		switch {
		case aggregate != "":
			address = "aggregate." + aggregate
		case byOID[reader] == name && kind == "v":
			address = "view." + name
		}
		if address != "aggregate."+relation {
			out = append(out, reading{relation, column, address})
		}
		return nil
	})
	return out, err
}
