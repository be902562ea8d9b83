package rollup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// matched counts the stored rows that the staged ones will join, and their samples.
func (u *rollupRun) matched() string {
	using := pg.Idents(u.r.Into.PrimaryKey)
	count := "0"
	if u.r.Merge.Count != "" {
		count = "coalesce(sum(h." + pg.Ident(u.r.Merge.Count) + "), 0)::bigint"
	}
	sql := "SELECT count(*), " + count + " FROM " + pg.Ident(u.r.Into.Name) +
		" AS h JOIN pg_temp.cryptoviz_rollup AS n USING (" + using + ")"
	// lets the server skip the other partitions
	if h := u.r.Into.Hypertable; h != nil && slices.Contains(u.columns, h.Time) {
		at := pg.Ident(h.Time)
		sql += " WHERE h." + at + " >= (SELECT min(" + at + ") FROM pg_temp.cryptoviz_rollup) AND h." + at +
			" <= (SELECT max(" + at + ") FROM pg_temp.cryptoviz_rollup)"
	}
	return sql
}

// mergeSQL writes the staged rows and returns how many, and their samples. A stored row never gets fewer samples.
func (u *rollupRun) mergeSQL() string {
	into, m := u.r.Into, u.r.Merge
	var set []string
	for _, name := range u.columns {
		if slices.Contains(into.PrimaryKey, name) {
			continue
		}
		value := "excluded." + pg.Ident(name)
		if u.ledger.dropped {
			value = mergeValue(m, into.Column(name))
		}
		set = append(set, pg.Ident(name)+" = "+value)
	}
	list := pg.Idents(u.columns)
	action, total := "DO NOTHING", "NULL::bigint"
	if len(set) > 0 {
		action = "DO UPDATE SET " + strings.Join(set, ", ")
	}
	returning := "1 AS n"
	if m.Count != "" {
		total, returning = "coalesce(sum(n), 0)::bigint", "h."+pg.Ident(m.Count)+" AS n"
		if !u.ledger.dropped {
			action += " WHERE excluded." + pg.Ident(m.Count) + " >= h." + pg.Ident(m.Count)
		}
	}
	return "WITH put AS (INSERT INTO " + pg.Ident(into.Name) + " AS h (" + list + ") SELECT " + list +
		" FROM pg_temp.cryptoviz_rollup ON CONFLICT (" +
		pg.Idents(into.PrimaryKey) + ") " + action + " RETURNING " + returning + ") SELECT count(*), " + total +
		" FROM put"
}

// mergeValue is a late partial aggregate (excluded) joined with the stored row (h), for one column. A missing value
// never replaces one that is there.
func mergeValue(m spec.Merge, c *spec.Column) string {
	word := m.Columns[c.Name]
	n := pg.Ident(c.Name)
	both := func(expr string) string {
		return "CASE WHEN h." + n + " IS NULL THEN excluded." + n + " WHEN excluded." + n + " IS NULL THEN h." + n +
			" ELSE " + expr + " END"
	}
	switch word {
	case "min":
		return "least(h." + n + ", excluded." + n + ")"
	case "max":
		return "greatest(h." + n + ", excluded." + n + ")"
	case "sum":
		return both("h." + n + " + excluded." + n)
	case "first":
		at := pg.Ident(m.First)
		return both("CASE WHEN excluded." + at + " < h." + at + " THEN excluded." + n + " ELSE h." + n + " END")
	case "last":
		at := pg.Ident(m.Last)
		return both("CASE WHEN excluded." + at + " >= h." + at + " THEN excluded." + n + " ELSE h." + n + " END")
	case "mean":
		weight := pg.Ident(m.Count)
		cast := "numeric" // whole numbers divide as numeric and round
		if c.Type == spec.Double {
			cast = "double precision"
		}
		return both(fmt.Sprintf("(h.%[1]s::%[3]s * h.%[2]s::%[3]s + excluded.%[1]s::%[3]s * excluded.%[2]s::%[3]s) / "+
			"(h.%[2]s + excluded.%[2]s)::%[3]s", n, weight, cast))
	}
	return "h." + n
}
