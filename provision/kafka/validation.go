package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// validation is what Kafka says to all changes of all topics, asked with ValidateOnly: nothing is changed. A nil error
// is a yes.
type validation struct {
	create     map[string]error
	config     map[string]error
	partitions map[string]error
	effective  map[string]map[string]string // the whole config that a topic would be created with
}

// Batches of ValidateOnly: Kafka refuses a request for very many partitions as a whole.
const (
	changeBatch    = 200
	partitionBatch = 2000
)

// validated asks about every topic of our resources at once, the first time.
func (c *Cluster) validated(ctx context.Context) (*validation, error) {
	defer c.lock()()
	if c.read.validation != nil {
		return c.read.validation, nil
	}
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	v := &validation{
		create: map[string]error{}, config: map[string]error{}, partitions: map[string]error{},
		effective: map[string]map[string]string{},
	}
	var missing, more, differ []*Topic
	for _, name := range slices.Sorted(maps.Keys(c.resources)) {
		t := c.resources[name]
		if t.spec == nil || reservedName(name) {
			continue
		}
		live := s.topics[name]
		switch {
		case s.hidden[name] != nil:
			continue
		case live == nil:
			missing = append(missing, t)
			continue
		case live.denied != nil:
			continue
		}
		if int(t.spec.Partitions) > len(live.partitions) {
			more = append(more, t)
		}
		if !live.unread && len(t.differing(live)) > 0 {
			differ = append(differ, t)
		}
	}
	err = errors.Join(c.mayCreate(ctx, v, missing), c.mayGrow(ctx, v, more), c.mayConfigure(ctx, v, differ))
	if err != nil {
		return nil, fmt.Errorf("ask Kafka whether the changes can be made: %w", err)
	}
	c.read.validation = v
	return v, nil
}

// differing returns the settings of the block that the topic has otherwise.
func (t *Topic) differing(live *topic) map[string]string {
	out := map[string]string{}
	for key, value := range t.spec.Config {
		if have, there := live.config[key]; !there || have.value != canonical(key, value) {
			out[key] = value
		}
	}
	return out
}

func (c *Cluster) mayCreate(ctx context.Context, v *validation, topics []*Topic) error {
	for len(topics) > 0 {
		n, cost := 0, 0
		for n < len(topics) && n < changeBatch && (n == 0 || cost < partitionBatch) {
			cost += int(topics[n].spec.Partitions) * int(topics[n].spec.Replication)
			n++
		}
		batch := topics[:n]
		topics = topics[n:]
		req := kmsg.NewPtrCreateTopicsRequest()
		req.ValidateOnly, req.TimeoutMillis = true, brokerTimeout
		for _, t := range batch {
			req.Topics = append(req.Topics, creation(t.spec.Name, t.spec.Partitions, t.spec.Replication, t.spec.Config))
		}
		resp, err := c.validateCreation(ctx, req)
		if err != nil {
			return err
		}
		for _, r := range resp.Topics {
			v.create[r.Topic] = brokerError(r.ErrorCode, r.ErrorMessage)
			v.effective[r.Topic] = effective(r)
		}
	}
	return nil
}

// validateCreation waits where a quota wants it.
func (c *Cluster) validateCreation(
	ctx context.Context, req *kmsg.CreateTopicsRequest,
) (resp *kmsg.CreateTopicsResponse, err error) {
	err = throttled(ctx, func() (time.Duration, error) {
		if resp, err = ask[*kmsg.CreateTopicsResponse](ctx, c, req); err != nil {
			return 0, err
		}
		for _, r := range resp.Topics {
			if r.ErrorCode == kerr.ThrottlingQuotaExceeded.Code {
				return wait(resp.ThrottleMillis), kerr.ThrottlingQuotaExceeded
			}
		}
		return 0, nil
	})
	return resp, err
}

func effective(r kmsg.CreateTopicsResponseTopic) map[string]string {
	out := map[string]string{}
	for _, c := range r.Configs {
		if c.Value != nil {
			out[c.Name] = canonical(c.Name, *c.Value)
		}
	}
	return out
}

func creation(name string, partitions int32, replication int16,
	config map[string]string,
) kmsg.CreateTopicsRequestTopic {
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, replication
	for _, key := range slices.Sorted(maps.Keys(config)) {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = key, new(config[key])
		rt.Configs = append(rt.Configs, rc)
	}
	return rt
}

func (c *Cluster) mayGrow(ctx context.Context, v *validation, topics []*Topic) error {
	for batch := range slices.Chunk(topics, changeBatch) {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.ValidateOnly, req.TimeoutMillis = true, brokerTimeout
		for _, t := range batch {
			rt := kmsg.NewCreatePartitionsRequestTopic()
			rt.Topic, rt.Count = t.name, t.spec.Partitions
			req.Topics = append(req.Topics, rt)
		}
		err := throttled(ctx, func() (time.Duration, error) {
			resp, err := ask[*kmsg.CreatePartitionsResponse](ctx, c, req)
			if err != nil {
				return 0, err
			}
			for _, r := range resp.Topics {
				v.partitions[r.Topic] = brokerError(r.ErrorCode, r.ErrorMessage)
				if r.ErrorCode == kerr.ThrottlingQuotaExceeded.Code {
					return wait(resp.ThrottleMillis), kerr.ThrottlingQuotaExceeded
				}
			}
			return 0, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) mayConfigure(ctx context.Context, v *validation, topics []*Topic) error {
	for batch := range slices.Chunk(topics, changeBatch) {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.ValidateOnly = true
		for _, t := range batch {
			req.Resources = append(req.Resources, alteration(t.name, t.differing(c.read.snapshot.topics[t.name]), nil))
		}
		resp, err := ask[*kmsg.IncrementalAlterConfigsResponse](ctx, c, req)
		if err != nil {
			return err
		}
		for _, r := range resp.Resources {
			v.config[r.ResourceName] = brokerError(r.ErrorCode, r.ErrorMessage)
		}
	}
	return nil
}

func alteration(name string, set map[string]string, unset []string) kmsg.IncrementalAlterConfigsRequestResource {
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
	for _, key := range slices.Sorted(maps.Keys(set)) {
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op, rc.Value = key, kmsg.IncrementalAlterConfigOpSet, new(set[key])
		r.Configs = append(r.Configs, rc)
	}
	for _, key := range unset {
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op = key, kmsg.IncrementalAlterConfigOpDelete
		r.Configs = append(r.Configs, rc)
	}
	return r
}

// reset returns what a key will be when it is taken off a topic. Kafka says it along with the config where the brokers
// set the key. Its own defaults it tells when it is asked to validate a new topic, of users who may create one; else
// they are not known.
func (c *Cluster) reset(ctx context.Context, live *topic, key string) (value string, known bool, err error) {
	if f := live.config[key].fallback; f != nil {
		return *f, true, nil
	}
	if c.read.defaults == nil {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.ValidateOnly, req.TimeoutMillis = true, brokerTimeout
		req.Topics = append(req.Topics, creation(spare(c.read.snapshot), 1, 1, nil))
		resp, err := c.validateCreation(ctx, req)
		if err != nil {
			return "", false, fmt.Errorf("ask Kafka for its defaults: %w", err)
		}
		c.read.defaults = map[string]string{}
		for _, r := range resp.Topics {
			c.read.defaults = effective(r)
		}
	}
	value, known = c.read.defaults[key]
	return value, known, nil
}

// spare is a name that no topic has.
func spare(s *snapshot) string {
	taken := map[string]bool{}
	for name := range s.topics {
		taken[collision(name)] = true
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("cryptoviz-defaults-%d", i)
		if !taken[name] {
			return name
		}
	}
}
