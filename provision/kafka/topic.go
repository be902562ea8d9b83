package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Topic is the resource of one topic block, or of a removed block that names a topic.
type Topic struct {
	cluster *Cluster
	name    string
	spec    *spec.Topic // nil: the topic shall be deleted
	at      hcl.Range
}

// Address is topic.NAME.
func (t *Topic) Address() string { return "topic." + t.name }

// Where is the place of the block.
func (t *Topic) Where() string { return fmt.Sprintf("%s:%d", t.at.Filename, t.at.Start.Line) }

// Observe reads what is set on the topic, and of its other settings those that the block names.
func (t *Topic) Observe(ctx context.Context) (plan.Observation, error) {
	live, err := t.cluster.topic(ctx, t.name)
	if err != nil {
		return plan.Observation{}, err
	}
	out := plan.Observation{Want: t.want(), Assess: func(ctx context.Context, c *plan.Change) error {
		return t.assess(ctx, c, live)
	}}
	if live != nil {
		out.Live = live.state(out.Want)
	}
	return out, nil
}

// want is what the block says.
func (t *Topic) want() *plan.State {
	if t.spec == nil {
		return nil
	}
	s := &plan.State{}
	s.Set(plan.Attr{Name: partitionsAttr, Value: strconv.Itoa(int(t.spec.Partitions))})
	s.Set(plan.Attr{Name: replicationAttr, Value: strconv.Itoa(int(t.spec.Replication))})
	for _, key := range sortKeys(slices.Collect(maps.Keys(t.spec.Config))) {
		s.Set(attribute(key, canonical(key, t.spec.Config[key])))
	}
	return s
}

func (t *topic) state(want *plan.State) *plan.State {
	s := &plan.State{ID: t.id}
	s.Set(plan.Attr{Name: partitionsAttr, Value: strconv.Itoa(len(t.partitions))})
	low, high := t.replication()
	replication := strconv.Itoa(low)
	if high > low {
		replication += " to " + strconv.Itoa(high)
	}
	s.Set(plan.Attr{Name: replicationAttr, Value: replication})
	if t.unread && want != nil { // taken to be as declared, and said
		for _, a := range want.Attrs {
			if _, there := s.Get(a.Name); !there {
				s.Set(a)
			}
		}
	}
	var keys []string
	for key, value := range t.config {
		if _, wanted := want.Get(attrOf(key)); wanted || value.own() {
			keys = append(keys, key)
		}
	}
	for _, key := range sortKeys(keys) {
		a := attribute(key, t.config[key].value)
		a.Origin = t.config[key].origin()
		s.Set(a)
	}
	return s
}

// replication is the least and the most replicas that a partition has. Assigned ones count, in sync or not; those that
// are still being copied do not, so that a copy which was interrupted is waited for again.
func (t *topic) replication() (low, high int) {
	for i, p := range t.partitions {
		n := len(p.replicas) - len(p.adding)
		if i == 0 {
			low, high = n, n
		}
		low, high = min(low, n), max(high, n)
	}
	return low, high
}
