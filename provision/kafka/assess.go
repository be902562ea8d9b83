package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// assess says what a change costs, asks Kafka whether it can be made, and lists the requests that make it.
func (t *Topic) assess(ctx context.Context, c *plan.Change, live *topic) error {
	if reservedName(t.name) || live != nil && live.internal {
		c.Find(codeInternalTopic, "", "%s belongs to Kafka itself, or to the schema registry", t.name)
		return nil
	}
	if live != nil && live.unread {
		c.Note("%s: its config is not compared: this Kafka user may not read it; %v", t.Address(),
			grant("DescribeConfigs", t.name))
	}
	switch c.Action {
	case plan.Create:
		return t.assessCreate(ctx, c)
	case plan.Update:
		return t.assessUpdate(ctx, c, live)
	case plan.Delete:
		return t.assessDelete(ctx, c, live)
	default:
		return nil
	}
}

// unchecked says that a change was not asked about: planning needs no right to change anything, and apply does.
func unchecked(c *plan.Change, what string, remedy error) {
	c.Note("not checked by Kafka: this Kafka user may not %s; for apply, %v", what, remedy)
}

func (t *Topic) assessCreate(ctx context.Context, c *plan.Change) error {
	if other := t.cluster.collides(t.name); other != "" {
		c.Find(codeNameCollides, "",
			"it and topic %s cannot both exist: in the names of Kafka's metrics . and _ are the same", other)
		return nil
	}
	validation, err := t.cluster.validated(ctx)
	if err != nil {
		return err
	}
	switch err := validation.create[t.name]; {
	case err == nil, errors.Is(err, kerr.TopicAlreadyExists): // somebody was faster
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		unchecked(c, "create it", grant("Create", t.name))
	case errors.Is(err, kerr.InvalidReplicationFactor):
		c.Find(codeTooManyReplicas, replicationAttr, "replication = %d: %v", t.spec.Replication, err)
		return nil
	default:
		return t.refuse(c, err)
	}
	config := validation.effective[t.name]
	t.assessInsync(c, config[minInsync], int64(t.spec.Replication))
	if slices.Contains(list(config[cleanupPolicy]), "compact") {
		c.Note("compacted: Kafka keeps the newest record of each key, and refuses records without a key")
	}
	t.requests(c, step{
		api: createTopics, Topic: t.name, Partitions: t.spec.Partitions, Replication: t.spec.Replication,
		Set: t.spec.Config,
	})
	return nil
}

// refuse reports the broker's no. What may be otherwise the next time is an error.
func (t *Topic) refuse(c *plan.Change, err error) error {
	if kerr.IsRetriable(err) || errors.Is(err, kerr.TopicAuthorizationFailed) ||
		errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return err
	}
	attr := ""
	for _, d := range c.Diffs {
		if strings.Contains(err.Error(), " "+keyOf(d.Name)) {
			attr = d.Name
		}
	}
	c.Find(codeRejected, attr, "Kafka refuses it: %v", err)
	return nil
}

func (t *Topic) assessUpdate(ctx context.Context, c *plan.Change, live *topic) error {
	validation, err := t.cluster.validated(ctx)
	if err != nil {
		return err
	}
	if err := t.assessPartitions(c, validation.partitions[t.name]); err != nil {
		return err
	}
	if err := t.assessReplication(ctx, c, live); err != nil {
		return err
	}
	switch err := validation.config[t.name]; {
	case err == nil:
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		unchecked(c, "change its config", grant("AlterConfigs", t.name))
	default:
		if err := t.refuse(c, err); err != nil {
			return err
		}
	}
	after, err := t.after(ctx, c, live)
	if err != nil {
		return err
	}
	_, replicated := c.Diff(replicationAttr)
	_, insync := c.Diff(minInsync)
	if replicated || insync {
		t.assessInsync(c, after(minInsync), int64(t.spec.Replication))
	}
	if d, changed := c.Diff(maxMessage); changed && lowered(live.config[maxMessage].value, after(maxMessage)) {
		c.Find(codeSmallerMessages, maxMessage, "larger batches are refused from now on: %s -> %s bytes",
			orUnset(d.Old), after(maxMessage))
	}
	if err := t.assessRetention(ctx, c, live, after); err != nil {
		return err
	}
	if c.Impossible() {
		return nil
	}
	return t.assessRequests(ctx, c)
}

func orUnset(value string) string {
	if value == "" {
		return "unset"
	}
	return value
}

// after returns the config as it will be. What is reset gets the brokers' default; "" when this user cannot learn it.
func (t *Topic) after(ctx context.Context, c *plan.Change, live *topic) (func(key string) string, error) {
	config := map[string]string{}
	for key, s := range live.config {
		config[key] = s.value
	}
	for _, d := range c.Diffs {
		if d.Name == partitionsAttr || d.Name == replicationAttr {
			continue
		}
		key := keyOf(d.Name)
		if d.Cause != plan.Reset {
			config[key] = canonical(key, t.spec.Config[key])
			continue
		}
		value, known, err := t.cluster.afterReset(ctx, live, key)
		if err != nil {
			return nil, err
		}
		config[key] = value
		if known {
			c.Note("%s becomes %s, the default of the brokers", d.Name, friendly(key, value))
		} else {
			c.Note("%s becomes the default of the brokers, which this Kafka user may not see", d.Name)
		}
	}
	return func(key string) string { return config[key] }, nil
}

// afterReset is reset for those who do not hold the lock.
func (c *Cluster) afterReset(ctx context.Context, live *topic, key string) (value string, known bool, err error) {
	defer c.lock()()
	if _, err := c.load(ctx); err != nil {
		return "", false, err
	}
	return c.reset(ctx, live, key)
}

func (t *Topic) assessPartitions(c *plan.Change, rejected error) error {
	d, changed := c.Diff(partitionsAttr)
	if !changed {
		return nil
	}
	have, err := strconv.Atoi(d.Old)
	if err != nil {
		return fmt.Errorf("partitions: %w", err)
	}
	switch want := int(t.spec.Partitions); {
	case want < have:
		c.Find(codeFewerPartitions, partitionsAttr,
			"Kafka cannot take partitions away: keep %d, or use a topic of another name", have)
	case rejected != nil && !errors.Is(rejected, kerr.TopicAuthorizationFailed):
		return t.refuse(c, rejected)
	default:
		if rejected != nil {
			unchecked(c, "add partitions", grant("Alter", t.name))
		}
		c.Find(codeMorePartitions, partitionsAttr,
			"keys move to other partitions, so the order of a key's records breaks once; it cannot be undone")
	}
	return nil
}

func (t *Topic) assessReplication(ctx context.Context, c *plan.Change, live *topic) error {
	if _, changed := c.Diff(replicationAttr); !changed {
		return nil
	}
	brokers, may, err := t.cluster.brokers(ctx)
	switch {
	case err != nil:
		return err
	case int(t.spec.Replication) > brokers:
		c.Find(codeTooManyReplicas, replicationAttr, "replication = %d, and %s up", t.spec.Replication,
			map[bool]string{true: "1 broker is", false: fmt.Sprintf("%d brokers are", brokers)}[brokers == 1])
		return nil
	case !may:
		unchecked(c, "move replicas", errGrantMoves)
	}
	reassignments, err := t.cluster.reassignments(ctx, t.name)
	if err != nil {
		return err
	}
	logs, _, err := t.cluster.logSizes(ctx, t.name)
	if err != nil {
		return err
	}
	var copies int
	var bytes int64
	for i, p := range live.partitions {
		for _, b := range reassignments[p.id] {
			if !slices.Contains(p.replicas, b) || slices.Contains(p.adding, b) {
				copies++
				bytes += logs[i].bytes
			}
		}
	}
	switch {
	case copies > 0 && bytes > 0:
		c.Find(codeReplication, replicationAttr, "%s to copy, %s over the network", plan.Counted(copies, "replica"),
			plan.Bytes(bytes))
	case copies > 0:
		c.Find(codeReplication, replicationAttr, "%s to copy", plan.Counted(copies, "replica"))
	default:
		c.Find(codeReplication, replicationAttr,
			"replicas of %s are given up: fewer brokers may fail before records are lost",
			plan.Counted(len(reassignments), "partition"))
	}
	return nil
}

func (t *Topic) assessInsync(c *plan.Change, least string, replicas int64) {
	if n, err := strconv.ParseInt(least, 10, 64); err == nil && n > replicas {
		attr := minInsync
		if _, changed := c.Diff(minInsync); !changed {
			attr = replicationAttr
		}
		c.Find(codeAllInSync, attr,
			"it asks for %s in sync, and a partition has %d: all of them must be, so writes stop when one of its brokers fails", plan.Counted(int(n), "replica"), replicas)
	}
}

func (t *Topic) assessDelete(ctx context.Context, c *plan.Change, live *topic) error {
	const mayDelete = 1 << 6 // Kafka's number of the operation
	if live.operations > 0 && live.operations&mayDelete == 0 {
		unchecked(c, "delete it", grant("Delete", t.name))
	}
	logs, _, err := t.cluster.logSizes(ctx, t.name)
	if err != nil {
		return err
	}
	gone := everything(logs)
	c.Find(codeTopicDeleted, "", "all records go%s", gone.unknownReason()).Loss = gone.finish("at once")
	t.requests(c, step{api: deleteTopics, Topic: t.name})
	return nil
}
