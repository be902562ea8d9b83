// Package role makes roles and their privileges match pipeline.hcl.
package role
