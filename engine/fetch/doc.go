// Package fetch gets raw records from a source: HTTP and HTML by polling, WebSocket by a stream. What a source sends is
// never trusted: sizes, times, redirects and addresses are bounded, and every failure says in plain words what came.
package fetch
