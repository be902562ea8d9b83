package run

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// NewGate is the rollup's gate on an engine's store.
func NewGate(p *spec.Pipeline, r *spec.Rollup, e *Engine, kafka *kadm.Client) interface {
	DayComplete(context.Context, time.Time) (bool, error)
} {
	return newGate(p, r, e.store, kafka)
}

// Pool is where the stages' connections are.
func (e *Engine) Pool() *pgxpool.Pool { return e.store.Pool() }

// Metrics are the descriptions of all metrics.
func Metrics() []*prometheus.Desc { return descs }

// Of is an engine of these stages alone.
func Of(jobs ...func(context.Context) error) *Engine { return &Engine{jobs: jobs} }
