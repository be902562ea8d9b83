package table

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// childrenOf lists a table with its partitions or chunks, on all of which a column is the same one.
const childrenOf = `WITH RECURSIVE tree(oid) AS (SELECT $1::oid UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)`

// dependent names what a row of pg_depend is about; a view, and not its rule.
const dependent = `CASE w.rulename WHEN '_RETURN' THEN pg_describe_object('pg_class'::regclass, w.ev_class, 0) ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END`

// hangingOnColumn lists what is no view and forbids to drop a column, or to give it another type: policies, triggers,
// rules, functions and publications that name it. A type forbids one thing more, a column elsewhere that holds whole
// rows: these are not rewritten. A trigger that PostgreSQL or TimescaleDB copied to partitions or chunks counts once.
const hangingOnColumn = childrenOf + `
	SELECT DISTINCT ` + dependent + ` FROM pg_attribute a
	JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'n'
	LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
	WHERE a.attrelid IN (SELECT oid FROM tree) AND a.attname = $2 AND NOT a.attisdropped
	AND (d.classid IN ('pg_policy'::regclass, 'pg_proc'::regclass, 'pg_publication_rel'::regclass) OR w.ev_class = a.attrelid OR w.oid IS NOT NULL AND a.attrelid <> $1
		OR t.tgrelid = $1 OR t.oid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_trigger o WHERE o.tgrelid = $1 AND o.tgname = t.tgname))
	UNION SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_class c JOIN pg_type t ON t.oid = c.reltype
	JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray) AND d.classid = 'pg_class'::regclass AND d.objsubid > 0
	JOIN pg_class u ON u.oid = d.objid AND u.relkind IN ('r', 'p', 'm') WHERE $3 AND c.oid = $1 ORDER BY 1`

// hangingOnTable lists what forbids to drop a table, and is no view that reads it: foreign keys, functions, policies,
// columns and defaults of others, and views of a single partition or of the type of its rows. gone is what goes with
// the table: PostgreSQL says so itself of all but chunks. A foreign key that was copied to partitions or chunks counts
// once.
const hangingOnTable = `WITH RECURSIVE gone(classid, objid) AS (SELECT 'pg_class'::regclass::oid, $1::oid
		UNION SELECT d.classid, d.objid FROM gone g JOIN pg_depend d ON d.refclassid = g.classid AND d.refobjid = g.objid WHERE d.deptype <> 'n'
		OR $2 AND d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = d.objid AND i.inhparent = d.refobjid))
	SELECT DISTINCT ` + dependent + `, coalesce(v.relname::text, '') FROM gone g JOIN pg_depend d ON d.refclassid = g.classid AND d.refobjid = g.objid
	LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
	LEFT JOIN pg_class v ON v.relkind IN ('v', 'm') AND (v.oid = w.ev_class OR d.classid = 'pg_class'::regclass AND v.oid = d.objid)
	LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
	WHERE d.deptype = 'n' AND (k.oid IS NULL OR k.confrelid = $1 OR NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = k.conrelid AND o.conkey = k.conkey AND o.confrelid = $1)) AND NOT (d.classid = 'pg_rewrite'::regclass AND d.refobjid = $1) AND NOT EXISTS (SELECT FROM gone o WHERE o.classid = d.classid AND o.objid = d.objid) ORDER BY 1`

// blockedByOthers adds the finding that something else than views and aggregates forbids to drop a column, or to
// rewrite one that stays. The server would say so, too, but large tables are not tried.
func (d *tableDiff) blockedByOthers(ctx context.Context, l *catalog.Column, attr string) error {
	rewritten := d.t.Spec.Column(l.Name) != nil || d.t.renames()[l.Name] != ""
	rows, err := d.t.Catalog.Query(ctx, hangingOnColumn, d.t.rel.OID, l.Name, rewritten)
	if err != nil {
		return fmt.Errorf("read what depends on %s.%s: %w", d.t.name(), l.Name, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read what depends on %s.%s: %w", d.t.name(), l.Name, err)
	}
	if len(names) > 0 {
		d.change.Find(codeDependents, attr, "%s", catalog.DependOnIt(names))
	}
	return nil
}

// blockedFromDropping adds the finding that the table cannot go, whatever becomes of the views and aggregates that read
// it.
func (d *tableDiff) blockedFromDropping(ctx context.Context, readers []string) error {
	rows, err := d.t.Catalog.Query(ctx, hangingOnTable, d.t.rel.OID, d.t.rel.Hyper != nil)
	if err != nil {
		return fmt.Errorf("read what depends on %s: %w", d.t.name(), err)
	}
	var names []string
	var what, view string
	if _, err := pgx.ForEachRow(rows, []any{&what, &view}, func() error {
		known := func(kind string) bool {
			return slices.Contains(readers, kind+"."+view) || d.goesBefore(kind+"."+view)
		}
		if view == "" || !known("view") && !known("aggregate") {
			names = append(names, what)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read what depends on %s: %w", d.t.name(), err)
	}
	if len(names) > 0 {
		d.change.Find(codeDependents, "", "%s", catalog.DependOnIt(names))
	}
	return nil
}
