// Package embedded runs everything on one machine for `cryptoviz up`: a private PostgreSQL, an embedded Kafka, and the
// state directory that holds both. It never deletes data that it finds.
package embedded
