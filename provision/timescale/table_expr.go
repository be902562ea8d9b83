package timescale

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
)

// expression is a column's default, or what it is generated from: then it reads the other columns of its table.
type expression struct {
	typ, text string
	columns   string // of a generated one: "price double precision, n integer"
}

// normal is how the server writes an expression; or why it does not take it.
type normal struct {
	text   string
	varies bool // from row to row: a function in it is volatile
	open   bool // plan does not evaluate it: a function in it is not PostgreSQL's own, or may have effects, such as nextval
	err    error
}

// expressionsOf lists the expressions of a table, as declared and as live.
func expressionsOf(t *spec.Table, r *relation) []expression {
	var out []expression
	for _, c := range t.Columns {
		if e := declaredExpression(t, c); e.text != "" {
			out = append(out, e)
		}
	}
	if r == nil {
		return out
	}
	for _, c := range r.columns {
		if e := liveExpression(r, c); e.text != "" {
			out = append(out, e)
		}
	}
	return out
}

func declaredExpression(t *spec.Table, c *spec.Column) expression {
	e := expression{typ: string(c.Type), text: c.Default}
	if c.Generated == "" {
		return e
	}
	var columns []string
	for _, o := range t.Columns {
		if o.Generated == "" {
			columns = append(columns, pg.Ident(o.Name)+" "+string(o.Type))
		}
	}
	e.text, e.columns = c.Generated, strings.Join(columns, ", ")
	return e
}

func liveExpression(r *relation, c liveColumn) expression {
	e := expression{typ: c.typ, text: c.expr}
	if !c.generated {
		return e
	}
	var columns []string
	for _, o := range r.columns {
		if !o.generated {
			columns = append(columns, pg.Ident(o.name)+" "+o.typ)
		}
	}
	e.columns = strings.Join(columns, ", ")
	return e
}

// expressions returns how this server writes a table's expressions. All tables of the pipeline are asked for at once.
func expressions(ctx context.Context, c *Catalog, t *spec.Table) (map[expression]normal, error) {
	live, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if c.Pipeline == nil || !slices.Contains(c.Pipeline.Tables, t) {
		r, err := c.whole(ctx, live.relations[t.Name])
		if err != nil {
			return nil, err
		}
		return normalOf(ctx, c, expressionsOf(t, r))
	}
	return cached(ctx, c, "expressions", func(ctx context.Context) (map[expression]normal, error) {
		var all []expression
		for _, t := range c.Pipeline.Tables {
			all = append(all, expressionsOf(t, live.relations[t.Name])...)
		}
		return normalOf(ctx, c, all)
	})
}

// normalOf returns how the server writes expressions. Where only their computation can be compared, those that are the same are written
// as the last apply wrote one of them.
func normalOf(ctx context.Context, c *Catalog, all []expression) (map[expression]normal, error) {
	temporary, err := c.temporary(ctx)
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
		p := printed{e.typ, n.text, e.columns != ""}
		if _, known := first[p]; !known {
			first[p] = e.text
		}
		n.text = first[p]
		out[e] = n
	}
	return out, nil
}

// lastDefaults lists the defaults that the last apply set.
func lastDefaults(ctx context.Context, c *Catalog) (out []expression, err error) {
	last, err := c.managed(ctx)
	for _, address := range slices.Sorted(maps.Keys(last)) {
		for _, a := range last[address].Attrs {
			if typ, text, is := strings.Cut(a.Value, " default "); is && strings.HasPrefix(a.Name, "column ") {
				out = append(out, expression{typ: strings.TrimSuffix(typ, " not null"), text: text})
			}
		}
	}
	return out, err
}

// readExpressions adds how the server writes expressions.
type readExpressions func(ctx context.Context, tx pgx.Tx, all []expression, out map[expression]normal) error

// normalize asks the server how it writes expressions. It says so of a temporary table's defaults, in a transaction that is
// rolled back. The cast to the column's type, which PostgreSQL adds or leaves out, is always written: 0.0 and
// 0.0::double precision come out the same.
func normalize(ctx context.Context, c *Catalog, all []expression, read readExpressions) (map[expression]normal, error) {
	out := map[expression]normal{}
	seen := map[expression]bool{}
	all = slices.DeleteFunc(slices.Clone(all), func(e expression) bool {
		again := seen[e]
		seen[e] = true
		return again
	})
	if len(all) == 0 {
		return out, nil
	}
	slices.SortFunc(all, func(a, b expression) int { return strings.Compare(a.columns, b.columns) })
	err := c.trial(ctx, func(tx pgx.Tx) error { return read(ctx, tx, all, out) })
	switch state := pg.Code(err); {
	case err == nil:
		return out, nil
	case state == "25006" && len(all) == 1: // it would have effects
		return map[expression]normal{all[0]: {text: all[0].text, open: true}}, nil
	case !pg.Refuses(state) && state != "25006":
		return nil, fmt.Errorf("ask the server how it writes expressions: %w", err)
	case len(all) == 1:
		return map[expression]normal{all[0]: {err: err}}, nil
	}
	out = map[expression]normal{}
	for _, half := range [][]expression{all[:len(all)/2], all[len(all)/2:]} { // one of them is wrong: which?
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

// functionsSQL tells of the functions that the expression e.adbin calls, by the numbers in its stored form. Those of PostgreSQL
// itself are below 16384, and of those a few are volatile and have no effects.
const functionsSQL = `LATERAL (SELECT coalesce(bool_or(coalesce(p.provolatile = 'v', true)), false) AS varies, 
	coalesce(bool_or(coalesce(p.oid >= 16384 OR p.provolatile = 'v' AND p.proname NOT IN ('random', 'gen_random_uuid', 'uuidv4', 'uuidv7', 'clock_timestamp', 'timeofday'), true)), false) AS open
	FROM regexp_matches(e.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') m LEFT JOIN pg_proc p ON p.oid = m[1]::oid) f`

func readNormal(ctx context.Context, tx pgx.Tx, all []expression, out map[expression]normal) error {
	batch := &pgx.Batch{}
	for start := 0; start < len(all); {
		var lines []string
		end := start
		for ; end < len(all) && all[end].columns == all[start].columns && end-start < widest; end++ {
			e, word := all[end], "DEFAULT"
			if e.columns != "" {
				word = "GENERATED ALWAYS AS"
			}
			line := fmt.Sprintf("cryptoviz_%d %s %s (CAST((%s) AS %s))", end, e.typ, word, e.text, e.typ)
			if e.columns != "" {
				line += " STORED"
			}
			lines = append(lines, line)
		}
		if all[start].columns != "" {
			lines = append(lines, all[start].columns)
		}
		batch.Queue("CREATE TEMPORARY TABLE cryptoviz_" + strconv.Itoa(start) + " (" + strings.Join(lines, ", ") + ") ON COMMIT DROP")
		start = end
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	if err := pg.PlainText(ctx, tx); err != nil {
		return err
	}
	for _, e := range all {
		out[e] = normal{} // of DEFAULT NULL PostgreSQL keeps nothing
	}
	var column string
	var n normal
	return pg.ForEach(ctx, tx, `SELECT a.attname::text, pg_get_expr(e.adbin, e.adrelid), f.varies, f.open OR e.adbin::text ~ 'COERCETODOMAIN' FROM pg_attrdef e JOIN pg_class c ON c.oid = e.adrelid
		JOIN pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum, `+functionsSQL+`
		WHERE c.relnamespace = pg_my_temp_schema() AND c.relname LIKE 'cryptoviz\_%' AND a.attname LIKE 'cryptoviz\_%'`, nil,
		[]any{&column, &n.text, &n.varies, &n.open}, func() error {
			i, err := strconv.Atoi(strings.TrimPrefix(column, "cryptoviz_"))
			if err != nil || i >= len(all) {
				return fmt.Errorf("temporary column %s: not ours", column)
			}
			out[all[i]] = n
			return nil
		})
}

// readPrinted is readNormal for who may not make temporary tables: the server shows expressions as it would compute them. What is
// constant is computed, in declared and in live expressions alike.
func readPrinted(ctx context.Context, tx pgx.Tx, all []expression, out map[expression]normal) error {
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
			list = append(list, "CAST(("+all[end].text+") AS "+all[end].typ+")")
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
		if err := json.Unmarshal([]byte(printed), &plans); err != nil || len(plans) != 1 || len(plans[0].Plan.Output) != len(list) {
			return fmt.Errorf("read how the server computes expressions: %s", printed)
		}
		for i, text := range plans[0].Plan.Output {
			out[all[start+i]] = normal{text: text, open: true}
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

// temporary tells whether planning may make temporary tables and views, which show how the server writes things.
func (c *Catalog) temporary(ctx context.Context) (bool, error) {
	caps, err := c.Capabilities(ctx)
	if err != nil || caps.frozen {
		return false, err
	}
	s, err := c.session(ctx)
	return s.temp, err
}
