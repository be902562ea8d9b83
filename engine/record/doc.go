// Package record is what goes through a topic: a source's raw record, and the headers that it has in Kafka.
package record
