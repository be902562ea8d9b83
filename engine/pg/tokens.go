package pg

import "strings"

// Token is a piece of SQL: a word (small letters), a quoted name (without its quotes), a string or a sign. Space and
// comments are none.
type Token struct {
	Kind       TokenKind
	Text       string // of a string: ""
	Start, End int
}

// TokenKind is what a token is.
type TokenKind byte

// The kinds of tokens.
const (
	Word   TokenKind = 'w'
	Quoted TokenKind = 'q'
	String TokenKind = 's'
	Sign   TokenKind = 'p'
)

// Name tells whether the token may name a column or another object.
func (t Token) Name() bool { return t.Kind == Word || t.Kind == Quoted }

// Tokens cuts SQL as PostgreSQL does, as far as strings, names and comments go.
func Tokens(sql string) (out []Token) {
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
			escapes := len(out) > 0 && out[len(out)-1].End == i && out[len(out)-1].Text == "e"
			i = endOfQuoted(sql, i, escapes)
			out = append(out, Token{String, "", start, i})
		case c == '"':
			i = endOfQuoted(sql, i, false)
			out = append(out, Token{Quoted, strings.ReplaceAll(strings.Trim(sql[start:i], `"`), `""`, `"`), start, i})
		case c == '$' && dollarTag(sql[i:]) != "":
			tag := dollarTag(sql[i:])
			if n := strings.Index(sql[i+len(tag):], tag); n >= 0 {
				i += n + 2*len(tag)
			} else {
				i = len(sql)
			}
			out = append(out, Token{String, "", start, i})
		case wordByte(c) && (c < '0' || c > '9'):
			for i < len(sql) && (wordByte(sql[i]) || sql[i] == '$') {
				i++
			}
			out = append(out, Token{Word, strings.ToLower(sql[start:i]), start, i})
		default:
			i++
			out = append(out, Token{Sign, sql[start:i], start, i})
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
