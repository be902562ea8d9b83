package table

import (
	"context"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// key assesses another primary key.
func (d *tableDiff) key(ctx context.Context) error {
	name := d.t.name() + "_pkey"
	if k := d.t.rel.Key(); k != nil {
		name = k.Constraint
	}
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	d.step(ddl.DroppingKey, false, "ALTER TABLE %s DROP CONSTRAINT IF EXISTS %s", d.quoted(), pg.Ident(name))
	d.step(ddl.AddingKey, !s.empty, "ALTER TABLE %s ADD CONSTRAINT %s PRIMARY KEY (%s)", d.quoted(), pg.Ident(name),
		pg.Idents(d.t.Spec.PrimaryKey))
	if err := d.unique(ctx, "primary_key", d.t.Spec.PrimaryKey, s); err != nil || s.empty {
		return err
	}
	d.change.Find(codePrimaryKeyBuilt, "primary_key", "built over %s", s)
	return nil
}

// unique looks for what forbids that columns are unique: duplicates, and chunks that are cut by another column.
func (d *tableDiff) unique(ctx context.Context, attr string, columns []string, s size) error {
	if h := d.t.Spec.Hypertable; h != nil && !slices.Contains(columns, h.Time) {
		d.change.Find(codeUniqueWithoutTime, attr, "it lacks the time column %s", h.Time)
		return nil
	}
	var live []string // a new column has one value in all rows
	for _, name := range columns {
		w := d.t.Spec.Column(name)
		switch {
		case d.t.rel.Column(name) != nil:
			live = append(live, name)
		case w != nil && d.t.renames()[w.Was] == name:
			live = append(live, w.Was)
		}
	}
	if s.empty || s.rows == 1 {
		return nil
	}
	by, where := "true", ""
	if len(live) > 0 {
		by = pg.Idents(live)
		where = " WHERE (" + by + ") IS NOT NULL"
		if len(live) > 1 {
			where = " WHERE num_nulls(" + by + ") = 0"
		}
	}
	var groups int64
	open, err := d.ask(ctx, "SELECT count(*) FROM (SELECT FROM "+d.quoted()+where+" GROUP BY "+by+
		" HAVING count(*) > 1) x", &groups)
	if pg.Code(err) == "42883" { // json = json
		open, err = "the type that a column has now knows no equality", nil
	}
	switch {
	case err != nil:
		return err
	case open != "":
		d.change.Note("%s: whether there are duplicates is not known: %s; with some, apply stops and changes nothing",
			attr, open)
	case groups > 0:
		d.change.Find(codeDuplicates, attr, "%s values of (%s) are there more than once", humanize.Comma(groups),
			strings.Join(live, ", "))
	}
	return nil
}

// renamedIndexes pairs an index that the last apply made, and that is not declared any more, with a declared one over
// the same columns: it is renamed, not built again. The result maps both names to each other.
func (d *tableDiff) renamedIndexes() map[string]string {
	out := map[string]string{}
	for _, gone := range d.change.Diffs {
		old, is := strings.CutPrefix(gone.Name, "index ")
		if x := d.t.rel.Index(old); !is || gone.Cause != plan.Reset || x == nil || !x.Valid || x.Constraint != "" {
			continue
		}
		for _, made := range d.change.Diffs {
			name, is := strings.CutPrefix(made.Name, "index ")
			if is && made.Old == "" && made.New == gone.Old && out[name] == "" && d.t.rel.Index(name) == nil {
				out[old], out[name] = name, old
				break
			}
		}
	}
	return out
}

// showRenamed makes one difference of the two that a renamed index has: none is built, and none goes.
func (d *tableDiff) showRenamed(renamed map[string]string) {
	d.change.Diffs = slices.DeleteFunc(d.change.Diffs, func(gone plan.Diff) bool {
		old, is := strings.CutPrefix(gone.Name, "index ")
		return is && gone.New == "" && renamed[old] != ""
	})
	for i := range d.change.Diffs {
		made := &d.change.Diffs[i]
		if name, is := strings.CutPrefix(made.Name, "index "); is && renamed[name] != "" {
			made.Old = "named " + renamed[name] + ": " + made.New
		}
	}
}

// index assesses a missing, another, or no more wanted index.
func (d *tableDiff) index(ctx context.Context, name string, renamed map[string]string) error {
	var w *spec.Index
	if i := slices.IndexFunc(d.t.Spec.Indexes, func(x *spec.Index) bool { return x.Name == name }); i >= 0 {
		w = d.t.Spec.Indexes[i]
	}
	x, attr := d.t.rel.Index(name), "index "+name
	if other := renamed[name]; other != "" {
		if w != nil {
			d.step(ddl.Renaming, false, "ALTER INDEX %s RENAME TO %s", pg.Ident(other), pg.Ident(name))
		}
		return nil
	}
	if x != nil {
		if x.Constraint != "" {
			d.step(ddl.DroppingIndexes, false, "ALTER TABLE %s DROP CONSTRAINT IF EXISTS %s", d.quoted(),
				pg.Ident(x.Constraint))
		} else {
			d.step(ddl.DroppingIndexes, false, "DROP INDEX IF EXISTS %s", pg.Ident(x.Name))
		}
	}
	if w == nil {
		return nil
	}
	if x == nil {
		for _, r := range d.t.live.Relations {
			if r.Schema == d.t.rel.Schema && (r.Name == name || r.Index(name) != nil) {
				d.change.Find(codeIndexNameTaken, attr, "%s has it", r.Name)
				return nil
			}
		}
	}
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	if w.Unique {
		if err := d.unique(ctx, attr, w.Columns, s); err != nil {
			return err
		}
	}
	for _, y := range d.t.rel.Indexes {
		if y.Name != name && y.Valid && y.Using == "" && y.Unique == w.Unique && slices.Equal(y.Columns, w.Columns) {
			d.change.Note("index %s is over the same columns as %s, which is there: name = %q in the index block "+
				"would take it", name, y.Name, y.Name)
		}
	}
	switch {
	case s.empty:
		d.step(ddl.AddingIndexes, false, "%s", ddl.IndexSQL(d.t.name(), w, ddl.IfMissing))
		return nil
	case d.t.rel.Kind == "r" && d.t.rel.Hyper == nil && d.t.Spec.Hypertable == nil && s.large():
		d.step(ddl.Outside, true, "%s", ddl.IndexSQL(d.t.name(), w, ddl.Concurrently))
		d.change.Find(codeIndexBuilt, attr, "built over %s, CONCURRENTLY: readers and writers go on", s)
	default:
		d.step(ddl.AddingIndexes, true, "%s", ddl.IndexSQL(d.t.name(), w, ddl.IfMissing))
		d.change.Find(codeIndexBuilt, attr, "built over %s; writers wait meanwhile", s)
	}
	return nil
}
