package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/partition"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// ensurePartitions makes the native partitions that a batch needs.
func (s *Store) ensurePartitions(ctx context.Context, table *spec.Table, rows *row.Rows) error {
	if table.Hypertable == nil {
		return fmt.Errorf("table %s is partitioned, and pipeline.hcl gives it no hypertable block", table.Name)
	}
	var need []partition.Partition
	for _, us := range rows.Times {
		p := partition.Of(table, time.UnixMicro(us).UTC())
		if !slices.ContainsFunc(need, func(q partition.Partition) bool { return q.Name == p.Name }) {
			need = append(need, p)
		}
	}
	return partition.Create(ctx, s.pool, need)
}
