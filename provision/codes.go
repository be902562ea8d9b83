package provision

import (
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/kafka"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale"
	"github.com/cryptoviz/cryptoviz/provision/timescale/role"
	"github.com/cryptoviz/cryptoviz/provision/timescale/table"
	"github.com/cryptoviz/cryptoviz/provision/timescale/view"
)

// Codes lists all findings, by system and number.
func Codes() []plan.Code {
	tables := slices.Concat(table.Codes, timescale.Codes)
	slices.SortFunc(tables, func(a, b plan.Code) int { return strings.Compare(a.ID, b.ID) })
	return slices.Concat(plan.Codes, kafka.Codes, tables, view.Codes, role.Codes, queryCodes, grafana.Codes)
}

// queryCodes are the findings about SQL that others run: panels, alert rules, rollups.
var queryCodes = []plan.Code{
	codePanelRejected,
	codeRollupRejected,
}

var (
	codePanelRejected = plan.Code{
		ID: "CV-Q01", Class: plan.Risky, Title: "A panel or alert rule cannot be read after this",
		Text: "PostgreSQL was asked to explain its SQL against the tables and views as they will be after apply, " +
			"and refused. It would show an error, or never fire.",
		Choices: []string{"correct the SQL in the dashboard's file or the alert block", "keep what it reads"},
	}
	codeRollupRejected = plan.Code{
		ID: "CV-Q02", Class: plan.Risky, Title: "A rollup cannot run after this",
		Text: "PostgreSQL was asked to prepare the rollup's query against the tables as they will be after apply, " +
			"and refused. The days would not be rolled up: their raw rows stay until the query is right.",
		Choices: []string{"correct the query", "keep what it reads"},
	}
)
