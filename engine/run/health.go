package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// How long the servers have to answer whoever asks how the engine is. Each has its own time: one that hangs says
// nothing about the others, and nobody waits longer than answerIn.
const (
	answerIn = 2 * time.Second
	readIn   = 2500 * time.Millisecond // for what is read from the database beside its answer
)

var errNoAnswer = fmt.Errorf("no answer within %s", answerIn)

// health is one look at what the engine depends on. What could not be read in time is missing.
type health struct {
	ledger, kafka error // why the server does not answer
	rollups       []rollup.Status
	jobs          []store.Job
}

// look asks the servers side by side.
func (e *Engine) look(ctx context.Context) health {
	ctx, cancel := context.WithTimeout(ctx, readIn)
	defer cancel()
	var mu sync.Mutex
	out := health{ledger: errNoAnswer, kafka: errNoAnswer}
	note := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	var all sync.WaitGroup
	all.Go(func() {
		ping, cancel := context.WithTimeout(ctx, answerIn)
		defer cancel()
		err := e.kafka.Ping(ping)
		note(func() { out.kafka = inTime(ping, err) })
	})
	all.Go(func() {
		ping, cancel := context.WithTimeout(ctx, answerIn)
		defer cancel()
		err := e.probes.Ping(ping)
		note(func() { out.ledger = inTime(ping, err) })
		if err != nil {
			return
		}
		if jobs, err := status.Jobs(ctx, e.p, e.probes); err == nil {
			note(func() { out.jobs = jobs })
		}
		if !e.rollsUp {
			return
		}
		if rollups, err := status.Rollups(ctx, e.p, e.probes, e.opt.Clock.Now()); err == nil {
			note(func() { out.rollups = rollups })
		}
	})
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done(): // a client that does not heed its context is not waited for
	}
	mu.Lock()
	defer mu.Unlock()
	return out
}

// inTime tells of the silence in place of what it led to.
func inTime(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errNoAnswer
	}
	return err
}

// Ready returns why the engine cannot do its work now, or nil, and what needs attention although it can. It answers
// within three seconds.
func (e *Engine) Ready(ctx context.Context) (warnings []string, err error) {
	h := e.look(ctx)
	return h.warnings(), e.wrong(h)
}

// wrong joins what keeps the engine from its work.
func (e *Engine) wrong(h health) error {
	var errs []error
	if h.ledger != nil {
		errs = append(errs, fmt.Errorf("the database does not answer: %w", h.ledger))
	}
	if h.kafka != nil {
		errs = append(errs, fmt.Errorf("kafka does not answer: %w", h.kafka))
	}
	if reason := e.unsent(); reason != "" {
		errs = append(errs, errors.New(reason))
	}
	for _, w := range e.workers {
		if reason := w.Stats().Blocked; reason != "" {
			errs = append(errs, fmt.Errorf("worker %s waits: %s", w.Source(), reason))
		}
	}
	return errors.Join(errs...)
}

func (h health) warnings() (out []string) {
	for _, r := range h.rollups {
		if r.Due > 0 {
			out = append(out, fmt.Sprintf("rollup %s: %d days should be rolled up and are not", r.Name, r.Due))
		}
	}
	for _, j := range h.jobs {
		if j.Failing {
			out = append(out, fmt.Sprintf("TimescaleDB's %s policy of %s fails: %s", j.Name, j.Table, j.Reason))
		}
	}
	return out
}

// openProbes opens the connections that ask how the database is: the stages may have all of theirs in use.
func openProbes(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	cfg.MaxConns, cfg.MinConns, cfg.MinIdleConns = 3, 0, 0
	return pgxpool.NewWithConfig(ctx, cfg)
}
