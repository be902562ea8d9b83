package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// soon is when Kafka deletes: it looks every five minutes, unless set otherwise.
const soon = "within minutes"

// assessRetention says which records go because of a shorter retention or of another cleanup policy.
func (t *Topic) assessRetention(ctx context.Context, c *plan.Change, live *topic, after func(string) string) error {
	was, will := list(live.config[cleanupPolicy].value), list(after(cleanupPolicy))
	begins := func(policy string) bool { return slices.Contains(will, policy) && !slices.Contains(was, policy) }
	deletes := slices.Contains(will, "delete")
	_, policy := c.Diff(attrOf(cleanupPolicy))
	for _, key := range []string{retentionMs, retentionBytes} {
		if _, changed := c.Diff(attrOf(key)); !changed || begins("delete") {
			continue // the whole retention begins with the policy
		}
		unknown := after(key) == ""
		if !deletes || !unknown && !lowered(live.config[key].value, after(key)) {
			continue
		}
		if err := t.shorter(ctx, c, attrOf(key), codeShorterRetention, map[string]string{key: after(key)}); err != nil {
			return err
		}
	}
	if policy && begins("delete") {
		limits := map[string]string{retentionMs: after(retentionMs), retentionBytes: after(retentionBytes)}
		if err := t.shorter(ctx, c, attrOf(cleanupPolicy), codeCleanupPolicy, limits); err != nil {
			return err
		}
	}
	if policy && begins("compact") {
		logs, _, err := t.cluster.logSizes(ctx, t.name)
		if err != nil {
			return err
		}
		gone := everything(logs)
		if gone.nothing() {
			c.Find(codeNothingGoesNow, attrOf(cleanupPolicy),
				"it holds no records now; of later ones only the newest of each key stays, and Kafka refuses records without a key")
		} else {
			c.Find(codeCleanupPolicy, attrOf(cleanupPolicy),
				"only the newest record of each key stays, and Kafka refuses records without a key; at most these go%s",
				gone.unknownReason()).Loss = gone.finish("from now on, as the log is cleaned")
		}
	}
	return nil
}

// shorter finds what is beyond limits: nothing goes now when it is certain that nothing is, now.
func (t *Topic) shorter(ctx context.Context, c *plan.Change, attr string, code plan.Code,
	limits map[string]string,
) error {
	logs, cut, err := t.cluster.logSizes(ctx, t.name)
	if err != nil {
		return err
	}
	worst := &loss{}
	var beyond string
	for _, key := range []string{retentionMs, retentionBytes} {
		value, limited := limits[key]
		if !limited {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		var l *loss
		var what string
		switch {
		case value == "":
			l, what = everything(logs), "records beyond the default of the brokers"
			l.unknown, l.Count, l.Bytes, l.from, l.to = len(logs), 0, 0, 0, 0
		case err != nil || n < 0:
			continue // Kafka refuses the value, or it is no limit
		case key == retentionMs:
			l, what = before(logs, cut), "records older than "+friendly(key, value)
		default:
			l, what = above(logs, n), "the oldest records, where a partition is larger than "+friendly(key, value)
		}
		if beyond == "" || l.Count > worst.Count || l.unknown > worst.unknown {
			worst, beyond = l, what
		}
	}
	switch {
	case beyond == "":
	case worst.nothing():
		c.Find(codeNothingGoesNow, attr, "nothing goes now; later %s go sooner", beyond)
	default:
		c.Find(code, attr, "%s go, at most these%s", beyond, worst.unknownReason()).Loss = worst.finish(soon)
	}
	return nil
}

// unknownReason says that a figure is not the whole.
func (l *loss) unknownReason() string {
	if l.unknown == 0 {
		return ""
	}
	if l.Count == 0 {
		return "; how many is not known"
	}
	return fmt.Sprintf(", and more in %s that cannot be read", plan.Counted(l.unknown, "partition"))
}
