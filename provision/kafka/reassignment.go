package kafka

import (
	"context"
	"maps"
	"slices"
)

// reassignments returns the new replicas of a topic's partitions, by partition. All topics of our resources are planned
// together, so that the copies spread evenly over the brokers.
func (c *Cluster) reassignments(ctx context.Context, name string) (map[int32][]int32, error) {
	defer c.lock()()
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if c.read.reassignments == nil {
		wanted := map[string]int{}
		for n, t := range c.resources {
			if t.spec != nil && s.topics[n] != nil {
				wanted[n] = int(t.spec.Replication)
			}
		}
		c.read.reassignments = assign(s, wanted)
	}
	return c.read.reassignments[name], nil
}

// assign returns where replicas go so that each partition has as many as wanted, on different brokers that are up. The
// leader and the order of those that stay are kept; new ones go where fewest replicas are, and where most are they go
// from. Racks are not looked at. Partitions that have their number are left out, unless they are still being copied.
func assign(s *snapshot, wanted map[string]int) map[string]map[int32][]int32 {
	load := map[int32]int{}
	for _, t := range s.topics {
		for _, p := range t.partitions {
			for _, b := range p.target() {
				load[b]++
			}
		}
	}
	out := map[string]map[int32][]int32{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		for _, p := range s.topics[name].partitions {
			target := p.target()
			if len(target) == wanted[name] && len(p.adding)+len(p.removing) == 0 {
				continue
			}
			for len(target) < wanted[name] {
				b, found := emptiest(s.brokers, target, load)
				if !found {
					break // fewer brokers than replicas: the plan says so
				}
				target = append(target, b)
				load[b]++
			}
			for len(target) > wanted[name] {
				i := fullest(s.brokers, target, p.leader, load)
				load[target[i]]--
				target = slices.Delete(target, i, i+1)
			}
			if out[name] == nil {
				out[name] = map[int32][]int32{}
			}
			out[name][p.id] = target
		}
	}
	return out
}

// emptiest is the broker with the fewest replicas that has none of this partition; of equal ones the next after the
// last replica's, so that the copies of one broker's partitions spread.
func emptiest(brokers, taken []int32, load map[int32]int) (best int32, found bool) {
	after := 0
	if len(taken) > 0 {
		after, _ = slices.BinarySearch(brokers, taken[len(taken)-1]+1)
	}
	for _, b := range slices.Concat(brokers[after:], brokers[:after]) {
		if !slices.Contains(taken, b) && (!found || load[b] < load[best]) {
			best, found = b, true
		}
	}
	return best, found
}

// fullest is the index of the replica to give up: one on a broker that is down, else on the one with the most; of equal
// ones the last. Never the leader.
func fullest(brokers, replicas []int32, leader int32, load map[int32]int) int {
	if !slices.Contains(replicas, leader) {
		leader = replicas[0]
	}
	weight := func(b int32) int {
		if !slices.Contains(brokers, b) {
			return len(load) + 1<<40
		}
		return load[b]
	}
	best := -1
	for i, b := range replicas {
		if b != leader && (best < 0 || weight(b) >= weight(replicas[best])) {
			best = i
		}
	}
	return best
}
