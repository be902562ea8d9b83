// Package consume runs one worker a source: Kafka topic -> mapped rows -> one transaction with the position.
//
// A Worker polls; each assigned partition has a mapper and a committer, so that the next batch is mapped while the last
// one is stored. The database's position decides where a partition starts; Kafka's committed offset is written for lag
// tools only.
package consume
