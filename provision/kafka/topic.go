// Package kafka makes topics match pipeline.hcl.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Topic is the resource of one topic block.
type Topic struct {
	Spec   *spec.Topic
	Client *kgo.Client
}

// Address is topic.NAME.
func (t *Topic) Address() string { return "topic." + t.Spec.Name }

// DependsOn is nothing: a topic stands alone.
func (t *Topic) DependsOn() []string { return nil }

// live is a topic as the broker has it; nil when there is none.
type live struct {
	partitions, replication int
	config                  map[string]string
}

// Plan reads the topic from the broker itself, not from the client's cache.
func (t *Topic) Plan(ctx context.Context) (plan.Change, error) {
	have, err := t.read(ctx)
	if err != nil {
		return plan.Change{}, err
	}
	c := Diff(t.Spec, have)
	if c.Action == plan.Create {
		// Kafka itself judges the settings now, so that the plan says what apply would meet.
		err := t.create(ctx, true)
		if reason := refusal(t.Spec, err); reason != "" {
			c.Action, c.Reason = plan.Block, reason
		} else if err != nil {
			return c, fmt.Errorf("check topic %s: %w", t.Spec.Name, err)
		}
	}
	return c, nil
}

// Diff compares; have is nil when the topic is missing.
func Diff(want *spec.Topic, have *live) plan.Change {
	c := plan.Change{Address: "topic." + want.Name, Action: plan.None}
	attr := func(name, old, value string) {
		c.Attrs = append(c.Attrs, plan.Attribute{Name: name, Old: old, New: value})
	}
	partitions, replication := strconv.Itoa(int(want.Partitions)), strconv.Itoa(int(want.Replication))
	if have == nil {
		c.Action = plan.Create
		attr("partitions", "", partitions)
		attr("replication", "", replication)
		for _, k := range slices.Sorted(maps.Keys(want.Config)) {
			attr(k, "", want.Config[k])
		}
		return c
	}
	if have.partitions != int(want.Partitions) {
		attr("partitions", strconv.Itoa(have.partitions), partitions)
	}
	if have.replication != int(want.Replication) {
		attr("replication", strconv.Itoa(have.replication), replication)
	}
	for _, k := range slices.Sorted(maps.Keys(want.Config)) {
		if have.config[k] != want.Config[k] {
			attr(k, have.config[k], want.Config[k])
		}
	}
	if len(c.Attrs) > 0 {
		c.Action, c.Reason = plan.Report, "this version creates what is missing and changes nothing else; change it with kafka-configs or kafka-topics, or change pipeline.hcl"
	}
	return c
}

func (t *Topic) read(ctx context.Context) (*live, error) {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = new(t.Spec.Name)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, t.Client)
	if err != nil {
		return nil, fmt.Errorf("read topic %s: %w", t.Spec.Name, err)
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("read topic %s: the broker gave no answer", t.Spec.Name)
	}
	switch err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return nil, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return nil, fmt.Errorf("read topic %s: this Kafka user may not see it: grant DESCRIBE on the topic", t.Spec.Name)
	case err != nil && !errors.Is(err, kerr.LeaderNotAvailable):
		return nil, fmt.Errorf("read topic %s: %w", t.Spec.Name, err)
	}
	out := &live{partitions: len(resp.Topics[0].Partitions), config: map[string]string{}}
	for _, p := range resp.Topics[0].Partitions {
		out.replication = max(out.replication, len(p.Replicas))
	}
	configs, err := kadm.NewClient(t.Client).DescribeTopicConfigs(ctx, t.Spec.Name)
	if err == nil {
		_, err = configs.On(t.Spec.Name, func(r *kadm.ResourceConfig) error {
			for _, c := range r.Configs {
				out.config[c.Key] = c.MaybeValue()
			}
			return r.Err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the config of topic %s: %w", t.Spec.Name, err)
	}
	return out, nil
}

func (t *Topic) create(ctx context.Context, validateOnly bool) error {
	configs := map[string]*string{}
	for k, v := range t.Spec.Config {
		configs[k] = &v
	}
	admin := kadm.NewClient(t.Client)
	call := admin.CreateTopics
	if validateOnly {
		call = admin.ValidateCreateTopics
	}
	resp, err := call(ctx, t.Spec.Partitions, t.Spec.Replication, configs, t.Spec.Name)
	if err != nil {
		return err
	}
	r, err := resp.On(t.Spec.Name, nil) // its error: the topic is not in the answer
	switch {
	case err != nil || r.Err == nil:
		return err
	case r.ErrMessage != "" && !errors.Is(r.Err, kerr.TopicAlreadyExists):
		return &refused{r.Err, r.ErrMessage}
	}
	return r.Err
}

// refused is the broker's no, with its own words.
type refused struct {
	err     error
	message string
}

func (r *refused) Error() string { return r.message }
func (r *refused) Unwrap() error { return r.err }

// refusal turns the broker's no into words with a remedy; "" for other errors.
func refusal(t *spec.Topic, err error) string {
	switch {
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return fmt.Sprintf("replication = %d, and Kafka has fewer brokers: lower it, or add brokers (%v)", t.Replication, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "this Kafka user may not create it: grant CREATE on the topic or the cluster"
	case errors.Is(err, kerr.InvalidConfig), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidTopicException), errors.Is(err, kerr.InvalidPartitions):
		return "Kafka refuses it: " + err.Error()
	}
	return ""
}

// leaderWait is how long a new topic may take until each partition has a leader.
const leaderWait = 30 * time.Second

// Apply creates the topic and waits until its partitions have leaders.
func (t *Topic) Apply(ctx context.Context, c plan.Change) error {
	if c.Action != plan.Create {
		return nil
	}
	if err := t.create(ctx, false); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		if reason := refusal(t.Spec, err); reason != "" {
			return fmt.Errorf("create topic %s: %s", t.Spec.Name, reason)
		}
		return fmt.Errorf("create topic %s: %w", t.Spec.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		have, err := t.read(ctx)
		if err == nil && have != nil && have.partitions == int(t.Spec.Partitions) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create topic %s: waiting for its leaders: %w", t.Spec.Name, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}
