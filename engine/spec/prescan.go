package spec

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Limits of a file, checked before it is parsed: HCL's parser recurses and would take the process down with it.
const (
	MaxFile      = 1 << 20 // bytes
	MaxDepth     = 64      // brackets, blocks and templates inside one another
	maxOperators = 256     // unary, binary and conditional operators on one line of brackets
	maxElements  = 10_000  // elements of one list, also of a variable's value
)

// Prescan refuses what is not a text, is too large, or nests too deeply. Its cost is linear.
func Prescan(src []byte, filename string) hcl.Diagnostics {
	at := func(offset int) *hcl.Range {
		line := 1 + bytes.Count(src[:offset], []byte("\n"))
		col := offset - bytes.LastIndexByte(src[:offset], '\n')
		pos := hcl.Pos{Line: line, Column: col, Byte: offset}
		end := pos
		end.Column, end.Byte = col+1, min(offset+1, len(src))
		return &hcl.Range{Filename: filename, Start: pos, End: end}
	}
	fail := func(offset int, summary, detail string) hcl.Diagnostics {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: at(offset)}}
	}
	if len(src) > MaxFile {
		return hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "File too large",
			Detail:  fmt.Sprintf("%s has %d bytes; the limit is %d (1 MiB). Split it, or move long lists into a variable file.", filename, len(src), MaxFile),
			Subject: &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
		}}
	}
	if i := bytes.IndexByte(src, 0); i >= 0 {
		return fail(i, "Not a text file", "A NUL byte: this looks like a binary file. Check the path; cryptoviz reads UTF-8 text.")
	}
	if !utf8.Valid(src) {
		i := 0
		for i < len(src) {
			r, size := utf8.DecodeRune(src[i:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			i += size
		}
		return fail(i, "Not UTF-8", "The file holds a byte that is not UTF-8. Save it as UTF-8 without a byte order mark.")
	}
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos) // lexing does not recurse; the parser reports its complaints
	depth, fors := 0, []int{}
	operators, elements := make([]int, MaxDepth+2), make([]int, MaxDepth+2)
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
			hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
			if depth > MaxDepth {
				return fail(t.Range.Start.Byte, "Nested too deeply", fmt.Sprintf("Blocks, brackets and templates may lie at most %d deep.", MaxDepth))
			}
			operators[depth], elements[depth] = 0, 0
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			for len(fors) > 0 && fors[len(fors)-1] >= depth {
				fors = fors[:len(fors)-1]
			}
			depth = max(depth-1, 0)
		case hclsyntax.TokenNewline:
			operators[depth] = 0
		case hclsyntax.TokenComma:
			operators[depth] = 0
			if elements[depth]++; depth > 0 && elements[depth] > maxElements {
				return fail(t.Range.Start.Byte, "List too long", fmt.Sprintf("A list may hold at most %d elements.", maxElements))
			}
		case hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenBang,
			hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenQuestion, hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual,
			hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq, hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenDot:
			operators[depth]++
			if operators[depth] > maxOperators {
				return fail(t.Range.Start.Byte, "Expression too long", fmt.Sprintf("One expression may hold at most %d operators.", maxOperators))
			}
		case hclsyntax.TokenIdent:
			if string(t.Bytes) == "for" && depth > 0 {
				fors = append(fors, depth)
				if len(fors) > 1 {
					return fail(t.Range.Start.Byte, "`for` inside `for`", "Each one multiplies the work of the other: write them one after the other.")
				}
			}
		}
	}
	return nil
}
