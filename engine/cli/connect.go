package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/local"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// pipeline loads the pipeline, pointed at the services of a running `up` when there is one in the state directory.
func (e *env) pipeline() (*spec.Pipeline, *local.Running, error) {
	p, err := e.load()
	if err != nil {
		return nil, nil, err
	}
	if e.state == "" {
		return p, nil, nil
	}
	running, err := local.FindRunning(e.state)
	if err != nil {
		return nil, nil, err
	}
	if running == nil {
		_, err := os.Stat(filepath.Join(e.state, "state.json"))
		e.idle = err == nil
		return p, nil, nil
	}
	running.Point(p)
	e.note("Using the Kafka and PostgreSQL of cryptoviz up in %s.", e.state)
	return p, running, nil
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
		remedy := "Start it, or set DATABASE_URL; cryptoviz up brings its own"
		if e.idle {
			remedy = fmt.Sprintf("cryptoviz up has data in %s and is not running: start it, or set DATABASE_URL", e.state)
		}
		return nil, fmt.Errorf("the database %s does not answer: %s. %s", connect.Redact(p.Database.URL), plainly(err), remedy)
	}
	return pool, nil
}

// plainly shortens pgx's list of attempts to its cause.
func plainly(err error) string {
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
		return nil, fmt.Errorf("kafka at %s does not answer: %w. Start it, or set KAFKA_BROKERS; cryptoviz up brings its own", strings.Join(p.Kafka.Brokers, ", "), err)
	}
	return client, nil
}
