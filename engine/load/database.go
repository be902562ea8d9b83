package load

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// databaseObjects reads what lives in PostgreSQL besides tables.
func (l *loader) databaseObjects(each func(kind string, read func(*hcl.Block, map[string]hcl.Range))) {
	views := map[string]bool{}
	each("view", func(b *hcl.Block, seen map[string]hcl.Range) { views[b.Labels[0]] = true; l.view(b, seen) })
	each("aggregate", func(b *hcl.Block, seen map[string]hcl.Range) { l.aggregate(b, seen, views) })
	known := map[string]bool{}
	for _, t := range l.p.Tables {
		known["table."+t.Name] = true
	}
	for _, v := range l.p.Views {
		known["view."+v.Name] = true
	}
	for _, a := range l.p.Aggregates {
		known["aggregate."+a.Name] = true
	}
	each("role", func(b *hcl.Block, seen map[string]hcl.Range) { l.role(b, seen, known) })
}

// columnstore reads the block of a hypertable that is kept by columns once it is old enough.
func (l *loader) columnstore(r *reading, ht *spec.Hypertable, h *block) {
	l.once(h.content.Blocks, "A hypertable")
	for _, raw := range h.content.Blocks {
		c := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"after"}, "segment_by", "order_by")}, l.ctx)
		ht.Columnstore = &spec.Columnstore{
			After:     c.duration("after", 0, time.Hour, forever),
			SegmentBy: c.texts("segment_by"), OrderBy: c.texts("order_by"), Range: c.rng,
		}
		seen := map[string]bool{}
		use := func(attr, name string) {
			if r.column(c, attr, name) != nil && seen[name] {
				l.fail(c.rangeOf(attr), "Column twice",
					"%s stands twice in segment_by and order_by: a column is in one of them, once.", c.show(attr, name))
			}
			seen[name] = true
		}
		for _, name := range ht.Columnstore.SegmentBy {
			use("segment_by", name)
		}
		for i, text := range ht.Columnstore.OrderBy {
			name, direction, _ := strings.Cut(strings.TrimSpace(text), " ")
			if direction = strings.ToUpper(strings.TrimSpace(direction)); direction != "" && direction != "ASC" &&
				direction != "DESC" {
				l.fail(c.rangeOf("order_by"), "Not an order", "%s: write a column, or \"column DESC\".",
					c.show("order_by", text))
			}
			use("order_by", name)
			if ht.Columnstore.OrderBy[i] = name; direction == "DESC" {
				ht.Columnstore.OrderBy[i] += " DESC"
			}
		}
		if ht.Retention > 0 && ht.Columnstore.After >= ht.Retention {
			l.fail(c.rangeOf("after"), "Never reached",
				"Chunks go after retention = %s, before they would become columns.", units.FormatDuration(ht.Retention))
		}
	}
}

func (l *loader) view(raw *hcl.Block, seen map[string]hcl.Range) {
	name, ok := l.relation(raw, seen, nil)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"query"}, "description")}, l.ctx)
	v := &spec.View{Name: name, Description: b.text("description", ""), Range: b.rng}
	v.Query, v.QueryAt, _ = l.query(b)
	l.folded(b, "query", v.Query, queryFile(v.QueryAt), "", "when the view is created", l.timeColumn)
	if ok {
		l.p.Views = append(l.p.Views, v)
	}
}

// relation checks a name that shares PostgreSQL's one room for tables, views and aggregates.
func (l *loader) relation(raw *hcl.Block, seen map[string]hcl.Range, views map[string]bool) (string, bool) {
	name, ok := l.name(raw, seen)
	other := ""
	if _, table := l.tables[name]; table {
		other = "table"
	} else if views[name] {
		other = "view"
	}
	if ok && other != "" {
		l.fail(raw.LabelRanges[0], "Name in use",
			"There is a %s %q: tables, views and aggregates share their names in PostgreSQL.", other, name)
		return name, false
	}
	return name, ok
}

func (l *loader) aggregate(raw *hcl.Block, seen map[string]hcl.Range, views map[string]bool) {
	const day = 24 * time.Hour
	name, ok := l.relation(raw, seen, views)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"from", "query"}, "description", "real_time",
		"retention"), Blocks: plain("refresh")}, l.ctx)
	a := &spec.Aggregate{
		Name: name, Description: b.text("description", ""), RealTime: b.flag("real_time", false),
		Retention: b.duration("retention", 0, time.Hour, forever), Range: b.rng,
	}
	a.Query, a.QueryAt, _ = l.query(b)
	l.folded(b, "query", a.Query, queryFile(a.QueryAt), "", "when the aggregate is created", l.timeColumn)
	from, found := refer(b, "from", "table", l.tables)
	if found && from.Hypertable == nil {
		l.fail(b.rangeOf("from"), "Table without time", "%q has no hypertable block: a continuous aggregate needs one.",
			from.Name)
	}
	a.From = from
	l.once(b.content.Blocks, "An aggregate")
	for _, rb := range b.content.Blocks {
		x := l.open(rb, &hcl.BodySchema{Attributes: attrs([]string{"start", "every"}, "end")}, l.ctx)
		a.Refresh = &spec.Refresh{
			Start: x.duration("start", 0, time.Minute, forever),
			End:   x.duration("end", 0, 0, forever), Every: x.duration("every", 0, time.Minute, 31*day), Range: x.rng,
		}
		if x.good["start"] && a.Refresh.Start <= a.Refresh.End {
			l.fail(x.rangeOf("start"), "Empty window",
				"start lies further back than end: start = \"3h\", end = \"10m\".")
		}
	}
	if ok {
		l.p.Aggregates = append(l.p.Aggregates, a)
	}
}

var privileges = []string{"select", "insert", "update", "delete"}

func (l *loader) role(raw *hcl.Block, seen map[string]hcl.Range, known map[string]bool) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs(nil, "login", "password", "read_only", "statement_timeout"),
		Blocks:     plain("grant"),
	}, l.ctx)
	r := &spec.Role{
		Name: name, Login: b.flag("login", true), Password: b.password("password", strings.ToUpper(name)+"_PASSWORD"),
		ReadOnly: b.flag("read_only", false),
		Timeout:  b.duration("statement_timeout", 0, 100*time.Millisecond, 24*time.Hour), Range: b.rng,
	}
	if strings.HasPrefix(name, "pg_") || name == "public" || name == "none" {
		l.fail(raw.LabelRanges[0], "Not a role name",
			"PostgreSQL keeps public, none, and names that begin with pg_, for itself.")
	}
	for _, gb := range b.content.Blocks {
		x := l.open(gb, &hcl.BodySchema{Attributes: attrs([]string{"privileges", "on"})}, l.ctx)
		g := &spec.Grant{Privileges: x.texts("privileges"), On: l.grantedOn(x, known), Range: x.rng}
		for i, p := range g.Privileges {
			if g.Privileges[i] = strings.ToLower(p); !slices.Contains(privileges, g.Privileges[i]) {
				l.fail(x.rangeOf("privileges"), "Unknown privilege", "%s is no privilege on a table.%s",
					x.show("privileges", p), x.suggest("privileges", strings.ToLower(p), privileges))
			}
		}
		if x.good["privileges"] && len(g.Privileges) == 0 {
			l.fail(x.rangeOf("privileges"), "No privileges", "The list is empty: privileges = [\"select\"].")
		}
		slices.Sort(g.Privileges)
		g.Privileges = slices.Compact(g.Privileges)
		r.Grants = append(r.Grants, g)
	}
	if ok {
		l.p.Roles = append(l.p.Roles, r)
	}
}

// relationKinds are the blocks that a grant may name.
var relationKinds = []string{"table", "view", "aggregate"}

// grantedOn reads on = [table.x, view.y, aggregate.z, cryptoviz]; each is a static reference to one of known.
func (l *loader) grantedOn(b *block, known map[string]bool) (out []string) {
	a := b.content.Attributes["on"]
	if a == nil {
		return nil
	}
	exprs, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() || len(exprs) == 0 {
		l.fail(a.Expr.Range(), "Not a list of references",
			"on names tables, views and aggregates: on = [table.raw_crypto_data, view.latest]; cryptoviz is the engine's own schema.")
		return nil
	}
	seen := map[string]bool{}
	for _, e := range exprs {
		if l.full() {
			break
		}
		name := hcl.ExprAsKeyword(e)
		if name != engineSchema {
			var kind string
			if kind, name = reference(e); name == "" || !slices.Contains(relationKinds, kind) {
				l.fail(e.Range(), "Not a reference",
					"Write table.NAME, view.NAME, aggregate.NAME or cryptoviz, without quotes.")
				continue
			}
			if !known[kind+"."+name] {
				l.fail(e.Range(), "Unknown "+kind, "There is no %s %q.%s", kind, units.Clip(name),
					suggestRelation(kind, name, known))
				continue
			}
			if name == engineSchema {
				l.fail(e.Range(), "Name in use",
					"The engine's own schema has the name of this %s, and the grant would be on that. Rename the %s.",
					kind, kind)
				continue
			}
		}
		if !seen[name] {
			out = append(out, name)
		}
		seen[name] = true
	}
	return out
}

// engineSchema stands for the engine's own schema in a grant.
const engineSchema = "cryptoviz"

// suggestRelation suggests the same name of another kind, or another name.
func suggestRelation(kind, name string, known map[string]bool) string {
	for _, other := range relationKinds {
		if address := other + "." + name; known[address] {
			return fmt.Sprintf(" Did you mean %q?", address)
		}
	}
	return diag.Suggest(kind+"."+name, keys(known))
}
