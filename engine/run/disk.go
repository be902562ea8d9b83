package run

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/produce"
)

// diskLimits: below low free bytes nothing new is fetched, so that PostgreSQL and Kafka can still write what is on its
// way; from again bytes on it is. A small disk has smaller limits, or it would never be good enough.
func diskLimits(total uint64) (low, again uint64) {
	low = min(512<<20, total/4)
	return low, low + low/2
}

// watchDisk pauses the producers while a disk is nearly full. It tells the change only.
func (e *Engine) watchDisk(ctx context.Context, producer *produce.Producer) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	paused := false
	for {
		dir, free, low, again := e.tightest()
		switch {
		case dir == "": // none can be read
		case free < low && !paused:
			paused = true
			reason := fmt.Sprintf("the disk of %s is nearly full (%s free): nothing is fetched until %s are free", dir,
				humanize.IBytes(free), humanize.IBytes(again))
			producer.Pause(reason)
			e.log.Error("paused", "reason", reason)
		case free >= again && paused:
			paused = false
			producer.Pause("")
			e.log.Info("goes on", "disk_free", humanize.IBytes(free))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tightest is the watched folder whose disk has the least room left above its limit.
func (e *Engine) tightest() (dir string, free, low, again uint64) {
	least := int64(0)
	for _, d := range e.opt.Disks {
		f, total, err := embedded.FreeSpace(d)
		if err != nil {
			continue
		}
		l, a := diskLimits(total)
		if room := int64(f) - int64(l); dir == "" || room < least { //nolint:gosec // sizes of disks
			dir, free, low, again, least = d, f, l, a, room
		}
	}
	if dir != "" {
		e.free.Store(free)
	}
	return dir, free, low, again
}
