// Package connect turns the kafka and database blocks into client settings, in one place. Secrets stay out of every error.
package connect

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

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
	switch k.SASLMechanism {
	case "":
	case "plain":
		opts = append(opts, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "scram-sha-256":
		opts = append(opts, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	case "scram-sha-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("kafka sasl mechanism %q is not known: use plain, scram-sha-256 or scram-sha-512", k.SASLMechanism)
	}
	return opts, nil
}

// Postgres returns a pool configuration for the pipeline's database: UTC, bounded waits, and no secret in its errors.
func Postgres(d spec.Database) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(d.URL.Reveal())
	if err != nil {
		// pgx cannot promise to hide the password of a malformed URL, so its text is not passed on.
		return nil, errors.New("database url cannot be read: want postgres://user:password@host:5432/name?sslmode=verify-full")
	}
	params := cfg.ConnConfig.RuntimeParams
	params["timezone"] = "UTC"
	params["application_name"] = "cryptoviz"
	for name, value := range map[string]string{
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "60s",
	} {
		if _, given := params[name]; !given {
			params[name] = value
		}
	}
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	return cfg, nil
}

// Redact returns a database URL that may be shown: user, host and name, never the password or parameters.
func Redact(s spec.Secret) string {
	u, err := url.Parse(s.Reveal())
	if err != nil || u.Host == "" {
		return "(database url)"
	}
	out := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if name := u.User.Username(); name != "" {
		out.User = url.User(name)
	}
	return strings.TrimSuffix(out.String(), "/")
}
