package shadow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	engine "github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// errUndone takes back what a savepoint did.
var errUndone = errors.New("undone")

// schema is a schema that has what the plan will make, in a transaction that is rolled back: each query meets what it
// will meet, and the live relations are neither touched nor locked.
type schema struct {
	q         *Queries
	tx        pgx.Tx
	live      string // where unqualified new tables and views are made
	name      string
	temp      bool   // it is that of temporary objects, since the user may make no other: there are no aggregates in it
	unplanned string // why the tables of the plan could not be made
	engine    bool   // the engine's tables are there
}

// inShadow runs f with a shadow schema. Aggregates need hypertables; any other query reads plain tables as well.
func (q *Queries) inShadow(ctx context.Context, hypertables bool, f func(*schema) error) error {
	session, err := q.Catalog.Session(ctx)
	if err != nil {
		return fmt.Errorf("read where tables are made: %w", err)
	}
	planned, err := q.planned(ctx)
	if err != nil {
		return err
	}
	caps, err := q.Catalog.Capabilities(ctx)
	if err != nil {
		return err
	}
	return q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		sh := &schema{q: q, tx: tx, live: session.Schema}
		if err := sh.create(ctx, session.Temporary); err != nil {
			return err
		}
		if err := sh.makeEngine(ctx); err != nil {
			return err
		}
		if err := sh.makeTables(ctx, planned, hypertables && !sh.temp && caps.Version != "", caps); err != nil {
			return err
		}
		if err := sh.hideRemoved(ctx); err != nil {
			return err
		}
		return f(sh)
	})
}

// create makes the schema, and has names mean what is in it first.
func (sh *schema) create(ctx context.Context, temporary bool) error {
	sh.name = "cryptoviz_plan_" + strings.ToLower(rand.Text()[:10])
	path := sh.name
	err := pg.Savepoint(ctx, sh.tx, func() error { return pg.ExecSingle(ctx, sh.tx, "CREATE SCHEMA "+sh.name) })
	if pg.Is(err, pg.NoPrivilege) {
		sh.temp, path, err = true, "pg_temp", nil
		if temporary { // there is no schema of temporary objects before the first one
			if err := pg.ExecSingle(ctx, sh.tx, "CREATE TEMPORARY TABLE "+sh.name+" () ON COMMIT DROP"); err != nil {
				return err
			}
			err = sh.tx.QueryRow(ctx, "SELECT nspname::text FROM pg_namespace WHERE oid = pg_my_temp_schema()").
				Scan(&sh.name)
		}
	}
	if err != nil {
		return err
	}
	_, err = sh.tx.Exec(ctx, "SELECT set_config('search_path', '"+path+", ' || current_setting('search_path'), true)")
	return err
}

// makeEngine makes the engine's tables where they are missing: views, rollups and dashboards read those, too.
func (sh *schema) makeEngine(ctx context.Context) error {
	if err := sh.tx.QueryRow(ctx, "SELECT to_regclass('cryptoviz.meta') IS NOT NULL").Scan(&sh.engine); err != nil ||
		sh.engine {
		return err
	}
	err := pg.Savepoint(ctx, sh.tx, func() error {
		_, err := sh.tx.Exec(ctx, engine.SQL)
		return err
	})
	if sh.engine = err == nil; pg.Code(err) == "" {
		return err
	}
	return nil // the engine's own change says what is wrong
}

// makeTables makes the tables of the plan.
func (sh *schema) makeTables(ctx context.Context, planned []*spec.Table, hypertables bool,
	caps catalog.Capabilities,
) error {
	var statements, tables []string
	for _, t := range planned {
		one := *t
		if one.Hypertable = nil; hypertables && t.Hypertable != nil {
			one.Hypertable = &spec.Hypertable{Time: t.Hypertable.Time, ChunkInterval: t.Hypertable.ChunkInterval}
		}
		for _, sql := range ddl.CreateSQL(&one, caps, time.Now()) {
			statements, tables = append(statements, sql), append(tables, t.Name)
		}
	}
	if len(statements) == 0 {
		return nil
	}
	err := pg.Savepoint(ctx, sh.tx, func() error {
		sh.q.Catalog.Count()
		i, err := pg.ExecAll(ctx, sh.tx, statements)
		if err != nil {
			return fmt.Errorf("try table %s: %w", tables[i], err)
		}
		return nil
	})
	if err != nil && pg.Code(err) == "" {
		return err
	}
	if err != nil {
		sh.unplanned = err.Error()
	}
	return nil
}

// removedNames lists the relations that this plan removes, and whose names nothing takes over.
func (q *Queries) removedNames() (names []string) {
	for _, r := range q.Pipeline.Removed {
		if slices.Contains([]string{"table", "view", "aggregate"}, r.Kind) && q.Successor(r) == "" {
			names = append(names, r.Name)
		}
	}
	return names
}

// hideRemoved hides what this plan removes behind types, which no query can read.
func (sh *schema) hideRemoved(ctx context.Context) error {
	for _, name := range sh.q.removedNames() {
		err := pg.Savepoint(ctx, sh.tx, func() error {
			return pg.ExecSingle(ctx, sh.tx, "CREATE TYPE "+pg.Ident(name)+" AS ()")
		})
		if err != nil && Rejected(err) == nil { // without a schema of its own the name is taken
			return err
		}
	}
	return nil
}

// here is a query whose tables and views, also where it names their schema, are those of the shadow.
func (sh *schema) here(sql string) string { return unqualified(sql, sh.live, sh.q.names()) }

// viewSQL makes a view of a query.
func (sh *schema) viewSQL(x *Query) string {
	return "CREATE VIEW " + pg.Ident(sh.name, x.Name) + " AS\n" + sh.here(x.Text)
}

// makeViews makes views in one request, all or none.
func (sh *schema) makeViews(ctx context.Context, list []*Query) (failed bool, err error) {
	var statements []string
	for _, x := range list {
		statements = append(statements, sh.viewSQL(x))
	}
	err = pg.Savepoint(ctx, sh.tx, func() error {
		sh.q.Catalog.Count()
		_, err := pg.ExecAll(ctx, sh.tx, statements)
		return err
	})
	if pg.Code(err) != "" {
		return true, nil
	}
	return false, err
}

// planned lists the tables that this plan makes or gives other columns, as a query will see them.
func (q *Queries) planned(ctx context.Context) ([]*spec.Table, error) {
	return catalog.Cached(ctx, q.Catalog, "planned", func(ctx context.Context) (out []*spec.Table, err error) {
		s, err := q.Catalog.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		last, err := q.Catalog.Managed(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range q.Pipeline.Tables {
			var live []catalog.Column
			if r := s.Relations[t.Name]; r != nil && (r.Kind == "r" || r.Kind == "p") {
				live = r.Columns
			}
			if p := withColumns(t, live, last["table."+t.Name]); p != nil {
				out = append(out, p)
			}
		}
		return out, nil
	})
}

// withColumns is a table as a query will see it after apply: what is declared, and what is there undeclared; in the
// order that SELECT * will have. Defaults and expressions are left out: no query sees them, and a wrong one would keep
// all queries from being checked. It is nil when that is what is there now.
func withColumns(t *spec.Table, live []catalog.Column, last plan.State) *spec.Table {
	same := live != nil
	out := *t
	out.Indexes, out.Columns, out.Description = nil, nil, ""
	stays := map[*spec.Column]bool{}
	for _, l := range live {
		c := declaredAs(t, l, live)
		if c == nil {
			if _, managed := last.Get(catalog.ColumnAttr(l.Name)); managed { // apply drops it
				same = false
				continue
			}
			c = &spec.Column{Name: l.Name, Type: spec.ColumnType(l.Type), Null: true}
		}
		same = same && c.Name == l.Name && l.Type == string(c.Type)
		if c.Generated != "" && (!l.Generated || l.Type != string(c.Type)) { // apply adds it again
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
func declaredAs(t *spec.Table, l catalog.Column, live []catalog.Column) *spec.Column {
	if c := t.Column(l.Name); c != nil {
		return c
	}
	for _, c := range t.Columns {
		if c.Was == l.Name && !slices.ContainsFunc(live, func(o catalog.Column) bool { return o.Name == c.Name }) {
			return c
		}
	}
	return nil
}
