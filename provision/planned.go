package provision

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/grafana"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// prepare reads what the last apply set, and finds the tables that this plan makes or gives other columns: queries are judged
// by those.
func (w *World) prepare(ctx context.Context) error {
	if err := w.readLedger(ctx); err != nil {
		return err
	}
	var err error
	if w.caps, err = w.catalog.Capabilities(ctx); err != nil {
		return err
	}
	live, err := w.liveColumns(ctx)
	if err != nil {
		return fmt.Errorf("read the tables' columns: %w", err)
	}
	w.planned, w.queries.Planned = nil, nil
	for _, t := range w.p.Tables {
		if p := withColumns(t, live[t.Name], w.last["table."+t.Name]); p != nil {
			w.planned = append(w.planned, p)
		}
	}
	if len(w.planned) > 0 || len(w.leaving()) > 0 {
		w.queries.Planned = w.makePlanned
	}
	return nil
}

// leaving lists the relations that this plan removes.
func (w *World) leaving() (names []string) {
	for _, r := range w.p.Removed {
		if slices.Contains([]string{"table", "view", "aggregate"}, r.Kind) && w.queries.Successor(r) == "" {
			names = append(names, r.Name)
		}
	}
	return names
}

// makePlanned makes the planned tables in the schema that comes first in the search path of tx, and hides what leaves behind
// types, which no query can read. The caller rolls tx back: the live tables are neither touched nor locked.
//
// Native partitions do for a query where there can be no hypertables.
func (w *World) makePlanned(ctx context.Context, tx pgx.Tx, hypertables bool) error {
	caps := w.caps
	if !hypertables || caps.Version == "" {
		caps = catalog.Capabilities{Server: caps.Server}
	}
	for _, t := range w.planned {
		for _, sql := range ddl.CreateSQL(t, caps, w.now()) {
			if err := pg.ExecSingle(ctx, tx, sql); err != nil {
				return fmt.Errorf("try table %s: %w", t.Name, err)
			}
		}
	}
	for _, name := range w.leaving() {
		err := pg.Savepoint(ctx, tx, func() error {
			return pg.ExecSingle(ctx, tx, "CREATE TYPE "+pgx.Identifier{name}.Sanitize()+" AS ()")
		})
		if err != nil && refusal(err) == "" { // without a schema of the trial's own the name is taken: then it cannot be hidden
			return err
		}
	}
	return nil
}

type liveColumn struct {
	name, typ string
	generated bool
}

// liveColumns reads the columns of the declared tables that exist, in their order.
func (w *World) liveColumns(ctx context.Context) (map[string][]liveColumn, error) {
	names := make([]string, len(w.p.Tables))
	for i, t := range w.p.Tables {
		names[i] = t.Name
	}
	rows, err := w.db.Query(ctx, `SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' FROM unnest($1::text[]) AS n
		JOIN pg_class c ON c.oid = to_regclass(quote_ident(n)) AND c.relkind IN ('r', 'p') JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, names)
	if err != nil {
		return nil, err
	}
	out := map[string][]liveColumn{}
	var table string
	var c liveColumn
	_, err = pgx.ForEachRow(rows, []any{&table, &c.name, &c.typ, &c.generated}, func() error {
		out[table] = append(out[table], c)
		return nil
	})
	return out, err
}

// withColumns is a table as a query will see it after apply: what is declared, and what is there undeclared; in the order that
// SELECT * will have. Defaults and expressions are left out: no query sees them, and a wrong one would be in the way of all. It
// is nil when that is what is there now.
func withColumns(t *spec.Table, live []liveColumn, last plan.State) *spec.Table {
	same := live != nil
	out := *t
	out.Indexes, out.Columns = nil, nil
	stays := map[*spec.Column]bool{}
	for _, l := range live {
		c := declaredAs(t, l, live)
		if c == nil {
			if _, ours := last.Get(catalog.ColumnAttr(l.name)); ours { // apply drops it
				same = false
				continue
			}
			c = &spec.Column{Name: l.name, Type: spec.ColumnType(l.typ), Null: true}
		}
		same = same && c.Name == l.name && l.typ == serverType(c.Type)
		if c.Generated != "" && (!l.generated || l.typ != serverType(c.Type)) { // apply makes it anew
			continue
		}
		stays[c] = true
		out.Columns = append(out.Columns, &spec.Column{Name: c.Name, Type: c.Type, Null: c.Null})
	}
	for _, generated := range []bool{false, true} {
		for _, c := range t.Columns {
			if !stays[c] && (live == nil && !generated || live != nil && generated == (c.Generated != "")) {
				same = false
				out.Columns = append(out.Columns, &spec.Column{Name: c.Name, Type: c.Type, Null: c.Null})
			}
		}
	}
	if same {
		return nil
	}
	return &out
}

// declaredAs is the declaration of a live column, under its name or under the one that it gets; nil when there is none.
func declaredAs(t *spec.Table, l liveColumn, live []liveColumn) *spec.Column {
	if c := t.Column(l.name); c != nil {
		return c
	}
	for _, c := range t.Columns {
		if c.Was == l.name && !slices.ContainsFunc(live, func(o liveColumn) bool { return o.name == c.Name }) {
			return c
		}
	}
	return nil
}

func serverType(t spec.ColumnType) string {
	if t == spec.Timestamptz {
		return "timestamp with time zone"
	}
	return string(t)
}

// asked is one query that somebody will run on the planned schema.
type asked struct {
	address, what, sql string
}

// explain has the server read the SQL of rollups, dashboards and alerts against the planned schema. What it refuses becomes
// a finding of the rollup, dashboard or alert: so a dropped column names the panels that read it.
func (w *World) explain(ctx context.Context, p *plan.Plan) error {
	queries, views := w.askedOf(p), w.viewsOf(p)
	if len(queries) == 0 {
		return nil
	}
	for _, list := range [][]asked{queries, views} {
		for i := range list {
			var err error
			if list[i].sql, err = w.queries.Unqualified(ctx, list[i].sql); err != nil {
				return err
			}
		}
	}
	tx, err := w.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '15s'"); err != nil {
		return err
	}
	name := "cryptoviz_plan_" + strings.ToLower(rand.Text()[:10])
	err = pg.Savepoint(ctx, tx, func() error {
		_, err := tx.Exec(ctx, "CREATE SCHEMA "+name)
		return err
	})
	switch {
	case err == nil:
	case refusal(err) != "":
		name = "pg_temp" // this user may make no schema
	case w.caps.ReadOnly != "":
		return nil // the queries go unchecked, as the plan says at its top
	default:
		return err
	}
	if _, err := tx.Exec(ctx, "SELECT set_config('search_path', '"+name+", ' || current_setting('search_path'), true)"); err != nil {
		return err
	}
	if err := w.makeAll(ctx, tx, name != "pg_temp"); err != nil {
		if refusal(err) == "" {
			return err
		}
		return nil // the table's own change says what is wrong with it
	}
	makeViews(ctx, tx, views)
	for _, q := range queries {
		text, err := try(ctx, tx, w.p, q)
		switch {
		case busy(err) && ctx.Err() == nil:
			note(p, q, "not checked, since another session holds a lock on what it reads, or the server is slow")
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '100ms'"); err != nil { // for those who come after it
				return err
			}
		case err != nil:
			return fmt.Errorf("check the SQL of %s: %w", q.address, err)
		case text != "":
			w.objection(p, q, text)
		}
	}
	return nil
}

// makeAll makes the planned tables, and the engine's own where they are missing: rollups and dashboards read those too.
func (w *World) makeAll(ctx context.Context, tx pgx.Tx, hypertables bool) error {
	var engine bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('cryptoviz.meta') IS NOT NULL").Scan(&engine); err != nil {
		return err
	}
	if !engine {
		if _, err := tx.Exec(ctx, schema.SQL); err != nil {
			return err
		}
	}
	return w.makePlanned(ctx, tx, hypertables)
}

// askedOf lists the queries of the plan's rollups, dashboards and alerts.
func (w *World) askedOf(p *plan.Plan) (out []asked) {
	for _, r := range w.p.Rollups {
		out = append(out, asked{"rollup." + r.Name, r.QueryAt, strings.TrimSuffix(strings.TrimSpace(r.Query), ";")})
	}
	if w.org == nil {
		return out
	}
	declared := func(address string) bool {
		return slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Address == address && c.Want != nil })
	}
	for _, d := range w.p.Dashboards {
		address := "dashboard." + d.Name
		list, err := grafana.SQL(d)
		if err != nil || !declared(address) {
			continue
		}
		for _, q := range list {
			if q.Problem == "" {
				out = append(out, asked{address, q.Panel, q.SQL})
			}
		}
	}
	for _, a := range w.p.Alerts {
		if q := grafana.AlertSQL(a); q.Problem == "" && declared("alert."+a.Name) {
			out = append(out, asked{"alert." + a.Name, a.QueryAt, q.SQL})
		}
	}
	return out
}

// viewsOf lists the views and aggregates that the plan makes or changes.
func (w *World) viewsOf(p *plan.Plan) (out []asked) {
	for _, c := range p.Changes {
		if c.Action != plan.Create && c.Action != plan.Update && c.Action != plan.Replace {
			continue
		}
		for _, v := range w.p.Views {
			if c.Address == "view."+v.Name {
				out = append(out, asked{what: v.Name, sql: v.Query})
			}
		}
		for _, a := range w.p.Aggregates {
			if c.Address == "aggregate."+a.Name {
				out = append(out, asked{what: a.Name, sql: a.Query})
			}
		}
	}
	return out
}

// makeViews makes views for the queries that read them. Which reads which is found by trying: one round a level.
func makeViews(ctx context.Context, tx pgx.Tx, left []asked) {
	for round := len(left); round > 0 && len(left) > 0; round-- {
		left = slices.DeleteFunc(left, func(v asked) bool {
			return pg.Savepoint(ctx, tx, func() error {
				return pg.ExecSingle(ctx, tx, "CREATE VIEW "+pgx.Identifier{v.what}.Sanitize()+" AS\n"+v.sql)
			}) == nil
		})
	}
}

// try has the server read one query; the text is what it says against it.
func try(ctx context.Context, tx pgx.Tx, p *spec.Pipeline, q asked) (string, error) {
	err := pg.Savepoint(ctx, tx, func() error {
		// Prepared, not explained: whatever stands in a file, nothing of it is run.
		_, err := tx.Conn().PgConn().Prepare(ctx, "", q.sql, nil)
		return err
	})
	if text := cmp.Or(shadow.ReadsLeaving(p, err), refusal(err)); text != "" || err == nil {
		return text, nil
	}
	return "", err
}

// busy tells whether a lock was not to be had, or the server took too long.
func busy(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "55P03" || pg.Code == "57014")
}

// refusal is what the server says against a statement; "" when the error is of another kind.
func refusal(err error) string {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !slices.Contains([]string{"42", "22", "0A", "2B"}, pg.Code[:2]) {
		return ""
	}
	text := pg.Message
	if pg.Hint != "" {
		text += ". " + strings.TrimSuffix(pg.Hint, ".")
	}
	return text
}

// note adds a remark to the change of who asks.
func note(p *plan.Plan, q asked, text string) {
	for i := range p.Changes {
		if p.Changes[i].Address == q.address {
			p.Changes[i].Note("%s: %s", q.what, text)
		}
	}
}

func (w *World) objection(p *plan.Plan, q asked, text string) {
	for i := range p.Changes {
		if p.Changes[i].Address == q.address {
			p.Changes[i].Find("CV-Q01", "", "%s: %s", q.what, text)
			return
		}
	}
	c := plan.Change{Address: q.address, Action: plan.None}
	for _, r := range w.p.Rollups {
		if q.address == "rollup."+r.Name {
			c.Where = fmt.Sprintf("%s:%d", r.Range.Filename, r.Range.Start.Line)
		}
	}
	c.Find("CV-Q02", "", "%s: %s", q.what, text)
	p.Changes = append(p.Changes, c)
}
