package run

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// gate tells whether every record of a day has been stored: the rollup waits for it.
type gate struct {
	sources []*spec.Source // the enabled sources that feed the rolled-up table
	store   *store.Store
	kafka   *kadm.Client
}

func newGate(p *spec.Pipeline, r *spec.Rollup, st *store.Store, kafka *kadm.Client) *gate {
	g := &gate{store: st, kafka: kafka}
	for _, s := range p.Sources {
		if s.Enabled && s.Table == r.From {
			g.sources = append(g.sources, s)
		}
	}
	return g
}

// DayComplete is true when each partition of each topic that feeds the table is read to a slot of the next day, or to
// its end while no slot of the day is still being fetched. A reading error is an error: it is never taken for "passed".
func (g *gate) DayComplete(ctx context.Context, day time.Time) (bool, error) {
	end := day.Add(24 * time.Hour)
	var names, topics []string
	for _, s := range g.sources {
		names = append(names, s.Name)
		topics = append(topics, s.Topic.Name)
	}
	if len(names) == 0 {
		return true, nil
	}
	running, err := g.store.SlotsRunning(ctx, names, end)
	if err != nil {
		return false, err
	}
	if running > 0 {
		return false, nil
	}
	positions, err := store.Positions(ctx, g.store.Pool(), names)
	if err != nil {
		return false, err
	}
	ends, err := g.kafka.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return false, fmt.Errorf("read the topics' ends: %w", err)
	}
	for _, s := range g.sources {
		for n, offset := range ends[s.Topic.Name] {
			i := slices.IndexFunc(positions, func(p store.PartitionProgress) bool {
				return p.Source == s.Name && p.Partition == n
			})
			switch {
			case i >= 0 && !positions[i].LastSlot.Before(end):
			case i >= 0 && positions[i].Next >= offset.Offset:
			case i < 0 && offset.Offset == 0:
			default:
				return false, nil
			}
		}
	}
	return true, nil
}
