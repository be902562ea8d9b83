package run

import (
	"context"
	"time"
)

// forgetSamples keeps the memory of rolled-up samples no longer than records of their age are taken.
func (e *Engine) forgetSamples(ctx context.Context) error {
	for {
		for _, r := range e.p.Rollups {
			age := time.Duration(0)
			for _, src := range e.p.Sources {
				if src.Table == r.From {
					age = max(age, src.MaxAge)
				}
			}
			if age == 0 {
				continue // nobody writes the table, and who will is not known
			}
			if err := e.store.ForgetSamples(ctx, r.From.Name, e.opt.Clock.Now().Add(-age)); err != nil && ctx.Err() == nil {
				e.log.Warn("old samples could not be forgotten", "error", err.Error())
			}
		}
		if err := e.opt.Clock.Sleep(ctx, 24*time.Hour); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}
