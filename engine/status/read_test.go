package status_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var now = time.Date(2026, 11, 24, 2, 49, 9, 0, time.UTC)

func declared() *spec.Pipeline {
	table := &spec.Table{Name: "raw_crypto_data"}
	p := &spec.Pipeline{Rollups: []*spec.Rollup{{Name: "hourly", Schedule: "5 0 * * *", From: table}}}
	for _, name := range []string{"binance", "coinbase", "fear_greed", "fresh", "okx"} {
		s := &spec.Source{Name: name, Enabled: name != "okx", Interval: time.Minute, Topic: &spec.Topic{Name: name}, Table: table, Definition: &spec.Definition{Poll: &spec.Poll{}, Decode: spec.Decode{Format: "json"}}}
		switch name {
		case "coinbase":
			s.Definition.Poll, s.Definition.Stream = nil, &spec.Stream{}
		case "fear_greed":
			s.Definition.Decode.Format, s.Interval = "html", time.Hour
		}
		p.Sources = append(p.Sources, s)
	}
	return p
}

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	db, err := pgxpool.New(t.Context(), testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func exec(t *testing.T, db *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// kafka has the topics with so many records, but none for fresh.
func kafka(t *testing.T, records map[string]int) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(testkit.EmbeddedKafka(t).ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	admin := kadm.NewClient(client)
	for topic, n := range records {
		if _, err := admin.CreateTopic(t.Context(), 2, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: []byte("x")}).FirstErr(); err != nil { //nolint:gosec // 0 or 1
				t.Fatal(err)
			}
		}
	}
	return admin
}

func TestRead(t *testing.T) {
	t.Parallel()
	db, p := database(t), declared()
	exec(t, db, schema.SQL)
	exec(t, db, `INSERT INTO cryptoviz.meta VALUES ('mode', 'simulated');
		INSERT INTO cryptoviz.source (name, enabled, every, per_hour, topic, table_name) VALUES
			('binance', true, '1m', 60, 'binance', 'raw_crypto_data'), ('coinbase', true, '1m', 60, 'coinbase', 'raw_crypto_data'),
			('fear_greed', true, '1h', 1, 'fear_greed', 'raw_crypto_data'), ('okx', false, '1m', 60, 'okx', 'raw_crypto_data'),
			('removed', true, '1m', 60, 'removed', 'raw_crypto_data');
		INSERT INTO cryptoviz.slot (source, slot, state, reason, records, lease_until)
			SELECT 'binance', '2026-11-24 02:48Z'::timestamptz - n * interval '1m', 'ok', '', 3, now() FROM generate_series(0, 99) n;
		INSERT INTO cryptoviz.slot (source, slot, state, reason, records, lease_until) VALUES
			('binance', '2026-11-24 02:49Z', 'running', '', 0, now()), ('binance', '2026-11-24 02:50Z', 'failed', 'of the future', 0, now()),
			('coinbase', '2026-11-24 02:48Z', 'failed', 'no record came', 0, now()), ('coinbase', '2026-11-23 02:40Z', 'failed', 'of yesterday', 0, now()),
			('coinbase', '2026-11-24 02:00Z', 'skipped', 'full', 0, now()), ('coinbase', '2026-11-24 02:01Z', 'late', '', 1, now()), ('coinbase', '2026-11-24 01:01Z', 'late', '', 1, now()),
			('fear_greed', '2026-11-24 02:00Z', 'ok', '', 4, now()), ('removed', '2026-11-24 02:00Z', 'ok', '', 4, now());
		INSERT INTO cryptoviz.position (source, partition, topic, topic_id, next_offset, epoch, last_slot) VALUES
			('binance', 0, 'binance', gen_random_uuid(), 2, 1, '2026-11-24 02:47Z'), ('binance', 1, 'binance', gen_random_uuid(), 1, 1, '2026-11-24 02:48Z'),
			('coinbase', 0, 'a_topic_of_before', gen_random_uuid(), 9, 1, '2026-11-24 02:47Z'),
			('fear_greed', 0, 'fear_greed', gen_random_uuid(), 9, 1, NULL), ('removed', 0, 'removed', gen_random_uuid(), 9, 1, NULL);
		INSERT INTO cryptoviz.dead_letter_hour (source, topic, topic_id, partition, hour, kind, records, kept, bytes, from_offset, to_offset, reason)
			SELECT 'binance', 'binance', gen_random_uuid(), n, now(), 'x', n, 1, 0, 0, 9, 'x' FROM unnest(array[3, 4]) n;
		INSERT INTO cryptoviz.gap (source, topic, partition, from_offset, to_offset, reason) VALUES ('coinbase', 'coinbase', 0, 10, 30, 'x'), ('coinbase', 'coinbase', 1, 5, 7, 'x'),
			('coinbase', 'coinbase', 1, 900, 0, 'the topic was deleted and created again');
		INSERT INTO cryptoviz.rollup_day (rollup, day, raw_rows, hourly_rows, rolled_at) VALUES ('hourly', '2026-11-21', 1, 2, now()), ('hourly', '2026-11-22', 12960, 72, now())`)
	admin := kafka(t, map[string]int{"binance": 8, "coinbase": 5, "fear_greed": 4, "okx": 1})
	s, err := status.Read(t.Context(), p, db, admin, now.In(time.FixedZone("", 3600)))
	if err != nil {
		t.Fatal(err)
	}
	slot := func(minute int) time.Time { return time.Date(2026, 11, 24, 2, minute, 0, 0, time.UTC) }
	for i, want := range []status.Source{
		{Name: "binance", Enabled: true, Transport: "http", Slot: slot(48), State: "ok", Records: 3, PerMinute: 2.7, Stored: slot(48), Lag: 5, Dead: 7},
		{Name: "coinbase", Enabled: true, Transport: "websocket", Slot: slot(48), State: "failed", Reason: "no record came", Lag: 5, Lost: 22, Failed24: 2, Hour: status.Ends{Late: 1, Skipped: 1, Failed: 1}},
		{Name: "fear_greed", Enabled: true, Transport: "html", Slot: slot(0), State: "ok", Records: 4, PerMinute: 4. / 600, Lag: 2},
		{Name: "fresh", Enabled: true, Transport: "http", Lag: -1},
		{Name: "okx", Transport: "http", Lag: 1},
	} {
		got := s.Sources[i]
		same := got.Name == want.Name && got.Enabled == want.Enabled && got.Transport == want.Transport && got.Slot.Equal(want.Slot) && got.State == want.State &&
			got.Reason == want.Reason && got.Records == want.Records && got.Stored.Equal(want.Stored) && got.Lag == want.Lag && got.Dead == want.Dead &&
			got.Lost == want.Lost && got.Failed24 == want.Failed24 && got.Hour == want.Hour && got.Topic == want.Name && got.Table == "raw_crypto_data"
		if diff := got.PerMinute - want.PerMinute; !same || diff < -1e-9 || diff > 1e-9 {
			t.Errorf("got\n%+v\nwant\n%+v", got, want)
		}
	}
	if s.Mode != "simulated" || s.At != now || len(s.Sources) != 5 || s.Sources[0].Every != "1m" || s.Sources[2].Every != "1h" {
		t.Errorf("got %+v", s)
	}
	if want := "read the end of topic fresh: UNKNOWN_TOPIC_OR_PARTITION"; !strings.HasPrefix(s.KafkaError, want) {
		t.Errorf("Kafka: %s", s.KafkaError)
	}
	if r := s.Rollups[0]; len(s.Rollups) != 1 || r.Day != "2026-11-22" || r.Days != 2 || r.RawRows != 12960 || r.HourlyRows != 72 || r.Due != -1 || r.LateRows != 0 || r.Next != time.Date(2026, 11, 25, 0, 5, 0, 0, time.UTC) {
		t.Errorf("rollups %+v", s.Rollups)
	}
}

func TestReadWithoutKafka(t *testing.T) {
	t.Parallel()
	db, p := database(t), declared()
	exec(t, db, schema.SQL)
	s, err := status.Read(t.Context(), p, db, nil, now)
	if err != nil || s.KafkaError != "" || s.Sources[0].Lag != -1 || s.Mode != "live" {
		t.Errorf("no client: %+v, %v", s, err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"), kgo.RetryTimeout(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err = status.Read(t.Context(), p, db, kadm.NewClient(client), now)
	if err != nil || s.Sources[0].Lag != -1 || !strings.HasPrefix(s.KafkaError, "read the topics' ends: ") || !strings.Contains(s.KafkaError, "connection refused") {
		t.Errorf("nobody there: %q, %v", s.KafkaError, err)
	}
}

func TestReadWithoutADatabase(t *testing.T) {
	t.Parallel()
	db := database(t)
	if _, err := status.Read(t.Context(), declared(), db, nil, now); err == nil || !strings.HasPrefix(err.Error(), "read the pipeline's status: ") || !strings.Contains(err.Error(), "SQLSTATE 42P01") {
		t.Errorf("an empty one: %v", err)
	}
	gone, err := pgxpool.New(t.Context(), "postgres://me:geheim@127.0.0.1:1/market")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if _, err := status.Read(t.Context(), declared(), gone, nil, now); err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "geheim") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestReadRollups(t *testing.T) {
	t.Parallel()
	db, p := database(t), declared()
	exec(t, db, schema.SQL)
	p.Rollups[0].From.Hypertable = &spec.Hypertable{Time: "time"}
	look := func(at time.Time) rollup.Status {
		t.Helper()
		out, err := status.Rollups(t.Context(), p, db, at)
		if err != nil || len(out) != 1 {
			t.Fatal(out, err)
		}
		return out[0]
	}
	if r := look(now); r.Due != -1 {
		t.Errorf("without the table: %+v", r)
	}
	exec(t, db, `CREATE TABLE raw_crypto_data (time timestamptz) PARTITION BY RANGE (time);
		CREATE TABLE a PARTITION OF raw_crypto_data FOR VALUES FROM (MINVALUE) TO ('2026-11-23 00:00Z'); CREATE TABLE b PARTITION OF raw_crypto_data FOR VALUES FROM ('2026-11-23 00:00Z') TO (MAXVALUE);
		INSERT INTO raw_crypto_data VALUES ('2026-10-20 12:00Z'), ('2026-11-20 00:00Z'), ('2026-11-21 23:59:59.999999Z'), ('2026-11-22 12:00Z'), ('2026-11-23 12:00Z'), ('2026-11-24 01:00Z');
		INSERT INTO cryptoviz.rollup_day (rollup, day, raw_rows, hourly_rows, late_rows, rolled_at, dropped_at, took) VALUES
			('hourly', '2026-11-20', 1, 2, 5, now(), now(), '1s'), ('hourly', '2026-11-22', 3, 4, 7, now(), now(), NULL), ('other', '2026-11-21', 1, 1, 100, now(), now(), NULL)`)
	for at, want := range map[time.Time]int64{now: 2, now.Truncate(24 * time.Hour).Add(4 * time.Minute): 1} { // at 00:04 yesterday's time has not come
		if r := look(at); r.Due != want || r.LateRows != 12 || r.Rejected != 7 || r.Day != "2026-11-22" {
			t.Errorf("%s: %+v", at, r)
		}
	}
	exec(t, db, "UPDATE cryptoviz.rollup_day SET rolled_at = '2026-11-21 00:05:10Z' WHERE rollup = 'hourly' AND day = '2026-11-20'") // its row is a late one
	if r := look(now); r.Due != 3 {
		t.Errorf("late rows: %+v", r)
	}
	p.Rollups[0].Schedule = "0 0 30 2 *"
	if r := look(now); r.Due != 0 {
		t.Errorf("never due: %+v", r)
	}
}
