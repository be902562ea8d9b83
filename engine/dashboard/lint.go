package dashboard

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Lint lists what is likely wrong with a dashboard's file. None of it keeps the dashboard from being saved.
func Lint(d *spec.Dashboard) []string {
	raw, err := jsonvalue.Decode(d.JSON)
	if err != nil {
		return []string{fmt.Sprintf("%s is not a dashboard JSON file: %v", d.File, err)}
	}
	if _, v2 := raw["elements"]; v2 {
		return []string{d.File +
			" is an export in schema version 2 (it has elements and a layout): export it as classic JSON"}
	}
	m, err := Load(d)
	if err != nil {
		return nil // decoded a moment ago
	}
	l := linter{d: d, m: m}
	l.export(raw)
	l.ids(raw)
	l.sources(raw)
	l.queries()
	l.names()
	l.grid()
	l.refresh()
	return l.out
}

type linter struct {
	d   *spec.Dashboard
	m   *Model
	out []string
}

func (l *linter) warn(format string, args ...any) {
	l.out = append(l.out, fmt.Sprintf(format, args...))
}

var inputForm = regexp.MustCompile(`\$\{(DS_\w+)\}`)

// export finds what only an import by hand resolves.
func (l *linter) export(raw map[string]any) {
	_, inputs := raw["__inputs"]
	if found := inputForm.FindStringSubmatch(jsonvalue.Encode(raw)); found != nil || inputs {
		name := "__inputs"
		if found != nil {
			name = "${" + found[1] + "}"
		}
		l.warn("%s holds %s, which only Grafana's import dialog fills in: export it without \"share externally\", or "+
			"write ${datasource} and a data source variable", l.d.File, name)
	}
}

func (l *linter) ids(raw map[string]any) {
	seen := map[int64]string{}
	each(raw, func(p map[string]any) {
		title, id := cmp.Or(jsonvalue.Text(p["title"]), jsonvalue.Text(p["type"])), jsonvalue.Integer(p["id"])
		switch other, twice := seen[id]; {
		case id <= 0:
			l.warn("the panel %s has no id: it gets one by its place, so give it one in %s before the order changes",
				title, l.d.File)
		case twice:
			l.warn("the panels %s and %s have the same id %d: links, alerts and merges cannot tell them apart", other,
				title, id)
		default:
			seen[id] = title
		}
		refs := map[string]bool{}
		for _, t := range jsonvalue.Objects(p, "targets") {
			if ref := jsonvalue.Text(t["refId"]); refs[ref] {
				l.warn("the panel %s has two queries %s", title, ref)
			} else {
				refs[ref] = true
			}
		}
	})
}

// sources finds queries that read Grafana's default data source, whatever that is.
func (l *linter) sources(raw map[string]any) {
	if l.d.DataSource != nil {
		return
	}
	each(raw, func(p map[string]any) {
		if p["datasource"] == nil && slices.ContainsFunc(jsonvalue.Objects(p, "targets"), func(t map[string]any) bool {
			return t["datasource"] == nil
		}) {
			l.warn("the panel %s names no data source: it reads Grafana's default one; write datasource = "+
				"datasource.NAME in the dashboard block", cmp.Or(jsonvalue.Text(p["title"]), jsonvalue.Text(p["type"])))
		}
	})
}

func (l *linter) queries() {
	list, err := SQL(l.d)
	if err != nil {
		return
	}
	for _, q := range list {
		if q.Problem != "" {
			l.warn("%s, query %s: %s", q.Panel, cmp.Or(q.RefID, "A"), q.Problem)
		}
	}
	for _, p := range l.m.Parts {
		for _, t := range jsonvalue.Objects(p.Raw, "targets") {
			l.query(p, jsonvalue.Text(t["refId"]), jsonvalue.Text(t["rawSql"]), jsonvalue.Text(t["format"]))
		}
	}
}

var (
	groupCall = regexp.MustCompile(`\$__timeGroup\([^)]*\)`)
	orderForm = regexp.MustCompile(`(?i)\border\s+by\b`)
)

func (l *linter) query(p *Part, ref, sql, format string) {
	if sql == "" {
		return
	}
	if format == "time_series" && !orderForm.MatchString(sql) {
		l.warn("%s, query %s: a time series without ORDER BY is an error in Grafana when its rows come unsorted",
			p.Name, ref)
	}
	for _, call := range groupCall.FindAllString(sql, -1) {
		if first := strings.Index(sql, call); strings.HasPrefix(sql[first+len(call):], ",") &&
			strings.Count(sql, call) > 1 {
			l.warn("%s, query %s: Grafana adds AS \"time\" to every %s, since a comma follows the first: write "+
				"$__timeGroupAlias in SELECT, and GROUP BY 1", p.Name, ref, call)
			break
		}
	}
}

// names finds variables that are used and not declared.
func (l *linter) names() {
	declared := map[string]bool{}
	for _, p := range l.m.Parts {
		if p.Kind == "variable" {
			declared[jsonvalue.Text(p.Raw["name"])] = true
		}
	}
	for _, p := range l.m.Parts {
		var found []string
		for _, s := range append(textsOf(p.Body, "title", "repeat", "query"), l.sqlOf(p)...) {
			for _, name := range used(s) {
				if !declared[name] && !strings.HasPrefix(name, "__") && name != "timezone" && name != "timeFilter" {
					found = append(found, "$"+name)
				}
			}
		}
		if repeat := jsonvalue.Text(p.Body["repeat"]); repeat != "" && !declared[repeat] {
			found = append(found, repeat)
		}
		slices.Sort(found)
		if found = slices.Compact(found); len(found) > 0 {
			l.warn("%s uses %s, which the dashboard does not declare", p.Name, strings.Join(found, ", "))
		}
	}
}

func (l *linter) sqlOf(p *Part) (out []string) {
	for _, t := range append(jsonvalue.Objects(p.Raw, "targets"), asObject(p.Raw["target"])) {
		out = append(out, jsonvalue.Text(t["rawSql"]))
	}
	return out
}

func asObject(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func textsOf(m map[string]any, keys ...string) (out []string) {
	for _, k := range keys {
		out = append(out, jsonvalue.Text(m[k]))
	}
	return out
}

// grid finds panels that stand out of the grid of 24 columns, or on each other.
func (l *linter) grid() {
	type place struct {
		name       string
		x, y, w, h int64
	}
	var all []place
	for _, p := range l.m.Parts {
		at, is := p.Raw["gridPos"].(map[string]any)
		if p.Kind != "panel" || !is || p.Row != "" {
			continue
		}
		q := place{
			p.Name, jsonvalue.Integer(at["x"]), jsonvalue.Integer(at["y"]), jsonvalue.Integer(at["w"]),
			jsonvalue.Integer(at["h"]),
		}
		if q.x+q.w > 24 {
			l.warn("%s is wider than the grid: x %d and w %d are more than 24", q.name, q.x, q.w)
		}
		for _, o := range all {
			if q.x < o.x+o.w && o.x < q.x+q.w && q.y < o.y+o.h && o.y < q.y+q.h {
				l.warn("%s and %s overlap: Grafana moves one of them down", o.name, q.name)
				break
			}
		}
		all = append(all, q)
	}
}

func (l *linter) refresh() {
	refresh := jsonvalue.Text(l.m.Top["refresh"])
	d, err := units.ParseDuration(refresh)
	if refresh != "" && refresh != "auto" && err == nil && d < 5*time.Second {
		l.warn("refresh %s is below Grafana's usual minimum of 5s: 11 and 12 raise it, 13 refuses the dashboard",
			refresh)
	}
	if v := jsonvalue.Integer(l.m.Top["schemaVersion"]); v == 0 {
		l.warn("%s has no schemaVersion: Grafana takes it for a very old dashboard; write 41", l.d.File)
	}
}
