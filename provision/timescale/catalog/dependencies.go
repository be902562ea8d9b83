package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// reading is one view or aggregate that reads a column of a relation; the column "" stands for the relation itself.
type reading struct{ relation, column, reader string }

// DependentViews lists the views and aggregates that read a column of a table, view or aggregate directly:
// "view.latest". The column "" means any. A query that PostgreSQL does not keep, such as a dashboard's, is not among
// them.
func (c *Catalog) DependentViews(ctx context.Context, table, column string) ([]string, error) {
	all, err := Cached(ctx, c, "reads", c.readings)
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
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]string{}
	for name, r := range s.Relations {
		byOID[r.OID] = name
	}
	// An aggregate reads through inner views with the number of its hypertable: _partial_view_7,
	// _materialized_hypertable_7.
	inner := map[string]string{}
	for name, a := range s.Aggregates {
		if number, is := strings.CutPrefix(a.StoredName, "_materialized_hypertable_"); is {
			inner["_partial_view_"+number], inner["_direct_view_"+number] = name, name
		}
	}
	rows, err := c.Query(ctx, `SELECT DISTINCT d.refobjid, coalesce(a.attname::text, ''), v.oid, n.nspname::text, v.relname::text, v.relkind::text
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
		if byOID[reader] == name && s.Aggregates[name] != nil {
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

// dependentsSQL lists what goes with a view, or forbids that it goes, beyond the views that read it: triggers and rules
// on it, and what needs it or the type of its rows; with the relation that it is a part of.
const dependentsSQL = `SELECT 'trigger ' || quote_ident(tgname), 0::oid FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
	UNION SELECT 'rule ' || quote_ident(rulename), 0 FROM pg_rewrite WHERE ev_class = $1 AND rulename <> '_RETURN'
	UNION SELECT CASE WHEN w.rulename = '_RETURN' THEN 'view ' || w.ev_class::regclass ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END,
		CASE d.classid WHEN 'pg_class'::regclass THEN d.objid ELSE coalesce(w.ev_class, 0) END
	FROM pg_class c JOIN pg_type t ON t.oid = c.reltype JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)
	LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
	WHERE c.oid = $1 AND d.deptype = 'n' AND (w.oid IS NULL OR w.ev_class <> $1 AND d.refclassid = 'pg_type'::regclass) ORDER BY 1`

// Dependents lists what stands in the way of dropping a view. What Reads names already is not named again as a user of
// the type.
func (c *Catalog) Dependents(ctx context.Context, name string, oid uint32) ([]string, error) {
	readers, err := c.DependentViews(ctx, name, "")
	if err != nil {
		return nil, err
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	named := map[uint32]bool{}
	for _, r := range s.Relations {
		named[r.OID] = slices.Contains(readers, s.addressOf(r))
	}
	rows, err := c.Query(ctx, dependentsSQL, oid)
	if err != nil {
		return nil, fmt.Errorf("read what depends on %s: %w", name, err)
	}
	var what string
	var part uint32
	if _, err := pgx.ForEachRow(rows, []any{&what, &part}, func() error {
		if !named[part] && !slices.Contains(readers, what) {
			readers = append(readers, what)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what depends on %s: %w", name, err)
	}
	return readers, nil
}

// DependOnIt says what depends on an object.
func DependOnIt(readers []string) string {
	if len(readers) == 1 {
		return readers[0] + " depends on it"
	}
	return strings.Join(readers, ", ") + " depend on it"
}
