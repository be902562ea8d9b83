package shadow

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Rejection is what the server says against a query.
type Rejection struct {
	Code     string
	text     string
	position int    // in the statement, in characters from 1; 0: unknown
	where    string // file, line and column
}

func (r *Rejection) String() string {
	if r.where == "" {
		return r.text
	}
	return r.where + ": " + r.text
}

// Rejected tells what the server has against a statement; nil when the error is another: a lost connection, a lock, a
// timeout.
func Rejected(err error) *Rejection {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !slices.Contains([]string{"0A", "21", "22", "23", "2B", "2F", "3F", "42", "54", "55", "P0", "XX"},
		e.Code[:min(2, len(e.Code))]) || e.Code == "55P03" {
		return nil
	}
	r := &Rejection{Code: e.Code, text: e.Message, position: int(e.Position)}
	for _, more := range []string{e.Detail, e.Hint} {
		if more != "" {
			r.text += ". " + strings.TrimSuffix(more, ".")
		}
	}
	r.text += " (SQLSTATE " + e.Code + ")"
	return r
}

// readsRemoved names the removed object that a query was rejected for: a shadow schema hides those behind types of the
// same names. "" when it was rejected for something else.
func readsRemoved(p *spec.Pipeline, err error) string {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != "42809" { // wrong object type
		return ""
	}
	i := slices.IndexFunc(p.Removed, func(r *spec.Removed) bool { return strings.Contains(e.Message, `"`+r.Name+`"`) })
	if i < 0 {
		return ""
	}
	return "it reads " + p.Removed[i].Address() + ", which a removed block deletes"
}

// where turns a position in a query into a place in the file that it came from.
func (q *Queries) where(at, text string, position int) string {
	if position < 1 {
		return at
	}
	runes := []rune(text)
	before := string(runes[:min(position-1, len(runes))])
	line, column := 1+strings.Count(before, "\n"), len([]rune(before[strings.LastIndex(before, "\n")+1:]))+1
	if strings.Contains(at, ":") {
		return fmt.Sprintf("%s, line %d, column %d of the query", at, line, column)
	}
	if file, err := fs.ReadFile(q.Pipeline.FS, at); err == nil {
		if skipped, _, found := strings.Cut(string(file), text); found {
			line += strings.Count(skipped, "\n")
		}
	}
	return fmt.Sprintf("%s:%d:%d", at, line, column)
}
