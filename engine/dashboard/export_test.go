package dashboard

import "time"

var (
	IntervalOf = intervalOf
	InUnit     = inUnit
)

// Expand runs one query through variables and macros.
func Expand(sql string, from, to time.Time, interval time.Duration, timescale bool, vars map[string]Var) (string, error) {
	x := expansion{from: from, to: to, interval: interval, timescale: timescale, variables: map[string]value{}}
	for k, v := range vars {
		x.variables[k] = value{texts: v.Values, quoted: v.Multi, raw: v.Raw}
	}
	return x.expand(sql)
}

// Var is the value of a variable.
type Var struct {
	Values     []string
	Multi, Raw bool
}
