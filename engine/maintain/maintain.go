// Package maintain keeps the engine's own tables from growing for ever.
package maintain

import (
	"context"
	"log/slog"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// every is how often the tables are looked at, in real time.
const every = time.Hour

// Store removes what is too old.
type Store interface {
	Maintain(ctx context.Context, keep spec.Keep, now time.Time) (store.Maintained, error)
}

// Run maintains the tables until ctx ends. What fails is tried at the next time.
func Run(ctx context.Context, st Store, keep spec.Keep, clk clock.Clock, log *slog.Logger) error {
	for {
		done, err := st.Maintain(ctx, keep, clk.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.WarnContext(ctx, "the engine's tables were not maintained", "error", err.Error())
		case done != store.Maintained{}:
			log.InfoContext(ctx, "old entries of the engine's tables removed", "slots", done.Slots, "dead_letters", done.DeadLetters, "gaps", done.Gaps)
		}
		if clk.Sleep(ctx, time.Duration(float64(every)*max(1, clk.Speed()))) != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}
