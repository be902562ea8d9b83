package timescale

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Table is the resource of one table block, with its hypertable or native partitions; or of a removed block that names one.
type Table struct {
	Catalog *Catalog
	Queries *Queries      // what reads it; nil: nothing that is declared
	Spec    *spec.Table   // nil: the table shall be deleted
	Removed *spec.Removed // of a table that shall be deleted
	Now     func() time.Time

	live  *snapshot // what Read saw: Want and Judge go by it
	rel   *relation // nil: there is none
	expr  map[expression]normal
	group *group // what it changes together with
}

func (t *Table) name() string {
	if t.Spec == nil {
		return t.Removed.Name
	}
	return t.Spec.Name
}

// Address is table.NAME.
func (t *Table) Address() string { return "table." + t.name() }

// Where is the place of the block.
func (t *Table) Where() string {
	if t.Spec == nil {
		return place(t.Removed.Range)
	}
	return place(t.Spec.Range)
}

// DependsOn is the engine's schema, which brings the extension; and what its group needs.
func (t *Table) DependsOn() []string {
	if t.Spec == nil {
		return []string{plan.EngineAddress}
	}
	return t.group.dependsOn(t.Address(), []string{plan.EngineAddress})
}

// Layouts of a table.
const (
	plain  = "plain table"
	hyper  = "hypertable"
	native = "native partitions"
)

// layout is the wanted one. A table that has native partitions keeps them, also where TimescaleDB came later.
func (t *Table) layout() string {
	switch {
	case t.Spec.Hypertable == nil:
		return plain
	case t.rel != nil && t.rel.kind == "p", t.live != nil && !t.live.caps.Hypertables():
		return native
	}
	return hyper
}

// degraded tells whether policies are left out, as on_missing has it: the Apache edition has none.
func (t *Table) degraded() bool {
	p := t.Catalog.Pipeline
	return t.live != nil && t.live.caps.Hypertables() && !t.live.caps.Community() && p != nil && p.Database.OnMissing == "degrade"
}

// Want is the declared state, with expressions as the server writes them once Read has asked it.
func (t *Table) Want() *plan.State {
	if t.Spec == nil {
		return nil
	}
	s := &plan.State{}
	put := func(name, value string) { s.Set(plan.Attr{Name: name, Value: value}) }
	if t.Spec.Description != "" {
		put("description", t.Spec.Description)
	}
	layout := t.layout()
	put("layout", layout)
	if h := t.Spec.Hypertable; h != nil {
		put("time", h.Time)
		put("chunk_interval", units.FormatDuration(h.ChunkInterval))
		if h.Retention > 0 && layout == hyper && !t.degraded() {
			put("retention", units.FormatDuration(h.Retention))
		}
		if c := h.Columnstore; c != nil && layout == hyper && !t.degraded() {
			put("columnstore", "after "+units.FormatDuration(c.After))
			if len(c.SegmentBy) > 0 {
				put("columnstore segment_by", strings.Join(c.SegmentBy, ", "))
			}
			if len(c.OrderBy) > 0 {
				put("columnstore order_by", strings.Join(c.OrderBy, ", "))
			}
		}
	}
	if t.degraded() && t.rel != nil && t.rel.hyper != nil { // of the time before it was the Apache edition: nothing can change it
		for _, a := range t.state(t.rel, nil).Attrs {
			if a.Name == "retention" || strings.HasPrefix(a.Name, "columnstore") {
				s.Set(a)
			}
		}
	}
	for _, c := range t.Spec.Columns {
		put(ColumnAttr(c.Name), columnValue(string(c.Type), !c.Null, t.written(declaredExpression(t.Spec, c)), c.Generated != "", false))
		if c.Description != "" {
			put(ColumnAttr(c.Name)+" description", c.Description)
		}
	}
	if r := t.rollup(); r != nil && r.KeepRaw > 0 {
		put(keepRaw, units.FormatDuration(r.KeepRaw))
	}
	put("primary_key", strings.Join(t.Spec.PrimaryKey, ", "))
	for _, idx := range t.Spec.Indexes {
		put("index "+idx.Name, indexValue(idx.Columns, idx.Unique))
	}
	return s
}

// ColumnAttr is the name of a column's attribute. A name that pipeline.hcl cannot declare is quoted: the column "v description" is
// not the description of column v.
func ColumnAttr(column string) string { return "column " + pg.IdentAsNeeded(column) }

// written is an expression as the server writes it, if that is known.
func (t *Table) written(e expression) string {
	if n, known := t.expr[e]; known && n.err == nil {
		return n.text
	}
	return e.text
}

func columnValue(typ string, notNull bool, expr string, generated, identity bool) string {
	if notNull {
		typ += " not null"
	}
	switch {
	case generated:
		typ += " generated " + expr
	case expr != "":
		typ += " default " + expr
	case identity:
		typ += " identity"
	}
	return typ
}

func indexValue(columns []string, unique bool) string {
	if unique {
		return "unique " + strings.Join(columns, ", ")
	}
	return strings.Join(columns, ", ")
}

// Read is the live state, from the shared snapshot. The server is asked how it writes the declared expressions.
func (t *Table) Read(ctx context.Context) (*plan.State, error) {
	s, err := t.observe(ctx)
	if err != nil {
		return nil, err
	}
	t.group, err = t.Queries.groupOf(ctx, t.Address())
	return s, err
}

// observe reads the live state alone.
func (t *Table) observe(ctx context.Context) (*plan.State, error) {
	live, err := t.Catalog.load(ctx)
	if err != nil {
		return nil, err
	}
	if t.rel, err = t.Catalog.whole(ctx, live.relations[t.name()]); err != nil {
		return nil, err
	}
	t.live, t.expr = live, nil
	if t.Spec != nil {
		if t.expr, err = expressions(ctx, t.Catalog, t.Spec); err != nil {
			return nil, fmt.Errorf("read table %s: %w", t.name(), err)
		}
	}
	if t.ofAnotherKind(live) {
		t.rel = nil
	}
	if t.rel == nil {
		return nil, nil
	}
	s := t.state(t.rel, t.renames())
	return s, t.readKeep(ctx, s)
}

// ofAnotherKind tells whether the name belongs to something that a removed block deletes in the same apply, or that took over the
// name of the table.
func (t *Table) ofAnotherKind(live *snapshot) bool {
	if t.rel == nil || t.Queries == nil {
		return false
	}
	kind := live.kindOf(t.rel)
	if t.Spec == nil {
		return kind != "table" && t.Queries.Successor(t.Removed) == kind+"."+t.name()
	}
	old := t.Queries.predecessor(t.Address())
	return old != "" && old == kind+"."+t.name()
}

// renames maps live columns that are declared under a new name to that name.
func (t *Table) renames() map[string]string {
	out := map[string]string{}
	if t.Spec == nil || t.rel == nil {
		return out
	}
	for _, c := range t.Spec.Columns {
		if c.Was != "" && t.rel.column(c.Name) == nil && t.rel.column(c.Was) != nil && t.Spec.Column(c.Was) == nil {
			out[c.Was] = c.Name
		}
	}
	return out
}

var kinds = map[string]string{"v": "view", "m": "materialized view", "f": "foreign table"}

// rangeOver reads PostgreSQL's text of a partition key with one column.
var rangeOver = regexp.MustCompile(`^RANGE \("?([^"(),]+)"?\)$`)

// state is a table in the language's units. Columns that are to be renamed stand under their new name.
func (t *Table) state(r *relation, renames map[string]string) *plan.State {
	s := &plan.State{ID: fmt.Sprint(r.oid)}
	put := func(name, value string) { s.Set(plan.Attr{Name: name, Value: value}) }
	named := func(names []string) string {
		out := make([]string, len(names))
		for i, n := range names {
			column, rest, _ := strings.Cut(n, " ")
			if to := renames[column]; to != "" {
				n = strings.TrimSpace(to + " " + rest)
			}
			out[i] = n
		}
		return strings.Join(out, ", ")
	}
	if other := kinds[r.kind]; other != "" {
		put("layout", other)
		return s
	}
	if r.comment != "" {
		put("description", r.comment)
	}
	layout, time, interval := r.cut()
	put("layout", layout)
	if time != "" {
		put("time", named([]string{time}))
	}
	if interval > 0 {
		put("chunk_interval", units.FormatDuration(interval))
	}
	if h := r.hyper; h != nil {
		if h.retention != nil {
			put("retention", policyAge(h.retention, h.retention.dropAfter))
		}
		switch {
		case h.conversion != nil:
			put("columnstore", "after "+policyAge(h.conversion, h.conversion.after))
		case h.columnar:
			put("columnstore", "on, without a policy")
		}
		if len(h.segmentBy) > 0 {
			put("columnstore segment_by", named(h.segmentBy))
		}
		if len(h.orderBy) > 0 {
			a := plan.Attr{Name: "columnstore order_by", Value: named(h.orderBy)}
			if a.Value == named([]string{h.time})+" DESC" { // what TimescaleDB chooses by itself, before 2.22 at once
				a.Origin = "TimescaleDB's default"
			}
			s.Set(a)
		}
	}
	for _, c := range r.columns {
		name, value := c.name, columnValue(c.typ, c.notNull, t.written(liveExpression(r, c)), c.generated, c.identity)
		if c.virtual {
			value += " virtual"
		}
		if to := renames[c.name]; to != "" {
			name, value = to, "named "+c.name+": "+value
		}
		put(ColumnAttr(name), value)
		if c.comment != "" {
			put(ColumnAttr(name)+" description", c.comment)
		}
	}
	for _, x := range r.indexes {
		value := indexValue(strings.Split(named(x.columns), ", "), x.unique)
		if x.using != "" {
			value = indexValue([]string{"using " + x.using}, x.unique)
		}
		switch {
		case !x.valid:
			put("index "+x.name, "invalid: its build was interrupted")
		case x.primary:
			put("primary_key", named(x.columns))
		default:
			put("index "+x.name, value)
		}
	}
	return s
}

// cut tells how a table is cut in time. Partitions of another kind have no time column.
func (r *relation) cut() (layout, time string, interval time.Duration) {
	switch {
	case r.hyper != nil:
		return hyper, r.hyper.time, r.hyper.interval
	case r.kind == "r":
		return plain, "", 0
	}
	over := rangeOver.FindStringSubmatch(r.partKey)
	if over == nil {
		return "partitioned by " + r.partKey, "", 0
	}
	for _, p := range r.parts { // in order of time: the last one tells how the next ones are cut
		if !p.from.IsZero() && !p.to.IsZero() {
			interval = p.to.Sub(p.from)
		}
	}
	return native, over[1], interval
}

// policyAge is a policy's age, and whether it runs.
func policyAge(j *job, after *time.Duration) string {
	text := "the creation of a chunk"
	switch {
	case after != nil:
		text = units.FormatDuration(*after)
	case j.number != "":
		text = j.number
	}
	if !j.scheduled {
		text += " (paused)"
	}
	return text
}
