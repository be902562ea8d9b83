package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// snapshot is what Kafka's metadata says.
type snapshot struct {
	cluster string  // its id; "": the brokers are too old to have one
	brokers []int32 // that are up
	topics  map[string]*topic
	named   map[string]bool  // asked for by name
	hidden  map[string]error // this user may not see them, and so cannot tell whether they exist
}

func newSnapshot() *snapshot {
	return &snapshot{topics: map[string]*topic{}, named: map[string]bool{}, hidden: map[string]error{}}
}

// topic is a topic as Kafka has it.
type topic struct {
	name       string
	id         string // "": the broker is too old to have one
	internal   bool
	operations int32 // bits of what this user may do; not above 0: unknown
	partitions []partition
	config     map[string]setting // by Kafka's names; nil: not read
	unread     bool               // config is empty: this user may not read it
	denied     error              // why its config could not be read
}

type partition struct {
	id, leader       int32
	replicas, isr    []int32
	adding, removing []int32 // of a reassignment that is under way; both are in replicas
}

// target is where the replicas will be once what is under way has ended.
func (p partition) target() []int32 {
	return slices.DeleteFunc(slices.Clone(p.replicas), func(b int32) bool { return slices.Contains(p.removing, b) })
}

// setting is one key of a topic's config.
type setting struct {
	value    string
	source   kmsg.ConfigSource
	fallback *string // what it is when it is not set on the topic, where the brokers set it; nil: not known
}

// own tells whether it is set on the topic itself.
func (s setting) own() bool { return s.source == kmsg.ConfigSourceDynamicTopicConfig }

// origin says where a value comes from that is not set on the topic. Whether somebody set it on the brokers Kafka does
// not always say: log.retention.hours=48 counts as its own default.
func (s setting) origin() string {
	if s.own() {
		return ""
	}
	return "broker default"
}

// reserved tells whether a topic is Kafka's, or a schema registry's, own.
func reserved(t *topic) bool { return t.internal || reservedName(t.name) }

func reservedName(name string) bool { return strings.HasPrefix(name, "__") || name == "_schemas" }

// list reads the metadata of some topics, or of all, past the client's cache.
func (c *Cluster) list(ctx context.Context, s *snapshot, names []string) error {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, n := range names {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = new(n)
		req.Topics = append(req.Topics, rt)
		s.named[n] = true
	}
	resp, err := ask[*kmsg.MetadataResponse](ctx, c, req)
	if err != nil {
		return fmt.Errorf("read the list of topics: %w", err)
	}
	if resp.ClusterID != nil {
		s.cluster = *resp.ClusterID
	}
	s.brokers = s.brokers[:0]
	for _, b := range resp.Brokers {
		s.brokers = append(s.brokers, b.NodeID)
	}
	slices.Sort(s.brokers)
	for _, m := range resp.Topics {
		if m.Topic == nil {
			continue
		}
		t := newTopic(m)
		switch err := kerr.ErrorForCode(m.ErrorCode); {
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			s.hidden[t.name] = fmt.Errorf("this Kafka user may not see topic %s, and so cannot tell whether "+
				"it exists: %w", t.name, grant("Describe", t.name))
			continue
		case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.InvalidTopicException):
			continue
		}
		s.topics[t.name] = t
	}
	return nil
}

func newTopic(m kmsg.MetadataResponseTopic) *topic {
	t := &topic{name: *m.Topic, internal: m.IsInternal, operations: m.AuthorizedOperations}
	if m.TopicID != [16]byte{} {
		t.id = kadm.TopicID(m.TopicID).String()
	}
	for _, p := range m.Partitions {
		t.partitions = append(t.partitions, partition{
			id: p.Partition, leader: p.Leader, replicas: p.Replicas,
			isr: p.ISR,
		})
	}
	slices.SortFunc(t.partitions, func(a, b partition) int { return int(a.id - b.id) })
	return t
}

// underway learns which replicas are still being copied: metadata lists them as if they were there. A cluster where
// every replica is in sync moves nothing, and is not asked.
func (c *Cluster) underway(ctx context.Context, s *snapshot) error {
	lagging := false
	for _, t := range s.topics {
		lagging = lagging || slices.ContainsFunc(t.partitions, func(p partition) bool {
			return len(p.isr) < len(p.replicas)
		})
	}
	if !lagging {
		return nil
	}
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	req.Topics = nil
	resp, err := ask[*kmsg.ListPartitionReassignmentsResponse](ctx, c, req)
	if err != nil {
		return fmt.Errorf("read which partitions move: %w", err)
	}
	// Without the right to ask, replicas that are being copied count as there.
	for _, m := range resp.Topics {
		t := s.topics[m.Topic]
		if t == nil {
			continue
		}
		for _, moved := range m.Partitions {
			i := slices.IndexFunc(t.partitions, func(p partition) bool { return p.id == moved.Partition })
			if i >= 0 {
				t.partitions[i].replicas, t.partitions[i].adding, t.partitions[i].removing = moved.Replicas,
					moved.AddingReplicas, moved.RemovingReplicas
			}
		}
	}
	return nil
}

// configBatch is how many topics one request asks about: some 900 bytes come back for each.
const configBatch = 500

// configure reads the config of topics, with the source of each value.
func (c *Cluster) configure(ctx context.Context, s *snapshot, names []string) error {
	for batch := range slices.Chunk(names, configBatch) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.IncludeSynonyms = true
		for _, n := range batch {
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, n
			req.Resources = append(req.Resources, r)
		}
		resp, err := ask[*kmsg.DescribeConfigsResponse](ctx, c, req)
		if err != nil {
			return fmt.Errorf("read the config of topics: %w", err)
		}
		for _, r := range resp.Resources {
			t := s.topics[r.ResourceName]
			if t == nil {
				continue
			}
			switch err := brokerError(r.ErrorCode, r.ErrorMessage); {
			case errors.Is(err, kerr.UnknownTopicOrPartition): // deleted since the list was read
				delete(s.topics, t.name)
				s.named[t.name] = true
			case errors.Is(err, kerr.TopicAuthorizationFailed):
				t.config, t.unread = map[string]setting{}, true
			case err != nil:
				t.denied = fmt.Errorf("read the config of topic %s: %w", t.name, err)
			default:
				t.config = settings(r.Configs)
			}
		}
	}
	return nil
}

// settings leaves out what Kafka hides: keys that it does not know.
func settings(list []kmsg.DescribeConfigsResponseResourceConfig) map[string]setting {
	out := make(map[string]setting, len(list))
	for _, c := range list {
		if c.Value == nil {
			continue
		}
		s := setting{value: canonical(c.Name, *c.Value), source: c.Source}
		for _, synonym := range c.ConfigSynonyms {
			if synonym.Source == kmsg.ConfigSourceDynamicTopicConfig || synonym.Value == nil {
				continue
			}
			// of what the topic has in ms
			if !strings.HasSuffix(synonym.Name, ".hours") && !strings.HasSuffix(synonym.Name, ".minutes") {
				s.fallback = new(canonical(c.Name, *synonym.Value))
			}
			break
		}
		out[c.Name] = s
	}
	return out
}

// grant is the remedy for a missing right on a topic.
func grant(operation, topic string) error {
	return fmt.Errorf("grant it with kafka-acls --add --allow-principal User:NAME --operation %s --topic %s", operation,
		topic)
}

// refusal is the broker's no, in its own words where it has some.
type refusal struct {
	code    error
	message string
}

func brokerError(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	if err == nil {
		return nil
	}
	r := &refusal{code: err}
	if message != nil {
		r.message = *message
	}
	return r
}

func (r *refusal) Error() string {
	if r.message != "" {
		return r.message
	}
	return r.code.Error()
}

func (r *refusal) Unwrap() error { return r.code }
