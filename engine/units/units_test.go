package units

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"1ms": time.Millisecond, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "7d": 7 * day, "2w": 14 * day, "0d": 0, "1.5h": 90 * time.Minute, "0.29s": 290 * time.Millisecond,
		"1d1d": 2 * day, "1.001s": 1001 * time.Millisecond, "36500d": 36500 * day,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
		if again, err := ParseDuration(FormatDuration(got)); err != nil || again != got {
			t.Errorf("%s is written %s", text, FormatDuration(got))
		}
	}
	for _, text := range []string{"", "1", "s", "-1s", "+1s", "1 s", "1S", "1M", "1y", "1us", "0.1ms", "1.0001s", "1e3s", "0x1s", "١s", "1s ", " 1s", "1,5s", "1h-1m", "9999999999s", "999999999w999999999w", "inf", "NaNs"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "10": 10, "10B": 10, "1kB": 1000, "1KB": 1000, "1KiB": 1024, "10 MiB": 10 << 20, "1GB": 1e9, "3GiB": 3 << 30, "2TB": 2e12, "1TiB": 1 << 40,
		"1.5MiB": 3 << 19, "0.1GB": 1e8, "2.50kB": 2500, "0.000001TB": 1e6,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d %v", text, got, err)
		}
		if again, err := ParseSize(FormatSize(want)); err != nil || again != want {
			t.Errorf("%d is written %s", want, FormatSize(want))
		}
	}
	for _, text := range []string{"", "B", "-1B", "1.5B", "0.1KiB", "1.MiB", ".5MiB", "1.5", "1.0000001MB", "1 mib", "1mb", "1M", "1e3B", "9999999999999999B", "999999999999999TiB", "1MiB1B", "١B"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
