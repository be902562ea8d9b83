package table

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// noPrivilege tells what right is missing to what the server refused with 42501.
func (d *tableDiff) noPrivilege(ctx context.Context, before []string, steps []ddl.Step,
	err *pg.StatementError,
) (unknown, error) {
	switch {
	case slices.Contains(before, err.SQL): // of the dry run itself: that says nothing of the change
		return unknown("the server says " + pg.ServerText(err)), nil
	case d.change.Action == plan.Create && before == nil && d.inEngineSchema(ctx):
		return d.run(ctx, []string{createEngineSchema}, steps)
	}
	if d.t.live.Caps.ReadOnly != "" {
		return unknown("the server says " + pg.ServerText(err)), nil
	}
	d.change.Find(CodeRejected, "", "%s", d.t.Catalog.LackingForTable(ctx, d.t.name(), err))
	return "", nil
}

// createEngineSchema asks for the right to make a schema only where it makes one.
const createEngineSchema = "DO $$ BEGIN IF to_regnamespace('" + catalog.EngineSchema +
	"') IS NULL THEN CREATE SCHEMA IF NOT EXISTS " + catalog.EngineSchema + "; END IF; END $$"

// inEngineSchema tells whether new tables come to be in the engine's schema, which the same apply makes: where the
// search_path begins with it, as it does for a user of its name.
func (d *tableDiff) inEngineSchema(ctx context.Context) (yes bool) {
	err := d.t.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, createEngineSchema); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT current_schema() = $1", catalog.EngineSchema).Scan(&yes)
	})
	return err == nil && yes
}
