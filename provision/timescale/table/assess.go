package table

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// tableDiff is a change of one table in the making.
type tableDiff struct {
	t             *Table
	change        *plan.Change
	steps         []ddl.Step
	known         *size
	inColumnstore *columnar
	skipped       bool     // what depends on it goes by the same apply
	retyped       []string // live names of stored columns that get another type
}

func (d *tableDiff) step(p ddl.Phase, heavy bool, format string, args ...any) {
	d.steps = append(d.steps, ddl.Step{Phase: p, SQL: fmt.Sprintf(format, args...), Heavy: heavy})
}

// quoted is the quoted name.
func (d *tableDiff) quoted() string { return pg.Ident(d.t.name()) }

// Assess completes a change: what it costs, whether the server would do it, and with which statements.
func (t *Table) Assess(ctx context.Context, c *plan.Change) error {
	d := &tableDiff{t: t, change: c}
	if err := d.prepare(ctx); err != nil || c.Action == plan.None || c.Impossible() {
		return err
	}
	if err := d.dryRun(ctx); err != nil || c.Impossible() {
		return err
	}
	if t.group == nil {
		c.Steps = ddl.Wrap(d.steps)
		return nil
	}
	steps, err := d.ofGroup(ctx)
	t.group.Join(c, ddl.Wrap(steps))
	return err
}

// ofGroup lists the steps of all tables of the group, for its leader.
func (d *tableDiff) ofGroup(ctx context.Context) ([]ddl.Step, error) {
	all := d.steps
	if d.t.group.Leader != d.t.Address() {
		return nil, nil
	}
	last, err := d.t.Catalog.Managed(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range d.t.group.Tables[1:] {
		i := slices.IndexFunc(d.t.Queries.Pipeline.Tables, func(t *spec.Table) bool { return t.Name == name })
		t := &Table{Catalog: d.t.Catalog, Queries: d.t.Queries, Spec: d.t.Queries.Pipeline.Tables[i], Now: d.t.Now}
		c, err := t.compare(ctx, last)
		if err != nil {
			return nil, err
		}
		other := &tableDiff{t: t, change: &c}
		if err := other.prepare(ctx); err != nil {
			return nil, err
		}
		all = append(all, other.steps...)
		d.change.Recounts = append(d.change.Recounts, other.change.Recounts...)
	}
	return all, nil
}

// compare reads a table, and compares it with what is declared and what the last apply set.
func (t *Table) compare(ctx context.Context, last map[string]plan.State) (plan.Change, error) {
	live, err := t.Read(ctx)
	if err != nil {
		return plan.Change{}, err
	}
	return newChange(t, last, live), nil
}

func newChange(t *Table, last map[string]plan.State, live *plan.State) plan.Change {
	var was *plan.State
	state, ours := last[t.Address()]
	if ours {
		was = &state
	}
	return plan.New(t, plan.Observation{Live: live, Want: t.Want(), DependsOn: t.DependsOn()}, was, ours)
}

// prepare finds what the change costs, and its steps in order.
func (d *tableDiff) prepare(ctx context.Context) error {
	t, c := d.t, d.change
	var err error
	switch c.Action {
	case plan.None:
		if c.Want != nil {
			d.features()
		}
		return d.leftover(ctx)
	case plan.Delete:
		err = d.dropTable(ctx)
	case plan.Create:
		if err := d.takesName(ctx); err != nil {
			return err
		}
		d.features()
		d.retentionAgainstOthers()
		for _, sql := range ddl.CreateSQL(t.Spec, t.live.Caps, t.Now()) {
			d.step(ddl.Renaming, false, "%s", sql)
		}
	case plan.Update, plan.Replace:
		d.features()
		if err = d.leftover(ctx); err == nil {
			err = d.update(ctx)
		}
	}
	if err != nil {
		return err
	}
	if c.Action == plan.Create || c.Action == plan.Update {
		for _, w := range t.Spec.Columns {
			if e := shadow.DeclaredExpression(t.Spec, w); t.expr[e].Err != nil {
				c.Find(CodeRejected, "column "+w.Name, "%s: %s", e.Text, pg.ServerText(t.expr[e].Err))
			}
		}
	}
	slices.SortStableFunc(d.steps, func(a, b ddl.Step) int { return cmp.Compare(a.Phase, b.Phase) })
	return nil
}

// takesName adds the finding that the name belongs to a removed view that cannot go.
func (d *tableDiff) takesName(ctx context.Context) error {
	r := d.t.live.Relations[d.t.name()]
	if r == nil || d.t.group != nil {
		return nil
	}
	groups, err := d.t.Queries.Groups(ctx)
	if err == nil {
		d.change.Find(codeNameTaken, "layout", "%s is a %s that cannot be dropped: %s", d.t.name(), d.t.live.KindOf(r),
			strings.Join(groups.Blocked[d.t.Address()], "; "))
	}
	return err
}

func (d *tableDiff) update(ctx context.Context) error {
	if other := catalog.OtherKinds[d.t.rel.Kind]; other != "" {
		d.change.Find(codeNameTaken, "layout", "%s is a %s", d.t.name(), other)
		return nil
	}
	indexes := d.renamedIndexes()
	d.findRetyped()
	for _, diff := range d.change.Diffs {
		kind, rest, _ := strings.Cut(diff.Name, " ")
		column, described := strings.CutSuffix(rest, " description")
		var err error
		switch {
		case diff.Name == "description":
			d.step(ddl.Comments, false, "%s", ddl.CommentSQL(d.t.name(), diff.New))
		case kind == "column" && described:
			if d.t.Spec.Column(column) != nil { // else it goes with its column, or is undeclared
				d.step(ddl.Comments, false, "%s", ddl.ColumnCommentSQL(d.t.name(), column, diff.New))
			}
		case kind == "column":
			err = d.column(ctx, rest)
		case diff.Name == "primary_key":
			err = d.key(ctx)
		case kind == "index":
			err = d.index(ctx, rest, indexes)
		case diff.Name == "layout":
			err = d.becomeHypertable(ctx)
		case diff.Name == "time":
			d.timeColumn(diff)
		case diff.Name == "chunk_interval":
			d.chunkInterval(diff)
		case diff.Name == "retention":
			err = d.retention(ctx)
		case diff.Name == keepRaw:
			err = d.rawRetention(ctx, diff)
		}
		if err != nil {
			return err
		}
	}
	d.showRenamed(indexes)
	if err := d.regenerate(ctx); err != nil {
		return err
	}
	return d.columnstore(ctx)
}

// dropTable is what a removed block asks for.
func (d *tableDiff) dropTable(ctx context.Context) error {
	c := d.change
	if other := catalog.OtherKinds[d.t.rel.Kind]; other != "" {
		c.Find(codeNameTaken, "layout", "%s is a %s, and the removed block says table", d.t.name(), other)
		return nil
	}
	readers, err := d.t.Catalog.DependentViews(ctx, d.t.name(), "")
	if err != nil {
		return err
	}
	if err := d.blockedFromDropping(ctx, readers); err != nil {
		return err
	}
	all := len(readers)
	readers = slices.DeleteFunc(readers, d.goesBefore)
	if d.t.Queries != nil && d.t.Spec == nil {
		blocked, err := d.t.Queries.Blocking(ctx, d.t.Removed, d.t.group, readers)
		if err != nil {
			return err
		}
		if readers = nil; blocked != "" {
			c.Find(codeReadByViews, "", "%s", blocked)
			all = 0
		}
	}
	d.skipped = d.t.group != nil || len(readers) < all
	if len(readers) > 0 {
		c.Find(codeReadByViews, "", "%s read it", strings.Join(readers, ", "))
	}
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	loss := ddl.RowsLost(max(s.rows, 0), s.unknown == "" && s.rows >= 0, "at once")
	loss.Bytes, loss.Chunks = s.bytes, d.chunks()
	c.Find(codeTableDropped, "", "%s", s).Loss = loss
	if !s.about { // else it is the server's estimate that was agreed to
		d.recount(codeTableDropped, true, "SELECT count(*) FROM "+d.quoted())
	}
	d.step(ddl.Renaming, false, ddl.DropTable+"%s", d.quoted())
	return nil
}

// goesBefore tells whether a view or aggregate goes before the table does: it is removed, too; or all that is declared
// is destroyed.
func (d *tableDiff) goesBefore(reader string) bool {
	p := d.t.Catalog.Pipeline
	if p == nil {
		return false
	}
	if d.t.Spec == nil {
		return slices.ContainsFunc(p.Removed, func(r *spec.Removed) bool { return r.Address() == reader })
	}
	return slices.ContainsFunc(p.Views, func(v *spec.View) bool { return "view."+v.Name == reader }) ||
		slices.ContainsFunc(p.Aggregates, func(a *spec.Aggregate) bool { return "aggregate."+a.Name == reader })
}

func (d *tableDiff) chunks() int {
	if d.t.rel.Hyper != nil {
		return d.t.rel.Hyper.Chunks
	}
	return len(d.t.rel.Parts)
}

// size is how large a table is.
type size struct {
	empty   bool
	rows    int64 // -1: unknown
	about   bool  // rows is an estimate
	bytes   int64
	unknown unknown // why it was not measured: rows and bytes are what the last ANALYZE left, if there was one
}

// large tells whether a table is, or may be, too large to try heavy statements on.
func (s size) large() bool { return s.unknown != "" || s.bytes > small }

// small tables are tried out: their rows are rewritten in no time.
const small = 16 << 20

func (s size) String() string {
	rows := humanize.Comma(s.rows) + " rows"
	switch {
	case s.rows < 0:
		rows = "an unknown number of rows"
	case s.rows == 1:
		rows = "1 row"
	case s.about:
		rows = "about " + rows
	}
	if s.unknown != "" && s.bytes == 0 {
		return rows
	}
	return rows + ", " + humanize.IBytes(uint64(max(s.bytes, 0))) //nolint:gosec // not negative
}

// size asks how large the table is, once.
func (d *tableDiff) size(ctx context.Context) (size, error) {
	if d.known != nil {
		return *d.known, nil
	}
	s := size{rows: d.t.rel.Rows, about: true}
	var err error
	if s.unknown, err = d.ask(ctx, "SELECT coalesce("+d.sizeExpr()+", 0)::bigint, NOT EXISTS (SELECT FROM "+d.quoted()+
		")", &s.bytes, &s.empty); err != nil {
		return s, err
	}
	switch {
	case s.unknown != "":
		s.bytes = d.t.rel.Bytes
		d.note("not measured: " + string(s.unknown))
	case s.empty:
		s.rows, s.about = 0, false
	case s.bytes <= ddl.Countable:
		var n int64
		open, err := d.ask(ctx, "SELECT count(*) FROM "+d.quoted(), &n)
		if err != nil {
			return s, err
		}
		if open == "" {
			s.rows, s.about = n, false
		}
	}
	d.known = &s
	return s, nil
}

// sizeExpr is an expression for the bytes of the table.
func (d *tableDiff) sizeExpr() string {
	name := pg.Literal(pg.Ident(d.t.rel.Schema, d.t.rel.Name)) + "::regclass"
	switch {
	case d.t.rel.Hyper != nil:
		return d.t.live.Caps.Function("hypertable_size") + "(" + name + ")"
	case d.t.rel.Kind == "p":
		return "(SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(" + name + "))"
	}
	return "pg_total_relation_size(" + name + ")"
}

// ask runs a query with one row over the table's data, with a bounded wait. It tells why when there is no answer. Rows
// that a policy hides would be missing from the counts, and the policy's functions would run: PostgreSQL refuses the
// query instead.
func (d *tableDiff) ask(ctx context.Context, sql string, into ...any) (unknown, error) {
	return unknownFor(d.t.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		if err := pg.SetLocal(ctx, tx, "statement_timeout", "10s", "row_security", "off"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, sql).Scan(into...)
	}))
}

// dryRun runs the statements in a transaction that is rolled back, as far as that costs nothing: heavy ones on small
// tables only. Their effect on columns is tried on an empty copy otherwise.
func (d *tableDiff) dryRun(ctx context.Context) error {
	if d.skipped { // but for the right to do it: the owner may comment it, too
		open, err := d.run(ctx, nil, []ddl.Step{{SQL: ddl.CommentSQL(d.t.name(), d.t.rel.Comment)}})
		d.noteSkipped(open)
		return err
	}
	if d.t.live.Caps.Version == "" && d.t.live.Caps.Available != "" && d.change.Want != nil &&
		d.t.Spec.Hypertable != nil {
		if d.change.Action == plan.Create { // the table itself needs no extension: may it be made?
			if _, err := d.run(ctx, nil, d.steps[:1]); err != nil || d.change.Impossible() {
				return err
			}
		}
		d.note("not tried on the server: TimescaleDB is installed by the same apply")
		return nil
	}
	cheap, all := d.until(func(s ddl.Step) bool {
		return s.Heavy || s.Phase == ddl.Outside
	}), d.until(func(s ddl.Step) bool { return s.Phase == ddl.Outside })
	var s size
	if cheap < len(d.steps) {
		var err error
		if s, err = d.size(ctx); err != nil {
			return err
		}
		if !s.large() {
			cheap = all
		}
	}
	before, steps := []string(nil), d.steps[:cheap]
	if g := d.t.group; g != nil {
		if g.Aggregates() && d.t.rel == nil {
			d.note("not tried on the server: aggregates are dropped and created in the same transaction")
			return nil
		}
		if g.Aggregates() {
			return d.dryRunCopy(ctx, s, "aggregates that read it would have to be dropped for that")
		}
		before = g.Drops
		if cheap == all && len(g.Tables) == 1 {
			for _, sql := range g.Creates {
				steps = append(slices.Clip(steps), ddl.Step{SQL: sql})
			}
		}
	}
	open, err := d.run(ctx, before, steps)
	if err != nil || d.change.Impossible() {
		return err
	}
	if s.large() {
		return d.dryRunCopy(ctx, s, open)
	}
	d.noteSkipped(open)
	return nil
}

// until is the number of steps before the first one of a kind.
func (d *tableDiff) until(kind func(ddl.Step) bool) int {
	if i := slices.IndexFunc(d.steps, kind); i >= 0 {
		return i
	}
	return len(d.steps)
}

// dryRunCopy tries what a large table's steps do to its columns on an empty copy. The copy has its constraints, and its
// indexes unless some of them go: a step names those of the table. before is why the steps that cost nothing could not
// be tried on the table.
func (d *tableDiff) dryRunCopy(ctx context.Context, s size, before unknown) error {
	indexes := " INCLUDING INDEXES"
	if slices.ContainsFunc(d.steps, func(x ddl.Step) bool {
		return x.Phase == ddl.DroppingIndexes || x.Phase == ddl.DroppingKey
	}) {
		indexes = ""
	}
	copied := slices.DeleteFunc(slices.Clone(d.steps), func(x ddl.Step) bool {
		return !slices.Contains([]ddl.Phase{
			ddl.Renaming, ddl.DroppingColumns, ddl.AddingColumns, ddl.AlteringColumns,
			ddl.Generating,
		}, x.Phase)
	})
	large := "the table is large: " + s.String()
	if s.unknown != "" {
		large = "it is not known how large the table is"
	}
	if len(copied) == 0 {
		d.noteSkipped(before)
		d.note("not tried on the server to the end, because " + large)
		return nil
	}
	// A temporary table of the same name comes first in the search_path: the same statements meet it.
	open, err := d.run(ctx, []string{"CREATE TEMPORARY TABLE " + d.quoted() + " (LIKE " +
		pg.Ident(d.t.rel.Schema, d.t.rel.Name) + " INCLUDING GENERATED INCLUDING CONSTRAINTS" + indexes +
		") ON COMMIT DROP"}, copied)
	switch {
	case err != nil || d.change.Impossible():
		return err
	case open != "":
		d.noteSkipped(open)
	case before != "":
		d.note("tried on an empty copy only: " + string(before))
	default:
		d.note("tried on an empty copy only, because " + large)
	}
	return nil
}

// noteSkipped tells why steps could not be tried, if they could not.
func (d *tableDiff) noteSkipped(open unknown) {
	switch open {
	case "":
	case slow:
		d.note("not tried on the server to the end: it took too long")
	default:
		d.note("not tried on the server: " + string(open))
	}
}

// run tries steps. It tells why when that was not possible.
func (d *tableDiff) run(ctx context.Context, before []string, steps []ddl.Step) (unknown, error) {
	if len(steps) == 0 {
		return "", nil
	}
	var at string
	err := d.t.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		for _, sql := range before {
			at = sql
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		for _, s := range steps {
			at = s.SQL
			dry := s.Dry
			if dry == nil {
				dry = []string{s.SQL}
			}
			for _, sql := range dry {
				if err := pg.ExecSingle(ctx, tx, sql); err != nil {
					return err
				}
			}
		}
		return nil
	})
	switch state := pg.Code(err); {
	case err == nil:
	case state == "55P03":
		return locked, nil
	case state == "57014":
		return slow, nil
	case state == "25006":
		return catalog.ReadOnlyServer, nil
	case state == "42501":
		return d.noPrivilege(ctx, before, steps, &pg.StatementError{SQL: at, Err: err})
	case state == "0A000" && d.t.live.Caps.Edition == "apache":
		d.change.Find(codeEdition, "", "%s: %s", pg.FirstLine(at), pg.ServerText(err))
	case pg.Refuses(state), state == "42P07", slices.Contains([]string{"3F", "54", "XX"}, state[:min(2, len(state))]):
		d.change.Find(CodeRejected, "", "%s: %s", pg.FirstLine(at), pg.ServerText(err))
	default:
		return "", fmt.Errorf("try the change of table %s: %w", d.t.name(), err)
	}
	return "", nil
}

// recount adds a query that counts again what a code loses. The table is locked meanwhile when it is lost at once; what
// a policy or a rollup deletes later may still grow by then.
func (d *tableDiff) recount(code plan.Code, atOnce bool, query string) *plan.Recount {
	r := plan.Recount{Address: d.t.Address(), Code: code.ID, Size: d.sizeExpr(), Query: query}
	if atOnce {
		r.Table = d.quoted()
	}
	d.change.Recounts = append(d.change.Recounts, r)
	return &d.change.Recounts[len(d.change.Recounts)-1]
}
