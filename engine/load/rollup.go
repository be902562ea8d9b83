package load

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/robfig/cron/v3"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

var mergeWords = []string{"min", "max", "sum", "first", "last", "mean"}

func (l *loader) rollup(raw *hcl.Block, seen map[string]hcl.Range) {
	const day = 24 * time.Hour
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs([]string{"from", "into", "query"}, "schedule", "keep_raw", "late", "wait"),
		Blocks:     plain("merge"),
	}, l.ctx)
	r := &spec.Rollup{
		Name: name, Schedule: b.text("schedule", "5 0 * * *"), KeepRaw: b.duration("keep_raw", 0, 0, forever),
		Late: b.text("late", "merge"), Wait: b.duration("wait", 10*time.Minute, 0, 6*time.Hour), Range: b.rng,
	}
	l.dayQuery(r, b)
	if err := checkSchedule(r.Schedule); err != nil {
		detail := diag.Sentence(err.Error())
		if b.secret["schedule"] {
			detail = ""
		}
		l.fail(b.rangeOf("schedule"), "Not a schedule", "Five cron fields, UTC: \"5 0 * * *\" is 00:05 each day. %s",
			detail)
	}
	if r.KeepRaw%day != 0 {
		l.fail(b.rangeOf("keep_raw"), "Not whole days", "keep_raw counts whole days: \"0d\", \"7d\".")
	}
	if words := []string{"merge", "reject"}; !slices.Contains(words, r.Late) {
		l.fail(b.rangeOf("late"), "Unknown value", "late is \"merge\" or \"reject\".%s",
			b.suggest("late", r.Late, words))
	}
	var foundFrom, foundInto bool
	r.From, foundFrom = refer(b, "from", "table", l.tables)
	r.Into, foundInto = refer(b, "into", "table", l.tables)
	if foundFrom && r.From.Hypertable == nil {
		l.fail(b.rangeOf("from"), "Table without time",
			"table.%s has no hypertable block: a rollup needs its time column and its chunks.", r.From.Name)
	} else if foundFrom && r.From.Hypertable.ChunkInterval > day {
		l.fail(b.rangeOf("from"), "Chunks longer than a day",
			"The rollup drops whole days of table.%s: its chunk_interval must be \"1d\" or shorter.", r.From.Name)
	}
	for _, other := range l.p.Rollups {
		if foundFrom && other.From == r.From {
			l.fail(b.rangeOf("from"), "Second rollup of a table",
				"rollup %q reads table.%s too, and the first to run would drop the day before the other has read it. Make one of them a view or an aggregate, or a rollup of what the other writes.", other.Name, r.From.Name)
			break
		}
	}
	if foundFrom && r.From == r.Into {
		foundInto = false // its columns do not matter
		l.fail(b.rangeOf("into"), "Rollup into its own table", "from and into must differ.")
	}
	blocks := b.content.Blocks.OfType("merge")
	l.once(blocks, "A rollup")
	if len(blocks) == 0 && r.Late == "merge" {
		l.fail(b.rng, "No merge block",
			"late = \"merge\" needs a merge block that says, column by column, how late samples join the stored hour; or set late = \"reject\".")
	}
	if len(blocks) > 0 && foundInto {
		l.merge(r, blocks[0])
	}
	if ok {
		l.p.Rollups = append(l.p.Rollups, r)
	}
}

// query reads an attribute that holds one SELECT, and where it came from: a file, or a line of pipeline.hcl.
func (l *loader) query(b *block) (text, at string, ok bool) {
	text = strings.TrimSuffix(strings.TrimSpace(b.text("query", "")), ";")
	at = fmt.Sprintf("%s:%d", l.p.File, b.rangeOf("query").Start.Line)
	if !b.good["query"] {
		return text, at, false
	}
	if call, ok := b.content.Attributes["query"].Expr.(*hclsyntax.FunctionCallExpr); ok && call.Name == "file" &&
		len(call.Args) == 1 {
		if v, ok := l.evaluate(call.Args[0], l.ctx); ok {
			if name, secret := limits.Unmark(v); !secret {
				at, _ = limits.PlainText(name)
			}
		}
	}
	if text == "" {
		l.fail(b.rangeOf("query"), "Empty query", "query is one SELECT, or file(\"sql/NAME.sql\").")
		return text, at, false
	}
	return text, at, true
}

// queryFile is the file of a query that has one of its own; "" for one in the pipeline, which is at a line of it.
func queryFile(at string) string {
	if strings.Contains(at, ":") {
		return ""
	}
	return at
}

var dayParams = []*regexp.Regexp{regexp.MustCompile(`\$1\b`), regexp.MustCompile(`\$2\b`)}

// dayQuery reads a rollup's query.
func (l *loader) dayQuery(r *spec.Rollup, b *block) {
	var ok bool
	if r.Query, r.QueryAt, ok = l.query(b); !ok {
		return
	}
	l.folded(b, "query", r.Query, queryFile(r.QueryAt), "", "when a connection first runs the query", l.timeColumn)
	for _, p := range dayParams {
		if !p.MatchString(r.Query) {
			l.fail(b.rangeOf("query"), "Query without "+strings.TrimSuffix(strings.TrimPrefix(p.String(), `\`), `\b`),
				"The query must use $1 and $2, the start and the end of the day: WHERE time >= $1 AND time < $2.")
		}
	}
}

// checkSchedule accepts five fields only: no zone, which would move the day, and no "@every", which has no fixed time.
func checkSchedule(text string) error {
	if n := len(strings.Fields(text)); n != 5 {
		return fmt.Errorf("this has %d", n)
	}
	schedule, err := cron.ParseStandard(text)
	if err == nil && schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		err = errors.New("this day never comes")
	}
	return err
}

func (l *loader) merge(r *spec.Rollup, raw *hcl.Block) {
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"columns"}, "count", "first", "last")}, l.ctx)
	r.Merge = spec.Merge{
		Columns: b.textMap("columns"), Count: b.text("count", ""), First: b.text("first", ""),
		Last: b.text("last", ""),
	}
	free := freeColumns(r.Into)
	needs := map[string]string{}
	for _, column := range sortedKeys(r.Merge.Columns) {
		word := r.Merge.Columns[column]
		if !slices.Contains(free, column) {
			l.fail(b.rangeOf("columns"), "Unknown column", "table.%s has no column %s that can be merged.%s",
				r.Into.Name, b.show("columns", column), b.suggest("columns", column, free))
		}
		if !slices.Contains(mergeWords, word) {
			l.fail(b.rangeOf("columns"), "Unknown merge", "There is no merge %s, which the column %s asks for.%s",
				b.show("columns", word), b.show("columns", column), b.suggest("columns", word, mergeWords))
		}
		needs[word] = column
	}
	for _, c := range free {
		if _, found := r.Merge.Columns[c]; !found && b.good["columns"] {
			l.fail(b.rangeOf("columns"), "Column without a merge",
				"Say how a late %q joins the stored one: %s = \"…\" (%s).", c, c, strings.Join(mergeWords, ", "))
		}
	}
	for _, m := range []struct{ word, attr, value string }{
		{"mean", "count", r.Merge.Count},
		{"first", "first", r.Merge.First},
		{"last", "last", r.Merge.Last},
	} {
		if column, used := needs[m.word]; used && !b.has(m.attr) {
			l.fail(b.rng, "Merge needs a column",
				"The merge %q of the column %s needs %s = \"…\": the column that weighs or orders it.", m.word,
				b.show("columns", column), m.attr)
		}
		if b.good[m.attr] && !slices.Contains(free, m.value) {
			l.fail(b.rangeOf(m.attr), "Unknown column", "table.%s has no column %s that can be merged.%s", r.Into.Name,
				b.show(m.attr, m.value), b.suggest(m.attr, m.value, free))
		}
	}
}
