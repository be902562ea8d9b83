package timescale

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// kept is what a view loses when it is dropped, and gets back when it is made again: its owner, grants, comments on columns,
// and columns' defaults, which count for inserts into it.
type kept struct {
	name     string
	alter    string // "ALTER VIEW", "ALTER MATERIALIZED VIEW"
	owner    string // "" when the session's user owns it
	grants   []keptGrant
	notes    []keptComment
	defaults []keptDefault
}

type keptGrant struct {
	privilege, column, grantee string
	option                     bool
}

type keptComment struct{ column, text string }

type keptDefault struct {
	column viewColumn
	expr   string
}

// keep reads what hangs on a view.
func (c *Catalog) keep(ctx context.Context, l *liveView) (*kept, error) {
	k := &kept{name: quote(l.schema, l.name), alter: "ALTER VIEW "}
	v, err := c.views(ctx)
	if err != nil {
		return nil, err
	}
	if l.owner != v.user {
		k.owner = l.owner
	}
	rows, err := c.query(ctx, `SELECT '', x.privilege_type, coalesce(r.rolname::text, ''), x.is_grantable FROM pg_class c, aclexplode(c.relacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
		WHERE c.oid = $1 AND x.grantee <> c.relowner
		UNION ALL SELECT a.attname::text, x.privilege_type, coalesce(r.rolname::text, ''), x.is_grantable FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) x
		LEFT JOIN pg_roles r ON r.oid = x.grantee WHERE c.oid = $1 AND x.grantee <> c.relowner
		UNION ALL SELECT a.attname::text, 'COMMENT', d.description, false FROM pg_description d JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
		WHERE d.objoid = $1 AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0 ORDER BY 1, 3, 2`, l.oid)
	if err != nil {
		return nil, fmt.Errorf("read the grants on %s: %w", l.name, err)
	}
	var g keptGrant
	_, err = pgx.ForEachRow(rows, []any{&g.column, &g.privilege, &g.grantee, &g.option}, func() error {
		if g.privilege == "COMMENT" {
			k.notes = append(k.notes, keptComment{g.column, g.grantee})
		} else {
			k.grants = append(k.grants, g)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the grants on %s: %w", l.name, err)
	}
	k.defaults, err = c.viewDefaults(ctx, l)
	return k, err
}

// viewDefaults reads the defaults of a view's columns.
func (c *Catalog) viewDefaults(ctx context.Context, l *liveView) ([]keptDefault, error) {
	var out []keptDefault
	var column, expr string
	err := c.trial(ctx, func(tx pgx.Tx) error {
		if err := plainText(ctx, tx); err != nil {
			return err
		}
		return forEach(ctx, tx, `SELECT a.attname::text, pg_get_expr(e.adbin, 0) FROM pg_attrdef e JOIN pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum WHERE e.adrelid = $1 ORDER BY a.attnum`,
			[]any{int64(l.oid)}, []any{&column, &expr}, func() error {
				if i := slices.IndexFunc(l.columns, func(v viewColumn) bool { return v.name == column }); i >= 0 {
					out = append(out, keptDefault{l.columns[i], expr})
				}
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("read the defaults of view %s: %w", l.name, err)
	}
	return out, nil
}

// lostDefaults lists the columns whose default does not come back: one of another type need not take it.
func (k *kept) lostDefaults(columns []viewColumn) (out []string) {
	for _, d := range k.defaults {
		if !slices.Contains(columns, d.column) {
			out = append(out, d.column.name)
		}
	}
	return out
}

// statements give it all back, as far as there are the columns for it. The owner comes last: afterwards it may be another's.
func (k *kept) statements(columns []viewColumn) (out []string) {
	there := func(column string) bool {
		return slices.ContainsFunc(columns, func(c viewColumn) bool { return c.name == column })
	}
	for _, g := range k.grants {
		sql := "GRANT " + g.privilege
		if g.column != "" {
			if !there(g.column) {
				continue
			}
			sql += " (" + quote(g.column) + ")"
		}
		to := "PUBLIC"
		if g.grantee != "" {
			to = quote(g.grantee)
		}
		sql += " ON " + k.name + " TO " + to
		if g.option {
			sql += " WITH GRANT OPTION"
		}
		out = append(out, sql)
	}
	for _, n := range k.notes {
		if there(n.column) {
			out = append(out, "COMMENT ON COLUMN "+k.name+"."+quote(n.column)+" IS "+literal(n.text))
		}
	}
	for _, d := range k.defaults {
		if slices.Contains(columns, d.column) {
			out = append(out, "ALTER VIEW "+k.name+" ALTER COLUMN "+quote(d.column.name)+" SET DEFAULT "+d.expr)
		}
	}
	if k.owner != "" {
		out = append(out, k.alter+k.name+" OWNER TO "+quote(k.owner))
	}
	return out
}

// grantees lists who else may use the view.
func (k *kept) grantees() (out []string) {
	for _, g := range k.grants {
		who := g.grantee
		if who == "" {
			who = "PUBLIC"
		}
		if !slices.Contains(out, who) {
			out = append(out, who)
		}
	}
	return out
}
