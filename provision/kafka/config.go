package kafka

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Attributes that are no keys of the config.
const (
	partitionsAttr  = "partitions"
	replicationAttr = "replication"
)

// Keys of the config that mean something here.
const (
	retentionMs    = "retention.ms"
	retentionBytes = "retention.bytes"
	cleanupPolicy  = "cleanup.policy"
	compression    = "compression.type"
	minInsync      = "min.insync.replicas"
	maxMessage     = "max.message.bytes"
)

// words are the keys that have a word of their own in pipeline.hcl, in the order in which they are shown.
var words = []struct{ attr, key string }{
	{"retention", retentionMs},
	{"retention_bytes", retentionBytes},
	{"cleanup_policy", cleanupPolicy},
	{"compression", compression},
}

func attrOf(key string) string {
	for _, w := range words {
		if w.key == key {
			return w.attr
		}
	}
	return key
}

func keyOf(attr string) string {
	for _, w := range words {
		if w.attr == attr {
			return w.key
		}
	}
	return attr
}

// sortKeys orders keys as they are shown: those with a word of their own first.
func sortKeys(keys []string) []string {
	rank := func(key string) int {
		for i, w := range words {
			if w.key == key {
				return i
			}
		}
		return len(words)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return keys
}

// canonical writes a value as Kafka gives it back: it parses what it is given, so that "TRUE" returns as "true", "0.50"
// as "0.5" and "delete, compact" as "delete,compact". The order of a list means nothing.
func canonical(key, value string) string {
	value = strings.TrimSpace(value)
	switch key {
	case cleanupPolicy, "leader.replication.throttled.replicas", "follower.replication.throttled.replicas":
		return strings.Join(list(value), ",")
	case "min.cleanable.dirty.ratio":
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return strconv.FormatInt(n, 10)
	}
	if lower := strings.ToLower(value); lower == "true" || lower == "false" {
		return lower
	}
	return value
}

// list is the sorted elements of a list, each once.
func list(value string) []string {
	var out []string
	for e := range strings.SplitSeq(value, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const unlimited = "unlimited"

// attribute shows a setting in the units of pipeline.hcl.
func attribute(key, value string) plan.Attr {
	a := plan.Attr{Name: attrOf(key), Value: friendly(key, value)}
	if a.Value != value {
		a.Raw = value
	}
	return a
}

func friendly(key, value string) string {
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case value == "":
		return `""`
	case err != nil:
		return value
	case key == retentionMs && n == -1, key == retentionBytes && n == -1:
		return unlimited
	case n < 0:
		return value
	case key == retentionMs:
		return milliseconds(n)
	case key == retentionBytes:
		return size(n)
	}
	return value
}

func milliseconds(n int64) string {
	if n > math.MaxInt64/int64(time.Millisecond) {
		return fmt.Sprintf("%dms", n)
	}
	return units.FormatDuration(time.Duration(n) * time.Millisecond)
}

// size is exact, unlike plan.Bytes: "2GiB", or a number of bytes.
func size(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + units[i]
}

// lowered tells whether a limit became smaller; -1 is none.
func lowered(before, after string) bool {
	b, berr := strconv.ParseInt(before, 10, 64)
	a, aerr := strconv.ParseInt(after, 10, 64)
	switch {
	case berr != nil || aerr != nil, a < 0:
		return false
	case b < 0:
		return true
	}
	return a < b
}
