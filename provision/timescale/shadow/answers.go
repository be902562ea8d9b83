package shadow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// Answer is what the server made of one query.
type Answer struct {
	Text      string // as the server writes it; "" when it rejected it
	Columns   []catalog.ViewColumn
	Rejection *Rejection
	InPlace   []string // of an aggregate whose query only got more columns: the statements that add them
	Untried   string   // why the aggregate has no dry run: others held a lock, for one
	Guessed   bool     // the server could not be asked: text and columns are unknown
}

// Answers is what the server made of all queries.
type Answers struct {
	ByName    map[string]*Answer
	Unplanned string // why the tables of the plan could not be made
	hides     bool   // a query that reads a removed object was rejected
}

// Answers returns what the server made of all queries, and asks it the first time.
func (q *Queries) Answers(ctx context.Context) (*Answers, error) {
	return catalog.Cached(ctx, q.Catalog, "queries", q.ask)
}

// ask asks the server: all queries at once when nothing is to be made first, else in a schema that has what the plan
// will make.
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
	if err != nil {
		return nil, err
	}
	planned, err := q.planned(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case !temporary:
		if err := q.askPrinted(ctx, all, out, v); err != nil {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	case len(planned)+len(q.removedNames()) == 0:
		if err := q.askTogether(ctx, all, out); err != nil && pg.Code(err) == "" {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	}
	if open := q.undecided(all, out, v, s); temporary && len(open) > 0 {
		hypertables := slices.ContainsFunc(open, func(x *Query) bool { return x.Aggregate != nil })
		err := q.inShadow(ctx, hypertables, func(sh *schema) error {
			out.Unplanned, out.hides = sh.unplanned, sh.unplanned == "" && len(planned)+len(q.removedNames()) > 0
			a := &asking{in: sh, s: s, v: v, out: out}
			return a.all(ctx, open)
		})
		if err != nil {
			return nil, fmt.Errorf("ask the server about queries: %w", err)
		}
	}
	return out, nil
}

// undecided lists what only a shadow schema can tell about: queries without an answer, aggregates that differ, and,
// where a query differs, it and all that reads it.
func (q *Queries) undecided(all []*Query, out *Answers, v *catalog.ViewSnapshot, s *catalog.Snapshot) []*Query {
	if len(out.ByName) < len(all) {
		return all
	}
	moves, read := map[string]bool{}, map[string]bool{}
	for _, x := range all {
		l := v.Views[x.Name]
		moves[x.Name] = l == nil || (s.Aggregates[x.Name] != nil) != (x.Aggregate != nil) ||
			l.Query != out.ByName[x.Name].Text ||
			slices.ContainsFunc(x.Depends, func(d string) bool { return moves[d] })
		for _, d := range x.Depends {
			read[d] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(x *Query) bool {
		alone := x.Aggregate == nil && !read[x.Name] && !slices.ContainsFunc(x.Depends, func(d string) bool {
			return moves[d]
		})
		return !moves[x.Name] || alone
	})
}

// answersSQL reads what the server made of the views of the names in $1, in the schema $2; "" is that of temporary
// views.
const answersSQL = `SELECT c.relname::text, pg_get_viewdef(c.oid), (SELECT array_agg(ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod), coalesce(l.collname::text, '')] ORDER BY a.attnum)
	FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation WHERE a.attrelid = c.oid AND a.attnum > 0)::text[]
	FROM pg_class c WHERE c.relnamespace = CASE $2 WHEN '' THEN pg_my_temp_schema() ELSE to_regnamespace(quote_ident($2))::oid END AND c.relname::text = ANY($1)`

// readAnswers reads what the server made of views. The settings of the transaction are others afterwards.
func readAnswers(ctx context.Context, tx pgx.Tx, schema string, names []string,
	each func(name string, a *Answer),
) error {
	if err := pg.PlainText(ctx, tx); err != nil {
		return err
	}
	var name, text string
	var columns [][]string
	return pg.ForEach(ctx, tx, answersSQL, []any{names, schema}, []any{&name, &text, &columns}, func() error {
		a := &Answer{Text: catalog.Tidy(text)}
		for _, c := range columns {
			a.Columns = append(a.Columns, catalog.ViewColumn{Name: c[0], Type: c[1], Collation: c[2]})
		}
		each(name, a)
		return nil
	})
}

// tempView is the statement that has the server read a query. lead is how many characters stand before it.
func tempView(i int, text string) (sql, name string, lead int) {
	name = fmt.Sprintf("cryptoviz_query_%d", i)
	before := "CREATE TEMPORARY VIEW " + name + " AS\n"
	return before + text, name, len(before)
}

// askTogether has the server read all queries in few requests. The first that it rejects ends it.
func (q *Queries) askTogether(ctx context.Context, all []*Query, out *Answers) error {
	return q.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		byName := map[string]*Query{}
		var views, names []string
		for i, x := range all {
			sql, name, _ := tempView(i, x.Text)
			byName[name], views, names = x, append(views, sql), append(names, name)
		}
		q.Catalog.Count()
		if _, err := pg.ExecAll(ctx, tx, views); err != nil {
			return err
		}
		return readAnswers(ctx, tx, "", names, func(name string, a *Answer) { out.ByName[byName[name].Name] = a })
	})
}

// askPrinted compares queries for who may not make temporary views: those that the server would run in the same way, to
// columns of the same names, are the same. A query over what is not there yet is another one.
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

// asking reads queries in a shadow schema, and makes there what they declare, for those that read it.
type asking struct {
	in  *schema
	s   *catalog.Snapshot
	v   *catalog.ViewSnapshot
	out *Answers
}

// all reads queries, each after those that it reads: views in a row together.
func (a *asking) all(ctx context.Context, list []*Query) error {
	for len(list) > 0 {
		n := slices.IndexFunc(list, func(x *Query) bool { return x.Aggregate != nil })
		switch {
		case n < 0:
			n = len(list)
		case n == 0:
			n = 1
		}
		if err := a.some(ctx, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// some reads views together, and where the server rejects one of them each half by itself.
func (a *asking) some(ctx context.Context, list []*Query) error {
	if len(list) == 1 {
		return a.one(ctx, list[0])
	}
	var names []string
	failed, err := a.in.makeViews(ctx, list)
	if err != nil {
		return err
	}
	if failed {
		if err := a.some(ctx, list[:len(list)/2]); err != nil {
			return err
		}
		return a.some(ctx, list[len(list)/2:])
	}
	for _, x := range list {
		names = append(names, x.Name)
	}
	err = pg.Savepoint(ctx, a.in.tx, func() error {
		return cmp.Or(readAnswers(ctx, a.in.tx, a.in.name, names, func(name string, one *Answer) {
			one.Text = a.liveNames(one.Text)
			a.out.ByName[name] = one
		}), errUndone)
	})
	if !errors.Is(err, errUndone) {
		return err
	}
	return nil
}

// one reads one query.
func (a *asking) one(ctx context.Context, x *Query) error {
	answer, err := a.read(ctx, x)
	if err != nil {
		return err
	}
	a.out.ByName[x.Name] = answer
	l := a.v.Views[x.Name]
	same := l != nil && l.Query == answer.Text && slices.Equal(l.Columns, answer.Columns) &&
		(a.s.Aggregates[x.Name] != nil) == (x.Aggregate != nil)
	if answer.Rejection != nil || same {
		return nil
	}
	return a.makeOne(ctx, x, answer)
}

// read has the server read one query.
func (a *asking) read(ctx context.Context, x *Query) (*Answer, error) {
	out := &Answer{}
	sql, name, lead := tempView(0, a.in.here(x.Text))
	err := pg.Savepoint(ctx, a.in.tx, func() error {
		if err := pg.ExecSingle(ctx, a.in.tx, sql); err != nil {
			return err
		}
		return cmp.Or(readAnswers(ctx, a.in.tx, "", []string{name}, func(_ string, one *Answer) {
			out = one
		}), errUndone)
	})
	if errors.Is(err, errUndone) {
		out.Text = a.liveNames(out.Text)
		return out, nil
	}
	if out.Rejection = Rejected(err); out.Rejection == nil {
		return nil, err
	}
	out.Rejection.text = cmp.Or(readsRemoved(a.in.q.Pipeline, err), out.Rejection.text)
	out.Rejection.where = a.in.q.where(x.at, x.Text, out.Rejection.position-lead)
	return out, nil
}

// makeOne makes a view or an aggregate for those that read it, and notes what the server says to that.
func (a *asking) makeOne(ctx context.Context, x *Query, answer *Answer) error {
	statements := []string{a.in.viewSQL(x)}
	if x.Aggregate != nil {
		switch {
		case a.s.Caps.Version == "" || a.s.Caps.Edition != "community":
			return nil
		case a.in.temp: // a view does for those that read it
			answer.Untried = a.v.User + " may make no schema in this database, where it would be tried"
		default:
			if l := a.v.Views[x.Name]; l != nil && a.s.Aggregates[x.Name] != nil {
				if err := a.inPlace(ctx, x, answer, l); err != nil {
					return err
				}
			}
			statements = ddl.AggregateSQL(pg.Ident(a.in.name, x.Name), a.in.here(x.Text), x.Aggregate, a.s.Caps)
		}
	}
	err := pg.Savepoint(ctx, a.in.tx, func() error {
		for _, sql := range statements {
			if err := pg.ExecSingle(ctx, a.in.tx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case pg.Is(err, pg.LockBusy, pg.Conflict, pg.Canceled):
		answer.Untried = err.Error()
		return nil
	}
	if answer.Rejection = Rejected(err); answer.Rejection == nil {
		return err
	}
	return nil
}

// inPlace finds out whether the server can add the new columns of an aggregate without rebuilding it.
func (a *asking) inPlace(ctx context.Context, x *Query, answer *Answer, l *catalog.View) error {
	if !a.s.Caps.AtLeast(2, 28) || !IsPrefix(l.Columns, answer.Columns) {
		return nil
	}
	var names []string
	for _, c := range answer.Columns[len(l.Columns):] {
		names = append(names, c.Name)
	}
	exprs, ok := appended(l.Query, answer.Text, names)
	if !ok {
		return nil
	}
	name, definition := pg.Ident(a.in.name, x.Name), ""
	statements := []string{ddl.AggregateSQL(name, l.Query, &spec.Aggregate{RealTime: l.Real}, a.s.Caps)[0]}
	var steps []string
	for i, c := range answer.Columns[len(l.Columns):] {
		add := " ADD COLUMN " + pg.Ident(c.Name) + " " + c.Type + " GENERATED ALWAYS AS (" + exprs[i] + ") STORED"
		statements = append(statements, "ALTER MATERIALIZED VIEW "+name+add)
		steps = append(steps, "ALTER MATERIALIZED VIEW "+pg.Ident(l.Schema, l.Name)+add)
	}
	err := pg.Savepoint(ctx, a.in.tx, func() error {
		for _, sql := range statements {
			if err := pg.ExecSingle(ctx, a.in.tx, sql); err != nil {
				return err
			}
		}
		return pg.Savepoint(ctx, a.in.tx, func() error {
			if err := pg.PlainText(ctx, a.in.tx); err != nil {
				return err
			}
			err := a.in.tx.QueryRow(ctx,
				"SELECT view_definition FROM timescaledb_information.continuous_aggregates WHERE view_schema = $1 AND view_name = $2", a.in.name, x.Name).Scan(&definition)
			return errors.Join(err, errUndone)
		})
	})
	switch {
	case Rejected(err) != nil || errors.Is(err, errUndone) && a.liveNames(catalog.Tidy(definition)) != answer.Text:
		return nil // no: it is rebuilt
	case errors.Is(err, errUndone):
		answer.InPlace = steps
		return nil
	}
	return err
}

// liveNames names live schemas where the server wrote the shadow, or none: temporary relations have none in a text.
func (a *asking) liveNames(text string) string {
	schema := func(name string) string {
		if r := a.s.Relations[name]; r != nil {
			return pg.IdentAsNeeded(r.Schema)
		}
		return pg.IdentAsNeeded(a.v.Schema)
	}
	if a.in.temp {
		return qualified(text, a.in.q.names(), schema)
	}
	if !strings.Contains(text, a.in.name) {
		return text
	}
	var out strings.Builder
	at := 0
	all := pg.Tokens(text)
	for i, k := range all {
		if k.Text != a.in.name || i+2 >= len(all) {
			continue
		}
		out.WriteString(text[at:k.Start])
		out.WriteString(schema(all[i+2].Text))
		at = k.End
	}
	return out.String() + text[at:]
}

// IsPrefix tells whether columns are the first ones of others.
func IsPrefix(columns, of []catalog.ViewColumn) bool {
	return len(columns) <= len(of) && slices.Equal(columns, of[:len(columns)])
}
