package view

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// tryGroup runs the transaction of a group and rolls it back: what a view gets back need not suit its new columns.
func tryGroup(ctx context.Context, q *shadow.Queries, c *plan.Change, g *ddl.Group) error {
	if c.Address != g.Leader || g.Aggregates() || len(g.Tables) > 0 {
		return nil
	}
	inside, _ := ddl.Unwrapped(c.Steps)
	at := ""
	err := q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		for _, sql := range inside {
			at = sql
			if err := pg.ExecSingle(ctx, tx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil, strings.HasPrefix(at, ddl.CreateView): // the query was tried with all that the plan makes first
	case shadow.Rejected(err) != nil:
		c.Find(codeColumnsNeeded, "query", "%s: %s", pg.FirstLine(at), shadow.Rejected(err))
		c.Steps = nil
	case pg.Code(err) != "":
		c.Note("not tried on the server: %s", pg.ServerText(err))
	default:
		return fmt.Errorf("try the change of %s: %w", c.Address, err)
	}
	return nil
}
