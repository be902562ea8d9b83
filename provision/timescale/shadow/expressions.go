package shadow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// Expression is a column's default, or what it is generated from: then it reads the other columns of its table.
type Expression struct {
	typ, Text string
	columns   string // of a generated one: "price double precision, n integer"
}

// Normal is how the server writes an expression; or why it does not take it.
type Normal struct {
	Text   string
	Varies bool // from row to row: a function in it is volatile
	// plan does not evaluate it: a function in it is not PostgreSQL's own, or may have effects, such as nextval
	Open bool
	Err  error
}

// expressionsOf lists the expressions of a table, as declared and as live.
func expressionsOf(t *spec.Table, r *catalog.Relation) []Expression {
	var out []Expression
	for _, c := range t.Columns {
		if e := DeclaredExpression(t, c); e.Text != "" {
			out = append(out, e)
		}
	}
	if r == nil {
		return out
	}
	for _, c := range r.Columns {
		if e := LiveExpression(r, c); e.Text != "" {
			out = append(out, e)
		}
	}
	return out
}

// DeclaredExpression is the expression of a declared column.
func DeclaredExpression(t *spec.Table, c *spec.Column) Expression {
	e := Expression{typ: string(c.Type), Text: c.Default}
	if c.Generated == "" {
		return e
	}
	var columns []string
	for _, o := range t.Columns {
		if o.Generated == "" {
			columns = append(columns, pg.Ident(o.Name)+" "+string(o.Type))
		}
	}
	e.Text, e.columns = c.Generated, strings.Join(columns, ", ")
	return e
}

// LiveExpression is the expression of a live column.
func LiveExpression(r *catalog.Relation, c catalog.Column) Expression {
	e := Expression{typ: c.Type, Text: c.Expr}
	if !c.Generated {
		return e
	}
	var columns []string
	for _, o := range r.Columns {
		if !o.Generated {
			columns = append(columns, pg.Ident(o.Name)+" "+o.Type)
		}
	}
	e.columns = strings.Join(columns, ", ")
	return e
}

// Expressions returns how this server writes a table's expressions. All tables of the pipeline are asked for at once.
func Expressions(ctx context.Context, c *catalog.Catalog, t *spec.Table) (map[Expression]Normal, error) {
	live, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if c.Pipeline == nil || !slices.Contains(c.Pipeline.Tables, t) {
		r, err := c.FullTable(ctx, live.Relations[t.Name])
		if err != nil {
			return nil, err
		}
		return normalOf(ctx, c, expressionsOf(t, r))
	}
	return catalog.Cached(ctx, c, "expressions", func(ctx context.Context) (map[Expression]Normal, error) {
		var all []Expression
		for _, t := range c.Pipeline.Tables {
			all = append(all, expressionsOf(t, live.Relations[t.Name])...)
		}
		return normalOf(ctx, c, all)
	})
}

// normalOf returns how the server writes expressions. Where only their computation can be compared, those that are the
// same are written as the last apply wrote one of them.
func normalOf(ctx context.Context, c *catalog.Catalog, all []Expression) (map[Expression]Normal, error) {
	temporary, err := c.Temporary(ctx)
	if err != nil || temporary {
		return normalize(ctx, c, all, readNormal)
	}
	last, err := lastDefaults(ctx, c)
	if err != nil {
		return nil, err
	}
	all = append(last, all...)
	out, err := normalize(ctx, c, all, readPrinted)
	if err != nil {
		return nil, err
	}
	type printed struct {
		typ, text string
		generated bool
	}
	first := map[printed]string{}
	for _, e := range all {
		n := out[e]
		p := printed{e.typ, n.Text, e.columns != ""}
		if _, known := first[p]; !known {
			first[p] = e.Text
		}
		n.Text = first[p]
		out[e] = n
	}
	return out, nil
}

// lastDefaults lists the defaults that the last apply set.
func lastDefaults(ctx context.Context, c *catalog.Catalog) (out []Expression, err error) {
	last, err := c.Managed(ctx)
	for _, address := range slices.Sorted(maps.Keys(last)) {
		for _, a := range last[address].Attrs {
			if typ, text, is := strings.Cut(a.Value, " default "); is && strings.HasPrefix(a.Name, "column ") {
				out = append(out, Expression{typ: strings.TrimSuffix(typ, " not null"), Text: text})
			}
		}
	}
	return out, err
}

// readExpressions adds how the server writes expressions.
type readExpressions func(ctx context.Context, tx pgx.Tx, all []Expression, out map[Expression]Normal) error

// normalize asks the server how it writes expressions. It says so of a temporary table's defaults, in a transaction
// that is rolled back. The cast to the column's type, which PostgreSQL adds or leaves out, is always written: 0.0 and
// 0.0::double precision come out the same.
func normalize(
	ctx context.Context, c *catalog.Catalog, all []Expression, read readExpressions,
) (map[Expression]Normal, error) {
	out := map[Expression]Normal{}
	seen := map[Expression]bool{}
	all = slices.DeleteFunc(slices.Clone(all), func(e Expression) bool {
		again := seen[e]
		seen[e] = true
		return again
	})
	if len(all) == 0 {
		return out, nil
	}
	slices.SortFunc(all, func(a, b Expression) int { return strings.Compare(a.columns, b.columns) })
	err := c.DryRun(ctx, func(tx pgx.Tx) error { return read(ctx, tx, all, out) })
	switch state := pg.Code(err); {
	case err == nil:
		return out, nil
	case state == "25006" && len(all) == 1: // it would have effects
		return map[Expression]Normal{all[0]: {Text: all[0].Text, Open: true}}, nil
	case !pg.Refuses(state) && state != "25006":
		return nil, fmt.Errorf("ask the server how it writes expressions: %w", err)
	case len(all) == 1:
		return map[Expression]Normal{all[0]: {Err: err}}, nil
	}
	out = map[Expression]Normal{}
	for _, half := range [][]Expression{all[:len(all)/2], all[len(all)/2:]} { // one of them is wrong: which?
		some, err := normalize(ctx, c, half, read)
		if err != nil {
			return nil, err
		}
		maps.Copy(out, some)
	}
	return out, nil
}

// widest is how many columns a temporary table gets; PostgreSQL allows 1,600.
const widest = 1000

// functionsSQL tells of the functions that the expression e.adbin calls, by the numbers in its stored form. Those of
// PostgreSQL itself are below 16384, and of those a few are volatile and have no effects.
const functionsSQL = `LATERAL (SELECT coalesce(bool_or(coalesce(p.provolatile = 'v', true)), false) AS varies, 
	coalesce(bool_or(coalesce(p.oid >= 16384 OR p.provolatile = 'v' AND p.proname NOT IN ('random', 'gen_random_uuid', 'uuidv4', 'uuidv7', 'clock_timestamp', 'timeofday'), true)), false) AS open
	FROM regexp_matches(e.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') m LEFT JOIN pg_proc p ON p.oid = m[1]::oid) f`

func readNormal(ctx context.Context, tx pgx.Tx, all []Expression, out map[Expression]Normal) error {
	batch := &pgx.Batch{}
	for start := 0; start < len(all); {
		var lines []string
		end := start
		for ; end < len(all) && all[end].columns == all[start].columns && end-start < widest; end++ {
			e, word := all[end], "DEFAULT"
			if e.columns != "" {
				word = "GENERATED ALWAYS AS"
			}
			line := fmt.Sprintf("cryptoviz_%d %s %s (CAST((%s) AS %s))", end, e.typ, word, e.Text, e.typ)
			if e.columns != "" {
				line += " STORED"
			}
			lines = append(lines, line)
		}
		if all[start].columns != "" {
			lines = append(lines, all[start].columns)
		}
		batch.Queue("CREATE TEMPORARY TABLE cryptoviz_" + strconv.Itoa(start) + " (" + strings.Join(lines, ", ") +
			") ON COMMIT DROP")
		start = end
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	if err := pg.PlainText(ctx, tx); err != nil {
		return err
	}
	for _, e := range all {
		out[e] = Normal{} // of DEFAULT NULL PostgreSQL keeps nothing
	}
	var column string
	var n Normal
	return pg.ForEach(ctx, tx, `SELECT a.attname::text, pg_get_expr(e.adbin, e.adrelid), f.varies, f.open OR e.adbin::text ~ 'COERCETODOMAIN' FROM pg_attrdef e JOIN pg_class c ON c.oid = e.adrelid
		JOIN pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum, `+functionsSQL+`
		WHERE c.relnamespace = pg_my_temp_schema() AND c.relname LIKE 'cryptoviz\_%' AND a.attname LIKE 'cryptoviz\_%'`, nil,
		[]any{&column, &n.Text, &n.Varies, &n.Open}, func() error {
			i, err := strconv.Atoi(strings.TrimPrefix(column, "cryptoviz_"))
			if err != nil || i >= len(all) {
				return fmt.Errorf("temporary column %s: not ours", column)
			}
			out[all[i]] = n
			return nil
		})
}

// readPrinted is readNormal for who may not make temporary tables: the server shows expressions as it would compute
// them. What is constant is computed, in declared and in live expressions alike.
func readPrinted(ctx context.Context, tx pgx.Tx, all []Expression, out map[Expression]Normal) error {
	if _, err := tx.Exec(ctx, "SET TRANSACTION READ ONLY"); err != nil {
		return err
	}
	if err := pg.PlainText(ctx, tx); err != nil {
		return err
	}
	for start := 0; start < len(all); {
		var list []string
		end := start
		for ; end < len(all) && all[end].columns == all[start].columns && end-start < widest; end++ {
			list = append(list, "CAST(("+all[end].Text+") AS "+all[end].typ+")")
		}
		from := ""
		if all[start].columns != "" {
			from = " FROM json_to_record('{}') AS t(" + all[start].columns + ")"
		}
		printed, err := printPlan(ctx, tx, "SELECT "+strings.Join(list, ", ")+from)
		if err != nil {
			return err
		}
		var plans []struct{ Plan struct{ Output []string } }
		if err := json.Unmarshal([]byte(printed), &plans); err != nil || len(plans) != 1 ||
			len(plans[0].Plan.Output) != len(list) {
			return fmt.Errorf("read how the server computes expressions: %s", printed)
		}
		for i, text := range plans[0].Plan.Output {
			out[all[start+i]] = Normal{Text: text, Open: true}
		}
		start = end
	}
	return nil
}

// printPlan is how the server would run a query, with all expressions.
func printPlan(ctx context.Context, tx pgx.Tx, sql string) (printed string, err error) {
	err = tx.QueryRow(ctx, "EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) "+sql, pgx.QueryExecModeExec).Scan(&printed)
	return printed, err
}
