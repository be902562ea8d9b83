package pg

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// PostgreSQL 14 reads no number of a unit that is larger than an int.
func TestIntervalSuitsEveryServer(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "interval '0 days'", 24 * time.Hour: "interval '1 day'", 90 * 24 * time.Hour: "interval '90 days'",
		time.Hour: "interval '1 hour'", 36 * time.Hour: "interval '36 hours'", 90 * time.Minute: "interval '90 minutes'", 45 * time.Second: "interval '45 seconds'",
		10*time.Hour + 250*time.Millisecond: "interval '36000.250000 seconds'", time.Microsecond: "interval '0.000001 seconds'",
	} {
		got := Interval(d)
		if got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(got, "interval '"), " ")
		if n, err := strconv.ParseFloat(number, 64); err != nil || n > 1<<31-1 {
			t.Errorf("%s: %s is more than PostgreSQL 14 reads", d, got)
		}
	}
}
