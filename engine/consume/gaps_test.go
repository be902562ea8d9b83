package consume_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/consume"
)

// TestTransactionsAreNoGaps: markers, and records that their producer gave up, are passed over: they are neither rows nor lost,
// and the worker comes to the end of the topic.
func TestTransactionsAreNoGaps(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	w, _ := r.runs(consume.Options{})
	producer, err := kgo.NewClient(append(r.clients(), kgo.TransactionalID("cryptoviz.test"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	now := time.Now()
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryCommit, kgo.TryAbort} {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			producer.Produce(t.Context(), &kgo.Record{Topic: r.src.Topic.Name, Key: []byte("M"), Value: ticker(now.Add(time.Duration(10*i+j) * time.Millisecond))}, nil)
		}
		if err := producer.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := producer.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	end, err := kadm.NewClient(r.kafka).ListEndOffsets(t.Context(), r.src.Topic.Name)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := end.Lookup(r.src.Topic.Name, 0)
	if last.Offset != 20 { // 5 × 3 records and a marker each
		t.Fatalf("the topic ends at %d", last.Offset)
	}
	r.becomes("SELECT next_offset FROM cryptoviz.position", fmt.Sprint(last.Offset))
	if got := r.text("SELECT count(*) || ' ' || (SELECT count(*) FROM cryptoviz.gap) || ' ' || (SELECT count(*) FROM cryptoviz.dead_letter) FROM raw_crypto_data"); got != "9 0 0" {
		t.Errorf("rows, gaps and dead letters: %s", got)
	}
	r.until("no lag", func() bool { return w.Stats().Lag == 0 })
}

// TestRetentionOvertakesABlockedWorker: slots whose records were gone before they could be stored do not stay ok.
func TestRetentionOvertakesABlockedWorker(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			r := newRig(t, "binance", 1, "", false)
			start := time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)
			slot := func(i int) {
				r.exec(fmt.Sprintf("INSERT INTO cryptoviz.slot (source, slot, state, records, lease_until) VALUES ('binance', '%s', 'ok', 10, now())", start.Add(time.Duration(i)*time.Minute).Format(time.RFC3339)))
				r.send(start.Add(time.Duration(i)*time.Minute), 0, 10)
			}
			w, stop := r.runs(consume.Options{BatchRows: 5})
			slot(0)
			r.becomes("SELECT next_offset FROM cryptoviz.position", "10")
			r.exec("ALTER TABLE raw_crypto_data RENAME TO away")
			slot(1)
			r.until("it is blocked", func() bool { return strings.Contains(w.Stats().Blocked, "does not exist") })
			for i := 2; i < 9; i++ {
				slot(i)
			}
			if restart {
				stop()
			}
			if _, err := kadm.NewClient(r.kafka).DeleteRecords(t.Context(), kadm.Offsets{r.src.Topic.Name: {0: {Topic: r.src.Topic.Name, At: 80}}}); err != nil {
				t.Fatal(err)
			}
			r.exec("ALTER TABLE away RENAME TO raw_crypto_data")
			if restart {
				w, _ = r.runs(consume.Options{BatchRows: 5})
			}
			r.becomes("SELECT next_offset FROM cryptoviz.position", "90")
			// What was read before it was removed is stored; each slot that is not whole has failed.
			got := r.text(`SELECT string_agg(slot::text || ' ' || state || ' ' || n, ', ' ORDER BY slot) FROM cryptoviz.slot s,
				LATERAL (SELECT count(*) AS n FROM raw_crypto_data r WHERE r.time >= s.slot AND r.time < s.slot + interval '1 min') n WHERE (state = 'ok') <> (n = 10)`)
			if got != "" {
				t.Error(got)
			}
			gaps := r.text("SELECT count(*) || ' ' || coalesce(sum(to_offset - from_offset), 0) FROM cryptoviz.gap")
			lost := r.text("SELECT 90 - count(*) FROM raw_crypto_data")
			if want := "1 " + lost; lost != "0" && gaps != want || restart && lost != "70" {
				t.Errorf("gaps %q, lost %s", gaps, lost)
			}
			if s := w.Stats(); fmt.Sprint(s.GapRecords) != lost {
				t.Errorf("%+v", s)
			}
		})
	}
}
