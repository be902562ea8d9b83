package view

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// assessRebuild is about an aggregate that cannot be changed in place: its group drops and creates it. parent is the
// aggregate that it reads and that is created again, too, or "".
func (a *Aggregate) assessRebuild(ctx context.Context, c *plan.Change, l *liveAggregate, parent string,
	groups *ddl.Groups,
) error {
	c.Action = plan.Replace
	root, err := a.root(ctx, l, parent, groups)
	if err != nil {
		return err
	}
	cover, err := readCoverage(ctx, a.Queries, root, nil)
	if err != nil {
		return err
	}
	if parent != "" {
		if cover, err = readCoverage(ctx, a.Queries, l, cover); err != nil {
			return err
		}
	}
	a.findLoss(c, cover)
	if err := a.warnOfOthers(ctx, c, l); err != nil {
		return err
	}
	if blocked := groups.Blocked[c.Address]; len(blocked) > 0 {
		c.Find(codeAggregateNeeded, "", "%s", strings.Join(blocked, "; "))
	} else if a.group != nil {
		a.group.Join(c, nil)
	}
	return nil
}

// root finds the aggregate whose change rebuilds all of them.
func (a *Aggregate) root(
	ctx context.Context, l *liveAggregate, parent string, groups *ddl.Groups,
) (*liveAggregate, error) {
	name := a.name()
	for parent != "" {
		name, parent = parent, groups.Rebuilt[parent]
	}
	if name == a.name() {
		return l, nil
	}
	return live(ctx, a.Queries, name, nil)
}

func (a *Aggregate) findLoss(c *plan.Change, cover *coverage) {
	if loss := cover.loss(); loss != nil {
		rows := fmt.Sprintf("%d rows", loss.Count)
		if cover.rows < 0 {
			rows = "rows"
		}
		c.Find(codeRebuildLoses, "query", "it is rebuilt: %s; %s are lost", cover.text(), rows).Loss = loss
		return
	}
	c.Find(codeRebuild, "query", "it is rebuilt")
}

// warnOfOthers names what is undeclared and what a rebuild does not restore.
func (a *Aggregate) warnOfOthers(ctx context.Context, c *plan.Change, l *liveAggregate) error {
	var gone []string
	if l.Columnar {
		gone = append(gone, "its columnstore")
	}
	policies := slices.Clone(l.more)
	if _, leaves := c.Diff("refresh.every"); l.refresh != nil && a.Spec.Refresh == nil && !leaves {
		policies = append(policies, l.refresh)
	}
	if _, leaves := c.Diff("retention"); l.retention != nil && a.Spec.Retention == 0 && !leaves {
		policies = append(policies, l.retention)
	}
	for _, j := range policies {
		gone = append(gone, fmt.Sprintf("policy %d (%s)", j.ID, describeJob(j)))
	}
	indexes, err := indexesOf(ctx, a.Queries, l)
	if err != nil {
		return err
	}
	if gone = append(gone, indexes...); len(gone) > 0 {
		c.Find(codeSettingsLost, "", "%s would go", strings.Join(gone, ", "))
	}
	return nil
}

// indexesOf lists the indexes on what an aggregate holds that users made. TimescaleDB's own are over the time, and over
// each column of GROUP BY with the time.
func indexesOf(ctx context.Context, q *shadow.Queries, l *liveAggregate) ([]string, error) {
	var out []string
	var name, using string
	err := q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		return pg.ForEach(ctx, tx, `SELECT c.relname::text, substring(k.definition FROM ' USING (.*)$') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid, LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS definition) k
			WHERE i.indrelid = to_regclass($1) AND NOT (starts_with(c.relname::text, $3 || '_') AND i.indnatts <= 2
			AND k.definition LIKE '% btree (%' || (SELECT quote_ident(d.column_name) FROM timescaledb_information.dimensions d WHERE d.hypertable_schema = $2 AND d.hypertable_name = $3 AND d.dimension_number = 1) || ' DESC)')
			ORDER BY 1`, []any{pg.Ident(l.ref.StoredSchema, l.ref.StoredName), l.ref.StoredSchema, l.ref.StoredName}, []any{&name, &using}, func() error {
			out = append(out, fmt.Sprintf("index %s (%s)", name, using))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the indexes of aggregate %s: %w", l.Name, err)
	}
	return out, nil
}

func (a *Aggregate) assessDelete(ctx context.Context, c *plan.Change, l *liveAggregate) error {
	readers, err := a.Queries.Catalog.Dependents(ctx, l.Name, l.OID)
	if err != nil {
		return err
	}
	blocked, err := a.Queries.Blocking(ctx, a.Removed, a.group, readers)
	if err != nil {
		return err
	}
	if blocked != "" {
		c.Find(codeAggregateNeeded, "", "%s", blocked)
		return nil
	}
	cover, err := readCoverage(ctx, a.Queries, l, nil)
	if err != nil {
		return err
	}
	if loss := cover.loss(); loss != nil {
		c.Find(codeAggregateDeleted, "", "%s", cover.text()).Loss = loss
	}
	if a.group != nil {
		a.group.Join(c, nil)
		return nil
	}
	c.Steps = ddl.Transaction(ddl.DropAggregate + pg.Ident(l.Schema, l.Name))
	return nil
}
