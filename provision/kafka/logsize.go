package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// partitionLog is what one partition holds.
type partitionLog struct {
	start, end int64 // offsets
	cut        int64 // offset of the first record that the wanted retention keeps; -1: it keeps none
	bytes      int64 // on the leader's disk; 0: unknown
	oldest     int64 // milliseconds; -1: unknown
	newest     int64
	known      bool // start and end
}

// Times that ListOffsets knows by name.
const (
	earliest = -2
	latest   = -1
	maxTime  = -3
)

// logSizes returns what the partitions of a topic hold. The first call asks for all topics of our resources that may
// lose something, so that it takes a few requests whatever their number.
func (c *Cluster) logSizes(ctx context.Context, name string) ([]partitionLog, time.Time, error) {
	defer c.lock()()
	s, err := c.load(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	if c.read.logs == nil {
		c.read.logs, c.read.cuts = map[string][]partitionLog{}, map[string]time.Time{}
	}
	if _, there := c.read.logs[name]; !there {
		names := []string{name}
		for other, t := range c.resources {
			if _, there := c.read.logs[other]; !there && s.topics[other] != nil && s.topics[other].denied == nil &&
				t.mayLose(s.topics[other]) {
				names = append(names, other)
			}
		}
		slices.Sort(names)
		if err := c.hold(ctx, s, slices.Compact(names)); err != nil {
			return nil, time.Time{}, fmt.Errorf("read how much topics hold: %w", err)
		}
	}
	return c.read.logs[name], c.read.cuts[name], nil
}

// forget has the next holds ask again what a topic holds. The others' figures stay.
func (c *Cluster) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.read.logs, name)
	delete(c.read.cuts, name)
}

// mayLose tells whether a change of this topic may delete records.
func (t *Topic) mayLose(live *topic) bool {
	if t.spec == nil {
		return true
	}
	for _, key := range []string{retentionMs, retentionBytes, cleanupPolicy} {
		value, declared := t.spec.Config[key]
		have := live.config[key]
		if declared && have.value != canonical(key, value) || !declared && have.own() {
			return true
		}
	}
	return false
}

func (c *Cluster) hold(ctx context.Context, s *snapshot, names []string) error {
	at := func(milliseconds int64) map[string]int64 {
		out := map[string]int64{}
		for _, n := range names {
			out[n] = milliseconds
		}
		return out
	}
	cuts, err := c.cut(ctx, s, names)
	if err != nil {
		return err
	}
	var listed [5]map[string]map[int32]listedOffset
	for i, times := range []map[string]int64{at(earliest), at(latest), at(0), at(maxTime), cuts} {
		if listed[i], err = c.offsets(ctx, s, times); err != nil {
			return err
		}
	}
	sizes, err := c.sizes(ctx, s, names)
	if err != nil {
		return err
	}
	for _, n := range names {
		partitions := make([]partitionLog, len(s.topics[n].partitions))
		for i, p := range s.topics[n].partitions {
			h := &partitions[i]
			start, knowsStart := listed[0][n][p.id]
			end, knowsEnd := listed[1][n][p.id]
			cut, knowsCut := listed[4][n][p.id]
			_, wantsCut := cuts[n]
			h.known = knowsStart && knowsEnd && knowsCut == wantsCut
			h.start, h.end, h.cut, h.bytes = start.offset, end.offset, cut.offset, sizes[n][p.id]
			h.oldest, h.newest = timestamp(listed[2][n], p.id), timestamp(listed[3][n], p.id)
		}
		c.read.logs[n] = partitions
	}
	return nil
}

func timestamp(of map[int32]listedOffset, partition int32) int64 {
	if o, there := of[partition]; there {
		return o.time
	}
	return -1
}

// cut returns, for each topic whose retention would be finite, the time before which records go.
func (c *Cluster) cut(ctx context.Context, s *snapshot, names []string) (map[string]int64, error) {
	out := map[string]int64{}
	for _, n := range names {
		t := c.resources[n]
		if t == nil || t.spec == nil {
			continue
		}
		value, declared := t.spec.Config[retentionMs]
		switch have := s.topics[n].config[retentionMs]; {
		case declared:
			value = canonical(retentionMs, value)
		case have.own(): // it may be reset
			var err error
			if value, _, err = c.reset(ctx, s.topics[n], retentionMs); err != nil {
				return nil, err
			}
		default:
			value = have.value
		}
		if ms, err := strconv.ParseInt(value, 10, 64); err == nil && ms >= 0 {
			c.read.cuts[n] = c.read.at.Add(-time.Duration(min(ms, c.read.at.UnixMilli())) * time.Millisecond)
			out[n] = c.read.cuts[n].UnixMilli()
		}
	}
	return out, nil
}

type listedOffset struct{ offset, time int64 }

// offsets asks the leaders for the first offset at or after a time, by topic. Partitions that do not answer are left
// out.
func (c *Cluster) offsets(
	ctx context.Context, s *snapshot, times map[string]int64,
) (map[string]map[int32]listedOffset, error) {
	out := map[string]map[int32]listedOffset{}
	if len(times) == 0 {
		return out, nil
	}
	req := kmsg.NewPtrListOffsetsRequest()
	for _, name := range slices.Sorted(maps.Keys(times)) {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = name
		for _, p := range s.topics[name].partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p.id, times[name]
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		out[name] = map[int32]listedOffset{}
	}
	answers, err := askAll[*kmsg.ListOffsetsResponse](ctx, c, req)
	if len(answers) == 0 && err != nil {
		return nil, err
	}
	for _, a := range answers {
		for _, t := range a.resp.Topics {
			for _, p := range t.Partitions {
				if kerr.ErrorForCode(p.ErrorCode) == nil {
					out[t.Topic][p.Partition] = listedOffset{p.Offset, p.Timestamp}
				}
			}
		}
	}
	return out, nil
}

// sizes asks every broker what its disks hold, and returns the leaders' sizes by topic and partition. They are unknown
// to a user who may not describe the cluster, and of brokers that have no such request.
func (c *Cluster) sizes(ctx context.Context, s *snapshot, names []string) (map[string]map[int32]int64, error) {
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.Topics = []kmsg.DescribeLogDirsRequestTopic{}
	leaders, out := map[string]map[int32]int32{}, map[string]map[int32]int64{}
	for _, n := range names {
		rt := kmsg.NewDescribeLogDirsRequestTopic()
		rt.Topic = n
		leaders[n], out[n] = map[int32]int32{}, map[int32]int64{}
		for _, p := range s.topics[n].partitions {
			rt.Partitions = append(rt.Partitions, p.id)
			leaders[n][p.id] = p.leader
		}
		req.Topics = append(req.Topics, rt)
	}
	answers, err := askAll[*kmsg.DescribeLogDirsResponse](ctx, c, req)
	if len(answers) == 0 && err != nil && !unsupported(err) {
		return nil, err
	}
	for _, a := range answers {
		for _, dir := range a.resp.Dirs {
			for _, t := range dir.Topics {
				for _, p := range t.Partitions {
					if leader, ours := leaders[t.Topic][p.Partition]; ours && leader == a.broker && !p.IsFuture {
						out[t.Topic][p.Partition] = p.Size
					}
				}
			}
		}
	}
	return out, nil
}

// loss is what goes: of each partition the part that cut says, from the oldest on.
type loss struct {
	plan.Loss
	from, to int64 // milliseconds; 0: unknown
	unknown  int   // partitions that do not answer
}

// nothing tells whether it is certain that nothing goes.
func (l *loss) nothing() bool { return l.Count == 0 && l.unknown == 0 }

// finish writes the times, and when it happens.
func (l *loss) finish(when string) *plan.Loss {
	stamp := func(ms int64) string {
		if ms <= 0 {
			return ""
		}
		return time.UnixMilli(ms).UTC().Format(time.RFC3339)
	}
	l.Unit, l.Known, l.From, l.To, l.When = plan.Records, l.unknown == 0, stamp(l.from), stamp(l.to), when
	return &l.Loss
}

func (l *loss) add(h partitionLog, records, bytes, to int64) {
	if !h.known {
		l.unknown++
		return
	}
	if records <= 0 {
		return
	}
	l.Count += records
	l.Bytes += bytes
	if h.oldest > 0 && (l.from == 0 || h.oldest < l.from) {
		l.from = h.oldest
	}
	l.to = max(l.to, to)
}

// everything is lost when a topic is deleted, and at worst when it is compacted.
func everything(of []partitionLog) *loss {
	l := &loss{}
	for _, h := range of {
		l.add(h, h.end-h.start, h.bytes, h.newest)
	}
	return l
}

// before is what is older than a time.
func before(of []partitionLog, cut time.Time) *loss {
	l := &loss{}
	for _, h := range of {
		all, records := h.end-h.start, h.cut-h.start
		if h.cut < 0 {
			records = all
		}
		l.add(h, records, share(h.bytes, records, all), min(h.newest, cut.UnixMilli()))
	}
	return l
}

// above is what is more than a number of bytes in a partition.
func above(of []partitionLog, limit int64) *loss {
	l := &loss{}
	for _, h := range of {
		bytes := max(0, h.bytes-limit)
		all := h.end - h.start
		if h.bytes == 0 && all > 0 {
			h.known = false // how many bytes they take is not known
		}
		to := int64(0)
		if bytes == h.bytes {
			to = h.newest
		}
		l.add(h, share(all, bytes, h.bytes), bytes, to)
	}
	return l
}

// share is amount * part / whole without overflow; some of something is at least 1.
func share(amount, part, whole int64) int64 {
	if whole <= 0 || part <= 0 || amount <= 0 {
		return 0
	}
	return max(1, int64(float64(amount)*(float64(part)/float64(whole))))
}
