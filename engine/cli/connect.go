package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// pipeline loads the pipeline, pointed at the services of a running `up` when there is one in the state directory.
func (e *env) pipeline() (*spec.Pipeline, *embedded.Running, error) {
	p, err := e.load()
	if err != nil {
		return nil, nil, err
	}
	if e.state == "" {
		return p, nil, nil
	}
	running, err := embedded.FindRunning(e.state)
	if err != nil {
		return nil, nil, err
	}
	if running == nil {
		_, err := os.Stat(filepath.Join(e.state, "state.json"))
		e.idle = err == nil
		return p, nil, nil
	}
	running.Data.Point(p)
	e.rolesURL = spec.NewSecret(running.Data.SuperuserURL())
	sources := ""
	if g := p.Grafana; g != nil && g.Auth.Reveal() != "" && len(p.DataSources) > 0 {
		sources = "; data sources in Grafana read that PostgreSQL"
	}
	e.note("Using the Kafka and PostgreSQL of cryptoviz up in %s%s%s.", e.state, e.unused(), sources)
	return p, running, nil
}

// unused says that variables which name other services have no effect while an up runs: `run` would heed them.
func (e *env) unused() string {
	var set []string
	for _, name := range []string{"KAFKA_BROKERS", "DATABASE_URL"} {
		if value, is := e.Getenv(name); is && value != "" {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return ""
	}
	return `, not ` + strings.Join(set, " and ") + `: for those add --state ""`
}

// passUp says that `run` leaves a running `up` alone: the other commands would use its services.
func (e *env) passUp() {
	if e.state == "" {
		return
	}
	if running, err := embedded.FindRunning(e.state); err == nil && running != nil {
		e.note("cryptoviz up runs in %s, and run does not use it: it works on the Kafka and PostgreSQL that %s names.",
			e.state, e.file)
	}
}

// roles opens the connections on which apply makes roles, when an up runs: its pipeline's own user may not. nil for
// none.
func (e *env) roles(ctx context.Context) (*pgxpool.Pool, error) {
	if e.rolesURL.Reveal() == "" {
		return nil, nil
	}
	cfg, err := connect.Postgres(spec.Database{URL: e.rolesURL})
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// database opens the pipeline's database and looks whether it answers.
func (e *env) database(ctx context.Context, p *spec.Pipeline) (*pgxpool.Pool, error) {
	cfg, err := connect.Postgres(p.Database)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
			return nil, fmt.Errorf("the database %s answers and refuses the connection: %s. %s",
				connect.Redact(p.Database.URL), pg.Message, refusal(pg))
		}
		remedy := "Start it, or set DATABASE_URL; cryptoviz up brings its own"
		if e.idle {
			remedy = fmt.Sprintf("cryptoviz up has data in %s and is not running: start it, or set DATABASE_URL",
				e.state)
		}
		return nil, fmt.Errorf("the database %s does not answer: %s. %s", connect.Redact(p.Database.URL), describe(err),
			remedy)
	}
	if cfg.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		if pooled, err := connect.Pooled(ctx, pool); err == nil && pooled {
			e.note("Note: a pooler in transaction mode stands before the database. Add default_query_exec_mode=exec " +
				"to database.url, unless it keeps prepared statements (PgBouncer's max_prepared_statements).")
		}
	}
	return pool, nil
}

// refusal is what helps when a database answers and lets nobody in.
func refusal(err *pgconn.PgError) string {
	switch {
	case strings.HasPrefix(err.Code, "28"):
		return "Give the right user and password in DATABASE_URL"
	case strings.Contains(err.Message, "unsupported startup parameter"):
		return "It is a pooler: set ignore_startup_parameters = lock_timeout, idle_in_transaction_session_timeout " +
			"in pgbouncer.ini, and these two for the role instead (ALTER ROLE … SET)"
	case err.Code == "3D000":
		return "Create that database, or name another one in DATABASE_URL"
	}
	return "Try again, or see the server's log"
}

// describe shortens pgx's list of attempts to its cause.
func describe(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Message
	}
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// kafkaClient opens a client of the pipeline's Kafka. It connects when it is used.
func kafkaClient(p *spec.Pipeline) (*kgo.Client, error) {
	opts, err := connect.Kafka(p.Kafka)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(opts, kgo.RetryTimeout(15*time.Second))...)
	if err != nil {
		return nil, fmt.Errorf("open a Kafka client: %w", err)
	}
	return client, nil
}

// brokers opens a client of the pipeline's Kafka and looks whether it answers.
func (e *env) brokers(ctx context.Context, p *spec.Pipeline) (*kgo.Client, error) {
	client, err := kafkaClient(p)
	if err != nil {
		return nil, err
	}
	ping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := client.Ping(ping); err != nil {
		client.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, kerr.SaslAuthenticationFailed) {
			return nil, fmt.Errorf("kafka at %s answers and refuses the user or the password: %w. Mend them in the "+
				"kafka block of %s", strings.Join(p.Kafka.Brokers, ", "), err, e.file)
		}
		return nil, fmt.Errorf("kafka at %s does not answer: %w. Start it, or set KAFKA_BROKERS; cryptoviz up "+
			"brings its own", strings.Join(p.Kafka.Brokers, ", "), err)
	}
	return client, nil
}
