package table

import (
	"context"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// column assesses the difference of one column: missing, dropped or changed.
func (d *tableDiff) column(ctx context.Context, name string) error {
	w := d.t.Spec.Column(name)
	if w == nil {
		return d.dropColumn(ctx, name)
	}
	if l := d.liveColumn(w); l != nil {
		return d.changeColumn(ctx, w, l)
	}
	return d.addColumn(ctx, w)
}

// liveColumn is the live column of a declared one, under its name or the one it had before.
func (d *tableDiff) liveColumn(w *spec.Column) *catalog.Column {
	if l := d.t.rel.Column(w.Name); l != nil || w.Was == "" || d.t.renames()[w.Was] != w.Name {
		return l
	}
	return d.t.rel.Column(w.Was)
}

// isTime tells whether a live column is the one that chunks or partitions are cut by.
func (d *tableDiff) isTime(l *catalog.Column) bool {
	_, time, _ := d.t.rel.Layout()
	return time == l.Name
}

func (d *tableDiff) addColumn(ctx context.Context, w *spec.Column) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	attr := "column " + w.Name
	e := d.t.expr[shadow.DeclaredExpression(d.t.Spec, w)]
	rewrites := w.Generated != "" || e.Varies
	switch {
	case s.empty:
	case !w.Null && w.Default == "" && w.Generated == "":
		d.change.Find(codeColumnWithoutValue, attr, "%s is not null and has no default, and the table has %s", w.Name,
			s)
	case rewrites && d.t.rel.Hyper != nil && d.t.rel.Hyper.Columnar:
		d.change.Find(codeColumnstoreBlocks, attr,
			"TimescaleDB adds no generated column, and no default that differs from row to row, while the columnstore is on")
	case rewrites:
		d.change.Find(codeColumnComputed, attr, "%s are rewritten", s)
	}
	when := ddl.AddingColumns
	if w.Generated != "" { // it may read columns that change
		when = ddl.Generating
	}
	d.addStep(when, rewrites, w)
	return nil
}

// addStep adds a column. Planning gives it no value where a function that computes it may have effects: a sequence that
// moved stays moved when the transaction is rolled back.
func (d *tableDiff) addStep(when ddl.Phase, heavy bool, w *spec.Column) {
	add := "ALTER TABLE " + d.quoted() + " ADD COLUMN IF NOT EXISTS "
	d.step(when, heavy, "%s%s", add, ddl.ColumnSQL(w))
	dry := []string{add + pg.Ident(w.Name) + " " + string(w.Type)}
	if w.Default != "" {
		dry = append(dry, "ALTER TABLE "+d.quoted()+" ALTER COLUMN "+pg.Ident(w.Name)+" SET DEFAULT "+w.Default)
	}
	d.unevaluated(w, dry)
}

// unevaluated replaces what planning tries of the last step where a function in a column's expression may have effects.
func (d *tableDiff) unevaluated(w *spec.Column, dry []string) {
	if d.t.expr[shadow.DeclaredExpression(d.t.Spec, w)].Open {
		d.steps[len(d.steps)-1].Dry = dry
		d.note("plan does not evaluate the expression of column " + w.Name +
			", since a function in it may change something")
	}
}

func (d *tableDiff) dropColumn(ctx context.Context, name string) error {
	l, attr := d.t.rel.Column(name), "column "+name
	if l == nil {
		return nil
	}
	if d.isTime(l) {
		d.change.Find(codeTimeColumn, attr, "%s is the time column", name)
		return nil
	}
	if err := d.blockedByDependents(ctx, l, attr); err != nil {
		return err
	}
	var rows, bytes int64
	// OFFSET 0 keeps the aggregates away from the columnstore: TimescaleDB cannot vectorize them over a function, and
	// fails.
	open, err := d.ask(ctx, "SELECT count(s), coalesce(sum(s), 0)::bigint FROM (SELECT pg_column_size("+pg.Ident(name)+
		") AS s FROM "+d.quoted()+" OFFSET 0) x", &rows, &bytes)
	if err != nil {
		return err
	}
	text := []string{open.rows(rows, "a value in it")}
	for _, w := range d.t.Spec.Columns {
		if d.t.rel.Column(w.Name) == nil && string(w.Type) == l.Type && w.Generated == "" {
			text = append(text, "if "+w.Name+" takes its place, say was = \""+name+"\" there")
		}
	}
	d.noteIndexes(name)
	loss := ddl.RowsLost(rows, open == "", "at once")
	loss.Bytes = bytes
	d.recount(codeColumnDropped, true, "SELECT count("+pg.Ident(name)+") FROM "+d.quoted())
	d.change.Find(codeColumnDropped, attr, "%s", strings.Join(text, "; ")).Loss = loss
	d.step(ddl.DroppingColumns, false, "ALTER TABLE %s DROP COLUMN IF EXISTS %s", d.quoted(), pg.Ident(name))
	return nil
}

// noteIndexes tells which indexes go with a column, where they are undeclared: the others are made again, or are to go.
func (d *tableDiff) noteIndexes(column string) {
	for _, x := range d.t.rel.Indexes {
		_, changes := d.change.Diff("index " + x.Name)
		declared := slices.ContainsFunc(d.t.Spec.Indexes, func(w *spec.Index) bool { return w.Name == x.Name })
		over := slices.Contains(x.Columns, column) || len(shadow.Mentions(x.Using, []string{column})) > 0
		if over && !changes && !declared && !x.Primary {
			d.change.Note("index %s goes with column %s", x.Name, column)
		}
	}
}

// blockedByDependents adds the findings that views or aggregates read a column, or that something else needs it.
func (d *tableDiff) blockedByDependents(ctx context.Context, l *catalog.Column, attr string) error {
	readers, err := d.t.Catalog.DependentViews(ctx, d.t.name(), l.Name)
	if err != nil {
		return err
	}
	if d.t.group == nil && len(readers) > 0 {
		text := strings.Join(readers, ", ") + " read " + l.Name
		if d.t.Queries != nil {
			groups, err := d.t.Queries.Groups(ctx)
			if err != nil {
				return err
			}
			if blocked := groups.Blocked[d.t.Address()]; len(blocked) > 0 {
				text = strings.Join(blocked, "; ")
			}
		}
		d.change.Find(codeReadByViews, attr, "%s", text)
	}
	return d.blockedByOthers(ctx, l, attr)
}

// findRetyped lists the live names of the stored columns that get another type.
func (d *tableDiff) findRetyped() {
	for _, w := range d.t.Spec.Columns {
		if l := d.liveColumn(w); l != nil && l.Type != string(w.Type) && !l.Generated && w.Generated == "" {
			d.retyped = append(d.retyped, l.Name)
		}
	}
}

// Displaced lists the columns of a table that its readers keep from being changed. A table that cannot be read says so
// itself.
func Displaced(ctx context.Context, q *shadow.Queries, spec *spec.Table, last map[string]plan.State) []string {
	t := &Table{Catalog: q.Catalog, Spec: spec, Queries: q}
	live, err := t.observe(ctx)
	if err != nil || live == nil || catalog.OtherKinds[t.rel.Kind] != "" {
		return nil
	}
	c := newChange(t, last, live)
	return (&tableDiff{t: t, change: &c}).displaced()
}

// displaced lists the live names of the columns that are dropped, added again or get another type: a view that reads
// one forbids it.
func (d *tableDiff) displaced() (out []string) {
	d.findRetyped()
	for _, diff := range d.change.Diffs {
		name, is := strings.CutPrefix(diff.Name, "column ")
		if _, described := strings.CutSuffix(name, " description"); !is || described {
			continue
		}
		w, l := d.t.Spec.Column(name), d.t.rel.Column(name)
		if w != nil {
			l = d.liveColumn(w)
		}
		if l != nil && (w == nil || d.regenerates(w, l) && !d.setsExpression(w, l) || w.Generated == "" &&
			l.Type != string(w.Type)) {
			out = append(out, l.Name)
		}
	}
	for _, w := range d.follows() {
		out = append(out, w.Name)
	}
	return out
}

// regenerates tells whether a column becomes generated, or gets another expression or type.
func (d *tableDiff) regenerates(w *spec.Column, l *catalog.Column) bool {
	return w.Generated != "" && (!l.Generated || l.Virtual || l.Type != string(w.Type) ||
		d.t.written(shadow.DeclaredExpression(d.t.Spec, w)) != d.t.written(shadow.LiveExpression(d.t.rel, *l)))
}

// setsExpression tells whether PostgreSQL gives a generated column its new expression in place.
func (d *tableDiff) setsExpression(w *spec.Column, l *catalog.Column) bool {
	return l.Generated && !l.Virtual && l.Type == string(w.Type) && w.Null != l.NotNull &&
		d.t.live.Caps.Number >= 170000 && len(d.retyped) == 0
}

func (d *tableDiff) changeColumn(ctx context.Context, w *spec.Column, l *catalog.Column) error {
	attr, differs := "column "+w.Name,
		d.t.written(shadow.DeclaredExpression(d.t.Spec, w)) != d.t.written(shadow.LiveExpression(d.t.rel, *l))
	alter := "ALTER TABLE " + d.quoted() + " ALTER COLUMN " + pg.Ident(w.Name) + " "
	if l.Name != w.Name {
		readers, err := d.t.Catalog.DependentViews(ctx, d.t.name(), l.Name)
		if err != nil {
			return err
		}
		text := l.Name + " is called " + w.Name + " from now on"
		if len(readers) > 0 {
			text += "; " + strings.Join(readers, ", ") + " follow"
		}
		d.change.Find(codeColumnRenamed, attr, "%s", text)
		d.step(ddl.Renaming, false, "ALTER TABLE %s RENAME COLUMN %s TO %s", d.quoted(), pg.Ident(l.Name),
			pg.Ident(w.Name))
	}
	d.fillsNoMore(w, l)
	if l.Identity {
		d.step(ddl.AlteringColumns, false, "%sDROP IDENTITY IF EXISTS", alter)
	}
	switch {
	case d.regenerates(w, l):
		return d.generate(ctx, w, l)
	case w.Generated == "" && l.Generated:
		d.step(ddl.AlteringColumns, false, "%sDROP EXPRESSION IF EXISTS", alter)
	}
	retyped := l.Type != string(w.Type)
	if retyped {
		if l.Expr != "" && !l.Generated { // it need not suit the new type
			d.step(ddl.AlteringColumns, false, "%sDROP DEFAULT", alter)
		}
		if err := d.retype(ctx, w, l); err != nil {
			return err
		}
	}
	if w.Generated == "" && (retyped || l.Generated || differs) {
		if w.Default != "" {
			d.step(ddl.AlteringColumns, false, "%sSET DEFAULT (%s)", alter, w.Default)
		} else if l.Expr != "" && !l.Generated && !retyped {
			d.step(ddl.AlteringColumns, false, "%sDROP DEFAULT", alter)
		}
	}
	if w.Null && l.NotNull {
		if d.isTime(l) {
			d.change.Find(codeTimeColumn, attr, "%s is the time column, and cannot be null", l.Name)
		}
		d.step(ddl.AlteringColumns, false, "%sDROP NOT NULL", alter)
	}
	if !w.Null && !l.NotNull {
		return d.setNotNull(ctx, w, l, alter)
	}
	return nil
}

// fillsNoMore adds the finding that a column gets no value by itself any more, unless the last apply made it do so:
// then it is known who wants that.
func (d *tableDiff) fillsNoMore(w *spec.Column, l *catalog.Column) {
	if w.Default != "" || w.Generated != "" {
		return
	}
	what, word := "an identity", ""
	switch {
	case l.Generated:
		what, word = "the expression "+l.Expr, " generated "
	case l.Expr != "":
		what, word = "the default "+l.Expr, " default "
	case !l.Identity:
		return
	}
	for _, name := range []string{l.Name, w.Name} {
		if last, ours := d.change.Last.Get("column " + name); ours && word != "" && strings.Contains(last.Value, word) {
			return
		}
	}
	then := "fail"
	if w.Null {
		then = "leave it empty"
	}
	d.change.Find(codeNoDefault, "column "+w.Name,
		"%s has %s, which apply takes off: inserts that do not name it %s from then on", l.Name, what, then)
}

func (d *tableDiff) setNotNull(ctx context.Context, w *spec.Column, l *catalog.Column, alter string) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	attr := "column " + w.Name
	d.step(ddl.AlteringColumns, !s.empty, "%sSET NOT NULL", alter)
	if s.empty {
		return nil
	}
	var nulls int64
	open, err := d.ask(ctx, "SELECT count(*) FROM "+d.quoted()+" WHERE "+pg.Ident(l.Name)+" IS NULL", &nulls)
	switch {
	case err != nil:
		return err
	case nulls > 0:
		d.change.Find(codeRowsWithoutValue, attr, "%s rows have no value in %s", humanize.Comma(nulls), l.Name)
	case open != "":
		d.change.Find(codeNotNullChecked, attr, "%s are read; whether each has a value is not known: %s", s, open)
	default:
		d.change.Find(codeNotNullChecked, attr, "%s are read; each has a value", s)
	}
	return nil
}

// generate makes a column generated, or gives it another expression or type. PostgreSQL 17 has a statement for the
// expression; otherwise the column is dropped and added again.
func (d *tableDiff) generate(ctx context.Context, w *spec.Column, l *catalog.Column) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	attr := "column " + w.Name
	switch {
	case !l.Generated:
		var rows int64
		open, err := d.ask(ctx, "SELECT count("+pg.Ident(l.Name)+") FROM "+d.quoted(), &rows)
		if err != nil {
			return err
		}
		d.recount(codeStoredToGenerated, true, "SELECT count("+pg.Ident(l.Name)+") FROM "+d.quoted())
		if !s.empty {
			d.change.Find(codeStoredToGenerated, attr, "%s", open.rows(rows, "a stored value in it")).
				Loss = ddl.RowsLost(rows, open == "", "at once")
		}
	case !s.empty:
		d.change.Find(codeGeneratedComputed, attr, "%s are rewritten", s)
	}
	if h := d.t.rel.Hyper; h != nil && h.Columnar {
		d.change.Find(codeColumnstoreBlocks, attr,
			"TimescaleDB changes no generated column while the columnstore is on")
		return nil
	}
	if d.setsExpression(w, l) {
		d.step(ddl.Generating, true, "ALTER TABLE %s ALTER COLUMN %s SET EXPRESSION AS (%s)", d.quoted(),
			pg.Ident(w.Name), w.Generated)
		d.unevaluated(w, []string{})
		return nil
	}
	if err := d.blockedByDependents(ctx, l, attr); err != nil {
		return err
	}
	d.noteIndexes(l.Name)
	d.step(ddl.DroppingColumns, false, "ALTER TABLE %s DROP COLUMN IF EXISTS %s", d.quoted(), pg.Ident(w.Name))
	d.addStep(ddl.Generating, true, w)
	for _, idx := range d.t.Spec.Indexes { // they went with the column
		if slices.Contains(idx.Columns, w.Name) && d.t.rel.Index(idx.Name) != nil {
			d.step(ddl.AddingIndexes, true, "%s", ddl.IndexSQL(d.t.name(), idx, ddl.IfMissing))
		}
	}
	if w.Description != "" {
		d.step(ddl.Comments, false, "%s", ddl.ColumnCommentSQL(d.t.name(), w.Name, w.Description))
	}
	return nil
}
