package provision_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// proxy stands between a client and its servers, and cuts their connections.
type proxy struct {
	mu    sync.Mutex
	ports map[string]net.Listener // by the server's address
	open  map[net.Conn]bool
	down  bool
	work  sync.WaitGroup

	chunks int  // that clients sent
	cutAt  int  // at this one; 0: never
	late   bool // the server still gets it: only the answer is lost
	stay   bool // down afterwards, until mend
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	p := &proxy{ports: map[string]net.Listener{}, open: map[net.Conn]bool{}}
	t.Cleanup(func() {
		p.cut(true)
		p.work.Wait()
	})
	return p
}

// dial connects to a server by way of the proxy.
func (p *proxy) dial(ctx context.Context, network, server string) (net.Conn, error) {
	p.mu.Lock()
	l := p.ports[server]
	if p.down {
		p.mu.Unlock()
		at, _ := net.ResolveTCPAddr(network, server)
		return nil, &net.OpError{Op: "dial", Net: network, Addr: at, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	if l == nil {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			p.mu.Unlock()
			return nil, err
		}
		p.ports[server] = l
		p.work.Go(func() { p.serve(l, server) })
	}
	p.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
}

func (p *proxy) serve(l net.Listener, server string) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", server)
		p.mu.Lock()
		if err != nil || p.down {
			reset(client)
			if err == nil {
				reset(up)
			}
			p.mu.Unlock()
			continue
		}
		p.open[client], p.open[up] = true, true
		p.mu.Unlock()
		p.work.Go(func() { p.pass(client, up, true) })
		p.work.Go(func() { p.pass(up, client, false) })
	}
}

// pass copies one way until either side ends.
func (p *proxy) pass(from, to net.Conn, counted bool) {
	defer p.forget(from, to)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			cut := false
			if counted {
				p.mu.Lock()
				p.chunks++
				cut = p.chunks == p.cutAt
				p.mu.Unlock()
			}
			if cut && !p.late {
				p.cut(p.stay)
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
			if cut {
				p.cut(p.stay)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.open[c] {
			delete(p.open, c)
			_ = c.Close()
		}
	}
}

// reset ends a connection as a crash does.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// cut ends all connections; with stay no new ones come to be until mend.
func (p *proxy) cut(stay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		reset(c)
	}
	p.open = map[net.Conn]bool{}
	if p.down = stay; stay {
		for server, l := range p.ports {
			_ = l.Close()
			delete(p.ports, server)
		}
	}
}

// at sets when to cut; after it the count starts from nothing.
func (p *proxy) at(chunk int, late, stay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chunks, p.cutAt, p.late, p.stay = 0, chunk, late, stay
}

// mend lets connections through again; it tells how many chunks there were.
func (p *proxy) mend() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.cutAt = false, 0
	return p.chunks
}

// faulty is a small pipeline whose services fail.
type faulty struct {
	*harness
	grafana         *grafanatest.Server
	dbWire, kfkWire *proxy
}

const smallPipeline = `
kafka {
  brokers = ["localhost:9092"]
}
database {
  url        = "postgres://x@x/x"
  on_missing = "degrade"
}
grafana {
  url  = env("GRAFANA_URL")
  auth = env("GRAFANA_AUTH")
}
topic "ticks" {
  retention = "7d"
}
topic "trades" {
  partitions = 2
}
table "ticks" {
  description = "Prices."
  column "time" {
    type = "timestamptz"
  }
  column "market" {
    type = "text"
  }
  column "price" {
    type = "double precision"
    null = true
  }
  primary_key = ["market", "time"]
  index {
    columns = ["time"]
  }
  hypertable {
    time = "time"
  }
}
table "markets" {
  column "market" {
    type = "text"
  }
  primary_key = ["market"]
}
view "latest" {
  query = "SELECT DISTINCT ON (market) market, time, price FROM ticks ORDER BY market, time DESC"
}
role "ROLE" {
  password = env("SECRET_6f70656e20736573616d65")
  grant {
    privileges = ["select"]
    on         = [table.ticks, view.latest]
  }
}
folder "crypto" {
  title = "Crypto"
}
datasource "main" {
  title    = "Main"
  host     = "db:5432"
  database = "x"
  user     = "x"
  password = env("SECRET_6f70656e20736573616d65")
}
dashboard "board" {
  file       = "board.json"
  folder     = folder.crypto
  datasource = datasource.main
}
alert "stale" {
  title      = "Stale"
  folder     = folder.crypto
  datasource = datasource.main
  query      = "SELECT count(*) AS n FROM latest"
  below      = 1
}
`

const smallBoard = `{"title":"Board","schemaVersion":41,"panels":[{"id":1,"type":"table","title":"Latest","gridPos":{"h":8,"w":24,"x":0,"y":0},"targets":[{"refId":"A","format":"table","rawSql":"SELECT market, price FROM latest"}]}]}`

// secret is in smallPipeline, and in no message.
const secret = "open sesame"

// newFaulty makes the pipeline's files into a harness on a database, and a broker that several worlds may share.
func newFaulty(t *testing.T, url string, brokers ...string) *faulty {
	t.Helper()
	f := &faulty{&harness{t: t}, grafanatest.New(t, grafanatest.V13), newProxy(t), newProxy(t)}
	cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)})
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.DialFunc = f.dbWire.dial
	if f.db, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.db.Close)
	opts, err := connect.Kafka(spec.Kafka{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	if f.kafka, err = kgo.NewClient(append(opts, kgo.Dialer(f.kfkWire.dial), kgo.RetryTimeout(2*time.Second))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.kafka.Close)
	role := "reader_of_" + cfg.ConnConfig.Database
	f.p = mustLoad(t, fstest.MapFS{
		"pipeline.hcl": &fstest.MapFile{Data: []byte(strings.ReplaceAll(smallPipeline, "ROLE", role))}, "board.json": &fstest.MapFile{Data: []byte(smallBoard)},
	}, map[string]string{"GRAFANA_URL": f.grafana.URL, "GRAFANA_AUTH": f.grafana.Token})
	t.Cleanup(func() { // others have topics of the same names
		f.kfkWire.mend()
		var names []string
		for _, topic := range f.p.Topics {
			names = append(names, topic.Name)
		}
		if _, err := kadm.NewClient(f.kafka).DeleteTopics(context.Background(), names...); err != nil {
			t.Error(err)
		}
	})
	return f
}

// freshDatabase is a database on the shared server, whose role goes with it.
func freshDatabase(t *testing.T) string {
	t.Helper()
	admin := testkit.Postgres(t)
	t.Cleanup(func() {
		db, err := pgxpool.New(context.Background(), admin)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		role := `"reader_of_` + db.Config().ConnConfig.Database + `"`
		if _, err := db.Exec(context.Background(), fmt.Sprintf(`DO $$ BEGIN DROP OWNED BY %[1]s; DROP ROLE %[1]s; EXCEPTION WHEN undefined_object THEN NULL; END $$`, role)); err != nil {
			t.Error(err)
		}
	})
	return admin
}

// tried applies and returns what came of it, in a bounded time; no message holds the secret.
func (f *faulty) tried(p plan.Plan, progress func(provision.Event)) ([]provision.Result, error) {
	f.t.Helper()
	return f.triedAgreed(plan.Agree(p), progress)
}

func (f *faulty) triedAgreed(a plan.Agreement, progress func(provision.Event)) ([]provision.Result, error) {
	f.t.Helper()
	started := time.Now()
	results, err := f.open().ApplyAgreed(f.t.Context(), a, provision.Options{By: "test", Version: "0", Progress: progress})
	if took := time.Since(started); took > testkit.Patience {
		f.t.Errorf("apply took %s", took)
	}
	text := fmt.Sprint(err)
	for _, r := range results {
		text += "\n" + r.Reason
	}
	for _, s := range []string{secret, f.grafana.Token, "SCRAM-SHA-256"} {
		if strings.Contains(text, s) {
			f.t.Errorf("a message holds a secret: %s", text)
		}
	}
	return results, err
}

// alone waits until the server has ended the sessions that were cut: what they had begun may still become done.
func (f *faulty) alone() {
	f.t.Helper()
	f.db.Reset() // another command has connections of its own
	for deadline := time.Now().Add(testkit.Patience); ; {
		var others int
		err := f.db.QueryRow(f.t.Context(), "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'").Scan(&others)
		switch {
		case err != nil:
			f.t.Fatal(err)
		case others == 0:
			return
		case time.Now().After(deadline):
			f.t.Fatalf("%d sessions are still open", others)
		}
	}
}

// recovers plans and applies until all the rest is done. What was under way in Kafka when its apply was stopped may become done
// between plan and apply, which is refused then: so it may take one more.
func (f *faulty) recovers(when string) {
	f.t.Helper()
	for try := 1; ; try++ {
		found := f.plan()
		again := false
		for _, r := range f.apply(found, everything(found)...) {
			switch moved := r.Outcome == provision.Refused || r.Outcome == provision.Skipped; {
			case r.Outcome == provision.Done:
			case moved && try < 3:
				again = true
			default:
				f.t.Errorf("%s: %+v", when, r)
			}
		}
		if !again {
			break
		}
	}
	f.empty(when)
}

// said lists what was not done, each with the reason that the user reads.
func said(results []provision.Result, err error) string {
	var out strings.Builder
	if err != nil && !errors.Is(err, provision.ErrIncomplete) {
		fmt.Fprintln(&out, err)
	}
	for _, r := range results {
		if r.Outcome != provision.Done {
			fmt.Fprintf(&out, "%s %s: %s\n", r.Outcome, r.Address, r.Reason)
		}
	}
	return out.String()
}
