package timescale

import (
	"context"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/pg"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// column judges the difference of one column: missing, dropped or changed.
func (d *draft) column(ctx context.Context, name string) error {
	w := d.Spec.Column(name)
	if w == nil {
		return d.dropColumn(ctx, name)
	}
	if l := d.liveColumn(w); l != nil {
		return d.changeColumn(ctx, w, l)
	}
	return d.addColumn(ctx, w)
}

// liveColumn is the live column of a declared one, under its name or the one it had before.
func (d *draft) liveColumn(w *spec.Column) *liveColumn {
	if l := d.rel.column(w.Name); l != nil || w.Was == "" || d.renames()[w.Was] != w.Name {
		return l
	}
	return d.rel.column(w.Was)
}

// isTime tells whether a live column is the one that chunks or partitions are cut by.
func (d *draft) isTime(l *liveColumn) bool {
	_, time, _ := d.rel.cut()
	return time == l.name
}

func (d *draft) addColumn(ctx context.Context, w *spec.Column) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	attr := "column " + w.Name
	e := d.expr[declaredExpression(d.Spec, w)]
	rewrites := w.Generated != "" || e.varies
	switch {
	case s.empty:
	case !w.Null && w.Default == "" && w.Generated == "":
		d.change.Find("CV-T02", attr, "%s is not null and has no default, and the table has %s", w.Name, s)
	case rewrites && d.rel.hyper != nil && d.rel.hyper.columnar:
		d.change.Find("CV-T12", attr, "TimescaleDB adds no generated column, and no default that differs from row to row, while the columnstore is on")
	case rewrites:
		d.change.Find("CV-T03", attr, "%s are written anew", s)
	}
	when := addingColumns
	if w.Generated != "" { // it may read columns that change
		when = generating
	}
	d.addStep(when, rewrites, w)
	return nil
}

// addStep adds a column. Planning gives it no value where a function that computes it may have effects: a sequence that moved stays
// moved when the transaction is rolled back.
func (d *draft) addStep(when phase, heavy bool, w *spec.Column) {
	add := "ALTER TABLE " + d.table() + " ADD COLUMN IF NOT EXISTS "
	d.step(when, heavy, "%s%s", add, columnSQL(w))
	dry := []string{add + pg.Ident(w.Name) + " " + string(w.Type)}
	if w.Default != "" {
		dry = append(dry, "ALTER TABLE "+d.table()+" ALTER COLUMN "+pg.Ident(w.Name)+" SET DEFAULT "+w.Default)
	}
	d.unevaluated(w, dry)
}

// unevaluated replaces what planning tries of the last step where a function in a column's expression may have effects.
func (d *draft) unevaluated(w *spec.Column, dry []string) {
	if d.expr[declaredExpression(d.Spec, w)].open {
		d.steps[len(d.steps)-1].dry = dry
		d.note("plan does not evaluate the expression of column " + w.Name + ", since a function in it may change something")
	}
}

func (d *draft) dropColumn(ctx context.Context, name string) error {
	l, attr := d.rel.column(name), "column "+name
	if l == nil {
		return nil
	}
	if d.isTime(l) {
		d.change.Find("CV-T08", attr, "%s is the time column", name)
		return nil
	}
	if err := d.blockedByReaders(ctx, l, attr); err != nil {
		return err
	}
	var rows, bytes int64
	// OFFSET 0 keeps the aggregates away from the columnstore: TimescaleDB cannot vectorize them over a function, and fails.
	open, err := d.ask(ctx, "SELECT count(s), coalesce(sum(s), 0)::bigint FROM (SELECT pg_column_size("+pg.Ident(name)+") AS s FROM "+d.table()+" OFFSET 0) x", &rows, &bytes)
	if err != nil {
		return err
	}
	text := []string{open.rows(rows, "a value in it")}
	for _, w := range d.Spec.Columns {
		if d.rel.column(w.Name) == nil && string(w.Type) == l.typ && w.Generated == "" {
			text = append(text, "if "+w.Name+" takes its place, say was = \""+name+"\" there")
		}
	}
	d.noteIndexes(name)
	loss := rowsLost(rows, open == "", "at once")
	loss.Bytes = bytes
	d.recount("CV-T06", true, "SELECT count("+pg.Ident(name)+") FROM "+d.table())
	d.change.Find("CV-T06", attr, "%s", strings.Join(text, "; ")).Loss = loss
	d.step(droppingColumns, false, "ALTER TABLE %s DROP COLUMN IF EXISTS %s", d.table(), pg.Ident(name))
	return nil
}

// noteIndexes tells which indexes go with a column, where nobody declares them: the others are made again, or shall go.
func (d *draft) noteIndexes(column string) {
	for _, x := range d.rel.indexes {
		_, changes := d.change.Diff("index " + x.name)
		declared := slices.ContainsFunc(d.Spec.Indexes, func(w *spec.Index) bool { return w.Name == x.name })
		over := slices.Contains(x.columns, column) || len(mentions(x.using, []string{column})) > 0
		if over && !changes && !declared && !x.primary {
			d.change.Note("index %s goes with column %s", x.name, column)
		}
	}
}

// blockedByReaders adds the findings that views or aggregates read a column, or that something else needs it.
func (d *draft) blockedByReaders(ctx context.Context, l *liveColumn, attr string) error {
	readers, err := d.Catalog.Reads(ctx, d.name(), l.name)
	if err != nil {
		return err
	}
	if d.group == nil && len(readers) > 0 {
		text := strings.Join(readers, ", ") + " read " + l.name
		if d.Queries != nil {
			groups, err := d.Queries.groups(ctx)
			if err != nil {
				return err
			}
			if blocked := groups.blocked[d.Address()]; len(blocked) > 0 {
				text = strings.Join(blocked, "; ")
			}
		}
		d.change.Find("CV-T20", attr, "%s", text)
	}
	return d.blockedByOthers(ctx, l, attr)
}

// findRetyped lists the live names of the stored columns that get another type.
func (d *draft) findRetyped() {
	for _, w := range d.Spec.Columns {
		if l := d.liveColumn(w); l != nil && l.typ != string(w.Type) && !l.generated && w.Generated == "" {
			d.retyped = append(d.retyped, l.name)
		}
	}
}

// displaced lists the columns of a table that its readers keep from being changed. A table that cannot be read says so itself.
func displaced(ctx context.Context, q *Queries, spec *spec.Table, last map[string]plan.State) []string {
	t := &Table{Catalog: q.Catalog, Spec: spec, Queries: q}
	live, err := t.observe(ctx)
	if err != nil || live == nil || kinds[t.rel.kind] != "" {
		return nil
	}
	c := newChange(t, last, live)
	return (&draft{Table: t, change: &c}).displaced()
}

// displaced lists the live names of the columns that are dropped, made anew or get another type: a view that reads one forbids it.
func (d *draft) displaced() (out []string) {
	d.findRetyped()
	for _, diff := range d.change.Diffs {
		name, is := strings.CutPrefix(diff.Name, "column ")
		if _, described := strings.CutSuffix(name, " description"); !is || described {
			continue
		}
		w, l := d.Spec.Column(name), d.rel.column(name)
		if w != nil {
			l = d.liveColumn(w)
		}
		if l != nil && (w == nil || d.regenerates(w, l) && !d.setsExpression(w, l) || w.Generated == "" && l.typ != string(w.Type)) {
			out = append(out, l.name)
		}
	}
	for _, w := range d.follows() {
		out = append(out, w.Name)
	}
	return out
}

// regenerates tells whether a column becomes generated, or gets another expression or type.
func (d *draft) regenerates(w *spec.Column, l *liveColumn) bool {
	return w.Generated != "" && (!l.generated || l.virtual || l.typ != string(w.Type) || d.written(declaredExpression(d.Spec, w)) != d.written(liveExpression(d.rel, *l)))
}

// setsExpression tells whether PostgreSQL gives a generated column its new expression in place.
func (d *draft) setsExpression(w *spec.Column, l *liveColumn) bool {
	return l.generated && !l.virtual && l.typ == string(w.Type) && w.Null != l.notNull && d.live.caps.Number >= 170000 && len(d.retyped) == 0
}

func (d *draft) changeColumn(ctx context.Context, w *spec.Column, l *liveColumn) error {
	attr, differs := "column "+w.Name, d.written(declaredExpression(d.Spec, w)) != d.written(liveExpression(d.rel, *l))
	alter := "ALTER TABLE " + d.table() + " ALTER COLUMN " + pg.Ident(w.Name) + " "
	if l.name != w.Name {
		readers, err := d.Catalog.Reads(ctx, d.name(), l.name)
		if err != nil {
			return err
		}
		text := l.name + " is called " + w.Name + " from now on"
		if len(readers) > 0 {
			text += "; " + strings.Join(readers, ", ") + " follow"
		}
		d.change.Find("CV-T19", attr, "%s", text)
		d.step(renaming, false, "ALTER TABLE %s RENAME COLUMN %s TO %s", d.table(), pg.Ident(l.name), pg.Ident(w.Name))
	}
	d.fillsNoMore(w, l)
	if l.identity {
		d.step(alteringColumns, false, "%sDROP IDENTITY IF EXISTS", alter)
	}
	switch {
	case d.regenerates(w, l):
		return d.generate(ctx, w, l)
	case w.Generated == "" && l.generated:
		d.step(alteringColumns, false, "%sDROP EXPRESSION IF EXISTS", alter)
	}
	retyped := l.typ != string(w.Type)
	if retyped {
		if l.expr != "" && !l.generated { // it need not suit the new type
			d.step(alteringColumns, false, "%sDROP DEFAULT", alter)
		}
		if err := d.retype(ctx, w, l); err != nil {
			return err
		}
	}
	if w.Generated == "" && (retyped || l.generated || differs) {
		if w.Default != "" {
			d.step(alteringColumns, false, "%sSET DEFAULT (%s)", alter, w.Default)
		} else if l.expr != "" && !l.generated && !retyped {
			d.step(alteringColumns, false, "%sDROP DEFAULT", alter)
		}
	}
	if w.Null && l.notNull {
		if d.isTime(l) {
			d.change.Find("CV-T08", attr, "%s is the time column, and cannot be null", l.name)
		}
		d.step(alteringColumns, false, "%sDROP NOT NULL", alter)
	}
	if !w.Null && !l.notNull {
		return d.setNotNull(ctx, w, l, alter)
	}
	return nil
}

// fillsNoMore adds the finding that a column gets no value by itself any more, unless the last apply made it do so: then it is
// known who wants that.
func (d *draft) fillsNoMore(w *spec.Column, l *liveColumn) {
	if w.Default != "" || w.Generated != "" {
		return
	}
	what, word := "an identity", ""
	switch {
	case l.generated:
		what, word = "the expression "+l.expr, " generated "
	case l.expr != "":
		what, word = "the default "+l.expr, " default "
	case !l.identity:
		return
	}
	for _, name := range []string{l.name, w.Name} {
		if last, ours := d.change.Last.Get("column " + name); ours && word != "" && strings.Contains(last.Value, word) {
			return
		}
	}
	then := "fail"
	if w.Null {
		then = "leave it empty"
	}
	d.change.Find("CV-T37", "column "+w.Name, "%s has %s, which apply takes off: inserts that do not name it %s from then on", l.name, what, then)
}

func (d *draft) setNotNull(ctx context.Context, w *spec.Column, l *liveColumn, alter string) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	attr := "column " + w.Name
	d.step(alteringColumns, !s.empty, "%sSET NOT NULL", alter)
	if s.empty {
		return nil
	}
	var nulls int64
	open, err := d.ask(ctx, "SELECT count(*) FROM "+d.table()+" WHERE "+pg.Ident(l.name)+" IS NULL", &nulls)
	switch {
	case err != nil:
		return err
	case nulls > 0:
		d.change.Find("CV-T13", attr, "%s rows have no value in %s", humanize.Comma(nulls), l.name)
	case open != "":
		d.change.Find("CV-T14", attr, "%s are read; whether each has a value is not known: %s", s, open)
	default:
		d.change.Find("CV-T14", attr, "%s are read; each has a value", s)
	}
	return nil
}

// generate makes a column generated, or gives it another expression or type. PostgreSQL 17 has a statement for the expression;
// otherwise the column is made anew.
func (d *draft) generate(ctx context.Context, w *spec.Column, l *liveColumn) error {
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	attr := "column " + w.Name
	switch {
	case !l.generated:
		var rows int64
		open, err := d.ask(ctx, "SELECT count("+pg.Ident(l.name)+") FROM "+d.table(), &rows)
		if err != nil {
			return err
		}
		d.recount("CV-T33", true, "SELECT count("+pg.Ident(l.name)+") FROM "+d.table())
		if !s.empty {
			d.change.Find("CV-T33", attr, "%s", open.rows(rows, "a stored value in it")).Loss = rowsLost(rows, open == "", "at once")
		}
	case !s.empty:
		d.change.Find("CV-T32", attr, "%s are written anew", s)
	}
	if h := d.rel.hyper; h != nil && h.columnar {
		d.change.Find("CV-T12", attr, "TimescaleDB changes no generated column while the columnstore is on")
		return nil
	}
	if d.setsExpression(w, l) {
		d.step(generating, true, "ALTER TABLE %s ALTER COLUMN %s SET EXPRESSION AS (%s)", d.table(), pg.Ident(w.Name), w.Generated)
		d.unevaluated(w, []string{})
		return nil
	}
	if err := d.blockedByReaders(ctx, l, attr); err != nil {
		return err
	}
	d.noteIndexes(l.name)
	d.step(droppingColumns, false, "ALTER TABLE %s DROP COLUMN IF EXISTS %s", d.table(), pg.Ident(w.Name))
	d.addStep(generating, true, w)
	for _, idx := range d.Spec.Indexes { // they went with the column
		if slices.Contains(idx.Columns, w.Name) && d.rel.index(idx.Name) != nil {
			d.step(addingIndexes, true, "%s", indexSQL(d.name(), idx, ifMissing))
		}
	}
	if w.Description != "" {
		d.step(comments, false, "%s", columnCommentSQL(d.name(), w.Name, w.Description))
	}
	return nil
}
