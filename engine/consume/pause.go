package consume

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// handTimeout is how long a partition that takes no records may keep the others waiting, once.
const handTimeout = time.Second

// hand gives records to a partition. Where that does not take them, because it cannot store those before, it is paused:
// the others are read on.
func (s *session) hand(p *partitionConsumer, f fetched) {
	timer := time.NewTimer(handTimeout)
	defer timer.Stop()
	select {
	case p.in <- f:
		return
	case <-p.ctx.Done():
		return
	case <-timer.C:
	}
	this := map[string][]int32{s.w.src.Topic.Name: {p.fence.Partition}}
	s.client.PauseFetchPartitions(this)
	p.paused.Store(true)
	s.tasks.Go(func() {
		defer s.client.ResumeFetchPartitions(this)
		defer p.paused.Store(false)
		select {
		case p.in <- f:
		case <-p.ctx.Done():
		}
	})
}

// measure reads where the partitions end, since no fetch tells it of those that are paused.
func (s *session) measure(ctx context.Context) {
	ends, err := kadm.NewClient(s.client).ListEndOffsets(ctx, s.w.src.Topic.Name)
	if err != nil {
		return
	}
	for n, p := range s.w.owners() {
		if end, ok := ends.Lookup(s.w.src.Topic.Name, n); ok && end.Err == nil {
			p.high.Store(end.Offset)
		}
	}
}
