// Package schema holds the DDL of the engine's own tables. A leaf: provisioning applies it, the store relies on it.
package schema

import _ "embed"

// SQL creates the schema "cryptoviz", or brings one of an earlier version up to date; safe to run again.
//
//go:embed schema.sql
var SQL string

// Version is the schema_version that SQL leads to.
const Version = 5
