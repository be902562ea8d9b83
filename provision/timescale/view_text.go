package timescale

import (
	"slices"
	"strings"
)

// token is a piece of SQL: a word (small letters), a quoted name (without its quotes), a constant or a sign. Space and
// comments are none.
type token struct {
	kind       byte // 'w' word, 'q' quoted name, 's' string, 'p' sign
	text       string
	start, end int
}

// tokens cuts SQL as PostgreSQL does, as far as strings, names and comments go.
func tokens(sql string) (out []token) {
	for i := 0; i < len(sql); {
		start := i
		switch c := sql[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			i++
			continue
		case strings.HasPrefix(sql[i:], "--"):
			if n := strings.IndexByte(sql[i:], '\n'); n >= 0 {
				i += n + 1
				continue
			}
			return out
		case strings.HasPrefix(sql[i:], "/*"):
			i = endOfComment(sql, i)
			continue
		case c == '\'':
			escapes := len(out) > 0 && out[len(out)-1].end == i && out[len(out)-1].text == "e"
			i = endOfQuoted(sql, i, escapes)
			out = append(out, token{'s', "", start, i})
		case c == '"':
			i = endOfQuoted(sql, i, false)
			out = append(out, token{'q', strings.ReplaceAll(strings.Trim(sql[start:i], `"`), `""`, `"`), start, i})
		case c == '$' && dollarTag(sql[i:]) != "":
			tag := dollarTag(sql[i:])
			if n := strings.Index(sql[i+len(tag):], tag); n >= 0 {
				i += n + 2*len(tag)
			} else {
				i = len(sql)
			}
			out = append(out, token{'s', "", start, i})
		case wordByte(c) && (c < '0' || c > '9'):
			for i < len(sql) && (wordByte(sql[i]) || sql[i] == '$') {
				i++
			}
			out = append(out, token{'w', strings.ToLower(sql[start:i]), start, i})
		default:
			i++
			out = append(out, token{'p', sql[start:i], start, i})
		}
	}
	return out
}

func wordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

// endOfComment returns the end of a comment, which may hold others.
func endOfComment(sql string, i int) int {
	depth := 0
	for i < len(sql) {
		switch {
		case strings.HasPrefix(sql[i:], "/*"):
			depth, i = depth+1, i+2
		case strings.HasPrefix(sql[i:], "*/"):
			if depth, i = depth-1, i+2; depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return i
}

func endOfQuoted(sql string, i int, escapes bool) int {
	quote := sql[i]
	for i++; i < len(sql); i++ {
		switch {
		case escapes && sql[i] == '\\':
			i++
		case sql[i] == quote && i+1 < len(sql) && sql[i+1] == quote:
			i++
		case sql[i] == quote:
			return i + 1
		}
	}
	return len(sql)
}

// dollarTag returns $$ or $word$ at the start of a text, or "".
func dollarTag(sql string) string {
	for i := 1; i < len(sql); i++ {
		if sql[i] == '$' {
			return sql[:i+1]
		}
		if !wordByte(sql[i]) || i == 1 && sql[i] >= '0' && sql[i] <= '9' {
			return ""
		}
	}
	return ""
}

// statement is a query without what may follow it: semicolons and comments.
func statement(sql string) string {
	all := tokens(sql)
	for len(all) > 0 && all[len(all)-1].text == ";" {
		all = all[:len(all)-1]
	}
	if len(all) == 0 {
		return ""
	}
	return strings.TrimSpace(sql[:all[len(all)-1].end])
}

// unqualified blanks the schema before these names, which a trial has in a schema of its own. Positions stay what they are.
func unqualified(sql, schema string, names []string) string {
	out, all := []byte(sql), tokens(sql)
	for i, k := range all {
		if i+2 >= len(all) || k.text != schema || all[i+1].text != "." || i > 0 && all[i-1].text == "." {
			continue
		}
		if name := all[i+2]; (name.kind == 'w' || name.kind == 'q') && slices.Contains(names, name.text) {
			for at := k.start; at < all[i+1].end; at++ {
				out[at] = ' '
			}
		}
	}
	return string(out)
}

// qualified writes the schema before these names where a query reads them, as the server does for what is not temporary. The query
// is as the server writes it: columns have the name or the alias of their relation before them, or there is one relation only.
func qualified(sql string, names []string, schema func(name string) string) string {
	var out strings.Builder
	at, all := 0, tokens(sql)
	word := func(i int) string {
		if i < 0 || i >= len(all) || all[i].kind == 'q' {
			return ""
		}
		return strings.ToLower(all[i].text)
	}
	from := []bool{false} // for each open bracket: whether FROM was the last clause
	for i, k := range all {
		last := &from[len(from)-1]
		switch word(i) {
		case "(":
			from = append(from, *last)
		case ")":
			from = from[:max(1, len(from)-1)]
		case "from":
			*last = true
		case "select", "where", "group", "having", "window", "order", "union", "intersect", "except", "limit", "offset", "fetch":
			*last = false
		}
		if !*last || k.kind != 'w' && k.kind != 'q' || !slices.Contains(names, k.text) || word(i+1) == "." ||
			!slices.Contains([]string{"from", "join", ",", "(", "only"}, word(i-1)) || isWith(all, k.text) {
			continue
		}
		out.WriteString(sql[at:k.start] + schema(k.text) + ".")
		at = k.start
	}
	return out.String() + sql[at:]
}

// isWith tells whether a query has a part of that name, WITH name AS (…).
func isWith(all []token, name string) bool {
	for i := range all[:max(0, len(all)-2)] {
		if all[i].text == name && strings.EqualFold(all[i+1].text, "as") && all[i+2].text == "(" {
			return true
		}
	}
	return false
}

// mentions returns those of the names that a query may read, in the order of names.
func mentions(sql string, names []string) (out []string) {
	all := tokens(sql)
	for _, name := range names {
		if slices.ContainsFunc(all, func(t token) bool { return (t.kind == 'w' || t.kind == 'q') && t.text == name }) {
			out = append(out, name)
		}
	}
	return out
}

// appended returns the expressions of the columns that a query has at the end of its list and another, else equal, has not.
// Both are as the server writes them. names are the new columns.
func appended(have, want string, names []string) ([]string, bool) {
	i := 0
	for i < len(have) && i < len(want) && have[i] == want[i] {
		i++
	}
	rest := have[i:]
	if len(names) == 0 || len(want) < i+len(rest) || !strings.HasSuffix(want, rest) || !strings.HasPrefix(want[i:], ",") {
		return nil, false
	}
	parts := topLevel(want[i+1 : len(want)-len(rest)])
	if len(parts) != len(names) {
		return nil, false
	}
	for k, name := range names {
		part, plain := strings.CutSuffix(parts[k], " AS "+name)
		if !plain {
			if part, plain = strings.CutSuffix(parts[k], " AS "+quote(name)); !plain {
				return nil, false
			}
		}
		parts[k] = part
	}
	return parts, true
}

// topLevel cuts a list at the commas that stand in no brackets.
func topLevel(sql string) (out []string) {
	depth, start := 0, 0
	for _, t := range tokens(sql) {
		switch {
		case t.kind != 'p':
		case t.text == "(" || t.text == "[":
			depth++
		case t.text == ")" || t.text == "]":
			depth--
		case t.text == "," && depth == 0:
			out, start = append(out, strings.TrimSpace(sql[start:t.start])), t.end
		}
	}
	return append(out, strings.TrimSpace(sql[start:]))
}
