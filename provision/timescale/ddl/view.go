package ddl

import "github.com/cryptoviz/cryptoviz/engine/pg"

// Statements of groups begin with these.
const (
	DropTable       = "DROP TABLE IF EXISTS "
	DropView        = "DROP VIEW IF EXISTS "
	DropAggregate   = "DROP MATERIALIZED VIEW IF EXISTS "
	CreateView      = "CREATE OR REPLACE VIEW "
	createAggregate = "CREATE MATERIALIZED VIEW IF NOT EXISTS "
)

// ViewCommentSQL comments a view; name is quoted.
func ViewCommentSQL(name, text string) string {
	return "COMMENT ON VIEW " + name + " IS " + pg.LiteralOrNull(text)
}
