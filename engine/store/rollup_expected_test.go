package store_test

import (
	"fmt"
	"testing"
	"time"
)

// expected is by the interval that the source had in that hour, not by today's.
func TestRollupExpectsWhatWasDue(t *testing.T) {
	t.Parallel()
	h := newHours(t, "days")
	at := func(hour, minute, second int) time.Time {
		return h.day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second)
	}
	slots := func(from, to time.Time, every time.Duration) {
		for slot := from; slot.Before(to); slot = slot.Add(every) {
			h.exec(fmt.Sprintf("INSERT INTO cryptoviz.slot (source, slot, state, lease_until) VALUES ('binance', '%s', 'ok', now())", slot.Format(time.RFC3339)))
		}
	}
	slots(at(1, 30, 0), at(3, 0, 0), time.Minute)         // it begins in the middle of an hour
	slots(at(3, 0, 0), at(4, 30, 0), 30*time.Second)      // twice as fine
	slots(at(4, 30, 0), at(6, 0, 0), 2*time.Minute)       // and coarse again, in the middle of an hour
	slots(at(6, 0, 0), at(12, 0, 0), time.Hour)           // and one an hour
	for _, hour := range []int{1, 2, 3, 4, 5, 6, 7, 13} { // of the last the ledger knows nothing: today's interval
		h.exec(fmt.Sprintf("INSERT INTO raw_crypto_data (time, source, base, quote, price) VALUES ('%s', 'binance', 'BTC', 'USDT', 1)", at(hour, 59, 0).Format(time.RFC3339)))
	}
	h.roll(h.day, false)
	h.has(map[string]string{
		"SELECT string_agg(extract(hour FROM time AT TIME ZONE 'UTC') || '=' || expected, ' ' ORDER BY time) FROM crypto_data_hourly": "1=60 2=60 3=120 4=75 5=30 6=1 7=1 13=60",
	})
}
