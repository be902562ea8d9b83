package load

import (
	"strconv"
	"testing"
)

// A default is any SQL expression but a word that PostgreSQL would take for a column.
func TestDefaultThatNamesAColumn(t *testing.T) {
	for sql, wrong := range map[string]bool{
		"unknown": true, " Unknown ": true, "_x1": true, "timestamp": true,
		"NULL": false, "true": false, " current_user ": false, "now()": false, "'unknown'": false, "0": false, "1e3": false, "a || b": false, "x.y": false, "date '2026-01-01'": false,
	} {
		p, d := Load(swap(t, "pipeline.hcl", `column "source" { type = "text" }`, "column \"source\" {\n type = \"text\"\n default = "+strconv.Quote(sql)+"\n}"), "pipeline.hcl", Options{})
		if d.HasErrors() != wrong || wrong && d.Diags[0].Summary != "Not a default" || !wrong && p.Tables[0].Column("source").Default != sql {
			t.Errorf("%q: %s", sql, report(d))
		}
	}
}
