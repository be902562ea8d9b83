package dashboard

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// expansion is what Grafana adds to the text of a query.
type expansion struct {
	from, to  time.Time
	interval  time.Duration    // $__interval
	timescale bool             // the data source has TimescaleDB switched on: $__timeGroup is time_bucket
	variables map[string]value // values of the dashboard's variables
}

// value is what one variable stands at.
type value struct {
	texts  []string
	quoted bool // a list: each value is quoted
	raw    bool // put in as it is
}

// macros replaces variables, then Grafana's own text, then macros, in the order in which Grafana does.
func (x expansion) expand(sql string) (string, error) {
	sql = x.interpolate(sql)
	sql = stripComments(sql)
	sql = strings.NewReplacer(
		"$__interval_ms", strconv.FormatInt(x.interval.Milliseconds(), 10), "$__interval", inUnit(x.interval),
		"$__unixEpochFrom()", strconv.FormatInt(x.from.Unix(), 10), "$__unixEpochTo()", strconv.FormatInt(x.to.Unix(),
			10),
	).Replace(sql)
	return x.macros(sql)
}

var macroForm = regexp.MustCompile(`\$([_a-zA-Z0-9]+)\(([^\)]*)\)`)

// macros expands $name(arguments). An argument holds neither a comma nor a closing bracket, as in Grafana.
func (x expansion) macros(sql string) (string, error) {
	var failed error
	out := macroForm.ReplaceAllStringFunc(sql, func(call string) string {
		m := macroForm.FindStringSubmatch(call)
		name, args := m[1], strings.Split(m[2], ",")
		for i := range args {
			args[i] = strings.Trim(args[i], " ")
		}
		// Grafana takes $__timeGroup(…) for $__timeGroupAlias(…) when a comma follows its first occurrence with this
		// very text.
		if name == "__timeGroup" && strings.HasPrefix(sql[strings.Index(sql, call)+len(call):], ",") {
			name = "__timeGroupAlias"
		}
		text, err := x.macro(name, args)
		if err != nil && failed == nil {
			failed = err
		}
		return text
	})
	return out, failed
}

func (x expansion) macro(name string, args []string) (string, error) {
	column := args[0]
	if column == "" && !strings.HasSuffix(name, "From") && !strings.HasSuffix(name, "To") {
		return "", fmt.Errorf("the macro $%s lacks its argument", name)
	}
	stamp := func(t time.Time) string { return "'" + t.UTC().Format(time.RFC3339Nano) + "'" }
	switch name {
	case "__time":
		return column + ` AS "time"`, nil
	case "__timeEpoch":
		return "extract(epoch from " + column + `) as "time"`, nil
	case "__timeFilter":
		return column + " BETWEEN " + stamp(x.from) + " AND " + stamp(x.to), nil
	case "__timeFrom":
		return stamp(x.from), nil
	case "__timeTo":
		return stamp(x.to), nil
	case "__unixEpochFilter":
		return fmt.Sprintf("%s >= %d AND %s <= %d", column, x.from.Unix(), column, x.to.Unix()), nil
	case "__unixEpochNanoFilter":
		return fmt.Sprintf("%s >= %d AND %s <= %d", column, x.from.UnixNano(), column, x.to.UnixNano()), nil
	case "__unixEpochNanoFrom":
		return strconv.FormatInt(x.from.UnixNano(), 10), nil
	case "__unixEpochNanoTo":
		return strconv.FormatInt(x.to.UnixNano(), 10), nil
	case "__timeGroup", "__timeGroupAlias", "__unixEpochGroup", "__unixEpochGroupAlias":
		return x.group(name, column, args)
	}
	return "", fmt.Errorf("unknown macro $%s", name)
}

// group is a macro that rounds a time down to an interval.
func (x expansion) group(name, column string, args []string) (string, error) {
	if len(args) < 2 {
		return "", fmt.Errorf("the macro $%s lacks its interval", name)
	}
	width, err := groupWidth(strings.Trim(args[1], `'"`))
	if err != nil {
		return "", fmt.Errorf("the macro $%s: %w", name, err)
	}
	if len(args) == 3 {
		if _, err := strconv.ParseFloat(args[2], 64); err != nil && args[2] != "NULL" && args[2] != "previous" {
			return "", fmt.Errorf("the macro $%s fills gaps with NULL, previous or a number, not with %s", name,
				args[2])
		}
	}
	seconds := fmt.Sprint(width.Seconds()) // as Grafana prints a float: 2.592e+06
	base, alias := strings.CutSuffix(name, "Alias")
	var out string
	switch {
	case base == "__unixEpochGroup":
		out = fmt.Sprintf("floor((%s)/%s)*%s", column, seconds, seconds)
	case x.timescale:
		out = fmt.Sprintf("time_bucket('%.3fs',%s)", width.Seconds(), column)
	default:
		out = fmt.Sprintf("floor(extract(epoch from %s)/%s)*%s", column, seconds, seconds)
	}
	if alias {
		out += ` AS "time"`
	}
	return out, nil
}

var longForm = regexp.MustCompile(`^(\d+)([dwMy])$`)

// groupWidth reads a macro's interval: Go's durations, and d, w, M and y. Months and years vary; 30 and 365 days
// stand for them.
func groupWidth(s string) (time.Duration, error) {
	if m := longForm.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 1000 {
			return 0, fmt.Errorf("%q is no interval", s)
		}
		days := map[string]int{"d": 1, "w": 7, "M": 30, "y": 365}[m[2]]
		return time.Duration(n*days) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no interval", s)
	}
	return d, nil
}

// steps are the widths that Grafana rounds an interval to, each with the milliseconds below which it is taken.
var steps = []struct{ below, width int64 }{
	{10, 1},
	{15, 10},
	{35, 20},
	{75, 50},
	{150, 100},
	{350, 200},
	{750, 500},
	{1500, 1000},
	{3500, 2000},
	{7500, 5000},
	{12500, 10000},
	{17500, 15000},
	{25000, 20000},
	{45000, 30000},
	{90000, 60000},
	{210000, 120000},
	{450000, 300000},
	{750000, 600000},
	{1050000, 900000},
	{1500000, 1200000},
	{2700000, 1800000},
	{5400000, 3600000},
	{9000000, 7200000},
	{16200000, 10800000},
	{32400000, 21600000},
	{86400000, 43200000},
	{604800000, 86400000},
	{1814400000, 604800000},
	{3628800000, 2592000000},
}

// intervalOf is $__interval: the range over the points, rounded, and not below the least.
func intervalOf(length, least time.Duration, points int64) time.Duration {
	ms := math.Round(float64(length.Milliseconds()) / float64(max(points, 1)))
	width := int64(31536000000)
	for _, s := range steps {
		if ms < float64(s.below) {
			width = s.width
			break
		}
	}
	return max(least, time.Duration(width)*time.Millisecond)
}

// inUnit writes an interval in its largest whole unit, the rest cut off.
func inUnit(d time.Duration) string {
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"y", 365 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if d >= u.size {
			return fmt.Sprintf("%d%s", d/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// stripComments takes SQL comments out, as Grafana does since 13; quotes, names in quotes and dollar quotes are left
// alone.
func stripComments(sql string) string {
	var out strings.Builder
	for i := 0; i < len(sql); {
		switch {
		case sql[i] == '\'' || sql[i] == '"':
			n := closing(sql[i+1:], sql[i:i+1]) + 1
			out.WriteString(sql[i : i+n])
			i += n
		case strings.HasPrefix(sql[i:], "--"):
			n := strings.IndexByte(sql[i:], '\n')
			if n < 0 {
				return out.String()
			}
			i += n
		case strings.HasPrefix(sql[i:], "/*"):
			n := strings.Index(sql[i+2:], "*/")
			if n < 0 {
				return out.String()
			}
			i += n + 4
		case sql[i] == '$':
			n := 1
			if tag := dollarForm.FindString(sql[i:]); tag != "" {
				n = len(tag) + closing(sql[i+len(tag):], tag)
			}
			out.WriteString(sql[i : i+n])
			i += n
		default:
			out.WriteByte(sql[i])
			i++
		}
	}
	return out.String()
}

var dollarForm = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]*)?\$`)

// closing is the length up to and with the closing mark; all of it when there is none.
func closing(s, mark string) int {
	if n := strings.Index(s, mark); n >= 0 {
		return n + len(mark)
	}
	return len(s)
}
