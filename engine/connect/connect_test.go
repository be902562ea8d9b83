package connect_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// certificate is for 127.0.0.1. On Linux the test process trusts it, as an operator's own authority.
var certificate tls.Certificate

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cryptoviz-test-*")
	if err == nil {
		err = certify(filepath.Join(dir, "ca.pem"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	testkit.Main(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func certify(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return err
	}
	certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.Setenv("SSL_CERT_FILE", file) // read once, at the first handshake
}

func TestRedact(t *testing.T) {
	t.Parallel()
	const hidden = "(database url)"
	for url, want := range map[string]string{
		"postgres://me:geheim@db.example:5432/market?sslmode=verify-full": "postgres://me@db.example:5432/market",
		"postgresql://me:geheim@db.example/market":                        "postgresql://me@db.example/market",
		"postgres://me@db.example/market":                                 "postgres://me@db.example/market",
		"postgres://db.example/market?user=me&password=geheim":            "postgres://db.example/market",
		"postgres://me:ge%68eim%40@db.example/market":                     "postgres://me@db.example/market",
		"postgres://me:gehe@geheim@db.example/market":                     "postgres://me@db.example/market",
		"postgres://me:geheim@[2001:db8::1]:5432/market":                  "postgres://me@[2001:db8::1]:5432/market",
		"postgres://me:geheim@db.example":                                 "postgres://me@db.example",
		"postgres://:geheim@db.example/market":                            "postgres://db.example/market",
		"host=db.example port=5433 user=me password=geheim dbname=market": "postgres://me@db.example:5433/market",
		"host=db.example user=me password='ge heim \\' geheim' dbname=m":  "postgres://me@db.example:5432/m",
		"user=me password=geheim host=/run/postgresql":                    hidden,
		"postgres:///market?host=/run/postgresql&password=geheim":         hidden,
		"postgres://me:12/geheim@db.example/market":                       hidden,
		"postgres://me:12?geheim@db.example/market":                       hidden,
		"postgres://me:12#geheim@db.example/market":                       hidden,
		"postgres://me:gehe/im@db.example/market":                         hidden,
		"postgres://me%3Ageheim@db.example/market":                        hidden,
		"postgres://me:geheim:1/market":                                   hidden,
		"host=db.example user=mepassword=geheim":                          hidden,
		"postgres://me:geheim@a.example:1,b.example:2/market":             "postgres://me@a.example:1,b.example:2/market",
		"postgres://me:geheim%zz@db.example/market":                       hidden,
		"postgres://me:ge heim@db.example/market":                         hidden,
		"postgres:/me:geheim@db.example/market":                           hidden,
		"me:geheim@db.example/market":                                     hidden,
		"https://me:geheim@db.example/market":                             hidden,
		"password='geheim":                                                hidden,
		"geheim":                                                          hidden,
	} {
		if got := connect.Redact(spec.NewSecret(url)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", url, got, want)
		}
	}
}

// TestNoSecretIsShown spoils good URLs in every place, and looks for the password in all that may be shown.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	good := []string{
		"postgres://me:geheim1geheim@127.0.0.1:1/market?connect_timeout=1",
		"host=127.0.0.1 port=1 user=me password=geheim1geheim dbname=market connect_timeout=1",
	}
	accepted := 0
	for _, url := range good {
		at := strings.Index(url, "1geheim")
		var urls []string
		for _, c := range []string{"", "/", "?", "#", "@", ":", "%", "%40", "%zz", "[", "]", " ", "'", "\\", "&", "=", ";", "\n", "\x00", "\x7f", "é", "@/", "@?", "@?x=", "@#", "@:1/", "@12?x=1&y="} {
			urls = append(urls, url[:at]+c+url[at:], url[:at+1]+c+url[at+1:], url[:at-6]+"12"+c+url[at:], strings.Replace(url, "127", c+"127", 1), c+url)
		}
		for i := range url {
			urls = append(urls, url[:i]+url[i+1:], url[i:], url[:i])
		}
		for _, u := range urls {
			if !strings.Contains(u, "geheim") || strings.Contains(u, "megeheim") { // the latter is a user's name
				continue
			}
			secret := spec.NewSecret(u)
			shown := connect.Redact(secret)
			cfg, err := connect.Postgres(spec.Database{URL: secret})
			if err != nil {
				shown += err.Error()
			} else if shown += cfg.ConnConfig.Host + cfg.ConnConfig.Database; cfg.ConnConfig.Host == "127.0.0.1" && cfg.ConnConfig.Port == 1 {
				accepted++
				pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				shown += pool.Ping(t.Context()).Error()
				pool.Close()
			}
			if strings.Contains(shown, "geheim") {
				t.Errorf("%q shows %s", u, shown)
			}
		}
	}
	if accepted < 20 {
		t.Errorf("only %d URLs were good enough to connect", accepted)
	}
}

func TestPostgresErrors(t *testing.T) {
	t.Parallel()
	const notSet = "the environment variable DATABASE_URL is not set"
	if _, err := connect.Postgres(spec.Database{URL: spec.UnsetSecret(notSet)}); err == nil || !strings.Contains(err.Error(), "database.url has no value: "+notSet) {
		t.Errorf("%v", err)
	}
	missing := filepath.Join(t.TempDir(), "ca.pem")
	for url, want := range map[string]string{
		"postgres://me:12@geheim?x@db/m":                                       "written as %XX",
		"postgres://me:12@geheim?x=y@db/m":                                     "written as %XX",
		"postgres://me:12@geheim#x@db/m":                                       "written as %XX",
		"postgres://me:12@geheim/m?x=y@db":                                     "written as %XX",
		"postgres://geheim:12#x@db/m":                                          "written as %XX",
		"postgres://geheim:12?x=y@db/m":                                        "written as %XX",
		"postgres://me:12@geheim:1/x@db/m":                                     "written as %XX",
		"host=db user=me'geheim dbname=m":                                      "database url cannot be read",
		"postgres://me:geh/eim@db/m":                                           "with each of :/?#[]@% in the password written as %XX",
		"postgres://me:1/geheim@db/m":                                          "with each of :/?#[]@% in the password written as %XX",
		"host=db user=mepassword=geheim":                                       "database url cannot be read",
		"postgres://me:geheim@db/m?sslmode=maybe":                              "database url cannot be read: want postgres://",
		"postgres://me:geheim@db/m?pool_max_conns=geheim":                      "database url cannot be read: want postgres://",
		"postgres://me:geheim@db/m?sslmode=verify-full&sslrootcert=" + missing: "database url names a file that cannot be read: open " + missing,
	} {
		if _, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	for more, want := range map[string]string{
		"": "UTC cryptoviz 10s 1min public",
		"&application_name=mine&lock_timeout=2s&idle_in_transaction_session_timeout=3s&timezone=Asia/Tokyo&search_path=mine": "UTC mine 2s 3s mine",
		"&options=-csearch_path%3Dtheirs": "UTC cryptoviz 10s 1min theirs",
	} {
		cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url + more)})
		if err != nil {
			t.Fatal(err)
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var got string
		err = pool.QueryRow(t.Context(), `SELECT concat_ws(' ', current_setting('timezone'), current_setting('application_name'), current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'))`).Scan(&got)
		if err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", more, got, err, want)
		}
	}
}

// What an administrator chose for the role counts.
func TestPostgresSearchPathOfTheRole(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	for _, set := range []string{"ALTER DATABASE %I SET search_path = market", "ALTER ROLE CURRENT_USER IN DATABASE %I SET search_path = market"} {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "DO $$ BEGIN EXECUTE format('"+set+"', current_database()); END $$"); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)})
		if err != nil {
			t.Fatal(err)
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var got string
		if err := pool.QueryRow(t.Context(), "SHOW search_path").Scan(&got); err != nil || got != "market" {
			t.Errorf("%s: %q %v", set, got, err)
		}
	}
}

// A pooler that keeps no sessions is found out.
func TestPooled(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	for mode, want := range map[string]bool{"": false, "session": false, "transaction": true} {
		at := url
		if mode != "" {
			at = testkit.Pgbouncer(t, url, mode)
		}
		cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(at)})
		if err != nil {
			t.Fatal(err)
		}
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		testkit.Eventually(t, func() error { return pool.Ping(t.Context()) })
		if got, err := connect.Pooled(t.Context(), pool); err != nil || got != want {
			t.Errorf("mode %q: pooled %t, %v", mode, got, err)
		}
	}
}

// TestPostgresPool: a few workers that wait for a lock must not take every connection, and a dead one is not waited on.
func TestPostgresPool(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]int32{
		"postgres://me:geheim@db/m":                   16,
		"postgres://me:geheim@db/m?pool_max_conns=3":  3,
		"postgres://me:geheim@db/m?pool_max_conns=40": 40,
		"host=db user=me dbname=m pool_max_conns=2":   2,
	} {
		cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)})
		if err != nil {
			t.Fatal(err)
		}
		if least := max(want, int32(runtime.NumCPU())); cfg.MaxConns != want && (want != 16 || cfg.MaxConns != least) { //nolint:gosec // few
			t.Errorf("%s: %d connections", url, cfg.MaxConns)
		}
		if cfg.PingTimeout != 5*time.Second {
			t.Errorf("%s: a ping may take %v", url, cfg.PingTimeout)
		}
	}
}

// TestPostgresThatIsSilent has a server that takes the connection and never answers.
func TestPostgresThatIsSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	url := "postgres://me:geheim@" + l.Addr().String() + "/m"
	cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)})
	if err != nil || cfg.ConnConfig.ConnectTimeout != 5*time.Second {
		t.Fatalf("the wait is %v, %v", cfg.ConnConfig.ConnectTimeout, err)
	}
	if cfg, err = connect.Postgres(spec.Database{URL: spec.NewSecret(url + "?sslmode=disable&connect_timeout=1")}); err != nil {
		t.Fatal(err)
	}
	if cfg.ConnConfig.ConnectTimeout != time.Second {
		t.Errorf("with a time of its own it waits %v", cfg.ConnConfig.ConnectTimeout)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(testkit.Context(t)); err == nil || t.Context().Err() != nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("got %v", err)
	}
}

func TestKafkaWays(t *testing.T) {
	t.Parallel()
	users := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("PLAIN", "p", "geheim"), kfake.Superuser("SCRAM-SHA-256", "s", "geheim"), kfake.Superuser("SCRAM-SHA-512", "t", "geheim")}
	addresses := map[string]string{
		"plain":     testkit.EmbeddedKafka(t).ListenAddrs()[0],
		"tls":       testkit.EmbeddedKafka(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}})).ListenAddrs()[0],
		"users":     testkit.EmbeddedKafka(t, users...).ListenAddrs()[0], // it closes the connection after a wrong password, where Apache Kafka says so first
		"tls+users": testkit.EmbeddedKafka(t, append(users, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))...).ListenAddrs()[0],
		"old tls":   testkit.EmbeddedKafka(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})).ListenAddrs()[0],
	}
	for name, c := range map[string]struct {
		to   string
		k    spec.Kafka
		want string // "": it works
	}{
		"plain":                   {"plain", spec.Kafka{}, ""},
		"tls":                     {"tls", spec.Kafka{TLS: true}, ""},
		"plain password":          {"users", spec.Kafka{SASLMechanism: "plain", SASLUser: "p", SASLPassword: spec.NewSecret("geheim")}, ""},
		"scram-sha-256":           {"users", spec.Kafka{SASLMechanism: "scram-sha-256", SASLUser: "s", SASLPassword: spec.NewSecret("geheim")}, ""},
		"scram-sha-512":           {"users", spec.Kafka{SASLMechanism: "scram-sha-512", SASLUser: "t", SASLPassword: spec.NewSecret("geheim")}, ""},
		"scram-sha-512 over tls":  {"tls+users", spec.Kafka{TLS: true, SASLMechanism: "scram-sha-512", SASLUser: "t", SASLPassword: spec.NewSecret("geheim")}, ""},
		"a wrong password":        {"users", spec.Kafka{SASLMechanism: "scram-sha-512", SASLUser: "t", SASLPassword: spec.NewSecret("geheim2")}, "eof"},
		"a wrong plain password":  {"users", spec.Kafka{SASLMechanism: "plain", SASLUser: "p", SASLPassword: spec.NewSecret("geheim2")}, "eof"},
		"a user of another way":   {"users", spec.Kafka{SASLMechanism: "scram-sha-256", SASLUser: "t", SASLPassword: spec.NewSecret("geheim")}, "eof"},
		"no password":             {"users", spec.Kafka{}, "sasl"},
		"plain to a tls port":     {"tls", spec.Kafka{}, "tls"},
		"a protocol that is weak": {"old tls", spec.Kafka{TLS: true}, "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.k.TLS && c.want == "" && runtime.GOOS != "linux" {
				t.Skip("the system's trusted authorities cannot be set from here")
			}
			c.k.Brokers = []string{addresses[c.to]}
			err := ping(t, c.k)
			if (err == nil) != (c.want == "") || !strings.Contains(strings.ToLower(fmt.Sprint(err)), strings.ToLower(c.want)) || strings.Contains(fmt.Sprint(err), "geheim") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func ping(t *testing.T, k spec.Kafka) error {
	t.Helper()
	opts, err := connect.Kafka(k)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(opts, kgo.RetryTimeout(time.Second))...)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Ping(testkit.Context(t))
}

func TestKafkaErrors(t *testing.T) {
	t.Parallel()
	for want, k := range map[string]spec.Kafka{
		"kafka block names no brokers: set brokers or KAFKA_BROKERS":                            {},
		`kafka sasl mechanism "gssapi" is not known: use plain, scram-sha-256 or scram-sha-512`: {Brokers: []string{"h:1"}, SASLMechanism: "gssapi", SASLPassword: spec.NewSecret("geheim")},
		"kafka.sasl_password has no value: the environment variable KP is not set; set it (see .env.example)": {
			Brokers: []string{"h:1"}, SASLMechanism: "plain", SASLPassword: spec.UnsetSecret("the environment variable KP is not set"),
		},
	} {
		if _, err := connect.Kafka(k); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := ping(t, spec.Kafka{Brokers: []string{"127.0.0.1:1"}}); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}
