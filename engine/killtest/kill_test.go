package killtest

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

var (
	kills = flag.Int("kills", 20, "kills of the engine; PostgreSQL and the broker get a quarter of it each, pauses are 3 in 20")
	seed  = flag.Uint64("seed", 0, "order and moments of the kills; 0 takes a new one")
)

// field is where it happens: real services that may die at any time.
type field struct {
	t        *testing.T
	rand     *rand.Rand
	settings settings
	broker   *testkit.Broker // nil: an embedded one
	postgres *testkit.PostgresServer
	pool     *pgxpool.Pool
	engine   *testkit.Process
	log      *os.File
	slowest  map[string]time.Duration
}

// prepare makes a topic and a database of the name. The table has no key: a row that comes twice shows.
func prepare(t *testing.T, broker *testkit.Broker, postgres *testkit.PostgresServer, name, lacks string) *field {
	t.Helper()
	f := prepareAt(t, broker.Addr(), postgres, name, lacks)
	f.broker = broker
	return f
}

func prepareAt(t *testing.T, broker string, postgres *testkit.PostgresServer, name, lacks string) *field {
	t.Helper()
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", number)
	src, err := source(name)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 2, 1, nil, name); err != nil {
		t.Fatal(err)
	}
	admin, err := pgxpool.New(t.Context(), postgres.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(postgres.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	pool, err := pgxpool.New(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	base := time.Now().Add(-5 * 24 * time.Hour).Truncate(time.Hour)
	ddl := append([]string{schema.SQL}, ddl.CreateSQL(src.Table, catalog.Capabilities{}, time.Now())...)
	ddl = append(ddl, "ALTER TABLE "+src.Table.Name+" DROP CONSTRAINT "+src.Table.Name+"_pkey")
	if lacks != "" { // the engine's own committer creates them
		for _, p := range partition.Between(src.Table, base, base.Add(24*time.Hour)) {
			ddl = append(ddl, p.DDL())
		}
	}
	for _, sql := range ddl {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return &field{
		t: t, rand: rand.New(rand.NewPCG(number, 0)), postgres: postgres, pool: pool, log: log, slowest: map[string]time.Duration{}, //nolint:gosec // no secret
		settings: settings{Broker: broker, DSN: u.String(), Topic: name, Ledger: filepath.Join(dir, "ledger"), Lacks: lacks, Base: base},
	}
}

// start runs an engine process; instance is its name in the consumer group.
func (f *field) start(instance string) *testkit.Process {
	f.t.Helper()
	f.settings.Number++
	s := f.settings
	s.Instance = instance
	text, err := json.Marshal(s)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = f.log, f.log
	return testkit.Start(f.t, cmd)
}

// query asks the database, until it answers.
func (f *field) query(sql string) (n int64) {
	f.t.Helper()
	var err error
	for deadline := time.Now().Add(testkit.Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
		err = f.pool.QueryRow(ctx, sql).Scan(&n)
		cancel()
		if err == nil {
			return n
		}
	}
	f.t.Fatalf("%s: %v", sql, err)
	return 0
}

func (f *field) exec(sql string) {
	f.t.Helper()
	if _, err := f.pool.Exec(f.t.Context(), sql); err != nil {
		f.t.Fatal(err)
	}
}

func (f *field) position() int64 {
	return f.query("SELECT coalesce(sum(next_offset), 0)::bigint FROM cryptoviz.position")
}

// await waits for something that must come.
func (f *field) await(done func() bool, otherwise string) {
	f.t.Helper()
	for deadline := time.Now().Add(testkit.Patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s\n%s", otherwise, f.tail())
		}
	}
}

// waiting are the sessions that wait for a lock.
const waiting = "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

// bothWait waits until the engine's commits to both partitions stand before a lock that the test holds.
func (f *field) bothWait() {
	f.t.Helper()
	f.await(func() bool { return f.query("SELECT count(*) FROM "+waiting) >= 2 }, "no two commits wait for the lock")
}

// flows waits until every partition gets on, after what was done: of two, each.
func (f *field) flows(what string) {
	f.t.Helper()
	started := time.Now()
	at := func(partition int) int64 {
		return f.query(fmt.Sprintf("SELECT coalesce((SELECT next_offset FROM cryptoviz.position WHERE partition = %d), 0)", partition))
	}
	before := []int64{at(0), at(1)}
	for partition, was := range before {
		f.await(func() bool { return at(partition) != was }, fmt.Sprintf("nothing of partition %d is stored since: %s", partition, what))
	}
	f.slowest[what] = max(f.slowest[what], time.Since(started))
}

func (f *field) tail() string {
	text, _ := os.ReadFile(f.log.Name())
	return string(text[max(0, len(text)-4000):])
}

// killEngine waits until the next one has claimed every partition: what the killed one had sent may still be stored before.
func (f *field) killEngine(instance string) {
	f.t.Helper()
	const epoch = "SELECT coalesce(min(epoch), 0) FROM cryptoviz.position"
	before, started := f.query(epoch), time.Now()
	f.engine.Kill()
	f.engine = f.start(instance)
	for f.query(epoch) == before {
		if time.Since(started) > testkit.Patience {
			f.t.Fatalf("the next engine claims nothing\n%s", f.tail())
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.slowest["claim"] = max(f.slowest["claim"], time.Since(started))
}

// killAtThePosition kills the engine while it waits to move the position, and its connection with it. Without protection
// the rows are stored by then.
func (f *field) killAtThePosition() {
	f.t.Helper()
	tx, err := f.pool.Begin(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := tx.Exec(f.t.Context(), "SELECT FROM cryptoviz.position FOR UPDATE"); err != nil {
		f.t.Fatal(err)
	}
	f.bothWait()
	f.engine.Kill()
	for f.query("SELECT count(pg_terminate_backend(pid)) FROM "+waiting) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	_ = tx.Rollback(f.t.Context())
	f.engine = f.start("one")
}

func (f *field) killPostgres() {
	if err := f.postgres.Kill(); err != nil {
		f.t.Fatal(err)
	}
	if err := f.postgres.Restart(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *field) killBroker() {
	f.broker.Kill()
	if err := f.broker.Restart(); err != nil {
		f.t.Fatal(err)
	}
}

// Where an engine stands when it is paused.
const (
	holdingABatch = iota // its next step is to store it
	inTransaction
	anywhere
)

// pause stops the engine for longer than its session; another one takes over; then it goes on where it stood.
func (f *field) pause(where int) {
	f.t.Helper()
	release := func() {}
	switch where {
	case holdingABatch: // the table is away, so the engine waits and tries again
		f.exec("ALTER TABLE raw_crypto_data RENAME TO away")
		time.Sleep(time.Second)
		release = func() { f.exec("ALTER TABLE away RENAME TO raw_crypto_data") }
	case inTransaction:
		tx, err := f.pool.Begin(f.t.Context())
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := tx.Exec(f.t.Context(), "LOCK TABLE raw_crypto_data IN EXCLUSIVE MODE"); err != nil {
			f.t.Fatal(err)
		}
		f.bothWait()
		release = func() { _ = tx.Rollback(f.t.Context()) }
	}
	if err := f.engine.Signal(syscall.SIGSTOP); err != nil {
		f.t.Fatal(err)
	}
	release()
	paused := f.engine
	other := f.start("two")
	f.flows("pause")
	time.Sleep(time.Duration(f.rand.IntN(500)) * time.Millisecond)
	if err := paused.Signal(syscall.SIGCONT); err != nil {
		f.t.Fatal(err)
	}
	time.Sleep(time.Second) // both run
	other.Kill()
	f.flows("second engine killed")
}

// result of the count.
type result struct {
	intended, acknowledged, stored, lost, doubled, invented int
	fenced                                                  int
	inTopic                                                 int64 // offsets
	records                                                 int   // that are committed
}

// count lets a last engine read everything, and compares the ledger with the table.
func (f *field) count() (r result) {
	f.t.Helper()
	f.engine.Kill()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.broker.Addr()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(f.t.Context(), f.settings.Topic)
	if err != nil {
		f.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) { r.inTopic += o.Offset })
	f.settings.Drain = true
	f.engine = f.start("one")
	for deadline := time.Now().Add(testkit.Patience); f.position() < r.inTopic; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not everything is read\n%s", f.tail())
		}
	}
	f.engine.Kill()
	committed(f.t, f.broker.Addr(), f.settings.Topic, func(*kgo.Record) { r.records++ })
	intended, acknowledged := f.ledger()
	r.intended, r.acknowledged = len(intended)*perSlot, len(acknowledged)*perSlot
	seen := map[int]int{}
	rows, err := f.pool.Query(f.t.Context(), "SELECT time FROM raw_crypto_data")
	if err != nil {
		f.t.Fatal(err)
	}
	for rows.Next() {
		var at time.Time
		if err := rows.Scan(&at); err != nil {
			f.t.Fatal(err)
		}
		id := int(at.Sub(f.settings.Base) / time.Millisecond)
		r.stored++
		if seen[id]++; seen[id] > 1 {
			r.doubled++
		}
		if !intended[id/perSlot] {
			r.invented++
		}
	}
	if rows.Err() != nil {
		f.t.Fatal(rows.Err())
	}
	for slot := range acknowledged {
		for i := range perSlot {
			if seen[slot*perSlot+i] == 0 {
				r.lost++
			}
		}
	}
	text, _ := os.ReadFile(f.log.Name())
	r.fenced = strings.Count(string(text), "partition has another owner")
	return r
}

func (f *field) ledger() (intended, acknowledged map[int]bool) {
	f.t.Helper()
	intended, acknowledged = map[int]bool{}, map[int]bool{}
	file, err := os.Open(f.settings.Ledger)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var what string
		var slot int
		if _, err := fmt.Sscan(lines.Text(), &what, &slot); err != nil {
			f.t.Fatalf("ledger: %q: %v", lines.Text(), err)
		}
		if what == "I" {
			intended[slot] = true
		} else {
			acknowledged[slot] = true
		}
	}
	return intended, acknowledged
}

func services(t *testing.T) (*testkit.Broker, *testkit.PostgresServer) {
	t.Helper()
	return testkit.Kafka(t), testkit.StartPostgres(t, nil) // it syncs, as a real one does
}

// TestKills kills everything in turn while records flow: none may be lost, none doubled.
func TestKills(t *testing.T) {
	broker, postgres := services(t)
	f := prepare(t, broker, postgres, "kills", "")
	var events []string
	for what, n := range map[string]int{"engine": *kills, "postgres": *kills / 4, "broker": *kills / 4, "pause": max(1, *kills*3/20)} {
		events = append(events, slices.Repeat([]string{what}, n)...)
	}
	slices.Sort(events) // a map has no order, and the seed shall give one
	f.rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	f.engine = f.start("one")
	f.flows("start")
	f.killAtThePosition()
	f.flows("engine")
	pauses := 0
	for _, what := range events {
		time.Sleep(time.Duration(f.rand.IntN(400)) * time.Millisecond)
		switch what {
		case "engine":
			f.killEngine("one")
		case "postgres":
			f.killPostgres()
		case "broker":
			f.killBroker()
		case "pause":
			f.pause(pauses % 3)
			pauses++
		}
		f.flows(what)
	}
	r := f.count()
	t.Logf("%+v", r)
	t.Logf("slowest until every partition got on: %v", f.slowest)
	if r.lost != 0 || r.doubled != 0 || r.invented != 0 || r.stored != r.records {
		t.Errorf("lost %d, doubled %d, invented %d; %d stored of %d in the topic", r.lost, r.doubled, r.invented, r.stored, r.records)
	}
	if r.fenced == 0 {
		t.Error("no transaction was fenced: the pauses tested nothing")
	}
	if n := f.query("SELECT (SELECT count(*) FROM cryptoviz.dead_letter) + (SELECT count(*) FROM cryptoviz.gap)"); n != 0 {
		t.Errorf("%d dead letters and gaps", n)
	}
}

// TestWithoutProtection is the control: a committer that lacks one of the protections must double rows.
func TestWithoutProtection(t *testing.T) {
	broker, postgres := services(t)
	for _, lacks := range []string{noFence, latePosition} {
		t.Run(lacks, func(t *testing.T) {
			f := prepare(t, broker, postgres, lacks, lacks)
			f.engine = f.start("one")
			f.flows("start")
			for range 5 { // whether the paused engine stores before it hears that it is out is a race; once is the rule
				if lacks == noFence {
					f.pause(holdingABatch)
				} else {
					f.killAtThePosition()
				}
				f.flows(lacks)
				if n := f.query("SELECT count(*) - count(DISTINCT time) FROM raw_crypto_data"); n > 0 {
					t.Logf("%d rows doubled", n)
					return
				}
			}
			t.Error("no row doubled: the test cannot see the loss of this protection")
		})
	}
}
