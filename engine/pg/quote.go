package pg

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

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

// Literal quotes a text.
func Literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.ContainsRune(s, '\\') { // right whatever standard_conforming_strings says
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// Interval writes a duration as an interval literal: whole days as days, so that a policy reads as it was declared.
// Seconds are the smallest unit: PostgreSQL 14 takes no more than 2147483647 of any other.
func Interval(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.unit; d%u.unit == 0 {
			if n != 1 {
				u.name += "s"
			}
			return fmt.Sprintf("interval '%d %s'", n, u.name)
		}
	}
	return fmt.Sprintf("interval '%s seconds'", strconv.FormatFloat(d.Seconds(), 'f', 6, 64))
}

// LiteralOrNull is NULL for no text.
func LiteralOrNull(text string) string {
	if text == "" {
		return "NULL"
	}
	return Literal(text)
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_$]*$`)

// IdentAsNeeded quotes a name as the server does in what it writes: only when it must.
func IdentAsNeeded(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return Ident(name)
}
