package dashboard

import "strings"

// What Grafana assumes of the queries of an alert rule that says nothing else.
const (
	AlertLookBack = 600  // seconds of history that a query may look at
	AlertInterval = 1000 // milliseconds
)

// TrimSQL removes what no SQL depends on: line ends of Windows, space around, a last semicolon.
func TrimSQL(sql string) string {
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(sql, "\r\n", "\n")), ";"))
}
