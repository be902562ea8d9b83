package timescale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// descendant is a view or an aggregate that hangs on one that is made anew, directly or not.
type descendant struct {
	view      *liveView
	aggregate *spec.Aggregate // nil: a view
}

// judgeRebuild is about an aggregate that cannot be changed in place. All that hangs on it is dropped and made anew with it, in
// one transaction, the one of the aggregate at its root: parent is "" for that one.
func (a *Aggregate) judgeRebuild(ctx context.Context, c *plan.Change, l *liveAggregate, parent string, answers *answers, caps Capabilities) error {
	c.Action = plan.Replace
	root, err := a.root(ctx, l, parent, answers)
	if err != nil {
		return err
	}
	cover, err := a.Queries.coverage(ctx, root, nil)
	if err != nil {
		return err
	}
	own := cover
	if parent != "" {
		if own, err = a.Queries.coverage(ctx, l, cover); err != nil {
			return err
		}
	}
	a.findLoss(c, "", own)
	if err := a.warnOfOthers(ctx, c, l, a.Spec); err != nil {
		return err
	}
	if parent != "" {
		c.Note("made anew in the transaction of aggregate.%s, which it reads", root.name)
		return nil
	}
	family, blockers, err := a.family(ctx, l, answers)
	if err != nil {
		return err
	}
	if len(blockers) > 0 {
		c.Find("CV-A09", "", "%s", strings.Join(blockers, "; "))
		return nil
	}
	for _, d := range family {
		if d.aggregate == nil {
			c.Note("view %s is dropped with it and made again as it is", d.view.name)
			continue
		}
		child, err := a.Queries.live(ctx, d.aggregate.Name, d.aggregate.Refresh)
		if err != nil {
			return err
		}
		its, err := a.Queries.coverage(ctx, child, cover)
		if err != nil {
			return err
		}
		a.findLoss(c, d.aggregate.Name, its)
		if err := a.warnOfOthers(ctx, c, child, d.aggregate); err != nil {
			return err
		}
	}
	return a.rebuildSteps(ctx, c, l, family, answers, caps)
}

// root finds the aggregate at whose change it is all made anew.
func (a *Aggregate) root(ctx context.Context, l *liveAggregate, parent string, answers *answers) (*liveAggregate, error) {
	name := a.name()
	for parent != "" {
		name, parent = parent, answers.rebuilt[parent]
	}
	if name == a.name() {
		return l, nil
	}
	return a.Queries.live(ctx, name, nil)
}

func (a *Aggregate) findLoss(c *plan.Change, child string, cover *coverage) {
	who := "it"
	if child != "" {
		who = "aggregate." + child + ", which reads it,"
	}
	if loss := cover.loss(); loss != nil {
		rows := fmt.Sprintf("%d rows", loss.Count)
		if cover.rows < 0 {
			rows = "rows"
		}
		c.Find("CV-A02", "query", "%s is made anew: %s; %s are lost", who, cover.text(), rows).Loss = loss
		return
	}
	c.Find("CV-A03", "query", "%s is made anew", who)
}

// warnOfOthers names what nobody declares and what a rebuild does not bring back; x is the aggregate itself, or one that reads it.
func (a *Aggregate) warnOfOthers(ctx context.Context, c *plan.Change, l *liveAggregate, x *spec.Aggregate) error {
	var gone []string
	if l.columnar {
		gone = append(gone, "its columnstore")
	}
	policies := slices.Clone(l.more)
	if _, leaves := c.Diff("refresh.every"); l.refresh != nil && x.Refresh == nil && (x != a.Spec || !leaves) {
		policies = append(policies, l.refresh)
	}
	if _, leaves := c.Diff("retention"); l.retention != nil && x.Retention == 0 && (x != a.Spec || !leaves) {
		policies = append(policies, l.retention)
	}
	for _, j := range policies {
		gone = append(gone, fmt.Sprintf("policy %d (%s)", j.id, describeJob(j)))
	}
	indexes, err := a.Queries.indexesOf(ctx, l)
	if err != nil {
		return err
	}
	if gone = append(gone, indexes...); len(gone) == 0 {
		return nil
	}
	whose := ""
	if x != a.Spec {
		whose = "of aggregate." + x.Name + ", which reads it: "
	}
	c.Find("CV-A11", "", "%s%s would go", whose, strings.Join(gone, ", "))
	return nil
}

// indexesOf lists the indexes on what an aggregate holds that somebody made. TimescaleDB's own are over the time, and over each
// column of GROUP BY with the time.
func (q *Queries) indexesOf(ctx context.Context, l *liveAggregate) ([]string, error) {
	var out []string
	var name, using string
	err := q.Catalog.trial(ctx, func(tx pgx.Tx) error {
		return forEach(ctx, tx, `SELECT c.relname::text, substring(k.definition FROM ' USING (.*)$') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid, LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS definition) k
			WHERE i.indrelid = to_regclass($1) AND NOT (starts_with(c.relname::text, $3 || '_') AND i.indnatts <= 2
			AND k.definition LIKE '% btree (%' || (SELECT quote_ident(d.column_name) FROM timescaledb_information.dimensions d WHERE d.hypertable_schema = $2 AND d.hypertable_name = $3 AND d.dimension_number = 1) || ' DESC)')
			ORDER BY 1`, []any{quote(l.ref.storedSchema, l.ref.storedName), l.ref.storedSchema, l.ref.storedName}, []any{&name, &using}, func() error {
			out = append(out, fmt.Sprintf("index %s (%s)", name, using))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the indexes of aggregate %s: %w", l.name, err)
	}
	return out, nil
}

// family lists what hangs on an aggregate, each after what it reads, and what forbids that it is all made anew.
func (a *Aggregate) family(ctx context.Context, l *liveAggregate, answers *answers) (out []descendant, blockers []string, err error) {
	catalog, pipeline := a.Queries.Catalog, a.Queries.Pipeline
	live, err := catalog.views(ctx)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		readers, err := catalog.hanging(ctx, name, live.views[name].oid)
		if err != nil {
			return err
		}
		for _, reader := range readers {
			kind, child, _ := strings.Cut(reader, ".")
			i := slices.IndexFunc(pipeline.Aggregates, func(d *spec.Aggregate) bool { return d.Name == child })
			switch {
			case seen[reader]:
				continue
			case kind == "view" && live.views[child] != nil:
				out = append(out, descendant{view: live.views[child]})
			case kind == "aggregate" && i >= 0 && live.views[child] != nil:
				if _, again := answers.rebuilt[child]; !again {
					blockers = append(blockers, reader+" hangs on "+name+", and its block does not read it any more: let it go first")
					continue
				}
				out = append(out, descendant{live.views[child], pipeline.Aggregates[i]})
			default:
				blockers = append(blockers, reader+" hangs on "+name)
				continue
			}
			seen[reader] = true
			if err := visit(child); err != nil {
				return err
			}
		}
		if answer := answers.by[name]; answer != nil {
			for _, col := range live.views[name].columns {
				if slices.Contains(answer.columns, col) {
					continue
				}
				readers, err := catalog.Reads(ctx, name, col.name)
				if err != nil {
					return err
				}
				for _, r := range readers {
					if strings.HasPrefix(r, "view.") {
						blockers = append(blockers, fmt.Sprintf("%s reads column %s of %s, which goes or changes its type", r, col.name, name))
					}
				}
			}
		}
		return nil
	}
	err = visit(l.name)
	return out, blockers, err
}

// rebuildSteps drops everything, youngest first, and makes it again.
func (a *Aggregate) rebuildSteps(ctx context.Context, c *plan.Change, l *liveAggregate, family []descendant, answers *answers, caps Capabilities) error {
	var drops, creates, refreshes []string
	for _, d := range append([]descendant{{l.liveView, a.Spec}}, family...) {
		name := quote(d.view.schema, d.view.name)
		kept, err := a.Queries.Catalog.keep(ctx, d.view)
		if err != nil {
			return err
		}
		if d.aggregate == nil {
			drops = append(drops, "DROP VIEW IF EXISTS "+name)
			options := ""
			if len(d.view.options) > 0 {
				options = " WITH (" + strings.Join(d.view.options, ", ") + ")"
			}
			creates = append(creates, "CREATE OR REPLACE VIEW "+name+options+" AS\n"+d.view.query)
			if d.view.comment != "" {
				creates = append(creates, commentOnView(name, d.view.comment))
			}
			creates = append(creates, kept.statements(d.view.columns)...)
			continue
		}
		kept.alter = "ALTER MATERIALIZED VIEW "
		answer := answers.by[d.aggregate.Name]
		drops = append(drops, "DROP MATERIALIZED VIEW IF EXISTS "+name)
		creates = append(creates, aggregateSQL(name, answer.text, d.aggregate, caps)...)
		if d.aggregate.Description == "" && d.view.comment != "" {
			if _, reset := c.Diff("description"); !reset || d.aggregate != a.Spec {
				creates = append(creates, commentOnView(name, d.view.comment))
			}
		}
		creates = append(creates, kept.statements(answer.columns)...)
		refreshes = append(refreshes, refreshSQL(name, "", d.aggregate.Refresh, false, caps))
	}
	slices.Reverse(drops)
	c.Steps = append(transaction(slices.Concat(drops, creates)...), refreshes...)
	return nil
}

func (a *Aggregate) judgeDelete(ctx context.Context, c *plan.Change, l *liveAggregate) error {
	readers, err := a.Queries.Catalog.hanging(ctx, l.name, l.oid)
	if err != nil {
		return err
	}
	if readers = slices.DeleteFunc(readers, a.Queries.removed); len(readers) > 0 {
		c.Find("CV-A09", "", "%s", areHanging(readers))
		return nil
	}
	cover, err := a.Queries.coverage(ctx, l, nil)
	if err != nil {
		return err
	}
	if loss := cover.loss(); loss != nil {
		c.Find("CV-A08", "", "%s", cover.text()).Loss = loss
	}
	c.Steps = transaction("DROP MATERIALIZED VIEW IF EXISTS " + quote(l.schema, l.name))
	return nil
}
