package status

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// at is a moment on the day of the examples.
func at(clock string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", "2026-11-24 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

func binance() Source {
	return Source{
		Name: "binance", Enabled: true, Transport: "http", Every: "1m", Topic: "binance", Table: "raw_crypto_data", interval: time.Minute,
		Slot: at("02:49:00"), State: "ok", Records: 3, PerMinute: 3, Stored: at("02:49:00"),
	}
}

func with(change func(*Source)) Source {
	s := binance()
	change(&s)
	return s
}

func hourly() rollup.Status {
	return rollup.Status{Name: "hourly", Next: time.Date(2026, 11, 25, 0, 5, 0, 0, time.UTC)}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	now := at("02:49:09")
	fresh := Source{Name: "fear_greed", Enabled: true, Transport: "html", Every: "1h", interval: time.Hour, Lag: -1}
	for name, c := range map[string]struct {
		s    Status
		want string
	}{
		"nothing is declared": {Status{At: now, Mode: "live"}, `
cryptoviz · live data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD
`},
		"nothing has run": {Status{At: now, Mode: "live", Sources: []Source{fresh}, Rollups: []rollup.Status{hourly()}}, `
cryptoviz · live data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD
fear_greed        1h  -                             0      0.0       ?      0

rollup hourly · next 2026-11-25 00:05, in 21h 15m
`},
		"all is well": {Status{At: now, Mode: "simulated", Sources: []Source{
			binance(),
			with(func(s *Source) {
				s.Name, s.State, s.Records, s.PerMinute = "a_very_long_name_of_a_source", "not_modified", 0, 1234.56
			}),
			with(func(s *Source) { s.Name, s.State, s.Lag = "kraken", "late", 2 }),
			with(func(s *Source) {
				s.Name, s.Enabled, s.State, s.Reason, s.Dead, s.Lag = "okx", false, "failed", "of long ago", 5, 100
			}),
		}, Rollups: []rollup.Status{hourly(), {Name: "daily", Next: time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC), Day: "2026-11-22", RawRows: 12960, HourlyRows: 72}}}, `
cryptoviz · simulated data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD
binance           1m  02:49:00 ok                   3      3.0       0      0
a_very_long_n…    1m  02:49:00 not_modified         0   1234.6       0      0
kraken            1m  02:49:00 late                 3      3.0       2      0
okx               1m  disabled

rollup hourly · next 2026-11-25 00:05, in 21h 15m
rollup daily · next 2026-11-27 00:00, in 2d 21h
  last 2026-11-22: 12,960 rows -> 72 hours
`},
		"a worker is blocked": {Status{At: now, Mode: "live", Sources: []Source{
			with(func(s *Source) { s.Lag, s.Stored = 12345, at("02:40:00") }),
			with(func(s *Source) { s.Name, s.Lag, s.Stored = "kraken", 4, at("02:47:00") }), // two slots behind: not yet
			with(func(s *Source) { s.Name, s.Lag, s.Stored = "coinbase", 12, time.Time{} }),
			with(func(s *Source) { s.Name, s.Lag, s.Stored = "bitstamp", 3, time.Time{} }), // its first records
		}}, `
cryptoviz · live data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD
binance           1m  02:49:00 ok                   3      3.0  12,345      0
kraken            1m  02:49:00 ok                   3      3.0       4      0
coinbase          1m  02:49:00 ok                   3      3.0      12      0
bitstamp          1m  02:49:00 ok                   3      3.0       3      0

! binance: 12,345 records wait, none was stored since 02:40:00: see /readyz of
  its worker
! coinbase: 12 records wait, none was ever stored: see /readyz of its worker
`},
		"slots that ended badly, and policies of TimescaleDB": {Status{At: now, Mode: "live", Sources: []Source{
			with(func(s *Source) { s.Hour = Ends{3, 1198, 2} }),
			with(func(s *Source) {
				s.Name, s.State, s.Reason, s.Hour = "kraken", "failed", "no record came", Ends{Failed: 1}
			}),
			with(func(s *Source) { s.Name, s.State, s.Hour = "coinbase", "late", Ends{Late: 2} }),
		}, Jobs: []store.Job{{Name: "retention", Table: "raw_crypto_data"}, {Name: "columnstore", Table: "raw_crypto_data", Failing: true, Reason: `could not load library "/usr/lib/timescaledb-tsl.so": undefined symbol`}}}, `
cryptoviz · live data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD
binance           1m  02:49:00 ok                   3      3.0       0      0
kraken            1m  02:49:00 failed               3      3.0       0      0
coinbase          1m  02:49:00 late                 3      3.0       0      0

! binance: slots of the last hour: 3 late, 1,198 skipped, 2 failed: see
  cryptoviz.slot
! kraken: 02:49:00 failed: no record came
! coinbase: slots of the last hour: 2 late: see cryptoviz.slot
! TimescaleDB's columnstore policy of raw_crypto_data fails: could not load
  library "/usr/lib/timescaledb-tsl.so": undefined symbol
`},
		"rollups that need a look": {Status{At: now, Mode: "live", Rollups: []rollup.Status{
			{Name: "hourly", Next: at("03:00:00"), Day: "2026-11-20", RawRows: 12960, HourlyRows: 72, Due: 2, LateRows: 1234, Rejected: 1000},
			{Name: "daily", Next: at("03:00:00"), Due: -1},
		}}, `
cryptoviz · live data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD

rollup hourly · next 2026-11-24 03:00, in 10m 51s
  last 2026-11-20: 12,960 rows -> 72 hours
  1,234 rows came late
rollup daily · next 2026-11-24 03:00, in 10m 51s

! rollup hourly: 2 days should be rolled up and are not: see the log of the
  process that runs the rollups, or run cryptoviz rollup hourly --dry-run
! rollup hourly: 1,000 late rows were rejected and stay raw: late = "merge"
  would take them in
`},
		"all that can be wrong": {Status{At: now, Mode: "recorded", KafkaError: "kafka at localhost:9092 does not answer: unable to dial: dial tcp 127.0.0.1:9092: connect: connection refused", Sources: []Source{
			with(func(s *Source) {
				s.State, s.Reason, s.Lag = "failed", `Get "https://data-api.binance.vision/api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%2C%22ETHUSDT%22%5D": dial tcp: lookup data-api.binance.vision: no such host`, -1
			}),
			with(func(s *Source) {
				s.Name, s.State, s.Reason, s.Lag = "kraken", "skipped", "the disk is nearly full", 12_345_678
			}),
			with(func(s *Source) {
				s.Name, s.Dead, s.Lost, s.Records = "coinbase", 1_234_567, 98, 123_456_789
			}),
			with(func(s *Source) {
				s.Name, s.State, s.Slot, s.Stored = "fear_greed", "not_modified", at("02:00:00").AddDate(0, 0, -3), at("02:00:00").AddDate(0, 0, -3)
			}),
		}}, `
cryptoviz · recorded data · 2026-11-24 02:49:09 UTC

SOURCE         EVERY  LAST SLOT               RECORDS  PER MIN     LAG   DEAD
binance           1m  02:49:00 failed               3      3.0       ?      0
kraken            1m  02:49:00 skipped              3      3.0   12.3M      0
coinbase          1m  02:49:00 ok              123.4M      3.0       0   1.2M
fear_greed        1m  11-21 02:00 not_modif…        3      3.0       0      0

! lag unknown: kafka at localhost:9092 does not answer: unable to dial: dial tcp
  127.0.0.1:9092: connect: connection refused
! binance: 02:49:00 failed: Get
  "https://data-api.binance.vision/api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%…
  dial tcp: lookup data-api.binance.vision: no such host
! kraken: 02:49:00 skipped: the disk is nearly full
! coinbase: 98 records were gone from its topic before they could be stored: see
  cryptoviz.gap
! coinbase: 1,234,567 records could not become rows: see cryptoviz.dead_letter
`},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := c.s.Print(&out, Look{}); err != nil {
				t.Fatal(err)
			}
			if got := trim(out.String()); got != c.want[1:] {
				t.Errorf("got\n%s\nwant\n%s", got, c.want[1:])
			}
			for line := range strings.Lines(out.String()) {
				if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
					t.Errorf("longer than 80 columns: %s", line)
				}
			}
		})
	}
}

// trim takes the spaces at the ends of lines away.
func trim(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}

func TestPrintTellsOfAnOutputThatIsClosed(t *testing.T) {
	t.Parallel()
	if err := (Status{}).Print(closed{}, Look{}); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}

var errClosed = errors.New("closed")

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errClosed }

func TestJSON(t *testing.T) {
	t.Parallel()
	s := Status{At: at("02:49:09"), Mode: "live", Sources: []Source{
		with(func(s *Source) {
			s.State, s.Reason, s.Dead, s.Lost, s.Failed24, s.Hour = "failed", "no record came", 1, 2, 3, Ends{1, 2, 1}
		}),
		{Name: "okx", Transport: "websocket", Every: "1m", Topic: "okx", Table: "raw_crypto_data", Lag: -1},
	}, Rollups: []rollup.Status{hourly(), {Name: "daily", Next: at("00:00:00"), Day: "2026-11-22", RawRows: 12960, HourlyRows: 72, Days: 4, Due: 2, LateRows: 9, Rejected: 7}}, KafkaError: "x"}
	got, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "at": "2026-11-24T02:49:09Z",
 "mode": "live",
 "sources": [
  {
   "name": "binance",
   "enabled": true,
   "transport": "http",
   "every": "1m",
   "topic": "binance",
   "table": "raw_crypto_data",
   "slot": "2026-11-24T02:49:00Z",
   "state": "failed",
   "reason": "no record came",
   "records": 3,
   "per_minute": 3,
   "lag": 0,
   "stored": "2026-11-24T02:49:00Z",
   "dead_letters": 1,
   "lost": 2,
   "failed_24h": 3,
   "last_hour": {
    "late": 1,
    "skipped": 2,
    "failed": 1
   }
  },
  {
   "name": "okx",
   "enabled": false,
   "transport": "websocket",
   "every": "1m",
   "topic": "okx",
   "table": "raw_crypto_data",
   "state": "",
   "records": 0,
   "per_minute": 0,
   "lag": -1,
   "dead_letters": 0,
   "lost": 0,
   "failed_24h": 0,
   "last_hour": {
    "late": 0,
    "skipped": 0,
    "failed": 0
   }
  }
 ],
 "rollups": [
  {
   "name": "hourly",
   "next": "2026-11-25T00:05:00Z",
   "raw_rows": 0,
   "hourly_rows": 0,
   "days": 0,
   "days_due": 0,
   "late_rows": 0,
   "rejected_rows": 0
  },
  {
   "name": "daily",
   "next": "2026-11-24T00:00:00Z",
   "last_day": "2026-11-22",
   "raw_rows": 12960,
   "hourly_rows": 72,
   "days": 4,
   "days_due": 2,
   "late_rows": 9,
   "rejected_rows": 7
  }
 ],
 "kafka_error": "x"
}`
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
}

func TestAgo(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 1400 * time.Millisecond: "1s", 59600 * time.Millisecond: "1m 0s", 61 * time.Second: "1m 1s",
		time.Hour: "1h 0m", 21*time.Hour + 54*time.Minute + 59*time.Second: "21h 54m", 24 * time.Hour: "1d 0h", 100 * 24 * time.Hour: "100d 0h",
	} {
		if got := Ago(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"one", "one"},
		{"one two three", "one two|  three"},
		{"a word_that_is_too_long b", "a|  word_th…|  b"},
		{"a b c d e f g h i j k l m n o p", "a b c d e|  f g h i|  j k l m|  n o p"},
		{"aaaaa bbbbb ccccc ddddd eeeee fffff", "aaaaa|  bbbbb|  ccccc|  ddddd e…"},
		{"ééééé ééé é", "ééééé ééé|  é"},
		{"a\nb\tc", "a b c"},
		{"a\x1b[2J\u009b", "a�[2J�"},
	} {
		if got := strings.Join(wrap(c.text, 10, 4), "|"); got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
}
