package view

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// preserved is what a view loses when it is dropped, and gets back when it is made again: its owner, grants, comments
// on columns, triggers and rules, and columns' defaults, which count for inserts into it.
type preserved struct {
	name     string
	Alter    string // "ALTER VIEW", "ALTER MATERIALIZED VIEW"
	owner    string // "" when the session's user owns it
	grants   []keptGrant
	notes    []keptComment
	revoked  []keptGrant // what default privileges would add
	parts    []string    // statements of triggers and rules
	defaults []keptDefault
}

type keptGrant struct {
	privilege, column, grantee string
	option                     bool
}

type keptComment struct{ column, text string }

type keptDefault struct {
	column catalog.ViewColumn
	expr   string
}

// ReadPreserved reads what dropping a view loses.
func ReadPreserved(ctx context.Context, c *catalog.Catalog, l *catalog.View) (*preserved, error) {
	k := &preserved{name: pg.Ident(l.Schema, l.Name), Alter: "ALTER VIEW "}
	v, err := c.Views(ctx)
	if err != nil {
		return nil, err
	}
	if l.Owner != v.User {
		k.owner = l.Owner
	}
	rows, err := c.Query(ctx, `SELECT '', x.privilege_type, coalesce(r.rolname::text, ''), x.is_grantable FROM pg_class c, aclexplode(c.relacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
		WHERE c.oid = $1 AND x.grantee <> c.relowner
		UNION ALL SELECT a.attname::text, x.privilege_type, coalesce(r.rolname::text, ''), x.is_grantable FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) x
		LEFT JOIN pg_roles r ON r.oid = x.grantee WHERE c.oid = $1 AND x.grantee <> c.relowner
		UNION ALL SELECT a.attname::text, 'COMMENT', d.description, false FROM pg_description d JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
		WHERE d.objoid = $1 AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0 ORDER BY 1, 3, 2`, l.OID)
	if err != nil {
		return nil, fmt.Errorf("read the grants on %s: %w", l.Name, err)
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
		return nil, fmt.Errorf("read the grants on %s: %w", l.Name, err)
	}
	return k, k.readParts(ctx, c, l)
}

// partsSQL reads the triggers and rules of a view, with their comments, as statements.
const partsSQL = `SELECT s FROM (
	SELECT 1 AS a, tgname AS b, pg_get_triggerdef(oid) AS s FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
	UNION ALL SELECT 2, rulename, rtrim(pg_get_ruledef(oid), ';') FROM pg_rewrite WHERE ev_class = $1 AND rulename <> '_RETURN'
	UNION ALL SELECT 3, tgname, format('COMMENT ON TRIGGER %I ON %s IS %L', tgname, $2::text, d.description) FROM pg_trigger t
		JOIN pg_description d ON d.objoid = t.oid AND d.classoid = 'pg_trigger'::regclass WHERE tgrelid = $1 AND NOT tgisinternal
	UNION ALL SELECT 3, rulename, format('COMMENT ON RULE %I ON %s IS %L', rulename, $2::text, d.description) FROM pg_rewrite r
		JOIN pg_description d ON d.objoid = r.oid AND d.classoid = 'pg_rewrite'::regclass WHERE ev_class = $1 AND rulename <> '_RETURN') x ORDER BY a, b`

// revokedSQL reads the default privileges of the session's user that a view does not have.
const revokedSQL = `SELECT DISTINCT x.privilege_type, coalesce(r.rolname::text, '') FROM pg_class c
	JOIN pg_default_acl d ON d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND d.defaclobjtype = 'r' AND d.defaclnamespace IN (0, c.relnamespace),
	aclexplode(d.defaclacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
	WHERE c.oid = $1 AND x.grantee NOT IN (c.relowner, d.defaclrole)
	AND NOT EXISTS (SELECT FROM aclexplode(c.relacl) h WHERE h.grantee = x.grantee AND h.privilege_type = x.privilege_type) ORDER BY 2, 1`

// readParts reads the triggers, rules and defaults of a view.
func (k *preserved) readParts(ctx context.Context, c *catalog.Catalog, l *catalog.View) error {
	var column, expr string
	err := c.DryRun(ctx, func(tx pgx.Tx) error {
		if err := pg.PlainText(ctx, tx); err != nil {
			return err
		}
		var part string
		if err := pg.ForEach(ctx, tx, partsSQL, []any{int64(l.OID), k.name}, []any{&part}, func() error {
			k.parts = append(k.parts, part)
			return nil
		}); err != nil {
			return err
		}
		var g keptGrant
		if err := pg.ForEach(ctx, tx, revokedSQL, []any{int64(l.OID)}, []any{&g.privilege, &g.grantee}, func() error {
			k.revoked = append(k.revoked, g)
			return nil
		}); err != nil {
			return err
		}
		return pg.ForEach(ctx, tx,
			`SELECT a.attname::text, pg_get_expr(e.adbin, 0) FROM pg_attrdef e JOIN pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum WHERE e.adrelid = $1 ORDER BY a.attnum`,
			[]any{int64(l.OID)}, []any{&column, &expr}, func() error {
				if i := slices.IndexFunc(l.Columns, func(v catalog.ViewColumn) bool {
					return v.Name == column
				}); i >= 0 {
					k.defaults = append(k.defaults, keptDefault{l.Columns[i], expr})
				}
				return nil
			})
	})
	if err != nil {
		return fmt.Errorf("read the defaults, triggers and rules of view %s: %w", l.Name, err)
	}
	return nil
}

// lostDefaults lists the columns whose default does not come back: one of another type need not take it.
func (k *preserved) lostDefaults(columns []catalog.ViewColumn) (out []string) {
	for _, d := range k.defaults {
		if !slices.Contains(columns, d.column) {
			out = append(out, d.column.Name)
		}
	}
	return out
}

// Statements give it all back, as far as there are the columns for it. The owner comes last: afterwards it may be
// another's.
func (k *preserved) Statements(columns []catalog.ViewColumn) (out []string) {
	there := func(column string) bool {
		return slices.ContainsFunc(columns, func(c catalog.ViewColumn) bool { return c.Name == column })
	}
	role := func(name string) string {
		if name == "" {
			return "PUBLIC"
		}
		return pg.Ident(name)
	}
	for _, g := range k.revoked {
		out = append(out, "REVOKE "+g.privilege+" ON "+k.name+" FROM "+role(g.grantee))
	}
	for _, g := range k.grants {
		sql := "GRANT " + g.privilege
		if g.column != "" {
			if !there(g.column) {
				continue
			}
			sql += " (" + pg.Ident(g.column) + ")"
		}
		sql += " ON " + k.name + " TO " + role(g.grantee)
		if g.option {
			sql += " WITH GRANT OPTION"
		}
		out = append(out, sql)
	}
	for _, n := range k.notes {
		if there(n.column) {
			out = append(out, "COMMENT ON COLUMN "+k.name+"."+pg.Ident(n.column)+" IS "+pg.Literal(n.text))
		}
	}
	for _, d := range k.defaults {
		if slices.Contains(columns, d.column) {
			out = append(out, "ALTER VIEW "+k.name+" ALTER COLUMN "+pg.Ident(d.column.Name)+" SET DEFAULT "+d.expr)
		}
	}
	out = append(out, k.parts...)
	if k.owner != "" {
		out = append(out, k.Alter+k.name+" OWNER TO "+pg.Ident(k.owner))
	}
	return out
}

// grantees lists who else may use the view.
func (k *preserved) grantees() (out []string) {
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
