// Package kafka makes topics match pipeline.hcl.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Cluster is what a Kafka cluster holds: one snapshot for all topics, read on first use. It knows the topics that were
// asked of it, and puts what concerns them all into the same few requests. Safe for any number of goroutines.
type Cluster struct {
	client   *kgo.Client
	moveWait time.Duration // how long Apply waits until replicas are copied
	requests atomic.Int64

	mu        sync.Mutex // held while something is read: the others wait for it, and need not ask again
	resources map[string]*Topic
	seconds   float64
	read      *reading
}

// reading is what was read; each part is nil until somebody needs it.
type reading struct {
	at            time.Time
	snapshot      *snapshot
	failed        error // why there is no snapshot: who is not reached is not asked again for every topic
	validation    *validation
	logs          map[string][]partitionLog
	cuts          map[string]time.Time // of logs: what is older goes with the wanted retention
	reassignments map[string]map[int32][]int32
	defaults      map[string]string
	rights        *int32              // bits of what this user may do with the cluster
	names         map[string][]string // of all topics, declared or there, by what they collide as
}

// NewCluster returns a cluster that has not been read yet.
func NewCluster(client *kgo.Client) *Cluster {
	return &Cluster{client: client, moveWait: 10 * time.Minute, resources: map[string]*Topic{}, read: &reading{}}
}

// Topic returns the resource of a topic block.
func (c *Cluster) Topic(s *spec.Topic) *Topic {
	return c.add(&Topic{cluster: c, name: s.Name, spec: s, at: s.Range})
}

// Removed returns the resource of a topic that is to be deleted.
func (c *Cluster) Removed(r *spec.Removed) *Topic {
	return c.add(&Topic{cluster: c, name: r.Name, at: r.Range})
}

func (c *Cluster) add(t *Topic) *Topic {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resources[t.name], c.read.names = t, nil
	return t
}

// Describe tells what was read, where, and in how many requests.
func (c *Cluster) Describe() plan.Read {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := plan.Read{System: "Kafka", Text: "not read", Requests: int(c.requests.Load()), Seconds: c.seconds}
	where := c.where()
	if s := c.read.snapshot; s != nil {
		visible := 0
		for _, t := range s.topics {
			if !reserved(t) {
				visible++
			}
		}
		r.Text = fmt.Sprintf("%s: %s on %s", where, plan.Counted(visible, "topic"),
			plan.Counted(len(s.brokers), "broker"))
	} else if where != "" {
		r.Text = where + ": not read"
	}
	return r
}

// where names the brokers that the client was given.
func (c *Cluster) where() string {
	seeds, _ := c.client.OptValue(kgo.SeedBrokers).([]string)
	if len(seeds) > 1 {
		return seeds[0] + ",…"
	}
	return strings.Join(seeds, ",")
}

// ID is the id of the cluster, "" when it has none.
func (c *Cluster) ID(ctx context.Context) (string, error) {
	defer c.lock()()
	s, err := c.load(ctx)
	if err != nil {
		return "", err
	}
	return s.cluster, nil
}

// Unmanaged lists the addresses of all topics that this Kafka user can see, so that the caller takes off what is
// declared. Kafka's own are none.
func (c *Cluster) Unmanaged(ctx context.Context) ([]string, error) {
	defer c.lock()()
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, t := range s.topics {
		if !reserved(t) {
			out = append(out, "topic."+t.name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// lock holds the cluster while something may be read, and counts the time.
func (c *Cluster) lock() (unlock func()) {
	c.mu.Lock()
	started, asked := time.Now(), c.requests.Load()
	return func() {
		if c.requests.Load() > asked {
			c.seconds += time.Since(started).Seconds()
		}
		c.mu.Unlock()
	}
}

// answerWait bounds one request, with what the client repeats when a broker does not answer.
const answerWait = time.Minute

// ask sends one request, and counts it.
func ask[R kmsg.Response](ctx context.Context, c *Cluster, req kmsg.Request) (R, error) {
	c.requests.Add(1)
	within, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	resp, err := c.client.Request(within, req)
	r, _ := resp.(R)
	return r, c.answered(ctx, err)
}

// askAll sends a request that is cut by broker, and returns the answers of those that answer.
func askAll[R kmsg.Response](ctx context.Context, c *Cluster, req kmsg.Request) (out []from[R], err error) {
	within, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	for _, shard := range c.client.RequestSharded(within, req) {
		c.requests.Add(1)
		if shard.Err != nil {
			err = errors.Join(err, c.answered(ctx, shard.Err))
			continue
		}
		out = append(out, from[R]{shard.Meta.NodeID, shard.Resp.(R)})
	}
	return out, err
}

type from[R any] struct {
	broker int32
	resp   R
}

// answered words that no answer came, unless it is the caller's context that ended.
func (c *Cluster) answered(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case unsupported(err):
		return fmt.Errorf("the brokers at %s do not know the request: %w", c.where(), err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from Kafka at %s within %s: are enough brokers up?", c.where(),
			units.FormatDuration(answerWait))
	}
	return fmt.Errorf("no answer from Kafka at %s (start it, or correct kafka.brokers): %w", c.where(), err)
}

// unsupported tells whether the brokers do not have a request: some services leave out what tells of disks or of the
// cluster. Two of the client's errors have no name.
func unsupported(err error) bool {
	return err != nil && (errors.Is(err, kerr.UnsupportedVersion) ||
		strings.Contains(err.Error(), "broker is too old") || strings.Contains(err.Error(), "request key is unknown"))
}

// topic returns a topic with its config, or nil when there is none. An error when this Kafka user may not see it.
func (c *Cluster) topic(ctx context.Context, name string) (*topic, error) {
	defer c.lock()()
	return c.find(ctx, name)
}

// find is topic with the lock held.
func (c *Cluster) find(ctx context.Context, name string) (*topic, error) {
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if s.topics[name] == nil && !s.named[name] {
		if err := c.name(ctx, s, append(slices.Collect(maps.Keys(c.resources)), name)...); err != nil {
			return nil, err
		}
	}
	if t := s.topics[name]; t != nil && t.config == nil && t.denied == nil {
		if err := c.configure(ctx, s, c.existing(s, name)); err != nil {
			return nil, err
		}
	}
	t := s.topics[name]
	if t != nil && t.denied != nil {
		return nil, t.denied
	}
	return t, s.hidden[name]
}

// existing lists the topics of our resources whose config is still to be read, and one more.
func (c *Cluster) existing(s *snapshot, more ...string) (out []string) {
	for name := range c.resources {
		if t := s.topics[name]; t != nil && t.config == nil && t.denied == nil {
			out = append(out, name)
		}
	}
	out = append(out, more...)
	slices.Sort(out)
	return slices.Compact(out)
}

// load returns the snapshot. The list of topics holds only what this user may see, so what is missing from it is asked
// for by name before anybody believes that it does not exist.
func (c *Cluster) load(ctx context.Context) (*snapshot, error) {
	if c.read.snapshot != nil || c.read.failed != nil {
		return c.read.snapshot, c.read.failed
	}
	s, err := c.readAll(ctx)
	switch {
	case err == nil:
		c.read.snapshot, c.read.at = s, time.Now()
	case ctx.Err() == nil:
		c.read.failed = err
	}
	return s, err
}

func (c *Cluster) readAll(ctx context.Context) (*snapshot, error) {
	s := newSnapshot()
	if err := c.list(ctx, s, nil); err != nil {
		return nil, err
	}
	if err := c.name(ctx, s, slices.Collect(maps.Keys(c.resources))...); err != nil {
		return nil, err
	}
	if err := c.underway(ctx, s); err != nil {
		return nil, err
	}
	if err := c.configure(ctx, s, c.existing(s)); err != nil {
		return nil, err
	}
	return s, nil
}

// name asks for topics by name, once, where the list lacks them.
func (c *Cluster) name(ctx context.Context, s *snapshot, names ...string) error {
	names = slices.DeleteFunc(names, func(n string) bool { return s.topics[n] != nil || s.named[n] })
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return c.list(ctx, s, slices.Compact(names))
}
