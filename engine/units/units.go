package units

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	durationPart = regexp.MustCompile(`^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)`)
	sizeForm     = regexp.MustCompile(`^(\d{1,15}(?:\.\d{1,6})?)\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$`)
)

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	"w": 7 * 24 * time.Hour,
}

var sizeUnits = map[string]int64{
	"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20,
	"GiB": 1 << 30, "TiB": 1 << 40,
}

// ParseDuration reads "1m", "90s", "1h30m", "7d" or "2w". A day has 24 hours: everything is UTC.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New(`it is empty; write a duration such as "1m"`)
	}
	total := 0.0
	for rest := s; rest != ""; {
		m := durationPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, fmt.Errorf("%q is not a duration; write a number with ms, s, m, h, d or w, such as \"90s\", "+
				"\"1h30m\" or \"7d\"", Clip(s))
		}
		n, _ := strconv.ParseFloat(m[1], 64)
		if total += n * float64(durationUnits[m[2]]); total > math.MaxInt64/2 {
			return 0, fmt.Errorf("%q is too long", Clip(s))
		}
		rest = rest[len(m[0]):]
	}
	d := time.Duration(math.Round(total))
	if d%time.Millisecond != 0 {
		return 0, fmt.Errorf("%q is finer than a millisecond", Clip(s))
	}
	return d, nil
}

// FormatDuration writes a duration as ParseDuration reads it: "7d", "1h30m".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var out strings.Builder
	for _, u := range []string{"d", "h", "m", "s", "ms"} {
		if n := d / durationUnits[u]; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u)
			d -= n * durationUnits[u]
		}
	}
	return out.String()
}

// ParseSize reads "10MiB", "1.5GB" or a number of bytes.
func ParseSize(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write a number with B, KiB, MiB, GiB (or kB, MB, GB), such "+
			"as \"10MiB\"", Clip(s))
	}
	n, _ := new(big.Rat).SetString(m[1])
	switch n.Mul(n, new(big.Rat).SetInt64(sizeUnits[m[2]])); {
	case !n.IsInt():
		return 0, fmt.Errorf("%q is no whole number of bytes", Clip(s))
	case !n.Num().IsInt64():
		return 0, fmt.Errorf("%q is too large", Clip(s))
	}
	return n.Num().Int64(), nil
}

// FormatSize writes a size as ParseSize reads it: "10MiB".
func FormatSize(n int64) string {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n >= sizeUnits[u] && n%sizeUnits[u] == 0 {
			return fmt.Sprintf("%d%s", n/sizeUnits[u], u)
		}
	}
	return fmt.Sprintf("%dB", n)
}
