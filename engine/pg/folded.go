package pg

import (
	"slices"
	"strings"
)

// Folded is a constant that PostgreSQL replaces by a time when it reads the statement: 'now'::timestamptz in a view
// stands for the moment at which the view was created.
type Folded struct {
	Start, End int    // where it is in the SQL, with its type
	Instead    string // what is read each time: "now()"
}

// specialTimes are the words that stand for a time, with what is read each time as a date.
var specialTimes = map[string]string{
	"now": "current_date", "today": "current_date", "tomorrow": "current_date + 1",
	"yesterday": "current_date - 1",
}

// nowOf is the present as a value of a type.
var nowOf = map[string]string{
	"date": "current_date", "time": "localtime", "timetz": "current_time",
	"timestamp": "localtimestamp", "timestamptz": "now()",
}

// FoldedTimes finds these constants. timeColumn tells whether a name is that of a column of times: what is compared
// with one is a time, too. typ is the type of the whole expression where it is known, such as that of a default, else
// "".
func FoldedTimes(sql, typ string, timeColumn func(name string) bool) (out []Folded) {
	s := sqlReader{sql, Tokens(sql)}
	for i, t := range s.all {
		if t.Kind != String {
			continue
		}
		word, rest := s.special(i)
		if word == "" {
			continue
		}
		from, to, as := s.typed(i, timeColumn)
		if as == "" && from == 0 && to == len(s.all)-1 {
			as = typeName(typ)
		}
		if as == "" {
			continue
		}
		instead := specialTimes[word]
		switch {
		case word == "now":
			instead = nowOf[as]
		case rest != "":
			instead += " + time '" + rest + "'"
		}
		out = append(out, Folded{s.all[from].Start, s.all[to].End, instead})
	}
	return out
}

type sqlReader struct {
	sql string
	all []Token
}

// text is the text of a token, "" outside of the statement and for strings.
func (s sqlReader) text(i int) string {
	if i < 0 || i >= len(s.all) {
		return ""
	}
	return s.all[i].Text
}

// special returns the word in a string that stands for a time, and what else the string says: 'today 12:00'.
func (s sqlReader) special(i int) (word, rest string) {
	fields := strings.FieldsFunc(strings.ToLower(s.sql[s.all[i].Start:s.all[i].End]), func(r rune) bool {
		return strings.ContainsRune("'$ \t\n\r\f\v", r)
	})
	k := slices.IndexFunc(fields, func(f string) bool { return specialTimes[f] != "" })
	if k < 0 {
		return "", ""
	}
	word = fields[k]
	return word, strings.Join(slices.Delete(fields, k, k+1), " ")
}

// typed tells which tokens a string and its type are, and the type; "" when it is not of a type of times.
func (s sqlReader) typed(i int, timeColumn func(string) bool) (from, to int, typ string) {
	from, to = i, i
	// E'…', U&'…'
	for from > 0 && s.all[from].Start == s.all[from-1].End && slices.Contains([]string{"e", "n", "u", "&"},
		s.text(from-1)) {
		from--
	}
	if typ, first := s.typeBefore(from - 1); typ != "" {
		return first, to, typ
	}
	for {
		if s.text(to+1) == ":" && s.text(to+2) == ":" {
			if typ, last := s.typeAt(to + 3); typ != "" {
				return from, last, typ
			}
			return from, to, ""
		}
		if s.text(from-1) != "(" {
			break
		}
		if s.text(from-2) == "cast" && s.text(to+1) == "as" {
			if typ, last := s.typeAt(to + 2); typ != "" && s.text(last+1) == ")" {
				return from - 2, last + 1, typ
			}
		}
		if s.text(to+1) != ")" {
			break
		}
		from, to = from-1, to+1
		if typ := typeName(s.text(from - 1)); typ != "" { // date('now')
			return from - 1, to, typ
		}
	}
	if s.compared(from, to, timeColumn) || s.argument(from, to, timeColumn) {
		return from, to, "timestamptz"
	}
	return from, to, ""
}

// compared tells whether tokens are compared with a column of times.
func (s sqlReader) compared(from, to int, timeColumn func(string) bool) bool {
	column := func(i int) bool { return i >= 0 && i < len(s.all) && s.all[i].Name() && timeColumn(s.all[i].Text) }
	operator := func(i int) bool { return slices.Contains([]string{"<", ">", "="}, s.text(i)) }
	left := from - 1
	for operator(left) || s.text(left) == "!" {
		left--
	}
	if left < from-1 && column(left) {
		return true
	}
	right := to + 1
	for operator(right) || s.text(right) == "!" {
		right++
	}
	if right > to+1 {
		for s.text(right+1) == "." {
			right += 2
		}
		return column(right)
	}
	between := from - 1
	if s.text(between) == "and" { // the second of two
		for between--; between > 0 && s.text(between) != "between" && s.text(between) != "and"; {
			between--
		}
	}
	if s.text(between) != "between" {
		return false
	}
	if between--; s.text(between) == "not" {
		between--
	}
	return column(between)
}

// sameType are functions that take a constant for a time when another argument is one.
var sameType = []string{"age", "coalesce", "date_bin", "greatest", "least", "nullif", "time_bucket"}

// argument tells whether tokens are an argument of such a function, or an element of IN, together with a column of
// times.
func (s sqlReader) argument(from, to int, timeColumn func(string) bool) bool {
	before, after := s.text(from-1), s.text(to+1)
	if before != "(" && before != "," || after != ")" && after != "," {
		return false
	}
	open, depth, column := from-1, 0, false
	for ; open >= 0 && (depth > 0 || s.text(open) != "("); open-- {
		switch s.text(open) {
		case ")":
			depth++
		case "(":
			depth--
		}
		column = column || depth == 0 && s.all[open].Name() && timeColumn(s.all[open].Text)
	}
	switch name := s.text(open - 1); {
	case slices.Contains(sameType, name):
		for i := to + 1; i < len(s.all) && depth >= 0 && !column; i++ {
			switch s.text(i) {
			case "(":
				depth++
			case ")":
				depth--
			}
			column = depth == 0 && s.all[i].Name() && timeColumn(s.all[i].Text)
		}
		return column
	case name == "in":
		if open -= 2; s.text(open) == "not" {
			open--
		}
		return open >= 0 && s.all[open].Name() && timeColumn(s.all[open].Text)
	}
	return false
}

// typeName is PostgreSQL's short name of a type of times; "" for another.
func typeName(word string) string {
	if word == "timestamp with time zone" {
		return "timestamptz"
	}
	if _, is := nowOf[word]; is {
		return word
	}
	return ""
}

// typeAt reads a type of times that begins at a token. last is its last token.
func (s sqlReader) typeAt(i int) (typ string, last int) {
	if s.text(i) == "pg_catalog" && s.text(i+1) == "." {
		i += 2
	}
	if typ = typeName(s.text(i)); typ == "" {
		return "", i
	}
	last = i
	if s.text(last+1) == "(" {
		for last++; last < len(s.all)-1 && s.text(last) != ")"; {
			last++
		}
	}
	if zone := s.text(last + 1); (zone == "with" || zone == "without") && s.text(last+2) == "time" &&
		s.text(last+3) == "zone" {
		if last += 3; zone == "with" {
			typ += "tz"
		}
	}
	if s.text(last+1) == "[" {
		return "", last
	}
	return typ, last
}

// typeBefore reads a type of times that ends at a token. first is its first token.
func (s sqlReader) typeBefore(end int) (typ string, first int) {
	for first = end; first >= 0 && first >= end-6; first-- {
		if typ, last := s.typeAt(first); typ != "" && last == end && s.text(first-1) != "." {
			return typ, first
		}
	}
	return "", end
}
