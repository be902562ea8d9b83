package shadow

import (
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Statement is a query without what may follow it: semicolons and comments.
func Statement(sql string) string {
	all := pg.Tokens(sql)
	for len(all) > 0 && all[len(all)-1].Text == ";" {
		all = all[:len(all)-1]
	}
	if len(all) == 0 {
		return ""
	}
	return strings.TrimSpace(sql[:all[len(all)-1].End])
}

// unqualified blanks the schema before these names, which a shadow schema has. Positions stay what they are.
func unqualified(sql, schema string, names []string) string {
	out, all := []byte(sql), pg.Tokens(sql)
	for i, k := range all {
		if i+2 >= len(all) || k.Text != schema || all[i+1].Text != "." || i > 0 && all[i-1].Text == "." {
			continue
		}
		if name := all[i+2]; name.Name() && slices.Contains(names, name.Text) {
			for at := k.Start; at < all[i+1].End; at++ {
				out[at] = ' '
			}
		}
	}
	return string(out)
}

// qualified writes the schema before these names where a query reads them, as the server does for what is not
// temporary. The query is as the server writes it: columns have the name or the alias of their relation before them, or
// there is one relation only.
func qualified(sql string, names []string, schema func(name string) string) string {
	var out strings.Builder
	at, all := 0, pg.Tokens(sql)
	word := func(i int) string {
		if i < 0 || i >= len(all) || all[i].Kind == pg.Quoted {
			return ""
		}
		return strings.ToLower(all[i].Text)
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
		case "select", "where", "group", "having", "window", "order", "union", "intersect", "except", "limit", "offset",
			"fetch":
			*last = false
		}
		if !*last || !k.Name() || !slices.Contains(names, k.Text) || word(i+1) == "." ||
			!slices.Contains([]string{"from", "join", ",", "(", "only"}, word(i-1)) || isWith(all, k.Text) {
			continue
		}
		out.WriteString(sql[at:k.Start] + schema(k.Text) + ".")
		at = k.Start
	}
	return out.String() + sql[at:]
}

// isWith tells whether a query has a part of that name, WITH name AS (…).
func isWith(all []pg.Token, name string) bool {
	for i := range all[:max(0, len(all)-2)] {
		if all[i].Text == name && strings.EqualFold(all[i+1].Text, "as") && all[i+2].Text == "(" {
			return true
		}
	}
	return false
}

// Mentions returns those of the names that a query may read, in the order of names.
func Mentions(sql string, names []string) (out []string) {
	all := pg.Tokens(sql)
	for _, name := range names {
		if slices.ContainsFunc(all, func(t pg.Token) bool { return t.Name() && t.Text == name }) {
			out = append(out, name)
		}
	}
	return out
}

// appended returns the expressions of the columns that a query has at the end of its list and another, else equal, has
// not. Both are as the server writes them. names are the new columns.
func appended(have, want string, names []string) ([]string, bool) {
	i := 0
	for i < len(have) && i < len(want) && have[i] == want[i] {
		i++
	}
	rest := have[i:]
	if len(names) == 0 || len(want) < i+len(rest) || !strings.HasSuffix(want, rest) ||
		!strings.HasPrefix(want[i:], ",") {
		return nil, false
	}
	parts := topLevel(want[i+1 : len(want)-len(rest)])
	if len(parts) != len(names) {
		return nil, false
	}
	for k, name := range names {
		part, plain := strings.CutSuffix(parts[k], " AS "+name)
		if !plain {
			if part, plain = strings.CutSuffix(parts[k], " AS "+pg.Ident(name)); !plain {
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
	for _, t := range pg.Tokens(sql) {
		switch {
		case t.Kind != pg.Sign:
		case t.Text == "(" || t.Text == "[":
			depth++
		case t.Text == ")" || t.Text == "]":
			depth--
		case t.Text == "," && depth == 0:
			out, start = append(out, strings.TrimSpace(sql[start:t.Start])), t.End
		}
	}
	return append(out, strings.TrimSpace(sql[start:]))
}
