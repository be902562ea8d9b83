// Package catalog reads what a database has: tables, views, aggregates, roles, and what the server can do.
package catalog
