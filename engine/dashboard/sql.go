package dashboard

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Query is one query of a dashboard or an alert rule, as PostgreSQL gets it.
type Query struct {
	Panel   string   // "panel Markets (id 8)", "variable source", "annotation Gaps", "alert stale"
	RefID   string   // "" for variables
	SQL     string   // expanded
	Guessed []string // variables whose values were guessed: only the data knows them
	Problem string   // why it could not be expanded; SQL is as far as it went
}

// End of the range that queries are expanded for. It is fixed, so that the same file always gives the same SQL.
var rangeEnd = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

const (
	defaultRange  = 24 * time.Hour
	defaultPoints = 1000
	defaultLeast  = time.Minute
)

// SQL lists the queries on the dashboard's PostgreSQL data source, each expanded to what PostgreSQL can EXPLAIN.
func SQL(d *spec.Dashboard) ([]Query, error) {
	m, err := Load(d)
	if err != nil {
		return nil, err
	}
	length := rangeOf(m)
	least := defaultLeast
	if d.DataSource != nil && d.DataSource.MinInterval > 0 {
		least = d.DataSource.MinInterval
	}
	var out []Query
	add := func(p *Part, ref, sql string, interval time.Duration) {
		vars, guessed := values(m, interval)
		x := expansion{from: rangeEnd.Add(-length), to: rangeEnd, interval: interval, variables: vars}
		q := Query{Panel: p.Name, RefID: ref}
		for _, name := range used(sql) {
			if slices.Contains(guessed, name) {
				q.Guessed = append(q.Guessed, name)
			}
		}
		if q.SQL, err = x.expand(sql); err != nil {
			q.Problem = err.Error()
		}
		out = append(out, q)
	}
	for _, p := range m.Parts {
		usual := intervalOf(length, least, defaultPoints)
		switch p.Kind {
		case "variable":
			if sql := jsonvalue.Text(p.Body["query"]); p.Raw["type"] == "query" && sql != "" &&
				reads(p.Raw["datasource"], nil, d) {
				add(p, "", sql, usual)
			}
		case "annotation":
			target, _ := p.Raw["target"].(map[string]any)
			if sql := cmp.Or(jsonvalue.Text(target["rawSql"]), jsonvalue.Text(p.Raw["rawQuery"])); sql != "" &&
				reads(target["datasource"], p.Raw["datasource"], d) {
				add(p, jsonvalue.Text(target["refId"]), sql, usual)
			}
		case "panel":
			for _, t := range jsonvalue.Objects(p.Raw, "targets") {
				if sql := jsonvalue.Text(t["rawSql"]); sql != "" && reads(t["datasource"], p.Raw["datasource"], d) {
					add(p, jsonvalue.Text(t["refId"]), sql, panelInterval(p.Raw, length, least))
				}
			}
		}
	}
	return out, nil
}

// AlertSQL is the query of an alert rule, expanded. Rules know no variables.
func AlertSQL(a *spec.Alert) Query {
	least := defaultLeast
	if a.DataSource != nil && a.DataSource.MinInterval > 0 {
		least = a.DataSource.MinInterval
	}
	x := expansion{
		from: rangeEnd.Add(-AlertLookBack * time.Second), to: rangeEnd,
		interval: max(least, AlertInterval*time.Millisecond),
	}
	q := Query{Panel: "alert " + a.Name, RefID: "A"}
	var err error
	if q.SQL, err = x.expand(TrimSQL(a.Query)); err != nil {
		q.Problem = err.Error()
	}
	return q
}

// reads reports whether a query goes to the dashboard's own PostgreSQL data source.
func reads(own, outer any, d *spec.Dashboard) bool {
	ref := own
	if ref == nil {
		ref = outer
	}
	switch ref := ref.(type) {
	case nil:
		return d.DataSource != nil
	case string:
		return strings.HasPrefix(ref, "$") || d.DataSource != nil && ref == d.DataSource.UID
	case map[string]any:
		uid, kind := jsonvalue.Text(ref["uid"]), jsonvalue.Text(ref["type"])
		if kind != "" && !IsPostgres(kind) {
			return false
		}
		return uid == "" || strings.HasPrefix(uid, "$") || d.DataSource == nil && kind != "" || d.DataSource != nil &&
			uid == d.DataSource.UID
	}
	return false
}

func panelInterval(raw map[string]any, length, least time.Duration) time.Duration {
	points := jsonvalue.Integer(raw["maxDataPoints"])
	if points <= 0 {
		points = defaultPoints
	}
	if own, err := groupWidth(strings.TrimPrefix(jsonvalue.Text(raw["interval"]), ">")); err == nil {
		least = own
	}
	return intervalOf(length, least, points)
}

var relativeForm = regexp.MustCompile(`^now-(\d+)([smhdwMy])$`)

// rangeOf is the length of the dashboard's time range.
func rangeOf(m *Model) time.Duration {
	span, _ := m.Top["time"].(map[string]any)
	from := relativeForm.FindStringSubmatch(jsonvalue.Text(span["from"]))
	if from == nil || jsonvalue.Text(span["to"]) != "now" {
		return defaultRange
	}
	n, err := strconv.Atoi(from[1])
	if err != nil || n <= 0 || n > 10000 {
		return defaultRange
	}
	if unit := from[2]; strings.Contains("smh", unit) {
		d, err := time.ParseDuration(fmt.Sprintf("%d%s", n, unit))
		if err != nil {
			return defaultRange
		}
		return d
	}
	d, err := groupWidth(from[1] + from[2])
	if err != nil {
		return defaultRange
	}
	return d
}

// used lists the names that a text uses as variables.
func used(sql string) []string {
	var out []string
	for _, m := range variableForm.FindAllStringSubmatchIndex(sql, -1) {
		for _, i := range []int{2, 4, 8} {
			if m[i] < 0 {
				continue
			}
			name := sql[m[i]:m[i+1]]
			next := sql[m[1]:]
			macro := strings.HasPrefix(next, "(") && i == 2
			quote := strings.HasPrefix(next, "$") && i == 2
			if !macro && !quote && (name[0] < '0' || name[0] > '9') {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
