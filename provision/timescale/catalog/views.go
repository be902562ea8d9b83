package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// ViewSnapshot is what the catalog knows of views and continuous aggregates beyond their names.
type ViewSnapshot struct {
	Session
	kinds map[string]string // of everything in the session's schema that takes a name among relations
	Views map[string]*View
}

// Session is who the catalog works as.
type Session struct {
	Schema    string // where an unqualified new object is made
	User      string
	Temporary bool // whether it may make temporary tables and views
}

// Session asks the first time.
func (c *Catalog) Session(ctx context.Context) (Session, error) {
	return Cached(ctx, c, "session", func(ctx context.Context) (out Session, err error) {
		err = c.QueryRow(ctx, sessionSQL).Scan(&out.Schema, &out.User, &out.Temporary)
		return out, err
	})
}

// View is a view as the database has it, or what the user sees of a continuous aggregate.
type View struct {
	OID      uint32
	Schema   string
	Name     string
	Owner    string
	Mine     bool // the session's user may change it
	Comment  string
	Query    string // as the server writes it with an empty search_path; of an aggregate: what it was declared with
	Options  []string
	Columns  []ViewColumn
	Real     bool // of an aggregate: rows that are not materialized yet are added when it is read
	Columnar bool // of an aggregate: the columnstore is on
	Filled   bool // of an aggregate: it holds something
	Partial  bool // its query was not asked for, nor what is an aggregate's: see Catalog.defined
}

// ViewColumn is a column of a view or a query.
type ViewColumn struct{ Name, Type, Collation string }

// Views returns what is known of views, and reads it the first time.
func (c *Catalog) Views(ctx context.Context) (*ViewSnapshot, error) {
	return Cached(ctx, c, "views", func(ctx context.Context) (*ViewSnapshot, error) {
		declaredNames, err := c.declaredViews(ctx)
		if err != nil {
			return nil, err
		}
		return c.readViews(ctx, declaredNames)
	})
}

const (
	// A user named cryptoviz has the engine's schema first in its path by default, as soon as there is one.
	sessionSQL = `SELECT coalesce(CASE WHEN current_user = 'cryptoviz' AND split_part(current_setting('search_path'), ',', 1) = '"$user"' THEN current_user::text END, current_schema()::text, ''), current_user::text,
		has_database_privilege(current_database(), 'TEMPORARY')`

	kindsSQL = `SELECT c.relname::text, c.relkind::text FROM pg_class c WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind NOT IN ('i', 'I', 't') AND NOT c.relispartition`

	viewsSQL = `SELECT c.oid, n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text, pg_has_role(c.relowner, 'USAGE'), coalesce(obj_description(c.oid, 'pg_class'), ''),
		CASE WHEN c.oid = ANY($1::bigint[]::oid[]) THEN pg_get_viewdef(c.oid) ELSE '' END, coalesce(c.reloptions, '{}'),
		coalesce((SELECT array_agg(ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod), coalesce(l.collname::text, '')] ORDER BY a.attnum)
			FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}')::text[]
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'v' AND n.nspname <> 'information_schema' AND n.nspname !~ '^(pg_|_?timescaledb)'
		AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`
)

// aggregatesSQL reads the aggregates that $1 names, as schema.name. The view that it reads writes down the query of
// each that no condition leaves out.
func (s *Snapshot) aggregatesSQL() string {
	return `SELECT view_schema::text, view_name::text, view_owner::text, NOT materialized_only, compression_enabled, view_definition,
		EXISTS (SELECT FROM timescaledb_information.chunks k WHERE k.hypertable_schema = a.materialization_hypertable_schema AND k.hypertable_name = a.materialization_hypertable_name)
		FROM ` + s.aggregatesFrom() + ` WHERE a.view_schema || '.' || a.view_name = ANY($1)`
}

// readViews reads everything about views in one transaction with two requests; queries of the named ones only.
func (c *Catalog) readViews(ctx context.Context, named nameSet) (*ViewSnapshot, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	views, aggregates := s.viewsAmong(named)
	v := &ViewSnapshot{kinds: map[string]string{}, Views: map[string]*View{}}
	if v.Session, err = c.Session(ctx); err != nil {
		return nil, fmt.Errorf("read the database's views: %w", err)
	}
	if v.Schema == "" {
		return nil, fmt.Errorf("read the database's views: the search_path of %s names no schema that exists: tables "+
			"and views would have no place", v.User)
	}
	err = c.DryRun(ctx, func(tx pgx.Tx) error {
		if err := pg.PlainText(ctx, tx); err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(kindsSQL, v.Schema).Query(v.scanKinds)
		b.Queue(viewsSQL, views).Query(func(rows pgx.Rows) error { return v.scanViews(rows, s, named) })
		if len(aggregates) > 0 {
			b.Queue(s.aggregatesSQL(), aggregates).Query(v.scanAggregates)
		}
		c.Count()
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("read the database's views: %w", c.busy(ctx, err))
	}
	return v, nil
}

// viewsAmong lists the named views, and the named aggregates as schema.name. An aggregate is a view, too, but its query
// is another than that view's.
func (s *Snapshot) viewsAmong(named nameSet) (views []int64, aggregates []string) {
	for name, r := range s.Relations {
		switch {
		case !named.have(name):
		case s.Aggregates[name] != nil:
			aggregates = append(aggregates, r.Schema+"."+name)
		case r.Kind == "v":
			views = append(views, int64(r.OID))
		}
	}
	return views, aggregates
}

func (v *ViewSnapshot) scanKinds(rows pgx.Rows) error {
	var name, kind string
	_, err := pgx.ForEachRow(rows, []any{&name, &kind}, func() error {
		v.kinds[name] = kind
		return nil
	})
	return err
}

// scanViews keeps the views that an unqualified name means.
func (v *ViewSnapshot) scanViews(rows pgx.Rows, s *Snapshot, named nameSet) error {
	var one View
	var columns [][]string
	_, err := pgx.ForEachRow(rows, []any{
		&one.OID, &one.Schema, &one.Name, &one.Owner, &one.Mine, &one.Comment,
		&one.Query, &one.Options, &columns,
	}, func() error {
		one.Mine = one.Mine || s.Caps.ReadOnly != ""
		r := s.Relations[one.Name]
		if r == nil || r.OID != one.OID {
			return nil
		}
		l := one
		l.Query, l.Columns, l.Partial = Tidy(l.Query), nil, !named.have(l.Name)
		for _, c := range columns {
			l.Columns = append(l.Columns, ViewColumn{c[0], c[1], c[2]})
		}
		v.Views[l.Name] = &l
		return nil
	})
	return err
}

func (v *ViewSnapshot) scanAggregates(rows pgx.Rows) error {
	var schema, name, owner, query string
	var real, columnar, filled bool
	_, err := pgx.ForEachRow(rows, []any{&schema, &name, &owner, &real, &columnar, &query, &filled}, func() error {
		if l := v.Views[name]; l != nil && l.Schema == schema {
			l.Owner, l.Real, l.Columnar, l.Query, l.Filled = owner, real, columnar, Tidy(query), filled
		}
		return nil
	})
	return err
}

// Dependencies lists the addresses of what a view or an aggregate reads now.
func (c *Catalog) Dependencies(ctx context.Context, address string) ([]string, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	all, err := Cached(ctx, c, "reads", c.readings)
	if err != nil {
		return nil, fmt.Errorf("read what %s reads: %w", address, err)
	}
	var out []string
	for _, r := range all {
		if r.reader != address {
			continue
		}
		kind := map[string]string{"r": "table.", "p": "table.", "v": "view."}[s.Relations[r.relation].Kind]
		if s.Aggregates[r.relation] != nil {
			kind = "aggregate."
		}
		if source := kind + r.relation; kind != "" && !slices.Contains(out, source) {
			out = append(out, source)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Taken tells what keeps a name from a new view or aggregate, "" for nothing.
func (v *ViewSnapshot) Taken(name string, s *Snapshot) string {
	kind := v.kinds[name]
	if r := s.Relations[name]; kind == "" && r != nil {
		kind = r.Kind
	}
	if s.Aggregates[name] != nil {
		return "aggregate"
	}
	return map[string]string{
		"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table",
		"S": "sequence", "c": "type",
	}[kind]
}

// Tidy makes a query that the server wrote ready for use in a statement.
func Tidy(query string) string {
	return strings.TrimSuffix(strings.TrimSpace(query), ";")
}
