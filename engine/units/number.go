package units

import (
	"fmt"
	"math/big"
	"unicode/utf8"
)

// ParseNumber reads a decimal number as the sources write it: optional sign, digits, fraction, exponent. No hex, Inf,
// NaN, blanks.
func ParseNumber(s string) (*big.Float, error) {
	if !IsNumber(s) {
		return nil, fmt.Errorf("%q is not a number", Clip(s))
	}
	f, _, err := big.ParseFloat(s, 10, 512, big.ToNearestEven)
	if err != nil || f.IsInf() {
		return nil, fmt.Errorf("%q is not a finite number", Clip(s))
	}
	return f, nil
}

// IsNumber tells whether s has the form of a decimal number.
func IsNumber(s string) bool {
	i, digits := 0, 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		digits++
	}
	if i < len(s) && s[i] == '.' {
		for i++; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			digits++
		}
	}
	if digits == 0 {
		return false
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		start := i
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		}
		if i == start || i-start > 4 {
			return false
		}
	}
	return i == len(s)
}

// Clip shortens a value from outside for a message.
func Clip(s string) string {
	if len(s) <= 100 {
		return s
	}
	cut := 100
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// ClipTo shortens a text to n characters.
func ClipTo(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
