// Package timescale makes the engine's own schema match pipeline.hcl, and finds which tables, views and aggregates must
// be changed together. Its children make those, and roles, match, on TimescaleDB or plain PostgreSQL.
package timescale
