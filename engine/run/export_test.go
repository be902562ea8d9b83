package run

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// NewGate is the rollup's gate on an engine's store.
func NewGate(p *spec.Pipeline, r *spec.Rollup, e *Engine, kafka *kadm.Client) interface {
	PassedMidnight(context.Context, time.Time) (bool, error)
} {
	return newGate(p, r, e.store, kafka)
}
