package pg

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Ident quotes an identifier: the parts with dots between them.
func Ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// Idents quotes names, with commas between them.
func Idents(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = Ident(n)
	}
	return strings.Join(quoted, ", ")
}
