package load

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

var columnTypes = map[string]spec.ColumnType{
	"timestamptz": spec.Timestamptz, "text": spec.Text, "double precision": spec.Double, "numeric": spec.Numeric,
	"bigint": spec.Bigint, "integer": spec.Integer, "boolean": spec.Boolean,
}

// otherTypes are PostgreSQL's other names of such types, for suggestions.
var otherTypes = map[string]spec.ColumnType{
	"timestamp": spec.Timestamptz, "timestamp with time zone": spec.Timestamptz, "datetime": spec.Timestamptz,
	"date": spec.Timestamptz, "varchar": spec.Text, "string": spec.Text, "char": spec.Text,
	"float": spec.Double, "float8": spec.Double, "real": spec.Double, "double": spec.Double, "decimal": spec.Numeric,
	"int8": spec.Bigint, "int": spec.Integer, "int4": spec.Integer, "smallint": spec.Integer, "bool": spec.Boolean,
}

var (
	identifierForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	systemColumns  = []string{"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
	columnUnits    = []string{"price", "base", "quote", "percent", "index", "count"}
)

// reading is a table that is being read.
type reading struct {
	b       *block
	table   *spec.Table
	columns map[string]hcl.Range
	renamed []renamed
	missed  map[string]bool // columns that are not, by place: each is looked for once
}

// renamed is a column that had another name, with its block.
type renamed struct {
	b      *block
	column *spec.Column
}

// column finds a column that an attribute of b names.
func (r *reading) column(b *block, attr, name string) *spec.Column {
	c := r.table.Column(name)
	key := fmt.Sprint(b.rng.Start.Byte, attr, name)
	if c == nil && !r.missed[key] && !b.l.full() {
		b.l.fail(b.rangeOf(attr), "Unknown column", "%s has no column %s.%s", r.b.what, b.show(attr, name),
			b.suggest(attr, name, keys(r.columns)))
		r.missed[key] = true
	}
	return c
}

func (l *loader) table(raw *hcl.Block, seen map[string]hcl.Range) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs(nil, "description", "primary_key"),
		Blocks:     append(named("column"), plain("hypertable", "index")...),
	}, l.ctx)
	t := &spec.Table{
		Name: name, Description: b.text("description", ""), PrimaryKey: b.texts("primary_key"),
		Range: b.rng,
	}
	r := &reading{b: b, table: t, columns: map[string]hcl.Range{}, missed: map[string]bool{}}
	for _, cb := range b.content.Blocks.OfType("column") {
		l.column(r, cb)
	}
	if len(b.content.Blocks.OfType("column")) == 0 {
		l.fail(b.rng, "Table without columns", "%s needs column blocks: column \"time\" { type = \"timestamptz\" }.",
			b.what)
	}
	l.renames(r)
	l.primaryKey(r)
	for _, ib := range b.content.Blocks.OfType("index") {
		l.index(r, ib)
	}
	hypertables := b.content.Blocks.OfType("hypertable")
	l.once(hypertables, "A table")
	if len(hypertables) > 0 {
		l.hypertable(r, hypertables[0])
	}
	if ok {
		l.tables[name] = t
		l.p.Tables = append(l.p.Tables, t)
	}
}

var wordForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// valueWords are SQL's values that are written as a word alone.
var valueWords = []string{
	"null", "true", "false", "current_catalog", "current_date", "current_role", "current_schema", "current_time",
	"current_timestamp", "current_user",
	"localtime", "localtimestamp", "session_user", "system_user", "user",
}

// namesColumn tells whether an expression is a word that can only be the name of a column.
func namesColumn(sql string) bool {
	word := strings.TrimSpace(sql)
	return wordForm.MatchString(word) && !slices.Contains(valueWords, strings.ToLower(word))
}

func (l *loader) column(r *reading, raw *hcl.Block) {
	name := raw.Labels[0]
	c := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"type"}, "null", "default", "generated", "description",
		"unit", "was")}, l.ctx)
	switch first, twice := r.columns[name]; {
	case !identifierForm.MatchString(name):
		l.fail(raw.LabelRanges[0], "Not a column name",
			"A column name has small letters, digits and _, and is at most 63 long.")
		return
	case slices.Contains(systemColumns, name):
		l.fail(raw.LabelRanges[0], "Not a column name",
			"PostgreSQL has a column %q of its own in every table. Use another name.", name)
		return
	case twice:
		l.fail(raw.LabelRanges[0], "Declared twice", "There is a column %q already, at line %d.", name,
			first.Start.Line)
		return
	}
	r.columns[name] = raw.LabelRanges[0]
	col := &spec.Column{
		Name: name, Null: c.flag("null", false), Default: c.text("default", ""), Generated: c.text("generated", ""),
		Description: c.text("description", ""), Unit: c.text("unit", ""), Was: c.text("was", ""), Range: c.rng,
	}
	if typ := c.text("type", ""); c.good["type"] {
		var known bool
		if col.Type, known = columnTypes[typ]; !known {
			hint := c.suggest("type", typ, keys(columnTypes))
			if other, found := otherTypes[strings.ToLower(typ)]; found && !c.secret["type"] {
				hint = fmt.Sprintf(" Use %q.", other)
			}
			l.fail(c.rangeOf("type"), "Unknown column type", "%s is not a column type here.%s", c.show("type", typ),
				hint)
		}
	}
	if col.Unit != "" && !slices.Contains(columnUnits, col.Unit) {
		l.fail(c.rangeOf("unit"), "Unknown unit", "%s is not a unit.%s", c.show("unit", col.Unit),
			c.suggest("unit", col.Unit, columnUnits))
	}
	if c.good["was"] {
		r.renamed = append(r.renamed, renamed{c, col})
	}
	if namesColumn(col.Default) {
		l.fail(c.rangeOf("default"), "Not a default",
			"To PostgreSQL %s is the name of a column, which a default cannot use. For the text, quote it: %s.",
			c.show("default", col.Default), c.show("default", "'"+col.Default+"'"))
	}
	l.folded(c, "default", col.Default, "", string(col.Type), "when the table is created", func(string) bool {
		return false
	})
	l.folded(c, "generated", col.Generated, "", string(col.Type), "when the table is created", l.timeColumn)
	if col.Default != "" && col.Generated != "" {
		l.fail(c.rangeOf("generated"), "Default and generated", "A column has a default or is generated, not both.")
	}
	r.table.Columns = append(r.table.Columns, col)
}

// renames checks the names that columns had before.
func (l *loader) renames(r *reading) {
	taken := map[string]string{}
	for _, c := range r.renamed {
		was, at := c.column.Was, c.b.rangeOf("was")
		first, twice := taken[was]
		_, declared := r.columns[was]
		switch {
		case !identifierForm.MatchString(was) || was == c.column.Name:
			l.fail(at, "Not a column name",
				"was is the column's name before: small letters, digits and _, and not %q itself.", c.column.Name)
		case declared:
			l.fail(at, "Column declared", "%s has a column %s still: only a name that is gone can become %q.", r.b.what,
				c.b.show("was", was), c.column.Name)
		case twice:
			l.fail(at, "Column twice", "The column %q was %s already: it can become one of them.", first,
				c.b.show("was", was))
		}
		taken[was] = c.column.Name
	}
}

func (l *loader) primaryKey(r *reading) {
	at := r.b.rangeOf("primary_key")
	for i, k := range r.table.PrimaryKey {
		if slices.Contains(r.table.PrimaryKey[:i], k) {
			l.fail(at, "Column twice", "The primary key names %s twice.", r.b.show("primary_key", k))
			continue
		}
		if c := r.column(r.b, "primary_key", k); c != nil && (c.Null || c.Generated != "") {
			l.fail(at, "Column cannot be a key",
				"%s may be null or is generated; a column of the primary key is neither.", r.b.show("primary_key", k))
		}
	}
	if len(r.table.PrimaryKey) == 0 && (r.b.good["primary_key"] || !r.b.has("primary_key")) {
		l.fail(at, "No primary key", "%s needs primary_key = [\"…\"]: it is what makes a repeated sample harmless.",
			r.b.what)
	}
}

func (l *loader) index(r *reading, raw *hcl.Block) {
	x := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"columns"}, "name", "unique")}, l.ctx)
	idx := &spec.Index{Columns: x.texts("columns"), Unique: x.flag("unique", false), Range: x.rng}
	found := x.good["columns"]
	for _, c := range idx.Columns {
		found = r.column(x, "columns", c) != nil && found
	}
	if x.good["columns"] && len(idx.Columns) == 0 {
		l.fail(x.rangeOf("columns"), "Index without columns", "Name at least one: columns = [\"…\"].")
		found = false
	}
	idx.Name = x.text("name", strings.Join(append(append([]string{r.table.Name}, idx.Columns...), "idx"), "_"))
	if (found || x.good["name"]) && !identifierForm.MatchString(idx.Name) {
		l.fail(x.rangeOf("name"), "Not an index name",
			"%s is not a name of small letters, digits and _, at most 63 long: give another, name = \"…\".",
			x.show("name", idx.Name))
	}
	r.table.Indexes = append(r.table.Indexes, idx)
}

// relations reports names that two indexes, or an index and a table, a view or an aggregate, share: PostgreSQL keeps
// them in one list.
func (l *loader) relations() {
	taken := map[string]string{}
	for _, t := range l.p.Tables {
		taken[t.Name] = "table"
	}
	for _, v := range l.p.Views {
		taken[v.Name] = "view"
	}
	for _, a := range l.p.Aggregates {
		taken[a.Name] = "aggregate"
	}
	for _, t := range l.p.Tables {
		if _, twice := taken[t.Name+"_pkey"]; !twice {
			taken[t.Name+"_pkey"] = "primary key"
		}
		for _, idx := range t.Indexes {
			if what, twice := taken[idx.Name]; twice {
				l.fail(idx.Range, "Name used twice",
					"There is %s of the same name as this index already. Give it another: name = \"…\".", article(what))
			}
			taken[idx.Name] = "index"
		}
	}
}

func (l *loader) hypertable(r *reading, raw *hcl.Block) {
	const day = 24 * time.Hour
	h := l.open(raw, &hcl.BodySchema{
		Attributes: attrs([]string{"time"}, "chunk_interval", "retention"),
		Blocks:     plain("columnstore"),
	}, l.ctx)
	t := r.table
	ht := &spec.Hypertable{
		Time: h.text("time", ""), ChunkInterval: h.duration("chunk_interval", day, time.Minute, 366*day),
		Retention: h.duration("retention", 0, time.Hour, forever), Range: h.rng,
	}
	t.Hypertable = ht
	l.columnstore(r, ht, h)
	if day%ht.ChunkInterval != 0 && ht.ChunkInterval%day != 0 {
		l.fail(h.rangeOf("chunk_interval"), "Chunks do not fit the day",
			"chunk_interval divides a day (\"6h\") or is whole days (\"7d\").")
	}
	if !h.good["time"] {
		return
	}
	c := r.column(h, "time", ht.Time)
	if c == nil {
		return
	}
	if c.Type != "" && c.Type != spec.Timestamptz || c.Null {
		l.fail(h.rangeOf("time"), "Not a time column", "%s must be a timestamptz that is not null.",
			h.show("time", ht.Time))
	}
	if len(t.PrimaryKey) > 0 && !slices.Contains(t.PrimaryKey, ht.Time) {
		l.fail(r.b.rangeOf("primary_key"), "Time column not in the key",
			"The primary key of a hypertable holds its time column %s.", h.show("time", ht.Time))
	}
	for _, idx := range t.Indexes {
		if idx.Unique && len(idx.Columns) > 0 && !slices.Contains(idx.Columns, ht.Time) {
			l.fail(idx.Range, "Unique index without the time column",
				"A unique index of a hypertable holds its time column %s.", h.show("time", ht.Time))
		}
	}
}

// free lists the columns that are neither generated nor in the key.
func freeColumns(t *spec.Table) []string {
	var out []string
	for _, c := range t.Columns {
		if c.Generated == "" && !slices.Contains(t.PrimaryKey, c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
