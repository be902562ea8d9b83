package shadow

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// errUndone takes back what a savepoint did.
var errUndone = errors.New("undone")

// trial makes what a plan will make, in a schema of its own and in one transaction that is rolled back, so that each query
// meets what it will meet, and the live relations are not locked.
type trial struct {
	q      *Queries
	s      *catalog.Snapshot
	v      *catalog.ViewSnapshot
	open   []*Query // what it is about, in order
	out    *Answers
	shadow string // the schema
	temp   bool   // it is that of temporary objects, since the database's user may make none: there are no aggregates in it
}

func (t *trial) run(ctx context.Context, tx pgx.Tx) error {
	shadow := "cryptoviz_plan_" + strings.ToLower(rand.Text()[:10])
	err := pg.Savepoint(ctx, tx, func() error {
		_, err := tx.Exec(ctx, "CREATE SCHEMA "+shadow)
		return err
	})
	path := shadow
	if pg.Code(err) == "42501" {
		t.temp, path = true, "pg_temp"
		if _, err := tx.Exec(ctx, "CREATE TEMPORARY TABLE "+shadow+" () ON COMMIT DROP"); err != nil { // there is no schema before the first one
			return err
		}
		err = tx.QueryRow(ctx, "SELECT nspname::text FROM pg_namespace WHERE oid = pg_my_temp_schema()").Scan(&shadow)
	}
	if err != nil {
		return err
	}
	t.shadow = shadow
	if _, err := tx.Exec(ctx, "SELECT set_config('search_path', '"+path+", ' || current_setting('search_path'), true)"); err != nil {
		return err
	}
	if t.q.Planned != nil {
		if err := pg.Savepoint(ctx, tx, func() error { return t.q.Planned(ctx, tx, !t.temp) }); err != nil {
			if pg.Code(err) == "" {
				return err
			}
			t.out.Unplanned = err.Error()
		}
		t.out.hides = t.shadow != "" && t.out.Unplanned == ""
	}
	for i, x := range t.open {
		a, err := t.read(ctx, tx, i, x)
		if err != nil {
			return err
		}
		t.out.ByName[x.Name] = a
		l := t.v.Views[x.Name]
		same := l != nil && l.Query == a.Text && slices.Equal(l.Columns, a.Columns) && (t.s.Aggregates[x.Name] != nil) == (x.Aggregate != nil)
		if a.Rejection == nil && !same {
			if err := t.make(ctx, tx, x, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// here is a query whose tables and views, also where it names their schema, are those of the trial.
func (t *trial) here(sql string) string {
	return unqualified(sql, t.v.Schema, t.q.names())
}

// read has the server read one query.
func (t *trial) read(ctx context.Context, tx pgx.Tx, i int, x *Query) (*Answer, error) {
	out := &Answer{}
	sql, name, lead := tempView(i, t.here(x.Text))
	err := pg.Savepoint(ctx, tx, func() error {
		if err := readAnswers(ctx, t.q.Catalog, tx, []string{sql}, []string{name}, func(_ string, a *Answer) { out = a }); err != nil {
			return err
		}
		return errUndone
	})
	if errors.Is(err, errUndone) {
		out.Text = t.unshadow(out.Text)
		return out, nil
	}
	if out.Rejection = Rejected(err); out.Rejection == nil {
		return nil, err
	}
	out.Rejection.text = cmp.Or(ReadsLeaving(t.q.Pipeline, err), out.Rejection.text)
	out.Rejection.where = t.q.where(x.at, x.Text, out.Rejection.position-lead)
	return out, nil
}

// make makes a view or an aggregate for those that read it, and hears what the server says to that.
func (t *trial) make(ctx context.Context, tx pgx.Tx, x *Query, a *Answer) error {
	name := pg.Ident(t.shadow, x.Name)
	if x.Aggregate == nil {
		err := pg.Savepoint(ctx, tx, func() error { return pg.ExecSingle(ctx, tx, "CREATE VIEW "+name+" AS\n"+t.here(x.Text)) })
		return t.refuse(a, err)
	}
	if t.s.Caps.Version == "" || t.s.Caps.Edition != "community" {
		return nil
	}
	if t.temp { // a view does for those that read it
		a.Untried = t.v.User + " may make no schema in this database, where it would be tried"
		return t.refuse(a, pg.Savepoint(ctx, tx, func() error { return pg.ExecSingle(ctx, tx, "CREATE VIEW "+name+" AS\n"+t.here(x.Text)) }))
	}
	if l := t.v.Views[x.Name]; l != nil && t.s.Aggregates[x.Name] != nil {
		if err := t.inPlace(ctx, tx, x, a, l); err != nil {
			return err
		}
	}
	err := pg.Savepoint(ctx, tx, func() error {
		for _, sql := range ddl.AggregateSQL(name, t.here(x.Text), x.Aggregate, t.s.Caps) {
			if err := pg.ExecSingle(ctx, tx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	return t.refuse(a, err)
}

// inPlace finds out whether the server can add the new columns of an aggregate without making it anew.
func (t *trial) inPlace(ctx context.Context, tx pgx.Tx, x *Query, a *Answer, l *catalog.View) error {
	if !t.s.Caps.AtLeast(2, 28) || !IsPrefix(l.Columns, a.Columns) {
		return nil
	}
	var names []string
	for _, c := range a.Columns[len(l.Columns):] {
		names = append(names, c.Name)
	}
	exprs, ok := appended(l.Query, a.Text, names)
	if !ok {
		return nil
	}
	name, definition := pg.Ident(t.shadow, x.Name), ""
	statements := []string{ddl.AggregateSQL(name, l.Query, &spec.Aggregate{RealTime: l.Real}, t.s.Caps)[0]}
	var steps []string
	for i, c := range a.Columns[len(l.Columns):] {
		add := " ADD COLUMN " + pg.Ident(c.Name) + " " + c.Type + " GENERATED ALWAYS AS (" + exprs[i] + ") STORED"
		statements = append(statements, "ALTER MATERIALIZED VIEW "+name+add)
		steps = append(steps, "ALTER MATERIALIZED VIEW "+pg.Ident(l.Schema, l.Name)+add)
	}
	err := pg.Savepoint(ctx, tx, func() error {
		for _, sql := range statements {
			if err := pg.ExecSingle(ctx, tx, sql); err != nil {
				return err
			}
		}
		return pg.Savepoint(ctx, tx, func() error {
			if err := pg.PlainText(ctx, tx); err != nil {
				return err
			}
			err := tx.QueryRow(ctx, "SELECT view_definition FROM timescaledb_information.continuous_aggregates WHERE view_schema = $1 AND view_name = $2", t.shadow, x.Name).Scan(&definition)
			return errors.Join(err, errUndone)
		})
	})
	switch {
	case Rejected(err) != nil || errors.Is(err, errUndone) && t.unshadow(catalog.Tidy(definition)) != a.Text:
		return nil // no: it is made anew
	case errors.Is(err, errUndone):
		a.InPlace = steps
		return nil
	}
	return err
}

func (t *trial) refuse(a *Answer, err error) error {
	if err == nil {
		return nil
	}
	if slices.Contains([]string{"55P03", "40P01", "57014"}, pg.Code(err)) { // a lock, a deadlock, the time
		a.Untried = err.Error()
		return nil
	}
	if a.Rejection = Rejected(err); a.Rejection == nil {
		return err
	}
	return nil
}

// unshadow names live schemas where the server wrote the trial's, or none: temporary relations have none in a text.
func (t *trial) unshadow(text string) string {
	schema := func(name string) string {
		if r := t.s.Relations[name]; r != nil {
			return pg.IdentAsNeeded(r.Schema)
		}
		return pg.IdentAsNeeded(t.v.Schema)
	}
	if t.temp {
		return qualified(text, t.q.names(), schema)
	}
	if !strings.Contains(text, t.shadow) {
		return text
	}
	var out strings.Builder
	at := 0
	all := pg.Tokens(text)
	for i, k := range all {
		if k.Text != t.shadow || i+2 >= len(all) {
			continue
		}
		out.WriteString(text[at:k.Start])
		out.WriteString(schema(all[i+2].Text))
		at = k.End
	}
	return out.String() + text[at:]
}

// Rejection is what the server says against a query.
type Rejection struct {
	Code     string
	text     string
	position int    // in the statement, in characters from 1; 0: unknown
	where    string // file, line and column
}

func (r *Rejection) String() string {
	if r.where == "" {
		return r.text
	}
	return r.where + ": " + r.text
}

// Rejected tells what the server has against a statement; nil when the error is another: a lost connection, a lock, a timeout.
func Rejected(err error) *Rejection {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !slices.Contains([]string{"0A", "21", "22", "23", "2B", "2F", "3F", "42", "54", "55", "P0", "XX"}, e.Code[:min(2, len(e.Code))]) || e.Code == "55P03" {
		return nil
	}
	r := &Rejection{Code: e.Code, text: e.Message, position: int(e.Position)}
	for _, more := range []string{e.Detail, e.Hint} {
		if more != "" {
			r.text += ". " + strings.TrimSuffix(more, ".")
		}
	}
	r.text += " (SQLSTATE " + e.Code + ")"
	return r
}

// names are those of all relations that the pipeline declares or removes.
func (q *Queries) names() (out []string) {
	for _, t := range q.Pipeline.Tables {
		out = append(out, t.Name)
	}
	for _, x := range q.Ordered() {
		out = append(out, x.Name)
	}
	for _, r := range q.Pipeline.Removed {
		out = append(out, r.Name)
	}
	return out
}

// Unqualified is a query as a trial of the whole plan has to read it: without the schema of what the pipeline declares or
// removes, which the trial has in a schema of its own.
func (q *Queries) Unqualified(ctx context.Context, sql string) (string, error) {
	s, err := q.Catalog.Session(ctx)
	if err != nil {
		return "", fmt.Errorf("read where tables are made: %w", err)
	}
	return unqualified(sql, s.Schema, q.names()), nil
}

// ReadsLeaving tells of a query that was refused for a removed object: a trial hides those behind types of the same names. ""
// when it was refused for something else.
func ReadsLeaving(p *spec.Pipeline, err error) string {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != "42809" { // wrong object type
		return ""
	}
	i := slices.IndexFunc(p.Removed, func(r *spec.Removed) bool { return strings.Contains(e.Message, `"`+r.Name+`"`) })
	if i < 0 {
		return ""
	}
	return "it reads " + p.Removed[i].Address() + ", which a removed block deletes"
}

// where turns a position in a query into a place in the file that it came from.
func (q *Queries) where(at, text string, position int) string {
	if position < 1 {
		return at
	}
	runes := []rune(text)
	before := string(runes[:min(position-1, len(runes))])
	line, column := 1+strings.Count(before, "\n"), len([]rune(before[strings.LastIndex(before, "\n")+1:]))+1
	if strings.Contains(at, ":") {
		return fmt.Sprintf("%s, line %d, column %d of the query", at, line, column)
	}
	if file, err := fs.ReadFile(q.Pipeline.FS, at); err == nil {
		if skipped, _, found := strings.Cut(string(file), text); found {
			line += strings.Count(skipped, "\n")
		}
	}
	return fmt.Sprintf("%s:%d:%d", at, line, column)
}

// IsPrefix tells whether columns are the first ones of others.
func IsPrefix(columns, of []catalog.ViewColumn) bool {
	return len(columns) <= len(of) && slices.Equal(columns, of[:len(columns)])
}
