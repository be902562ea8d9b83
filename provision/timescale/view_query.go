package timescale

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Queries is what the views and aggregates of a pipeline share: their queries as the server understands them. The server
// rewrites a query when it stores it, so two texts are compared only after it rewrote both.
type Queries struct {
	Pipeline *spec.Pipeline
	Catalog  *Catalog
	// Planned makes, in the schema that comes first in the search_path of tx, each table that the same plan will create or give
	// other columns; hypertables as such if it may. tx is rolled back afterwards. nil: no table will be other than it is.
	Planned func(ctx context.Context, tx pgx.Tx, hypertables bool) error
	// FindGroups finds what must be changed together; nil: nothing is.
	FindGroups func(ctx context.Context) (*groups, error)
	// Destroying: all that is declared goes, and nothing is changed.
	Destroying bool

	granting sync.Mutex // held while a role is changed

	mu      sync.Mutex
	origins []origin // that order was made from
	order   []*query
}

// origin is where a query is declared.
type origin struct {
	view      *spec.View
	aggregate *spec.Aggregate
	query     string
}

// query is one declared query.
type query struct {
	address, name string
	text, at      string
	aggregate     *spec.Aggregate // nil: a view
	depends       []string        // names of the views and aggregates that it may read, earlier ones only
}

// answer is what the server made of one query.
type answer struct {
	text    string // as the server writes it; "" when it refused it
	columns []viewColumn
	refusal *objection
	inPlace []string // of an aggregate whose query only got more columns: the statements that add them
	untried string   // why the aggregate could not be tried out: others held a lock, for one
	guessed bool     // the server could not be asked: text and columns are unknown
}

// answers is what the server made of all queries.
type answers struct {
	by        map[string]*answer
	unplanned string // why the planned tables could not be made for the trial
	hides     bool   // a query that reads a removed object was refused
}

// answers returns what the server made of all queries, and asks it the first time.
func (q *Queries) answers(ctx context.Context) (*answers, error) {
	return cached(ctx, q.Catalog, "queries", q.ask)
}

// queries lists the declared queries, each after those that it reads.
func (q *Queries) queries() []*query {
	var declared []origin
	for _, v := range q.Pipeline.Views {
		declared = append(declared, origin{v, nil, v.Query})
	}
	for _, a := range q.Pipeline.Aggregates {
		declared = append(declared, origin{nil, a, a.Query})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.Equal(declared, q.origins) {
		return q.order
	}
	q.origins, q.order = declared, inOrder(declared)
	return q.order
}

func inOrder(declared []origin) []*query {
	var all []*query
	var names []string
	for _, d := range declared {
		x := &query{text: statement(d.query), aggregate: d.aggregate}
		if d.view != nil {
			x.name, x.at = d.view.Name, d.view.QueryAt
			x.address = "view." + x.name
		} else {
			x.name, x.at = d.aggregate.Name, d.aggregate.QueryAt
			x.address = "aggregate." + x.name
		}
		all, names = append(all, x), append(names, x.name)
	}
	var out []*query
	done, under := map[string]bool{}, map[string]bool{}
	var visit func(*query)
	visit = func(x *query) {
		if done[x.name] {
			return
		}
		under[x.name] = true
		for _, name := range mentions(x.text, names) {
			// A column may have the name of a view: what would close a circle is none.
			if i := slices.Index(names, name); !under[name] {
				visit(all[i])
				x.depends = append(x.depends, name)
			}
		}
		under[x.name], done[x.name] = false, true
		out = append(out, x)
	}
	for _, x := range all {
		visit(x)
	}
	return out
}

// ancestors lists the views and aggregates that a query reads, directly or not.
func (q *Queries) ancestors(name string) (out []*query) {
	all := q.queries()
	wanted := []string{name}
	for _, x := range slices.Backward(all) { // each after those that it reads
		if slices.Contains(wanted, x.name) {
			wanted = append(wanted, x.depends...)
			if x.name != name {
				out = append(out, x)
			}
		}
	}
	return out
}

// dependsOn lists the addresses of what a query reads.
func (q *Queries) dependsOn(name string) []string {
	out := []string{plan.EngineAddress}
	var tables []string
	for _, t := range q.Pipeline.Tables {
		tables = append(tables, t.Name)
	}
	all := q.queries()
	for _, x := range all {
		if x.name != name {
			continue
		}
		for _, t := range mentions(x.text, tables) {
			out = append(out, "table."+t)
		}
		if x.aggregate != nil && x.aggregate.From != nil && !slices.Contains(out, "table."+x.aggregate.From.Name) {
			out = append(out, "table."+x.aggregate.From.Name)
		}
		for _, d := range x.depends {
			i := slices.IndexFunc(all, func(o *query) bool { return o.name == d })
			out = append(out, all[i].address)
		}
	}
	return out
}

// ask asks the server: all queries at once when nothing is to be made first, else one by one in a schema where what the plan
// will make is made for the time of one transaction.
func (q *Queries) ask(ctx context.Context) (*answers, error) {
	s, err := q.Catalog.load(ctx)
	if err != nil {
		return nil, err
	}
	v, err := q.Catalog.views(ctx)
	if err != nil {
		return nil, err
	}
	all := q.queries()
	out := &answers{by: map[string]*answer{}}
	if len(all) == 0 {
		return out, nil
	}
	temporary, err := q.Catalog.temporary(ctx)
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
		if err := q.Catalog.trial(ctx, func(tx pgx.Tx) error { return t.run(ctx, tx) }); err != nil {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	}
	return out, nil
}

// undecided lists what only a trial can tell about: queries without an answer, aggregates that differ, and, where a query
// differs, it and all that reads it.
func (q *Queries) undecided(all []*query, out *answers, v *viewSnapshot, s *snapshot) []*query {
	if len(out.by) < len(all) {
		return all
	}
	moves, read := map[string]bool{}, map[string]bool{}
	for _, x := range all {
		l := v.views[x.name]
		moves[x.name] = l == nil || (s.aggregates[x.name] != nil) != (x.aggregate != nil) || l.query != out.by[x.name].text ||
			slices.ContainsFunc(x.depends, func(d string) bool { return moves[d] })
		for _, d := range x.depends {
			read[d] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(x *query) bool {
		alone := x.aggregate == nil && !read[x.name] && !slices.ContainsFunc(x.depends, func(d string) bool { return moves[d] })
		return !moves[x.name] || alone
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
func (q *Queries) askAtOnce(ctx context.Context, all []*query, out *answers) error {
	return q.Catalog.trial(ctx, func(tx pgx.Tx) error {
		byName := map[string]*query{}
		var views, names []string
		for i, x := range all {
			sql, name, _ := tempView(i, x.text)
			byName[name], views, names = x, append(views, sql), append(names, name)
		}
		return readAnswers(ctx, q.Catalog, tx, views, names, func(name string, a *answer) { out.by[byName[name].name] = a })
	})
}

// askPrinted compares queries for who may not make temporary views: those that the server would run in the same way, to columns of
// the same names, are the same. A query over what is not there yet is another one.
func (q *Queries) askPrinted(ctx context.Context, all []*query, out *answers, v *viewSnapshot) error {
	return q.Catalog.trial(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET TRANSACTION READ ONLY"); err != nil {
			return err
		}
		for _, x := range all {
			out.by[x.name] = &answer{text: x.text, guessed: true}
			l := v.views[x.name]
			if l == nil {
				continue
			}
			var same bool
			err := pg.Savepoint(ctx, tx, func() (err error) {
				same, err = sameQuery(ctx, tx, x.text, l.query)
				return err
			})
			switch {
			case err != nil && pg.Code(err) == "":
				return err
			case same:
				out.by[x.name] = &answer{text: l.query, columns: l.columns}
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
func readAnswers(ctx context.Context, c *Catalog, tx pgx.Tx, views, names []string, each func(string, *answer)) error {
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
			a := &answer{text: tidy(text)}
			for _, c := range columns {
				a.columns = append(a.columns, viewColumn{c[0], c[1], c[2]})
			}
			each(name, a)
			return nil
		})
		return err
	})
	c.count()
	return tx.SendBatch(ctx, &b).Close()
}
