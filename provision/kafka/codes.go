package kafka

import "github.com/cryptoviz/cryptoviz/provision/plan"

// Codes are the findings about topics.
var Codes = []plan.Code{
	codeFewerPartitions,
	codeTooManyReplicas,
	codeMorePartitions,
	codeReplication,
	codeRejected,
	codeNameCollides,
	codeShorterRetention,
	codeCleanupPolicy,
	codeAllInSync,
	codeSmallerMessages,
	codeTopicDeleted,
	codeInternalTopic,
	codeNothingGoesNow,
}

var (
	codeFewerPartitions = plan.Code{
		ID: "CV-K01", Class: plan.Impossible, Title: "Fewer partitions",
		Text:    "Kafka cannot remove partitions from a topic: each holds records that would have no place.",
		Choices: []string{"keep the number that the topic has", "a topic of another name, and let the old one run out"},
	}
	codeTooManyReplicas = plan.Code{
		ID: "CV-K02", Class: plan.Impossible, Title: "More replicas than brokers",
		Text:    "The replicas of a partition are on different brokers, so there cannot be more of them than brokers.",
		Choices: []string{"a lower replication", "add brokers, or bring those back that are down"},
	}
	codeMorePartitions = plan.Code{
		ID: "CV-K03", Class: plan.Risky, Title: "More partitions",
		Text: "A record's partition is computed from its key and the number of partitions. With more of them most " +
			"keys move: their older records stay where they are, so records of one key are for a while in two partitions and may be read in another order. Partitions cannot be removed again. cryptoviz itself copes: its rows are identified by source, market and time, not by their order.",
		Choices: []string{"apply when programs that depend on the order per key have read everything"},
	}
	codeReplication = plan.Code{
		ID: "CV-K04", Class: plan.Slow, Title: "Another number of replicas",
		Text: "More replicas: the brokers copy all records of the topic over the network, at full speed, while it is " +
			"in use. Apply waits ten minutes for it. If that is not enough Kafka goes on by itself, and the next apply waits again. Fewer replicas: copies are deleted at once. Leaders stay where they are. New replicas go where fewest are; racks are not looked at.",
		Choices: []string{
			"apply in quiet hours",
			"with racks, or for large topics with a throttle: kafka-reassign-partitions, then plan again",
		},
	}
	codeRejected = plan.Code{
		ID: "CV-K05", Class: plan.Impossible, Title: "Kafka refuses it",
		Text: "The brokers were asked to check the change without making it, and said no. The text is theirs: a key " +
			"or a value that they do not know, a value out of range, or a policy of the cluster.",
		Choices: []string{"change the setting in pipeline.hcl", "for a policy: ask whoever runs the cluster"},
	}
	codeNameCollides = plan.Code{
		ID: "CV-K06", Class: plan.Impossible, Title: "The name collides",
		Text:    "In the names of Kafka's metrics . becomes _, so it lets a_b and a.b not exist at the same time.",
		Choices: []string{"another name", "delete the other topic first"},
	}
	codeShorterRetention = plan.Code{
		ID: "CV-K07", Class: plan.Destroys, Title: "Shorter retention",
		Text: "Records beyond the new limit are deleted within minutes, and cannot be brought back. The figures are " +
			"the most that can go: Kafka deletes whole segments, so younger records in the same segment stay a while. In compacted topics, offsets that are gone already are counted too.",
		Choices: []string{
			"keep the retention",
			"store the records first: wait until the workers have no lag (cryptoviz status)",
			"--allow CV-K07@topic.NAME",
		},
	}
	codeCleanupPolicy = plan.Code{
		ID: "CV-K08", Class: plan.Destroys, Title: "Another cleanup policy",
		Text: "compact keeps the newest record of each key and deletes the others, and refuses records without a key. " +
			"delete deletes what is beyond retention and retention_bytes, which until now did not count. What is deleted cannot be brought back.",
		Choices: []string{
			"keep the policy", "a topic of another name with the new policy",
			"--allow CV-K08@topic.NAME",
		},
	}
	codeAllInSync = plan.Code{
		ID: "CV-K09", Class: plan.Risky, Title: "Every replica must be in sync",
		Text: "min.insync.replicas is how many replicas must have a record before it counts as written with acks=all, " +
			"as cryptoviz writes. Kafka accepts more than there are, and then the smaller number counts: all replicas. Writes go on, and stop as soon as one of a partition's brokers fails. Seen with Kafka 3.9 to 4.2; much older brokers refuse all writes.",
		Choices: []string{
			"more replicas",
			"a lower min.insync.replicas: one less than replication lets one broker fail",
		},
	}
	codeSmallerMessages = plan.Code{
		ID: "CV-K10", Class: plan.Risky, Title: "Smaller messages",
		Text: "Producers whose batches are larger than max.message.bytes get an error from now on. What is stored " +
			"stays readable.",
		Choices: []string{"make the producers' batches smaller first", "keep the limit"},
	}
	codeTopicDeleted = plan.Code{
		ID: "CV-K11", Class: plan.Destroys, Title: "The topic is deleted",
		Text: "The topic goes with all its records, at once and on all brokers. A new topic of the same name " +
			"begins empty.",
		Choices: []string{"drop the removed block: the topic stays, unmanaged", "--allow CV-K11@topic.NAME"},
	}
	codeInternalTopic = plan.Code{
		ID: "CV-K12", Class: plan.Impossible, Title: "Not yours to manage",
		Text: "Topics that begin with __ hold Kafka's own state (consumer groups, transactions), and _schemas holds a " +
			"schema registry's. A wrong setting there stops the cluster, so cryptoviz neither creates, changes nor deletes them.",
		Choices: []string{"another name"},
	}
	codeNothingGoesNow = plan.Code{
		ID: "CV-K13", Class: plan.Future, Title: "Nothing goes now",
		Text: "A shorter retention or another cleanup policy, for a topic that holds nothing beyond it at present. " +
			"Records that are written, or grow older, go sooner than before.",
	}
)
