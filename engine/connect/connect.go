// Package connect turns the kafka and database blocks into client settings, in one place. Secrets stay out of every
// error.
package connect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Kafka returns the options that every client of the pipeline's brokers needs.
func Kafka(k spec.Kafka) ([]kgo.Opt, error) {
	if len(k.Brokers) == 0 {
		return nil, errors.New("kafka block names no brokers: set brokers or KAFKA_BROKERS")
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID("cryptoviz"),
		kgo.DialTimeout(5 * time.Second),
	}
	if k.TLS {
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	user, password := k.SASLUser, k.SASLPassword.Reveal()
	if why := k.SASLPassword.Unset(); why != "" && k.SASLMechanism != "" {
		return nil, fmt.Errorf("kafka.sasl_password has no value: %s; set it (see .env.example)", why)
	}
	switch k.SASLMechanism {
	case "":
	case "plain":
		opts = append(opts, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "scram-sha-256":
		opts = append(opts, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	case "scram-sha-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("kafka sasl mechanism %q is not known: use plain, scram-sha-256 or scram-sha-512",
			k.SASLMechanism)
	}
	return opts, nil
}

// Postgres returns a pool configuration for the pipeline's database: UTC, bounded waits, and no secret in its errors.
func Postgres(d spec.Database) (*pgxpool.Config, error) {
	if why := d.URL.Unset(); why != "" {
		return nil, fmt.Errorf("database.url has no value: %s; set it (see .env.example)", why)
	}
	cfg, err := pgxpool.ParseConfig(d.URL.Reveal())
	if err != nil || misread(d.URL.Reveal(), cfg.ConnConfig) {
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, fmt.Errorf("database url names a file that cannot be read: %w", file)
		}
		// pgx cannot promise to hide the password of a malformed URL, so its text is not passed on.
		return nil, errors.New(
			"database url cannot be read: want postgres://user:password@host:5432/name?sslmode=verify-full, with each of :/?#[]@% in the password written as %XX")
	}
	params := cfg.ConnConfig.RuntimeParams
	params["timezone"] = "UTC"
	if _, given := params["search_path"]; !given && !strings.Contains(params["options"], "search_path") {
		after := cfg.ConnConfig.AfterConnect
		cfg.ConnConfig.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			if after != nil {
				if err := after(ctx, conn); err != nil {
					return err
				}
			}
			return conn.Exec(ctx, publicPath).Close()
		}
	}
	for name, value := range map[string]string{
		"application_name":                    "cryptoviz",
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "60s",
	} {
		if _, given := params[name]; !given {
			params[name] = value
		}
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if !poolSized(d.URL.Reveal()) {
		cfg.MaxConns = max(cfg.MaxConns, leastConns)
	}
	if cfg.PingTimeout == 0 {
		cfg.PingTimeout = 5 * time.Second // a connection that is dead without a word is left, and another one taken
	}
	cfg.ConnConfig.DialFunc = dialer().DialContext
	return cfg, nil
}

// publicPath sets the search_path to public where nobody chose another: not the role, nor the database (ALTER ROLE … IN
// DATABASE … SET search_path). PostgreSQL's own begins with "$user": for a user named cryptoviz that is the engine's
// schema, and his tables would be where no dashboard looks.
const publicPath = `SELECT set_config('search_path', 'public', false) WHERE current_setting('search_path') = '"$user", public'`

// leastConns is how many connections a pool may have. pgx's own default is four: workers that wait for a locked table
// would take them all, and the slot ledger, which is asked each minute for every source, would get none.
const leastConns = 16

// poolSized tells whether the URL says how large the pool may be.
func poolSized(text string) bool { return strings.Contains(text, "pool_max_conns") }

// dialer opens connections that end once the other side is silent for about a minute. Without that a connection which a
// router or a failed-over server forgot is waited on for ever.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 20 * time.Second, Interval: 10 * time.Second,
			Count: 4,
		},
		Control: userTimeout,
	}
}

// misread tells whether part of a password was taken for something else that servers and errors name. In a URL it may
// hold a character that ends it, as in postgres://user:pass/word@host/name; elsewhere a space may be missing before its
// name.
func misread(text string, cfg *pgx.ConnConfig) bool {
	if !isURL(text) {
		return strings.ContainsAny(cfg.User+cfg.Host+cfg.Database, "='")
	}
	u, err := url.Parse(text)
	return err != nil || strings.Contains(cfg.Database+cfg.Host, "@") || strayAt(u)
}

// strayAt tells whether an @ stands behind the place where a URL's host ends: that place is in the password, then, and
// what is taken for the host is a part of it. A user or a password may be given as a parameter, too.
func strayAt(u *url.URL) bool {
	if strings.Contains(u.Path+u.Fragment, "@") {
		return true
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		if name, _, _ := strings.Cut(pair, "="); strings.Contains(pair, "@") && name != "user" && name != "password" {
			return true
		}
	}
	return false
}

func isURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// Redact returns a database URL that may be shown: user, host and name, never the password or parameters. What may have
// been misread is not shown at all.
func Redact(s spec.Secret) string {
	const hidden = "(database url)"
	if !isURL(s.Reveal()) {
		cfg, err := pgx.ParseConfig(s.Reveal())
		if err != nil || misread(s.Reveal(), cfg) || strings.HasPrefix(cfg.Host, "/") {
			return hidden
		}
		u := url.URL{Scheme: "postgres", User: url.User(cfg.User), Host: net.JoinHostPort(cfg.Host,
			strconv.Itoa(int(cfg.Port))), Path: "/" + cfg.Database}
		return strings.TrimSuffix(u.String(), "/")
	}
	u, err := url.Parse(s.Reveal())
	if err != nil || u.Host == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") ||
		strings.Contains(u.User.Username(), ":") {
		return hidden
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if !strings.HasPrefix(host, "[") && strings.Count(host, ":") > 1 {
			return hidden
		}
	}
	out := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if name := u.User.Username(); name != "" {
		out.User = url.User(name)
	}
	return strings.TrimSuffix(out.String(), "/")
}
