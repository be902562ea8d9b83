package consume_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// TestDeadLettersByClass: what a record failed at is counted, and every class is there from the start.
func TestDeadLettersByClass(t *testing.T) {
	r := newRig(t, "binance", 1, "", true)
	r.exec("ALTER TABLE raw_crypto_data ADD CHECK (price < 1)")
	w, _ := r.runs(consume.Options{})
	want := map[string]int64{store.DeadKey: 0, store.DeadRow: 0, store.DeadTime: 0, store.DeadTable: 0}
	if got := w.Stats().DeadBy; !maps.Equal(got, want) {
		t.Errorf("before any: %v", got)
	}
	now := time.Now()
	r.raw(nil, ticker(now), kgo.RecordHeader{Key: record.HeaderFault, Value: []byte("key: no such field")})
	r.raw([]byte("a"), []byte(`{"symbol":"BTCUSDT"}`))
	r.raw([]byte("b"), []byte("no JSON"))
	r.raw(nil, []byte("no JSON, and no key"))
	r.raw([]byte("c"), ticker(now.Add(time.Hour)))
	r.raw([]byte("d"), ticker(now.Add(-500*24*time.Hour)))
	r.raw([]byte("e"), ticker(now))
	r.raw([]byte("f"), ticker(now.Add(-time.Second)))
	want = map[string]int64{store.DeadKey: 1, store.DeadRow: 3, store.DeadTime: 2, store.DeadTable: 2}
	r.until(fmt.Sprint(want), func() bool { s := w.Stats(); return maps.Equal(s.DeadBy, want) && s.Dead == 8 })
	if n := r.text("SELECT count(*) FROM cryptoviz.dead_letter"); n != "8" {
		t.Errorf("%s dead letters", n)
	}
}
