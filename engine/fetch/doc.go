// Package fetch gets raw records from a source: HTTP polls, HTML pages and WebSocket streams, with their limits.
package fetch
