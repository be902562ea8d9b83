package consume_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/record"
)

// TestHints: an optional column whose path is in no record of a slot, and a skip that is true for all, are told; what is in one
// of the records is not.
func TestHints(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", true)
	now := time.Now().UTC().Truncate(time.Minute)
	send := func(slot int, value []byte) {
		at := now.Add(time.Duration(slot-10) * time.Minute).Format(time.RFC3339Nano)
		r.raw([]byte("BTCUSDT"), value, kgo.RecordHeader{Key: record.HeaderSlot, Value: []byte(at)})
	}
	whole := ticker(now)
	without := bytes.ReplaceAll(whole, []byte(`"bidPrice"`), []byte(`"bid"`))
	send(1, without)
	send(1, bytes.ReplaceAll(without, []byte(`"askPrice"`), []byte(`"ask"`)))
	halted := bytes.ReplaceAll(whole, []byte(`"count":`), []byte(`"count":0,"n":`))
	send(2, halted)
	send(2, halted)
	send(3, whole)
	w, _ := r.runs(consume.Options{})
	r.becomes("SELECT count(*) FROM cryptoviz.hint", "2")
	if got := r.text("SELECT string_agg(kind || ': ' || detail, '; ' ORDER BY kind) FROM cryptoviz.hint"); !strings.Contains(got, "column bid: bid is null in every record, for what it reads is in none: r.bidPrice (sources/binance.hcl:") ||
		!strings.Contains(got, "skip: skip is true for every record: r.count == 0 (sources/binance.hcl:") {
		t.Error(got)
	}
	if n := w.Stats().Hints; n != 2 {
		t.Errorf("%d hints", n)
	}
}
