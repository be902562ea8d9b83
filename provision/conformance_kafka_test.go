package provision_test

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// alter changes the topic's config as another program does, and waits until all brokers show it.
func alter(key, value string) func(*conformance) {
	return func(c *conformance) {
		c.t.Helper()
		if _, err := kadm.NewClient(c.kafka).AlterTopicConfigs(c.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, "conform_ticks"); err != nil {
			c.t.Fatal(err)
		}
		c.seen("config conform_ticks " + key + "=" + value)
	}
}

// seen waits until the brokers show a topic so, with all its replicas in place.
func (c *conformance) seen(line string) {
	c.t.Helper()
	admin := kadm.NewClient(c.kafka)
	var ours kadm.TopicsSet
	ours.Add("conform_ticks", 0, 1, 2, 3)
	testkit.Eventually(c.t, func() error {
		moving, err := admin.ListPartitionReassignments(c.t.Context(), ours)
		if err != nil {
			return err
		}
		if lines := topics(c.t, c.kafka, "conform_"); len(moving) > 0 || !slices.Contains(lines, line) {
			return fmt.Errorf("%q is not there: %q, %d partitions move", line, lines, len(moving))
		}
		return nil
	})
}

func kafkaSubjects() []subject {
	return []subject{{
		kind: "topic", address: "topic.conform_ticks", removed: "CV-K11",
		files: map[string]string{"pipeline.hcl": `
topic "conform_ticks" {
  partitions      = 2
  replication     = 2
  retention       = "7d"
  retention_bytes = "1GiB"
  cleanup_policy  = "compact,delete"
  compression     = "zstd"
  config = {
    "max.message.bytes" = "2000000"
  }
}
`},
		attributes: []attribute{
			{
				fields: "Topic.Partitions", edit: []string{"partitions      = 2", "partitions      = 3"}, shows: []string{"partitions: 2 -> 3"}, codes: "CV-K03",
				drift: func(c *conformance) {
					if _, err := kadm.NewClient(c.kafka).UpdatePartitions(c.t.Context(), 4, "conform_ticks"); err != nil {
						c.t.Fatal(err)
					}
					c.seen("topic conform_ticks 4 partitions, 2 replicas")
				},
				driftShows: []string{"partitions: 4 -> 3"}, driftCodes: "CV-K01", yield: []string{"partitions      = 3", "partitions      = 4"},
			},
			{fields: "Topic.Partitions", edit: []string{"partitions      = 4", "partitions      = 1"}, shows: []string{"partitions: 4 -> 1"}, codes: "CV-K01"},
			{fields: "Topic.Replication", edit: []string{"replication     = 2", "replication     = 3"}, shows: []string{"replication: 2 -> 3"}, codes: "CV-K02"},
			{
				fields: "Topic.Replication", edit: []string{"replication     = 2", "replication     = 1"}, shows: []string{"replication: 2 -> 1"}, codes: "CV-K04",
				drift: func(c *conformance) {
					var both kadm.AlterPartitionAssignmentsReq
					for p := range int32(4) {
						both.Assign("conform_ticks", p, []int32{1, 2})
					}
					if _, err := kadm.NewClient(c.kafka).AlterPartitionAssignments(c.t.Context(), both); err != nil {
						c.t.Fatal(err)
					}
					c.seen("topic conform_ticks 4 partitions, 2 replicas")
				},
				driftShows: []string{"replication: 2 -> 1"}, driftCodes: "CV-K04",
			},
			{
				fields: "Topic.Config", edit: []string{`"7d"`, `"1d"`}, shows: []string{"retention: 7d -> 1d"}, codes: "CV-K13",
				drift: alter("retention.ms", "3600000"), driftShows: []string{"retention: 1h -> 1d"},
			},
			{
				fields: "Topic.Config", edit: []string{`"1GiB"`, `"2GiB"`}, shows: []string{"retention_bytes: 1GiB -> 2GiB"},
				drift: alter("retention.bytes", "4096"), driftShows: []string{"retention_bytes: 4KiB -> 2GiB"},
			},
			{
				fields: "Topic.Config", edit: []string{`"compact,delete"`, `"delete"`}, shows: []string{"cleanup_policy: compact,delete -> delete"},
				drift: alter("cleanup.policy", "compact"), driftShows: []string{"cleanup_policy: compact -> delete"}, driftCodes: "CV-K13",
			},
			{
				fields: "Topic.Config", edit: []string{`"zstd"`, `"lz4"`}, shows: []string{"compression: zstd -> lz4"},
				drift: alter("compression.type", "gzip"), driftShows: []string{"compression: gzip -> lz4"},
			},
			{
				fields: "Topic.Config", edit: []string{`"2000000"`, `"1500000"`}, shows: []string{"max.message.bytes: 2000000 -> 1500000"}, codes: "CV-K10",
				drift: alter("max.message.bytes", "3000000"), driftShows: []string{"max.message.bytes: 3000000 -> 1500000"}, driftCodes: "CV-K10",
			},
			{
				fields: "Topic.Config", edit: []string{`"max.message.bytes" = "1500000"`, `"segment.ms" = "3600000"`},
				shows: []string{"segment.ms: 604800000 -> 3600000", "max.message.bytes: 1500000 -> "}, codes: "CV-K10",
				drift: alter("segment.ms", "7200000"), driftShows: []string{"segment.ms: 7200000 -> 3600000"},
			},
			{fields: "Topic.Config", edit: []string{`"segment.ms" = "3600000"`, `"segment.ms" = "soon"`}, shows: []string{"segment.ms: 3600000 -> soon"}, codes: "CV-K05"},
		},
	}}
}
