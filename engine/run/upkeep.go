package run

import (
	"context"
	"errors"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// every does a job now and again after each pause, in engine time, until ctx ends. What fails is logged, and tried
// again then.
func (e *Engine) every(pause time.Duration, failed string,
	job func(context.Context) error,
) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			if err := job(ctx); err != nil && ctx.Err() == nil {
				e.log.WarnContext(ctx, failed, "error", err.Error()) //nolint:sloglint // one of three constants
			}
			if e.opt.Clock.Sleep(ctx, pause) != nil {
				return nil //nolint:nilerr // ctx ended
			}
		}
	}
}

// keepPartitions creates native partitions ahead of time; TimescaleDB creates its chunks itself.
func (e *Engine) keepPartitions(ctx context.Context) error {
	var need []partition.Partition
	var failed error
	for _, t := range e.p.Tables {
		if t.Hypertable == nil {
			continue
		}
		native, err := partition.IsNative(ctx, e.store.Pool(), t.Name)
		failed = errors.Join(failed, err)
		if native {
			need = append(need, partition.Ahead(t, e.opt.Clock.Now())...)
		}
	}
	return errors.Join(failed, partition.Create(ctx, e.store.Pool(), need))
}

// forgetSamples keeps the memory of rolled-up samples no longer than records of their age are taken.
func (e *Engine) forgetSamples(ctx context.Context) (failed error) {
	for _, r := range e.p.Rollups {
		age := time.Duration(0)
		for _, src := range e.p.Sources {
			if src.Table == r.From {
				age = max(age, src.MaxAge)
			}
		}
		if age > 0 { // else no source of this pipeline writes the table
			failed = errors.Join(failed, e.store.ForgetSamples(ctx, r.From.Name, e.opt.Clock.Now().Add(-age)))
		}
	}
	return failed
}

// removeOld keeps the engine's own tables from growing for ever.
func (e *Engine) removeOld(ctx context.Context) error {
	done, err := e.store.Maintain(ctx, e.p.Keep, e.opt.Clock.Now())
	if err == nil && done != (store.Maintained{}) {
		e.log.InfoContext(ctx, "old entries of the engine's tables removed",
			"slots", done.Slots, "dead_letters", done.DeadLetters, "gaps", done.Gaps)
	}
	return err
}
