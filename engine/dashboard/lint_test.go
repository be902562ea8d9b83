package dashboard_test

import (
	"strings"
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func TestLint(t *testing.T) {
	t.Parallel()
	panel := func(more string) string {
		return `{"title": "X", "schemaVersion": 41, "panels": [` + more + `]}`
	}
	query := func(sql, format string) string {
		return panel(`{"id": 1, "type": "table", "title": "P", "datasource": {"type": "postgres", "uid": "x"}, "targets": [{"refId": "A", "rawSql": "` + sql + `", "format": "` + format + `"}]}`)
	}
	tests := []struct{ name, json, want string }{
		{"fine", query("SELECT time, $__timeGroup(time, '1h') FROM t WHERE $__timeFilter(time) ORDER BY 1", "time_series"), ""},
		{"no JSON", `{`, "is not a dashboard JSON file"},
		{"version 2", `{"title": "X", "elements": {}, "layout": {}}`, "schema version 2"},
		{"export", `{"title": "X", "schemaVersion": 41, "__inputs": []}`, "holds __inputs"},
		{"export variable", panel(`{"id": 1, "type": "stat", "datasource": {"uid": "${DS_MAIN}"}}`), "holds ${DS_MAIN}"},
		{"no id", panel(`{"type": "text", "title": "T"}`), "the panel T has no id"},
		{"same id", panel(`{"id": 1, "type": "text", "title": "A"}, {"id": 1, "type": "text", "title": "B"}`), "the panels A and B have the same id 1"},
		{"same id, nested", panel(`{"id": 1, "type": "row", "collapsed": true, "panels": [{"id": 1, "type": "text", "title": "B"}]}`), "have the same id 1"},
		{"same ref", panel(`{"id": 1, "title": "P", "type": "stat", "datasource": {"uid": "x"}, "targets": [{"refId": "A"}, {"refId": "A"}]}`), "the panel P has two queries A"},
		{"no data source", panel(`{"id": 1, "title": "P", "type": "stat", "targets": [{"refId": "A", "rawSql": "SELECT 1"}]}`), "names no data source"},
		{"unknown variable", query("SELECT $nosuch, ${other:csv}, [[third]]", "table"), "uses $nosuch, $other, $third"},
		{"repeat over nothing", panel(`{"id": 1, "title": "P", "type": "text", "repeat": "coin"}`), "uses coin"},
		{"title", panel(`{"id": 1, "title": "of $coin", "type": "text"}`), "uses $coin"},
		{"unknown macro", query("SELECT $__nosuch(x)", "table"), "unknown macro $__nosuch"},
		{"alias trap", query("SELECT $__timeGroup(t,'1h'), max(x) FROM t GROUP BY $__timeGroup(t,'1h') ORDER BY 1", "table"), "write $__timeGroupAlias"},
		{"unsorted", query("SELECT time, x FROM t", "time_series"), "without ORDER BY"},
		{"too wide", panel(`{"id": 1, "title": "P", "type": "text", "gridPos": {"x": 20, "y": 0, "w": 6, "h": 1}}`), "wider than the grid"},
		{"overlap", panel(`{"id": 1, "title": "P", "type": "text", "gridPos": {"x": 0, "y": 0, "w": 6, "h": 4}}, {"id": 2, "title": "Q", "type": "text", "gridPos": {"x": 5, "y": 3, "w": 6, "h": 4}}`), "overlap"},
		{"refresh", `{"title": "X", "schemaVersion": 41, "refresh": "1s"}`, "refresh 1s is below"},
		{"schema version", `{"title": "X"}`, "no schemaVersion"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := dashboard.Lint(&spec.Dashboard{Name: "x", File: "x.json", UID: "x", JSON: []byte(tt.json)})
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
