package catalog

import (
	"context"
	"fmt"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// LackingForTable explains why a table may not be made or changed, and names the statement that gives that right and no
// other. The server's own message names neither the user nor the way out.
func (c *Catalog) LackingForTable(ctx context.Context, table string, err error) string {
	var user, schema, owner, name string
	var creates, owns bool
	failed := c.QueryRow(ctx, `SELECT current_user::text, coalesce(current_schema()::text, ''), coalesce(has_schema_privilege(current_schema(), 'CREATE'), true),
		coalesce(pg_get_userbyid(c.relowner)::text, ''), coalesce(pg_has_role(c.relowner, 'USAGE'), true), coalesce(c.relnamespace::regnamespace::text || '.' || quote_ident(c.relname), '')
		FROM (SELECT to_regclass($1) AS oid) t LEFT JOIN pg_class c ON c.oid = t.oid`, pg.Ident(table)).Scan(&user, &schema, &creates, &owner, &owns, &name)
	switch {
	case failed != nil:
	case !owns:
		return fmt.Sprintf("%s is not the owner of %s, %s is (%s). Let an administrator run ALTER TABLE %s OWNER TO %s",
			user, table, owner, pg.ServerText(err), name, pg.Ident(user))
	case !creates:
		return fmt.Sprintf("%s may not make tables and indexes in schema %s (%s). Let the schema's owner run GRANT "+
			"CREATE ON SCHEMA %s TO %s", user, schema, pg.ServerText(err), pg.Ident(schema), pg.Ident(user))
	}
	return err.Error()
}

// LackingForEngine is the same for the engine's own tables.
func (c *Catalog) LackingForEngine(ctx context.Context, err error) string {
	var user, database, owner string
	var there, creates bool
	failed := c.QueryRow(ctx, `SELECT current_user::text, current_database()::text, n.oid IS NOT NULL, coalesce(pg_get_userbyid(n.nspowner)::text, ''),
		CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE') ELSE has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE') END
		FROM (SELECT $1::text AS name) s LEFT JOIN pg_namespace n ON n.nspname = s.name`, EngineSchema).Scan(&user, &database, &there, &owner, &creates)
	switch {
	case failed != nil, creates:
		return err.Error()
	case there:
		return fmt.Sprintf("%s may not make tables in schema %s, which belongs to %s (%s). Let its owner run GRANT "+
			"USAGE, CREATE ON SCHEMA %s TO %s",
			user, EngineSchema, owner, pg.ServerText(err), EngineSchema, pg.Ident(user))
	}
	return fmt.Sprintf("%s may not make the schema %s in database %s (%s). Let an administrator run CREATE SCHEMA %s "+
		"AUTHORIZATION %s",
		user, EngineSchema, database, pg.ServerText(err), EngineSchema, pg.Ident(user))
}
