package consume_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// TestRealKafka runs what depends on the broker against Apache Kafka. It runs before the others: they share realBroker.
func TestRealKafka(t *testing.T) {
	realBroker = testkit.Kafka(t).Addr()
	t.Cleanup(func() { realBroker = "" }) // after the last of them, before those that need no server of their own
	for name, test := range map[string]func(*testing.T){
		"EveryRecordBecomesARowOnce": TestEveryRecordBecomesARowOnce, "RestartsDuringIngest": TestRestartsDuringIngest, "Rebalance": TestRebalance,
		"TopicMissing": TestTopicMissing, "TopicCreatedAgain": TestTopicCreatedAgain, "Poison": TestPoison,
		"RecordsRemovedBeforeTheyWereRead": TestRecordsRemovedBeforeTheyWereRead,
	} {
		t.Run(name, test)
	}
}

func TestEveryRecordBecomesARowOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", false)
	w, stop := r.runs(consume.Options{})
	start := time.Now().Add(-time.Hour)
	for i := range 4 {
		r.send(start, i*5000, (i+1)*5000)
	}
	r.exact(20_000)
	r.until("no lag", func() bool { s := w.Stats(); return s.Lag == 0 && s.Rows >= 20_000 })
	if s := w.Stats(); s.Rows != 20_000 || s.Partitions != 2 || s.Blocked != "" || s.Dead != 0 {
		t.Errorf("%+v", s)
	}
	if got := r.text("SELECT last_slot = date_trunc('minute', '" + start.Format(time.RFC3339) + "'::timestamptz) FROM cryptoviz.position LIMIT 1"); got != "true" {
		t.Errorf("last slot: %s", got)
	}
	stop()
	if s := w.Stats(); s.Partitions != 0 {
		t.Errorf("after the end: %+v", s)
	}
}

// TestRestartsDuringIngest stops and starts the worker while records come.
func TestRestartsDuringIngest(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 2, "", false)
	const n = 20_000
	var sending sync.WaitGroup
	start := time.Now().Add(-time.Hour)
	sending.Go(func() {
		for i := range n / 200 {
			r.send(start, i*200, (i+1)*200)
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the pace of what comes, or of what is done to it
		}
	})
	for range 15 {
		_, stop := r.runs(consume.Options{BatchRows: 100})
		time.Sleep(50*time.Millisecond + rand.N(100*time.Millisecond)) //nolint:forbidigo // the pace of what comes, or of what is done to it
		stop()
	}
	sending.Wait()
	r.runs(consume.Options{})
	r.exact(n)
}

// TestRebalance lets a second worker join and leave again and again.
func TestRebalance(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 4, "", false)
	const n = 20_000
	var sending sync.WaitGroup
	start := time.Now().Add(-time.Hour)
	sending.Go(func() {
		for i := range n / 100 {
			r.send(start, i*100, (i+1)*100)
			time.Sleep(15 * time.Millisecond) //nolint:forbidigo // the pace of what comes, or of what is done to it
		}
	})
	first, _ := r.runs(consume.Options{BatchRows: 100, Session: 6 * time.Second})
	shared := 0
	for range 3 {
		second, stop := r.runs(consume.Options{BatchRows: 100, Session: 6 * time.Second})
		r.until("the second worker has a share", func() bool { return second.Stats().Partitions == 2 && first.Stats().Partitions == 2 })
		r.until("the second worker stores", func() bool {
			return second.Stats().Rows > 0 || r.text("SELECT sum(next_offset) FROM cryptoviz.position") == fmt.Sprint(n)
		})
		shared += int(second.Stats().Rows)
		stop()
		r.until("the first worker has all", func() bool { return first.Stats().Partitions == 4 })
	}
	sending.Wait()
	r.exact(n)
	t.Logf("the second worker stored %d rows", shared)
}

// TestAnotherOwner: the position's epoch rises behind the worker's back. It stores nothing more until it has claimed again.
func TestAnotherOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	w, _ := r.runs(consume.Options{})
	start := time.Now().Add(-time.Hour)
	r.send(start, 0, 100)
	r.exact(100)
	r.exec("UPDATE cryptoviz.position SET epoch = epoch + 1")
	r.send(start, 100, 200)
	r.exact(200)
	if w.Stats().Fenced != 1 {
		t.Errorf("%+v", w.Stats())
	}
}

// TestDatabaseLostItsLastCommits, as a standby that takes over, or a backup: rows and position are gone together.
func TestDatabaseLostItsLastCommits(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	w, _ := r.runs(consume.Options{})
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range 5 {
		r.send(start, i*100, (i+1)*100)
		r.exact((i + 1) * 100)
	}
	r.exec("BEGIN; DELETE FROM raw_crypto_data WHERE time >= '" + start.Add(250*time.Millisecond).Format(time.RFC3339Nano) + "'; UPDATE cryptoviz.position SET next_offset = 250; COMMIT")
	r.send(start, 500, 600)
	r.exact(600)
	r.exec("BEGIN; TRUNCATE raw_crypto_data, cryptoviz.position; COMMIT")
	r.send(start, 600, 700)
	r.exact(700)
	if w.Stats().Fenced != 0 {
		t.Errorf("%+v", w.Stats())
	}
}

func TestConnectionsCutDuringIngest(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	r.runs(consume.Options{BatchRows: 200})
	start := time.Now().Add(-time.Hour)
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := range 80 {
			r.send(start, i*250, (i+1)*250)
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the pace of what comes, or of what is done to it
		}
	})
	cut := 0
	for range 150 {
		var n int
		_, _ = fmt.Sscan(r.text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"), &n)
		cut += n
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // the pace of what comes, or of what is done to it
	}
	sending.Wait()
	r.exact(20_000)
	if cut == 0 {
		t.Error("no transaction was cut")
	}
	t.Logf("%d transactions cut", cut)
}

// TestTableMissing waits with a reason and drops nothing.
func TestTableMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	r.exec("ALTER TABLE raw_crypto_data RENAME TO away")
	w, _ := r.runs(consume.Options{})
	r.send(time.Now().Add(-time.Hour), 0, 1000)
	r.until("blocked", func() bool { return strings.Contains(w.Stats().Blocked, `relation "raw_crypto_data" does not exist`) })
	if got := r.text("SELECT count(*) || ' ' || (SELECT next_offset FROM cryptoviz.position) FROM cryptoviz.dead_letter"); got != "0 0" {
		t.Errorf("dead letters and position: %s", got)
	}
	r.exec("ALTER TABLE away RENAME TO raw_crypto_data")
	r.exact(1000)
	r.until("not blocked", func() bool { return w.Stats().Blocked == "" })
}

func TestTopicMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 0, "", false)
	w, _ := r.runs(consume.Options{})
	r.until("blocked", func() bool {
		return strings.Contains(w.Stats().Blocked, "topic "+r.src.Topic.Name+" does not exist: run cryptoviz apply")
	})
	r.createTopic(1)
	r.send(time.Now().Add(-time.Hour), 0, 10)
	r.exact(10)
	r.until("not blocked", func() bool { return w.Stats().Blocked == "" })
}

// TestTopicCreatedAgain: offsets of the old topic mean nothing in the new one.
func TestTopicCreatedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	r.runs(consume.Options{})
	start := time.Now().Add(-time.Hour)
	r.send(start, 0, 500)
	r.exact(500)
	if _, err := kadm.NewClient(r.kafka).DeleteTopic(t.Context(), r.src.Topic.Name); err != nil {
		t.Fatal(err)
	}
	r.createTopic(1)
	client, err := kgo.NewClient(r.clients()...) // the other one still knows the old topic
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r.kafka = client
	r.send(start, 500, 600)
	r.becomes("SELECT count(DISTINCT time) FROM raw_crypto_data", "600")
	if got := r.text("SELECT from_offset || ' ' || to_offset || ' ' || reason FROM cryptoviz.gap"); got != "500 0 the topic was deleted and created again" {
		t.Errorf("gap: %q", got)
	}
	if got := r.text("SELECT next_offset FROM cryptoviz.position"); got != "100" {
		t.Errorf("position: %s", got)
	}
}

// TestPoison: what cannot be a row is kept with its reason, and stops nobody.
func TestPoison(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", true)
	now := time.Now()
	good := func(i int) []byte { return ticker(now.Add(-time.Hour + time.Duration(i)*time.Second)) }
	bad := []struct {
		name   string
		value  []byte
		reason string
	}{
		{"no value", nil, ""},
		{"empty value", []byte{}, ""},
		{"not JSON", []byte("<html>502 Bad Gateway</html>"), ""},
		{"cut off", good(0)[:100], ""},
		{"huge", append([]byte(`{"symbol":"BTCUSDT","closeTime":1,"x":"`), bytes.Repeat([]byte{'x'}, 900_000)...), ""},
		{"binary", []byte{0, 1, 2, 0xff, 0xfe}, ""},
		{"deep", bytes.Repeat([]byte("["), 100_000), ""},
		{"field missing", []byte(`{"symbol":"BTCUSDT","lastPrice":"1"}`), "column time: "},
		{"price missing", bytes.Replace(good(0), []byte(`"64123.10"`), []byte(`null`), 1), "column price: "},
		{"price no number", bytes.Replace(good(0), []byte(`"64123.10"`), []byte(`"much"`), 1), "column price: "},
		{"in the future", ticker(now.Add(time.Hour)), "lies in the future"},
		{"too old", ticker(now.Add(-400 * 24 * time.Hour)), "lies more than max_age, 366d, back"},
		{"at the epoch", ticker(time.UnixMilli(0)), "lies outside 1971 to 2261"},
	}
	for i, b := range bad {
		r.raw([]byte("BTCUSDT"), good(i*2))
		r.raw([]byte(b.name), b.value)
	}
	r.raw([]byte{0xff, 0}, []byte("x"))                              // a key that is no text
	r.raw(nil, good(1001), kgo.RecordHeader{Key: record.HeaderSlot}) // headers empty, broken, doubled: this source does not read them
	r.raw(nil, good(1003), kgo.RecordHeader{Key: "slot", Value: []byte("?")}, kgo.RecordHeader{Key: "slot", Value: []byte("2")})
	w, _ := r.runs(consume.Options{})
	r.becomes("SELECT next_offset FROM cryptoviz.position", fmt.Sprint(2*len(bad)+3))
	if got := r.text("SELECT count(*) FROM raw_crypto_data"); got != fmt.Sprint(len(bad)+2) {
		t.Errorf("%s rows", got)
	}
	for _, b := range bad {
		got := r.text("SELECT reason || '|' || length(value) FROM cryptoviz.dead_letter WHERE key = '" + b.name + "'")
		if !strings.Contains(got, b.reason) || !strings.HasSuffix(got, fmt.Sprint("|", len(b.value))) || len(got) > 500 {
			t.Errorf("%s: %q", b.name, got)
		}
	}
	r.until("dead letters counted", func() bool { return w.Stats().Dead == int64(len(bad)+1) }) // after the commit
}

// TestSlotHeader: a source without times of its own takes the slot's.
func TestSlotHeader(t *testing.T) {
	t.Parallel()
	r := newRig(t, "kraken", 1, "", true)
	value := []byte(`{"a":["2","1","1"],"b":["1","1","1"],"c":["1.5","1"],"v":["1","2"],"p":["1","1"],"l":["1","1"],"h":["2","2"]}`)
	slot := time.Now().UTC().Truncate(time.Minute).Add(-time.Hour)
	key := []byte("XXBTZUSD")
	r.raw(key, value, kgo.RecordHeader{Key: "slot", Value: []byte(slot.Format(time.RFC3339Nano))})
	r.raw(key, value)
	r.raw(key, value, kgo.RecordHeader{Key: "slot", Value: []byte("yesterday")})
	r.raw(key, value, kgo.RecordHeader{Key: "slot", Value: []byte("0001-01-01T00:00:00Z")})
	r.raw(key, value, kgo.RecordHeader{Key: "slot", Value: []byte(slot.Add(time.Minute).In(time.FixedZone("", 3600)).Format(time.RFC3339Nano))})
	r.runs(consume.Options{})
	r.becomes("SELECT next_offset FROM cryptoviz.position", "5")
	want := slot.Format("15:04:05") + " " + slot.Add(time.Minute).Format("15:04:05")
	if got := r.text("SELECT string_agg(to_char(time AT TIME ZONE 'UTC', 'HH24:MI:SS'), ' ' ORDER BY time) FROM raw_crypto_data"); got != want {
		t.Errorf("times: %s, want %s", got, want)
	}
	if got := r.text(`SELECT string_agg("offset" || ' ' || reason, ', ' ORDER BY "offset") FROM cryptoviz.dead_letter`); strings.Count(got, "column time: ") != 3 {
		t.Errorf("dead letters: %s", got)
	}
}

// memory is a store that has read up to next, whatever the broker says.
type memory struct {
	mu      sync.Mutex
	next    int64
	batches []store.Batch
}

func (m *memory) Claim(context.Context, store.Log) (store.Claimed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return store.Claimed{Next: m.next}, nil
}

func (m *memory) Hint(context.Context, string, []store.Hint) error { return nil }

func (m *memory) Commit(_ context.Context, _ *store.Target, _ store.Fence, b *store.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batches = append(m.batches, store.Batch{Position: b.Position, Gaps: b.Gaps})
	m.next = b.Position.Next
	return nil
}

// TestRecordsRemovedBeforeTheyWereRead: a gap inside a session is noted with the batch that comes after it.
func TestRecordsRemovedBeforeTheyWereRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", false)
	r.send(time.Now().Add(-time.Hour), 0, 100)
	if _, err := kadm.NewClient(r.kafka).DeleteRecords(t.Context(), kadm.Offsets{r.src.Topic.Name: {0: {Topic: r.src.Topic.Name, At: 60}}}); err != nil {
		t.Fatal(err)
	}
	m := &memory{next: 20}
	w, err := consume.New(r.src, m, r.clients(), consume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer cancel()
	r.until("read", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.next == 100 })
	b := m.batches[0]
	if b.Position.First != 20 || len(b.Gaps) != 2 || b.Gaps[0].From != 20 || b.Gaps[0].To != 60 || b.Gaps[1].Before.IsZero() {
		t.Errorf("%+v", b)
	}
	r.until("it is counted", func() bool { s := w.Stats(); return s.Gaps == 1 && s.GapRecords == 40 })
}
