package shadow

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// Queries is what the views and aggregates of a pipeline share: their queries as the server understands them. The server
// rewrites a query when it stores it, so two texts are compared only after it rewrote both.
type Queries struct {
	Pipeline *spec.Pipeline
	Catalog  *catalog.Catalog
	// Planned makes, in the schema that comes first in the search_path of tx, each table that the same plan will create or give
	// other columns; hypertables as such if it may. tx is rolled back afterwards. nil: no table will be other than it is.
	Planned func(ctx context.Context, tx pgx.Tx, hypertables bool) error
	// FindGroups finds what must be changed together; nil: nothing is.
	FindGroups func(ctx context.Context) (*ddl.Groups, error)
	// Destroying: all that is declared goes, and nothing is changed.
	Destroying bool

	Granting sync.Mutex // held while a role is changed

	mu      sync.Mutex
	origins []Origin // that order was made from
	order   []*Query
}

// Origin is where a query is declared.
type Origin struct {
	View      *spec.View
	Aggregate *spec.Aggregate
	Query     string
}

// Query is one declared query.
type Query struct {
	Address, Name string
	Text, at      string
	Aggregate     *spec.Aggregate // nil: a view
	Depends       []string        // names of the views and aggregates that it may read, earlier ones only
}

// Answer is what the server made of one query.
type Answer struct {
	Text      string // as the server writes it; "" when it refused it
	Columns   []catalog.ViewColumn
	Rejection *Rejection
	InPlace   []string // of an aggregate whose query only got more columns: the statements that add them
	Untried   string   // why the aggregate could not be tried out: others held a lock, for one
	Guessed   bool     // the server could not be asked: text and columns are unknown
}

// Answers is what the server made of all queries.
type Answers struct {
	ByName    map[string]*Answer
	Unplanned string // why the planned tables could not be made for the trial
	hides     bool   // a query that reads a removed object was refused
}

// Answers returns what the server made of all queries, and asks it the first time.
func (q *Queries) Answers(ctx context.Context) (*Answers, error) {
	return catalog.Cached(ctx, q.Catalog, "queries", q.ask)
}

// Ordered lists the declared queries, each after those that it reads.
func (q *Queries) Ordered() []*Query {
	var declared []Origin
	for _, v := range q.Pipeline.Views {
		declared = append(declared, Origin{v, nil, v.Query})
	}
	for _, a := range q.Pipeline.Aggregates {
		declared = append(declared, Origin{nil, a, a.Query})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.Equal(declared, q.origins) {
		return q.order
	}
	q.origins, q.order = declared, InOrder(declared)
	return q.order
}

// InOrder lists queries, each after those that it reads.
func InOrder(declared []Origin) []*Query {
	var all []*Query
	var names []string
	for _, d := range declared {
		x := &Query{Text: Statement(d.Query), Aggregate: d.Aggregate}
		if d.View != nil {
			x.Name, x.at = d.View.Name, d.View.QueryAt
			x.Address = "view." + x.Name
		} else {
			x.Name, x.at = d.Aggregate.Name, d.Aggregate.QueryAt
			x.Address = "aggregate." + x.Name
		}
		all, names = append(all, x), append(names, x.Name)
	}
	var out []*Query
	done, under := map[string]bool{}, map[string]bool{}
	var visit func(*Query)
	visit = func(x *Query) {
		if done[x.Name] {
			return
		}
		under[x.Name] = true
		for _, name := range Mentions(x.Text, names) {
			// A column may have the name of a view: what would close a circle is none.
			if i := slices.Index(names, name); !under[name] {
				visit(all[i])
				x.Depends = append(x.Depends, name)
			}
		}
		under[x.Name], done[x.Name] = false, true
		out = append(out, x)
	}
	for _, x := range all {
		visit(x)
	}
	return out
}

// ancestors lists the views and aggregates that a query reads, directly or not.
func (q *Queries) ancestors(name string) (out []*Query) {
	all := q.Ordered()
	wanted := []string{name}
	for _, x := range slices.Backward(all) { // each after those that it reads
		if slices.Contains(wanted, x.Name) {
			wanted = append(wanted, x.Depends...)
			if x.Name != name {
				out = append(out, x)
			}
		}
	}
	return out
}

// DependsOn lists the addresses of what a query reads.
func (q *Queries) DependsOn(name string) []string {
	out := []string{plan.EngineAddress}
	var tables []string
	for _, t := range q.Pipeline.Tables {
		tables = append(tables, t.Name)
	}
	all := q.Ordered()
	for _, x := range all {
		if x.Name != name {
			continue
		}
		for _, t := range Mentions(x.Text, tables) {
			out = append(out, "table."+t)
		}
		if x.Aggregate != nil && x.Aggregate.From != nil && !slices.Contains(out, "table."+x.Aggregate.From.Name) {
			out = append(out, "table."+x.Aggregate.From.Name)
		}
		for _, d := range x.Depends {
			i := slices.IndexFunc(all, func(o *Query) bool { return o.Name == d })
			out = append(out, all[i].Address)
		}
	}
	return out
}

// ask asks the server: all queries at once when nothing is to be made first, else one by one in a schema where what the plan
// will make is made for the time of one transaction.
func (q *Queries) ask(ctx context.Context) (*Answers, error) {
	s, err := q.Catalog.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v, err := q.Catalog.Views(ctx)
	if err != nil {
		return nil, err
	}
	all := q.Ordered()
	out := &Answers{ByName: map[string]*Answer{}}
	if len(all) == 0 {
		return out, nil
	}
	temporary, err := q.Catalog.Temporary(ctx)
	switch {
	case err != nil:
		return nil, err
	case !temporary:
		if err := q.askPrinted(ctx, all, out, v); err != nil {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	case q.Planned == nil:
		if err := q.askAtOnce(ctx, all, out); err != nil && pg.Code(err) == "" {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	}
	if open := q.undecided(all, out, v, s); temporary && len(open) > 0 {
		t := &trial{q: q, s: s, v: v, open: open, out: out}
		if err := q.Catalog.DryRun(ctx, func(tx pgx.Tx) error { return t.run(ctx, tx) }); err != nil {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	}
	return out, nil
}

// undecided lists what only a trial can tell about: queries without an answer, aggregates that differ, and, where a query
// differs, it and all that reads it.
func (q *Queries) undecided(all []*Query, out *Answers, v *catalog.ViewSnapshot, s *catalog.Snapshot) []*Query {
	if len(out.ByName) < len(all) {
		return all
	}
	moves, read := map[string]bool{}, map[string]bool{}
	for _, x := range all {
		l := v.Views[x.Name]
		moves[x.Name] = l == nil || (s.Aggregates[x.Name] != nil) != (x.Aggregate != nil) || l.Query != out.ByName[x.Name].Text ||
			slices.ContainsFunc(x.Depends, func(d string) bool { return moves[d] })
		for _, d := range x.Depends {
			read[d] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(x *Query) bool {
		alone := x.Aggregate == nil && !read[x.Name] && !slices.ContainsFunc(x.Depends, func(d string) bool { return moves[d] })
		return !moves[x.Name] || alone
	})
}

// answerSQL reads what the server made of the views of the names in $1.
const answerSQL = `SELECT c.relname::text, pg_get_viewdef(c.oid), (SELECT array_agg(ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod), coalesce(l.collname::text, '')] ORDER BY a.attnum)
	FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation WHERE a.attrelid = c.oid AND a.attnum > 0)::text[]
	FROM pg_class c WHERE c.relnamespace = pg_my_temp_schema() AND c.relname::text = ANY($1)`

// tempView is the statement that has the server read a query. lead is how many characters stand before it.
func tempView(i int, text string) (sql, name string, lead int) {
	name = fmt.Sprintf("cryptoviz_query_%d", i)
	before := "CREATE TEMPORARY VIEW " + name + " AS\n"
	return before + text, name, len(before)
}

// askAtOnce has the server read all queries in one request. The first that it refuses ends it.
func (q *Queries) askAtOnce(ctx context.Context, all []*Query, out *Answers) error {
	return q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		byName := map[string]*Query{}
		var views, names []string
		for i, x := range all {
			sql, name, _ := tempView(i, x.Text)
			byName[name], views, names = x, append(views, sql), append(names, name)
		}
		return readAnswers(ctx, q.Catalog, tx, views, names, func(name string, a *Answer) { out.ByName[byName[name].Name] = a })
	})
}

// askPrinted compares queries for who may not make temporary views: those that the server would run in the same way, to columns of
// the same names, are the same. A query over what is not there yet is another one.
func (q *Queries) askPrinted(ctx context.Context, all []*Query, out *Answers, v *catalog.ViewSnapshot) error {
	return q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET TRANSACTION READ ONLY"); err != nil {
			return err
		}
		for _, x := range all {
			out.ByName[x.Name] = &Answer{Text: x.Text, Guessed: true}
			l := v.Views[x.Name]
			if l == nil {
				continue
			}
			var same bool
			err := pg.Savepoint(ctx, tx, func() (err error) {
				same, err = sameQuery(ctx, tx, x.Text, l.Query)
				return err
			})
			switch {
			case err != nil && pg.Code(err) == "":
				return err
			case same:
				out.ByName[x.Name] = &Answer{Text: l.Query, Columns: l.Columns}
			}
		}
		return nil
	})
}

// sameQuery tells whether the server runs two queries in the same way, to columns of the same names.
func sameQuery(ctx context.Context, tx pgx.Tx, a, b string) (bool, error) {
	var printed, columns [2]string
	for i, sql := range []string{a, b} {
		d, err := tx.Conn().PgConn().Prepare(ctx, "", sql, nil)
		if err != nil {
			return false, err
		}
		for _, f := range d.Fields {
			columns[i] += fmt.Sprintf("%q %d %d\n", f.Name, f.DataTypeOID, f.TypeModifier)
		}
		if printed[i], err = printPlan(ctx, tx, sql); err != nil {
			return false, err
		}
	}
	return printed[0] == printed[1] && columns[0] == columns[1], nil
}

// readAnswers makes temporary views and reads what the server made of them, in one request.
func readAnswers(ctx context.Context, c *catalog.Catalog, tx pgx.Tx, views, names []string, each func(string, *Answer)) error {
	var b pgx.Batch
	for _, sql := range views {
		b.Queue(sql)
	}
	// As plainText does it.
	b.Queue("SELECT set_config('search_path', 'pg_catalog', true), set_config('TimeZone', 'UTC', true), set_config('IntervalStyle', 'postgres', true), set_config('DateStyle', 'ISO', true), set_config('quote_all_identifiers', 'off', true), set_config('extra_float_digits', '1', true)")
	b.Queue(answerSQL, names).Query(func(rows pgx.Rows) error {
		var name, text string
		var columns [][]string
		_, err := pgx.ForEachRow(rows, []any{&name, &text, &columns}, func() error {
			a := &Answer{Text: catalog.Tidy(text)}
			for _, c := range columns {
				a.Columns = append(a.Columns, catalog.ViewColumn{Name: c[0], Type: c[1], Collation: c[2]})
			}
			each(name, a)
			return nil
		})
		return err
	})
	c.Count()
	return tx.SendBatch(ctx, &b).Close()
}
