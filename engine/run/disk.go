package run

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/local"
	"github.com/cryptoviz/cryptoviz/engine/produce"
)

// Below diskLow free bytes nothing new is fetched, so that PostgreSQL and Kafka can still write what is on its way.
const (
	diskLow   = 512 << 20
	diskAgain = 768 << 20
)

// watchDisk pauses the producers while the disk is nearly full. It tells the change only.
func (e *Engine) watchDisk(ctx context.Context, producer *produce.Producer) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	paused := false
	for {
		if free, _, err := local.FreeSpace(e.opt.Disk); err == nil {
			e.free.Store(free)
			switch {
			case free < diskLow && !paused:
				paused = true
				reason := fmt.Sprintf("the disk of %s is nearly full (%s free): nothing is fetched until %s are free", e.opt.Disk, humanize.IBytes(free), humanize.IBytes(diskAgain))
				producer.Pause(reason)
				e.log.Error("paused", "reason", reason)
			case free >= diskAgain && paused:
				paused = false
				producer.Pause("")
				e.log.Info("goes on", "disk_free", humanize.IBytes(free))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
