package limits

import (
	"bufio"
	"bytes"
	"regexp"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Limits of a file, checked before it is parsed: HCL's parser recurses and would take the process down with it.
const (
	MaxFile      = 1 << 20 // bytes
	MaxDepth     = 64      // brackets, blocks, templates and template directives inside one another
	maxTokens    = 300_000 // words and signs: each costs about a hundred bytes before anything is parsed
	MaxOperators = 256     // operators, dots and indexes between two separators
	MaxElements  = 10_000  // elements of one list, also of a variable's value
	maxWord      = 256     // bytes of one name
	maxDigits    = 100     // characters of one number; an exponent has at most three
)

// Prescan refuses what is not a text, is too large, or nests too deeply. Its cost is linear.
func Prescan(src []byte, filename string) hcl.Diagnostics {
	if len(src) > MaxFile {
		return refuse(hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}, "File too large",
			"%s is larger than %d bytes (1 MiB). Split it, or move long lists into a variable file.",
			units.Clip(filename), MaxFile)
	}
	if i := bytes.IndexByte(src, 0); i >= 0 {
		return refuse(rangeAt(src, i, filename), "Not a text file",
			"A NUL byte: this looks like a binary file. Check the path; cryptoviz reads UTF-8 text.")
	}
	if i := badUTF8(src); i >= 0 {
		return refuse(rangeAt(src, i, filename), "Not UTF-8",
			"The byte 0x%02x is not UTF-8 text here. Save the file as UTF-8.", src[i])
	}
	if i := afterTokens(src, maxTokens); i >= 0 {
		return refuse(rangeAt(src, i, filename), "File too large",
			"The file has more than %d words and signs. Split it, or move long lists into a variable file.", maxTokens)
	}
	// Lexing does not recurse; the parser reports its complaints.
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos)
	return scanTokens(tokens)
}

func refuse(r hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{diag.Problem(r, summary, format, args...)}
}

// rangeAt returns the range of one character, with its column counted as HCL does: in what the reader sees as
// characters.
func rangeAt(src []byte, offset int, filename string) hcl.Range {
	line := src[bytes.LastIndexByte(src[:offset], '\n')+1 : offset]
	pos := hcl.Pos{Line: 1 + bytes.Count(src[:offset], []byte("\n")), Column: 1, Byte: offset}
	if sc := hcl.NewRangeScanner(line, filename, bufio.ScanLines); sc.Scan() {
		pos.Column = sc.Range().End.Column
	}
	end := pos
	end.Column, end.Byte = pos.Column+1, min(offset+1, len(src))
	return hcl.Range{Filename: filename, Start: pos, End: end}
}

func badUTF8(src []byte) int {
	if utf8.Valid(src) {
		return -1
	}
	for i := 0; ; {
		r, size := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
}

// afterTokens returns where the text has had more than n words and signs, or -1. Those of comments and texts count too,
// and each letter outside ASCII: the lexer may make a token of it.
func afterTokens(src []byte, n int) int {
	inWord := false
	for i, c := range src {
		word := c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if blank := c == ' ' || c == '\t' || c == '\r' || !utf8.RuneStart(c); !blank && (!word || !inWord) {
			if n--; n < 0 {
				return i
			}
		}
		inWord = word
	}
	return -1
}

// frame is one open bracket, block or template.
type frame struct {
	kind      hclsyntax.TokenType
	operators int  // since the last separator: how deep the tree of one expression can get
	elements  int  // commas
	loop      bool // a `for` expression
	ifs, fors int  // a template's open directives %{if} and %{for}
}

// scanTokens bounds the depth of the tree that the parser would build, and refuses a loop inside a loop.
func scanTokens(tokens hclsyntax.Tokens) (found hcl.Diagnostics) {
	stack, last := []frame{{}}, hclsyntax.TokenNil
	for _, t := range tokens {
		top := &stack[len(stack)-1]
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateControl,
			hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			if t.Type == hclsyntax.TokenOBrack { // an index makes the tree deeper, as an operator does
				top.operators++
			}
			stack = append(stack, frame{kind: t.Type})
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			stack = stack[:max(1, len(stack)-1)]
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
			// inside other brackets an expression goes on
			if top.kind == hclsyntax.TokenNil || top.kind == hclsyntax.TokenOBrace {
				top.operators = 0
			}
			continue // last stays: a loop may begin on the next line
		case hclsyntax.TokenComma:
			top.operators = 0
			if top.elements++; len(stack) > 1 && top.elements >= MaxElements {
				return refuse(t.Range, "List too long", "A list may hold at most %d elements.", MaxElements)
			}
		case hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenStar, hclsyntax.TokenSlash,
			hclsyntax.TokenPercent, hclsyntax.TokenBang,
			hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenQuestion, hclsyntax.TokenEqualOp,
			hclsyntax.TokenNotEqual,
			hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq, hclsyntax.TokenGreaterThan,
			hclsyntax.TokenGreaterThanEq, hclsyntax.TokenDot:
			top.operators++
		case hclsyntax.TokenNumberLit:
			if hugeNumber(string(t.Bytes)) {
				return refuse(t.Range, "Number too long",
					"A number has at most %d characters, and its exponent at most three.", maxDigits)
			}
		case hclsyntax.TokenIdent:
			if diags := scanWord(t); diags != nil {
				if found = append(found, diags...); len(found) >= 20 {
					return found
				}
			}
			scanKeyword(stack, last, string(t.Bytes))
		}
		if diags := scanStack(stack, t.Range); diags != nil {
			return diags
		}
		last = t.Type
	}
	return found
}

// scanKeyword notes the beginning and the end of loops and template directives.
func scanKeyword(stack []frame, last hclsyntax.TokenType, word string) {
	top := &stack[len(stack)-1]
	switch last {
	case hclsyntax.TokenOBrack, hclsyntax.TokenOBrace:
		top.loop = word == "for"
	case hclsyntax.TokenTemplateControl:
		template := &stack[max(0, len(stack)-2)]
		switch word {
		case "if":
			template.ifs++
		case "for":
			template.fors++
		case "endif":
			template.ifs = max(0, template.ifs-1)
		case "endfor":
			template.fors = max(0, template.fors-1)
		}
	}
}

func scanStack(stack []frame, at hcl.Range) hcl.Diagnostics {
	depth, loops := len(stack)-1, 0
	for i := range stack {
		if stack[i].operators > MaxOperators {
			return refuse(at, "Expression too long", "One expression may hold at most %d operators, dots and indexes.",
				MaxOperators)
		}
		depth += stack[i].ifs + stack[i].fors
		loops += stack[i].fors
		if stack[i].loop {
			loops++
		}
	}
	if depth > MaxDepth {
		return refuse(at, "Nested too deeply", "Blocks, brackets and templates may lie at most %d deep.", MaxDepth)
	}
	if loops > 1 {
		return refuse(at, "Loop inside a loop",
			"A `for` inside a `for` multiplies the work: write them one after the other.")
	}
	return nil
}

// scanWord refuses a name that is too long, or that has letters which only look right: every name of the language is
// ASCII.
func scanWord(t hclsyntax.Token) hcl.Diagnostics {
	if len(t.Bytes) > maxWord {
		return refuse(t.Range, "Name too long", "%q has %d bytes; the limit is %d.", units.Clip(string(t.Bytes)),
			len(t.Bytes), maxWord)
	}
	for _, r := range string(t.Bytes) {
		if r >= utf8.RuneSelf {
			return refuse(t.Range, "Not an ASCII name",
				"%q holds %q (%U). Names have the letters a to z; a key with other letters is written [\"…\"].",
				t.Bytes, r, r)
		}
	}
	return nil
}

var numberForm = regexp.MustCompile(`^[+-]?([0-9.]+)(?:[eE][+-]?0*([0-9]+))?$`)

// hugeNumber tells whether reading a number, or writing it out, would take long.
func hugeNumber(s string) bool {
	m := numberForm.FindStringSubmatch(s)
	return m != nil && (len(m[1]) > maxDigits || len(m[2]) > 3)
}
