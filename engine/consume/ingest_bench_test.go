package consume_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

var (
	benchRows   = flag.Int("rows", 1_000_000, "records of BenchmarkIngest")
	benchPerRow = flag.Int("single", 3000, "records of BenchmarkIngest that are committed one by one")
)

const markets = 500

// market is ticker of one of many markets; each comes once a second.
func market(start time.Time, i int) record.Record {
	n := i % markets
	symbol := string([]byte{'A' + byte(n/26/26), 'A' + byte(n/26%26), 'A' + byte(n%26)}) + "USDT"
	value := bytes.Replace(ticker(start.Add(time.Duration(i/markets)*time.Second)), []byte("BTCUSDT"), []byte(symbol), 1)
	return record.Record{Key: symbol, Value: value, Received: start}
}

// BenchmarkIngest measures Kafka -> worker -> table with its primary key, beside COPY of the same rows into the same table
// and beside a commit for each row, all in turn in one run: go test -run - -bench Ingest -benchtime 5x ./engine/consume
//
// Reported are medians: rows/s, their ratio to the COPY that ran right after, and CPU seconds of this process for a million rows (with kfake
// the broker is in this process, too).
func BenchmarkIngest(b *testing.B) {
	server := testkit.StartPostgres(b, map[string]string{"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"})
	b.Setenv("CRYPTOVIZ_TEST_POSTGRES", server.URL())
	brokers := map[string]string{"kfake": ""}
	if os.Getenv("CRYPTOVIZ_TEST_KAFKA_LIB") != "" {
		brokers["kafka"] = testkit.Kafka(b).Addr()
	}
	start := time.Now().Add(-2 * time.Hour).Truncate(time.Hour)
	var rigs []*ingest
	for _, name := range []string{"kfake", "kafka"} {
		address, ok := brokers[name]
		if !ok {
			continue
		}
		for _, partitions := range []int32{1, 2} {
			in := &ingest{name: fmt.Sprintf("%s_%dp", name, partitions)}
			in.rig = newRig(b, "binance", 0, address, true)
			in.src.Topic.Name = in.name
			in.createTopic(partitions)
			in.fill(b, start, *benchRows)
			rigs = append(rigs, in)
		}
	}
	single := &ingest{rig: newRig(b, "binance", 0, "", true), name: "single"}
	single.createTopic(1)
	single.fill(b, start, *benchPerRow)
	dump := ""
	perSecond, ratio, cpu := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for _, in := range rigs {
			rate, seconds := in.run(b, *benchRows, consume.Options{})
			perSecond[in.name] = append(perSecond[in.name], rate)
			cpu[in.name] = append(cpu[in.name], seconds)
			if dump == "" {
				dump = in.dump(b)
			}
			copied := in.copy(b, dump, *benchRows)
			perSecond["copy"] = append(perSecond["copy"], copied)
			ratio[in.name] = append(ratio[in.name], rate/copied)
		}
		rate, _ := single.run(b, *benchPerRow, consume.Options{BatchRows: 1})
		perSecond["single"] = append(perSecond["single"], rate)
	}
	b.ReportMetric(0, "ns/op")
	median := func(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
	b.ReportMetric(median(perSecond["copy"]), "copy_rows/s")
	b.ReportMetric(median(perSecond["single"]), "commit_per_row_rows/s")
	for _, in := range rigs {
		rate := median(perSecond[in.name])
		b.ReportMetric(rate, in.name+"_rows/s")
		b.ReportMetric(median(ratio[in.name]), in.name+"/copy")
		b.ReportMetric(median(cpu[in.name]), in.name+"_CPU-s/Mrow")
		b.ReportMetric(rate/median(perSecond["single"]), in.name+"/commit_per_row")
	}
	for name, v := range perSecond {
		b.Logf("%s rows/s: %.0f, by the COPY after it: %.2f", name, v, ratio[name])
	}
}

// ingest is a filled topic and its table.
type ingest struct {
	*rig
	name string
}

func (in *ingest) fill(b *testing.B, start time.Time, n int) {
	b.Helper()
	for from := 0; from < n; from += 5000 {
		var records []record.Record
		for i := from; i < min(n, from+5000); i++ {
			records = append(records, market(start, i))
		}
		if err := in.kafka.ProduceSync(b.Context(), produce.Records(in.src, start.Add(time.Duration(from/markets)*time.Second), records)...).FirstErr(); err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// run reads the topic from its start into the empty table, and returns rows/s from the worker's start to its last commit, and
// CPU seconds for a million rows.
func (in *ingest) run(b *testing.B, n int, opt consume.Options) (perSecond, cpu float64) {
	b.Helper()
	in.exec("TRUNCATE raw_crypto_data, cryptoviz.position")
	in.exec("CHECKPOINT")
	opt.Group = fmt.Sprint("bench", time.Now().UnixNano(), ".")
	w, err := consume.New(in.src, in.store, in.clients(), opt)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	before, started := cpuTime(), time.Now()
	go func() { done <- w.Run(ctx) }()
	for w.Stats().Rows < int64(n) && time.Since(started) < 5*time.Minute {
		time.Sleep(2 * time.Millisecond)
	}
	took, used := time.Since(started), cpuTime()-before
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
	if got := in.text("SELECT count(*) FROM raw_crypto_data"); got != fmt.Sprint(n) {
		b.Fatalf("%s: %s rows, want %d: %+v", in.name, got, n, w.Stats())
	}
	return float64(n) / took.Seconds(), used.Seconds() / float64(n) * 1e6
}

// dump writes the table's rows as psql's COPY reads them, in the order in which they came.
func (in *ingest) dump(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "rows")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	conn, err := pgx.Connect(b.Context(), in.store.Pool().Config().ConnString())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.PgConn().CopyTo(b.Context(), f, "COPY (SELECT * FROM raw_crypto_data) TO STDOUT"); err != nil {
		b.Fatal(err)
	}
	return path
}

// copy is psql's COPY into the same table, empty, in one transaction.
func (in *ingest) copy(b *testing.B, path string, n int) float64 {
	b.Helper()
	in.exec("TRUNCATE raw_crypto_data")
	in.exec("CHECKPOINT")
	started := time.Now()
	out, err := exec.Command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", `\copy raw_crypto_data FROM '`+path+`'`, in.store.Pool().Config().ConnString()).CombinedOutput()
	if err != nil {
		b.Fatalf("psql: %v: %s", err, out)
	}
	return float64(n) / time.Since(started).Seconds()
}
