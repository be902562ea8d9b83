package expr

import (
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// fromUnix compiles from_unix() and the like. They read digits: a factor that is a power of ten moves the point, and
// any other arithmetic is left to HCL, which computes with 512 bits where compiled expressions take a float64.
func (c *Compiler) fromUnix(e *hclsyntax.FunctionCallExpr, shift int) Eval {
	if len(e.Args) != 1 {
		return nil
	}
	arg, moved := c.movedPoint(e.Args[0])
	if computes(arg) {
		return c.slow(e)
	}
	unix := c.Compile(arg)
	shift += moved
	return func(f *Frame) (Value, error) {
		v, err := unix(f)
		switch {
		case err != nil, v.Kind == Null:
			return Value{}, err
		case v.Missing() && moved == 0 && arg == e.Args[0]:
			return Value{}, nil
		}
		digits := view(v.Raw)
		switch {
		case v.Kind != Number && v.Kind != Text:
			return Value{}, ErrNotNumber
		case v.Raw == nil:
			digits = strconv.FormatFloat(v.Computed, 'f', -1, 64)
		}
		us, err := UnixMicros(digits, shift)
		return Value{Kind: Instant, us: us}, err
	}
}

// movedPoint takes factors off that are powers of ten, and tells by how many digits they move the point.
func (c *Compiler) movedPoint(expr hclsyntax.Expression) (hclsyntax.Expression, int) {
	switch e := expr.(type) {
	case *hclsyntax.ParenthesesExpr:
		if inner, moved := c.movedPoint(e.Expression); moved != 0 {
			return inner, moved
		}
	case *hclsyntax.BinaryOpExpr:
		by, ok := c.powerOfTen(e.RHS)
		switch {
		case ok && e.Op == hclsyntax.OpDivide:
			inner, moved := c.movedPoint(e.LHS)
			return inner, moved - by
		case ok && e.Op == hclsyntax.OpMultiply:
			inner, moved := c.movedPoint(e.LHS)
			return inner, moved + by
		case e.Op == hclsyntax.OpMultiply:
			if by, ok := c.powerOfTen(e.LHS); ok {
				inner, moved := c.movedPoint(e.RHS)
				return inner, moved + by
			}
		}
	}
	return expr, 0
}

// powerOfTen reads a constant such as 1000 or 0.001.
func (c *Compiler) powerOfTen(expr hclsyntax.Expression) (exponent int, ok bool) {
	if c.dynamic(expr) {
		return 0, false
	}
	v, err := evaluate(expr, c.Consts)
	if err != nil || v.Type() != cty.Number || !v.IsKnown() || v.IsNull() {
		return 0, false
	}
	digits, power, _ := strings.Cut(new(big.Float).Copy(v.AsBigFloat()).Text('e', 40), "e")
	exponent, err = strconv.Atoi(power)
	return exponent, err == nil && strings.TrimRight(digits, "0") == "1."
}

// computes tells whether an expression has arithmetic in it, whose compiled form would lose digits.
func computes(expr hclsyntax.Expression) (found bool) {
	_ = hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.BinaryOpExpr:
			switch n.Op {
			case hclsyntax.OpAdd, hclsyntax.OpSubtract, hclsyntax.OpMultiply, hclsyntax.OpDivide, hclsyntax.OpModulo:
				found = true
			}
		case *hclsyntax.UnaryOpExpr:
			found = found || n.Op == hclsyntax.OpNegate
		case *hclsyntax.FunctionCallExpr:
			found = found || n.Name == "abs"
		}
		return nil
	})
	return found
}

// shortTime reads 2006-01-02T15:04:05[.fraction]Z; anything else is left to time.Parse.
func shortTime(b []byte) (int64, bool) {
	if len(b) < 20 || len(b) > 30 || b[len(b)-1] != 'Z' || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' ||
		b[16] != ':' {
		return 0, false
	}
	good := true
	part := func(from, to int) int {
		n := 0
		for _, c := range b[from:to] {
			good = good && c-'0' <= 9
			n = n*10 + int(c-'0')
		}
		return n
	}
	year, month, day, hour, minute, second := part(0, 4), part(5, 7), part(8, 10), part(11, 13), part(14, 16),
		part(17, 19)
	us, scale := 0, 100_000
	if len(b) > 20 {
		if b[19] != '.' || len(b) == 21 {
			return 0, false
		}
		for _, c := range b[20 : len(b)-1] {
			good = good && c-'0' <= 9
			us += int(c-'0') * scale
			scale /= 10
		}
	}
	if !good || year < 1971 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 28 || hour > 23 ||
		minute > 59 || second > 59 {
		return 0, false // also the last days of a month: time.Parse knows them
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, us*1000, time.UTC).UnixMicro(), true
}
