package table

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Table is the resource of one table block, with its hypertable or native partitions; or of a removed block that names
// one.
type Table struct {
	Catalog *catalog.Catalog
	Queries *shadow.Queries // what reads it; nil: nothing that is declared
	Spec    *spec.Table     // nil: the table is to be deleted
	Removed *spec.Removed   // of a table that is to be deleted
	Now     func() time.Time

	live  *catalog.Snapshot // what Read saw: Want and Judge go by it
	rel   *catalog.Relation // nil: there is none
	expr  map[shadow.Expression]shadow.Normal
	group *ddl.Group // what it changes together with
}

// Observe reads the table.
func (t *Table) Observe(ctx context.Context) (plan.Observation, error) {
	return plan.Observed(ctx, &Table{
		Catalog: t.Catalog, Queries: t.Queries, Spec: t.Spec, Removed: t.Removed,
		Now: t.Now,
	})
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
		return spec.Place(t.Removed.Range)
	}
	return spec.Place(t.Spec.Range)
}

// DependsOn is the engine's schema, which brings the extension; and what its group needs.
func (t *Table) DependsOn() []string {
	if t.Spec == nil {
		return []string{plan.EngineAddress}
	}
	return t.group.DependsOn(t.Address(), []string{plan.EngineAddress})
}

// layout is the wanted one. A table that has native partitions keeps them, also where TimescaleDB came later.
func (t *Table) layout() string {
	switch {
	case t.Spec.Hypertable == nil:
		return catalog.PlainTable
	case t.rel != nil && t.rel.Kind == "p", t.live != nil && !t.live.Caps.Hypertables():
		return catalog.Native
	}
	return catalog.Hyper
}

// degraded tells whether policies are left out, as on_missing has it: the Apache edition has none.
func (t *Table) degraded() bool {
	p := t.Catalog.Pipeline
	return t.live != nil && t.live.Caps.Hypertables() && !t.live.Caps.Community() && p != nil &&
		p.Database.OnMissing == "degrade"
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
		if h.Retention > 0 && layout == catalog.Hyper && !t.degraded() {
			put("retention", units.FormatDuration(h.Retention))
		}
		if c := h.Columnstore; c != nil && layout == catalog.Hyper && !t.degraded() {
			put("columnstore", "after "+units.FormatDuration(c.After))
			if len(c.SegmentBy) > 0 {
				put("columnstore segment_by", strings.Join(c.SegmentBy, ", "))
			}
			if len(c.OrderBy) > 0 {
				put("columnstore order_by", strings.Join(c.OrderBy, ", "))
			}
		}
	}
	// of the time before it was the Apache edition: nothing can change it
	if t.degraded() && t.rel != nil && t.rel.Hyper != nil {
		for _, a := range t.state(t.rel, nil).Attrs {
			if a.Name == "retention" || strings.HasPrefix(a.Name, "columnstore") {
				s.Set(a)
			}
		}
	}
	for _, c := range t.Spec.Columns {
		put(catalog.ColumnAttr(c.Name), columnValue(string(c.Type), !c.Null,
			t.written(shadow.DeclaredExpression(t.Spec, c)), c.Generated != "", false))
		if c.Description != "" {
			put(catalog.ColumnAttr(c.Name)+" description", c.Description)
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

// written is an expression as the server writes it, if that is known.
func (t *Table) written(e shadow.Expression) string {
	if n, known := t.expr[e]; known && n.Err == nil {
		return n.Text
	}
	return e.Text
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
	t.group, err = t.Queries.GroupOf(ctx, t.Address())
	return s, err
}

// observe reads the live state alone.
func (t *Table) observe(ctx context.Context) (*plan.State, error) {
	live, err := t.Catalog.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if t.rel, err = t.Catalog.FullTable(ctx, live.Relations[t.name()]); err != nil {
		return nil, err
	}
	t.live, t.expr = live, nil
	if t.Spec != nil {
		if t.expr, err = shadow.Expressions(ctx, t.Catalog, t.Spec); err != nil {
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
	return s, t.readRawRetention(ctx, s)
}

// ofAnotherKind tells whether the name belongs to something that a removed block deletes in the same apply, or that
// took over the name of the table.
func (t *Table) ofAnotherKind(live *catalog.Snapshot) bool {
	if t.rel == nil || t.Queries == nil {
		return false
	}
	kind := live.KindOf(t.rel)
	if t.Spec == nil {
		return kind != "table" && t.Queries.Successor(t.Removed) == kind+"."+t.name()
	}
	old := t.Queries.Predecessor(t.Address())
	return old != "" && old == kind+"."+t.name()
}

// renames maps live columns that are declared under a new name to that name.
func (t *Table) renames() map[string]string {
	out := map[string]string{}
	if t.Spec == nil || t.rel == nil {
		return out
	}
	for _, c := range t.Spec.Columns {
		if c.Was != "" && t.rel.Column(c.Name) == nil && t.rel.Column(c.Was) != nil && t.Spec.Column(c.Was) == nil {
			out[c.Was] = c.Name
		}
	}
	return out
}

// state is a table in the language's units. Columns that are to be renamed stand under their new name.
func (t *Table) state(r *catalog.Relation, renames map[string]string) *plan.State {
	s := &plan.State{ID: fmt.Sprint(r.OID)}
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
	if other := catalog.OtherKinds[r.Kind]; other != "" {
		put("layout", other)
		return s
	}
	if r.Comment != "" {
		put("description", r.Comment)
	}
	layout, time, interval := r.Layout()
	put("layout", layout)
	if time != "" {
		put("time", named([]string{time}))
	}
	if interval > 0 {
		put("chunk_interval", units.FormatDuration(interval))
	}
	if h := r.Hyper; h != nil {
		if h.Retention != nil {
			put("retention", catalog.PolicyAge(h.Retention, h.Retention.DropAfter))
		}
		switch {
		case h.Conversion != nil:
			put("columnstore", "after "+catalog.PolicyAge(h.Conversion, h.Conversion.After))
		case h.Columnar:
			put("columnstore", "on, without a policy")
		}
		if len(h.SegmentBy) > 0 {
			put("columnstore segment_by", named(h.SegmentBy))
		}
		if len(h.OrderBy) > 0 {
			a := plan.Attr{Name: "columnstore order_by", Value: named(h.OrderBy)}
			if a.Value == named([]string{h.Time})+" DESC" { // what TimescaleDB chooses by itself, before 2.22 at once
				a.Origin = "TimescaleDB's default"
			}
			s.Set(a)
		}
	}
	for _, c := range r.Columns {
		name, value := c.Name, columnValue(c.Type, c.NotNull, t.written(shadow.LiveExpression(r, c)), c.Generated,
			c.Identity)
		if c.Virtual {
			value += " virtual"
		}
		if to := renames[c.Name]; to != "" {
			name, value = to, "named "+c.Name+": "+value
		}
		put(catalog.ColumnAttr(name), value)
		if c.Comment != "" {
			put(catalog.ColumnAttr(name)+" description", c.Comment)
		}
	}
	for _, x := range r.Indexes {
		value := indexValue(strings.Split(named(x.Columns), ", "), x.Unique)
		if x.Using != "" {
			value = indexValue([]string{"using " + x.Using}, x.Unique)
		}
		switch {
		case !x.Valid:
			put("index "+x.Name, "invalid: its build was interrupted")
		case x.Primary:
			put("primary_key", named(x.Columns))
		default:
			put("index "+x.Name, value)
		}
	}
	return s
}

// Make carries out the statements of a change: all in one transaction, and after it those that cannot be in one. Done
// already, by an earlier call or another instance, is no error.
func (t *Table) Make(ctx context.Context, c plan.Change) error {
	if c.Impossible() {
		return fmt.Errorf("change table %s: it cannot be done, as the plan says", t.name())
	}
	err := ddl.Execute(ctx, t.Catalog.DB, c)
	if err == nil {
		return nil
	}
	_, more := errors.AsType[plan.More](err)
	if ctx.Err() == nil && (more || pg.Refuses(pg.Code(err))) {
		t.Catalog.Reset()
		if live, readErr := t.Read(ctx); readErr == nil && ddl.Reached(c, live) {
			return nil
		}
	}
	verb := map[plan.Action]string{plan.Create: "create", plan.Delete: "drop"}[c.Action]
	if verb == "" {
		verb = "change"
	}
	return fmt.Errorf("%s table %s: %w", verb, t.name(), ddl.Explain(ctx, t.Catalog.DB, err))
}
