package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// awaitPropagation waits until every broker that is up shows the topic as it is wanted. A broker follows the controller
// after a while, and any of them may answer the next plan, a producer or a worker.
func (t *Topic) awaitPropagation(ctx context.Context, c plan.Change) error {
	var lacking string
	err := until(ctx, settleWait, func(ctx context.Context) (bool, error) {
		lacking = ""
		resp, err := ask[*kmsg.MetadataResponse](ctx, t.cluster, noTopics())
		if err != nil {
			return false, err
		}
		for _, b := range resp.Brokers {
			if lacking = t.unpropagated(ctx, int(b.NodeID), c); lacking != "" {
				return false, nil
			}
		}
		return true, nil
	})
	if errors.Is(err, errWaited) {
		return fmt.Errorf("the change was made, but after %s %s", units.FormatDuration(settleWait),
			cmp.Or(lacking, "no broker answers"))
	}
	return err
}

// noTopics asks for the brokers alone.
func noTopics() *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	return req
}

// unpropagated says what a broker does not show yet; "" when nothing.
func (t *Topic) unpropagated(ctx context.Context, broker int, c plan.Change) string {
	live, err := t.cluster.from(ctx, broker, t.name)
	switch {
	case err != nil:
		return fmt.Sprintf("broker %d does not answer: %v", broker, err)
	case c.Want == nil && live == nil:
		return ""
	case c.Want == nil:
		return fmt.Sprintf("broker %d still has it", broker)
	case live == nil:
		return fmt.Sprintf("broker %d does not have it", broker)
	}
	diffs, _ := plan.Compare(c.Last, live.state(c.Want), c.Want)
	for _, d := range diffs {
		if _, ours := c.Diff(d.Name); ours {
			return fmt.Sprintf("broker %d still shows %s = %s", broker, d.Name, orUnset(d.Old))
		}
	}
	old := oldPartitions(c)
	if i := slices.IndexFunc(live.partitions, func(p partition) bool { return p.id >= old && p.leader < 0 }); i >= 0 {
		return fmt.Sprintf("partition %d has no leader on broker %d", live.partitions[i].id, broker)
	}
	return ""
}

// from reads a topic from one broker; nil when that broker has none.
func (c *Cluster) from(ctx context.Context, broker int, name string) (*topic, error) {
	b := c.client.Broker(broker)
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = new(name)
	req.Topics = append(req.Topics, rt)
	c.requests.Add(2)
	resp, err := b.Request(ctx, req)
	if err != nil {
		return nil, err
	}
	metadata := resp.(*kmsg.MetadataResponse)
	if len(metadata.Topics) != 1 {
		return nil, errNoAnswer
	}
	if err := kerr.ErrorForCode(metadata.Topics[0].ErrorCode); errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, nil
	} else if err != nil && !errors.Is(err, kerr.LeaderNotAvailable) {
		return nil, err
	}
	configs := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
	configs.Resources = append(configs.Resources, r)
	if resp, err = b.Request(ctx, configs); err != nil {
		return nil, err
	}
	out := newTopic(metadata.Topics[0])
	for _, r := range resp.(*kmsg.DescribeConfigsResponse).Resources {
		if err := brokerError(r.ErrorCode, r.ErrorMessage); errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		out.config = settings(r.Configs)
	}
	return out, nil
}

// exists asks whether a topic is there, or only its name is taken because its deletion is not finished.
func (c *Cluster) exists(ctx context.Context, name string) (bool, error) {
	s := newSnapshot()
	if err := c.list(ctx, s, []string{name}); err != nil {
		return false, err
	}
	return s.topics[name] != nil, s.hidden[name]
}

// brokers tells how many are up, and whether this user may move replicas between them; who cannot be asked, may.
func (c *Cluster) brokers(ctx context.Context) (up int, may bool, err error) {
	defer c.lock()()
	s, err := c.load(ctx)
	if err != nil {
		return 0, false, err
	}
	if c.read.rights == nil {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.IncludeClusterAuthorizedOperations = true
		resp, err := ask[*kmsg.DescribeClusterResponse](ctx, c, req)
		if err != nil && !unsupported(err) {
			return 0, false, fmt.Errorf("read the rights on the cluster: %w", err)
		}
		c.read.rights = new(int32)
		if err == nil {
			*c.read.rights = resp.ClusterAuthorizedOperations
		}
	}
	const mayAlter = 1 << 7 // Kafka's number of the operation
	return len(s.brokers), *c.read.rights <= 0 || *c.read.rights&mayAlter != 0, nil
}

// collision is a name as Kafka's metrics write it: two topics whose names agree so cannot both exist.
func collision(name string) string { return strings.ReplaceAll(name, ".", "_") }

// collides returns the other topics, declared or there, that a new one of this name would collide with.
func (c *Cluster) collides(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read.names == nil {
		c.read.names = map[string][]string{}
		add := func(other string) { c.read.names[collision(other)] = append(c.read.names[collision(other)], other) }
		for other, t := range c.resources {
			if t.spec != nil {
				add(other)
			}
		}
		if c.read.snapshot != nil {
			for other := range c.read.snapshot.topics {
				add(other)
			}
		}
	}
	others := slices.DeleteFunc(slices.Clone(c.read.names[collision(name)]), func(other string) bool {
		return other == name
	})
	slices.Sort(others)
	return strings.Join(slices.Compact(others), " and ")
}
