package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// step is one request that changes a topic. The plan shows it as text: the request's name and its content.
type step struct {
	api         string
	Topic       string            `json:"topic"`
	Partitions  int32             `json:"partitions,omitempty"`
	Replication int16             `json:"replication,omitempty"`
	Set         map[string]string `json:"set,omitempty"`
	Delete      []string          `json:"delete,omitempty"`
	Replicas    map[int32][]int32 `json:"replicas,omitempty"` // brokers by partition, the preferred leader first
}

// The requests, by Kafka's names.
const (
	createTopics     = "CreateTopics"
	deleteTopics     = "DeleteTopics"
	createPartitions = "CreatePartitions"
	alterConfigs     = "IncrementalAlterConfigs"
	alterReplicas    = "AlterPartitionReassignments"
)

func (s step) String() string {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)
	_ = out.Encode(s) // numbers and texts
	return s.api + " " + strings.TrimSpace(text.String())
}

// requests are what makes a change.
func (t *Topic) requests(c *plan.Change, steps ...step) {
	for _, s := range steps {
		c.Steps = append(c.Steps, s.String())
	}
	c.Do = func(ctx context.Context, c plan.Change) error { return t.apply(ctx, c, steps) }
}

// assessRequests lists the requests of an update. Replicas come before partitions, because new partitions get as many
// as the others have; a higher min.insync.replicas comes last, because writes stop until there are as many.
func (t *Topic) assessRequests(ctx context.Context, c *plan.Change) error {
	first := step{api: alterConfigs, Topic: t.name, Set: map[string]string{}}
	last := step{api: alterConfigs, Topic: t.name, Set: map[string]string{}}
	var middle []step
	if _, changed := c.Diff(replicationAttr); changed {
		moves, err := t.cluster.reassignments(ctx, t.name)
		if err != nil {
			return err
		}
		middle = append(middle, step{api: alterReplicas, Topic: t.name, Replicas: moves})
	}
	if _, changed := c.Diff(partitionsAttr); changed {
		middle = append(middle, step{api: createPartitions, Topic: t.name, Partitions: t.spec.Partitions})
	}
	for _, d := range c.Diffs {
		key := keyOf(d.Name)
		switch {
		case d.Name == partitionsAttr, d.Name == replicationAttr:
		case d.Cause == plan.Reset:
			first.Delete = append(first.Delete, key)
		case key == minInsync && len(middle) > 0 && more(d.Old, d.New):
			last.Set[key] = t.spec.Config[key]
		default:
			first.Set[key] = t.spec.Config[key]
		}
	}
	all := slices.Concat([]step{first}, middle, []step{last})
	t.requests(c, slices.DeleteFunc(all, func(s step) bool {
		return s.api == alterConfigs && len(s.Set)+len(s.Delete) == 0
	})...)
	return nil
}

func more(before, after string) bool {
	b, berr := strconv.Atoi(before)
	a, aerr := strconv.Atoi(after)
	return berr == nil && aerr == nil && a > b
}
