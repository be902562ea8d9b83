package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (e *env) newValidate() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "validate",
		Short: "Check pipeline.hcl and the sources that it names; no connection is opened",
		Long: `Check pipeline.hcl and the files that it names. All mistakes are reported at once, each with its file, line
and a remedy. No connection is opened. The exit status is 1 when there is an error.`,
		Example: "  cryptoviz validate\n  cryptoviz validate --json | jq '.diagnostics[]'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			started := time.Now()
			if asJSON {
				_, diags, err := e.read()
				if err != nil {
					return err
				}
				if err := diags.JSON(e.Stdout); err != nil {
					return err
				}
				if diags.HasErrors() {
					return exit(1)
				}
				return nil
			}
			p, err := e.loadWith(true)
			if err != nil {
				return err
			}
			enabled := 0
			for _, s := range p.Sources {
				if s.Enabled {
					enabled++
				}
			}
			var more strings.Builder
			for _, kind := range []struct {
				n    int
				what string
			}{
				{len(p.Views), "view"},
				{len(p.Aggregates), "aggregate"},
				{len(p.Roles), "role"},
				{len(p.Folders), "folder"},
				{len(p.DataSources), "data source"},
				{len(p.Dashboards), "dashboard"},
				{len(p.Alerts), "alert"},
				{len(p.Removed), "removed block"},
			} {
				if kind.n > 0 {
					more.WriteString(", " + count(kind.n, kind.what))
				}
			}
			e.print("%s is valid: %s (%d enabled), %s, %s, %s%s. %s\n", e.file, count(len(p.Sources), "source"),
				enabled,
				count(len(p.Topics), "topic"), count(len(p.Tables), "table"), count(len(p.Rollups), "rollup"),
				more.String(),
				fmt.Sprintf("Checked in %d ms.", time.Since(started).Milliseconds()))
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result for programs")
	return c
}
