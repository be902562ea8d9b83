package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Bounds of what Apply waits for.
const (
	settleWait    = 30 * time.Second // until every broker knows the change, and new partitions have leaders
	quotaWait     = 5 * time.Minute  // for Kafka's quota on changes
	brokerTimeout = 15_000           // milliseconds in which the controller is to answer
)

// apply sends the requests of a change, each of which may be repeated, and waits until every broker shows the result.
func (t *Topic) apply(ctx context.Context, c plan.Change, steps []step) error {
	if err := t.countAgain(ctx, c); err != nil {
		return err
	}
	for _, s := range steps {
		if err := t.cluster.send(ctx, s); err != nil {
			return fmt.Errorf("topic %s: %w", t.name, err)
		}
	}
	if err := t.awaitPropagation(ctx, c); err != nil {
		return fmt.Errorf("topic %s: %w", t.name, err)
	}
	return nil
}

// countAgain assesses a change that may lose records once more, just before its requests: Kafka cannot check and delete
// in one. The error is a plan.More.
func (t *Topic) countAgain(ctx context.Context, c plan.Change) error {
	live, err := t.cluster.topic(ctx, t.name)
	if err != nil || live == nil || c.Action == plan.Create || !t.mayLose(live) {
		return err
	}
	t.cluster.forget(t.name)
	again := c
	again.Findings, again.Notes, again.Steps = nil, nil, nil
	now, err := t.Observe(ctx)
	if err == nil {
		err = now.Assess(ctx, &again)
	}
	if err != nil {
		return fmt.Errorf("topic %s: count again what is lost: %w", t.name, err)
	}
	for _, f := range again.Findings {
		if loss, lost := again.Lost(f.Code); lost {
			if err := c.Check(c.Address, f.Code, loss); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cluster) send(ctx context.Context, s step) error {
	switch s.api {
	case createTopics:
		return c.sendCreate(ctx, s)
	case deleteTopics:
		return c.sendDelete(ctx, s)
	case createPartitions:
		return c.sendPartitions(ctx, s)
	case alterConfigs:
		return c.sendConfig(ctx, s)
	case alterReplicas:
		return c.sendReplicas(ctx, s)
	}
	return fmt.Errorf("the plan holds a request that is not known: %s", s.api)
}

// answer is one topic's part of a response.
type answer struct {
	throttle int32
	err      error
}

// change sends a request for one topic, and waits where a quota wants it.
func change[R kmsg.Response](ctx context.Context, c *Cluster, req kmsg.Request, of func(R) answer) error {
	return throttled(ctx, func() (time.Duration, error) {
		resp, err := ask[R](ctx, c, req)
		if err != nil {
			return 0, err
		}
		a := of(resp)
		return wait(a.throttle), a.err
	})
}

var errNoAnswer = errors.New("the broker's answer lacks the topic")

func (c *Cluster) sendCreate(ctx context.Context, s step) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = brokerTimeout
	req.Topics = append(req.Topics, creation(s.Topic, s.Partitions, s.Replication, s.Set))
	create := func(ctx context.Context) error {
		err := change(ctx, c, req, func(resp *kmsg.CreateTopicsResponse) answer {
			for _, r := range resp.Topics {
				return answer{resp.ThrottleMillis, brokerError(r.ErrorCode, r.ErrorMessage)}
			}
			return answer{0, errNoAnswer}
		})
		return denied(err, "create", grant("Create", s.Topic))
	}
	err := create(ctx)
	if !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	// Another instance was faster, or this request was sent before and its answer was lost. Or the name is still taken
	// by a topic that was deleted: some brokers delete later than they say.
	err = until(ctx, settleWait, func(ctx context.Context) (done bool, err error) {
		if there, err := c.exists(ctx, s.Topic); there || err != nil {
			return true, err
		}
		if err = create(ctx); errors.Is(err, kerr.TopicAlreadyExists) {
			return false, nil
		}
		return true, err
	})
	if errors.Is(err, errWaited) {
		return fmt.Errorf("the name is still taken after %s, by a topic that is being deleted: apply again later",
			units.FormatDuration(settleWait))
	}
	return err
}

func (c *Cluster) sendDelete(ctx context.Context, s step) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis, req.TopicNames = brokerTimeout, []string{s.Topic}
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = new(s.Topic)
	req.Topics = append(req.Topics, rt)
	err := change(ctx, c, req, func(resp *kmsg.DeleteTopicsResponse) answer {
		for _, r := range resp.Topics {
			return answer{resp.ThrottleMillis, brokerError(r.ErrorCode, r.ErrorMessage)}
		}
		return answer{0, errNoAnswer}
	})
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return nil
	case errors.Is(err, kerr.TopicDeletionDisabled):
		return errors.New("the brokers forbid to delete topics: set delete.topic.enable=true on the controllers")
	}
	return denied(err, "delete", grant("Delete", s.Topic))
}

func (c *Cluster) sendPartitions(ctx context.Context, s step) error {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = brokerTimeout
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = s.Topic, s.Partitions
	req.Topics = append(req.Topics, rt)
	err := change(ctx, c, req, func(resp *kmsg.CreatePartitionsResponse) answer {
		for _, r := range resp.Topics {
			return answer{resp.ThrottleMillis, brokerError(r.ErrorCode, r.ErrorMessage)}
		}
		return answer{0, errNoAnswer}
	})
	if errors.Is(err, kerr.InvalidPartitions) && strings.Contains(err.Error(), fmt.Sprintf("already has %d ",
		s.Partitions)) {
		return nil // this request, or another instance's, came through before
	}
	return denied(err, "add partitions to", grant("Alter", s.Topic))
}

func (c *Cluster) sendConfig(ctx context.Context, s step) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, alteration(s.Topic, s.Set, s.Delete))
	err := change(ctx, c, req, func(resp *kmsg.IncrementalAlterConfigsResponse) answer {
		for _, r := range resp.Resources {
			return answer{resp.ThrottleMillis, brokerError(r.ErrorCode, r.ErrorMessage)}
		}
		return answer{0, errNoAnswer}
	})
	return denied(err, "change the config of", grant("AlterConfigs", s.Topic))
}

func (c *Cluster) sendReplicas(ctx context.Context, s step) error {
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.TimeoutMillis = brokerTimeout
	rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	rt.Topic = s.Topic
	for _, id := range slices.Sorted(maps.Keys(s.Replicas)) {
		rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		rp.Partition, rp.Replicas = id, s.Replicas[id]
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	err := change(ctx, c, req, func(resp *kmsg.AlterPartitionAssignmentsResponse) answer {
		err := brokerError(resp.ErrorCode, resp.ErrorMessage)
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if e := brokerError(p.ErrorCode, p.ErrorMessage); e != nil && err == nil {
					err = fmt.Errorf("partition %d: %w", p.Partition, e)
				}
			}
		}
		return answer{resp.ThrottleMillis, err}
	})
	if err != nil {
		return denied(err, "move the replicas of", errGrantMoves)
	}
	return c.copied(ctx, s)
}

// copied waits until the replicas of a topic are where they were sent. Kafka goes on by itself when the wait ends, and
// the next plan shows the change until it is done.
func (c *Cluster) copied(ctx context.Context, s step) error {
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	rt := kmsg.NewListPartitionReassignmentsRequestTopic()
	rt.Topic, rt.Partitions = s.Topic, slices.Sorted(maps.Keys(s.Replicas))
	req.Topics = append(req.Topics, rt)
	left := 0
	err := until(ctx, c.moveWait, func(ctx context.Context) (bool, error) {
		resp, err := ask[*kmsg.ListPartitionReassignmentsResponse](ctx, c, req)
		if err == nil {
			err = brokerError(resp.ErrorCode, resp.ErrorMessage)
		}
		if err != nil {
			return false, fmt.Errorf("ask which replicas are still being copied: %w", err)
		}
		left = 0
		for _, t := range resp.Topics {
			left += len(t.Partitions)
		}
		return left == 0, nil
	})
	if errors.Is(err, errWaited) {
		return fmt.Errorf("replicas of %d of %s are still being copied after %s: Kafka goes on by itself, and the "+
			"next apply waits again", left, plan.Counted(len(s.Replicas), "partition"),
			units.FormatDuration(c.moveWait))
	}
	return err
}

var errGrantMoves = errors.New("grant it with kafka-acls --add --allow-principal User:NAME --operation Alter --cluster")

// denied adds the remedy where a right is missing.
func denied(err error, what string, remedy error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return fmt.Errorf("this Kafka user may not %s it: %w", what, remedy)
	}
	return err
}

var errWaited = errors.New("it did not happen in time")

// until repeats f until it is done, fails, or the time is over: then the error is errWaited.
func until(ctx context.Context, bound time.Duration, f func(context.Context) (done bool, err error)) error {
	within, cancel := context.WithTimeoutCause(ctx, bound, errWaited)
	defer cancel()
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: 20 * time.Millisecond, Multiplier: 2,
		MaxInterval: time.Second,
	}
	_, err := backoff.Retry(within, func() (bool, error) {
		done, err := f(within)
		if err == nil && !done {
			return false, errWaited
		}
		return done, backoff.Permanent(err)
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0)) // within ends it
	if within.Err() != nil && ctx.Err() == nil {
		return errWaited
	}
	return err
}

// throttled repeats f while Kafka's quota on changes refuses it, after the time that Kafka wants.
func throttled(ctx context.Context, f func() (time.Duration, error)) error {
	var rejected error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		pause, err := f()
		if errors.Is(err, kerr.ThrottlingQuotaExceeded) {
			rejected = err
			return struct{}{}, &backoff.RetryAfterError{Duration: pause}
		}
		return struct{}{}, backoff.Permanent(err)
	}, backoff.WithMaxElapsedTime(quotaWait))
	if asked := (*backoff.RetryAfterError)(nil); errors.As(err, &asked) {
		return fmt.Errorf("the quota controller_mutation_rate lets no more changes through: raise it for this Kafka "+
			"user, or apply again later: %w", rejected)
	}
	return err
}

// wait is how long Kafka wants to be left alone.
func wait(milliseconds int32) time.Duration {
	return max(50*time.Millisecond, time.Duration(milliseconds)*time.Millisecond)
}

// oldPartitions is how many partitions the topic had when the plan was made.
func oldPartitions(c plan.Change) int32 {
	a, _ := c.Live.Get(partitionsAttr)
	n, err := strconv.ParseInt(a.Value, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}
