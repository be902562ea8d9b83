package grafana

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// rule is an alert rule as Grafana has it, with the interval of its group. The body keeps what no block can say.
type rule struct {
	body     map[string]any
	interval int64 // seconds
}

// The shape of a rule's queries and its group: Grafana's own defaults.
const (
	rulePoints    = 43200
	groupInterval = 60
)

var ruleRoute = []string{"api", "v1", "provisioning", "alert-rules"}

func groupRoute(folder, group string) []string {
	return []string{"api", "v1", "provisioning", "folder", folder, "rule-groups", group}
}

// rules lists all alert rules, in one request.
func (c *Client) rules(ctx context.Context) ([]map[string]any, error) {
	var out []map[string]any
	err := c.call(ctx, http.MethodGet, ruleRoute, nil, nil, &out)
	return out, err
}

// interval reads the group of a rule: only groups have an interval.
func (c *Client) interval(ctx context.Context, body map[string]any) (*rule, error) {
	group, err := c.group(ctx, jsonvalue.Text(body["folderUID"]), jsonvalue.Text(body["ruleGroup"]))
	if err != nil {
		return nil, err
	}
	return &rule{body: jsonvalue.Canonical(body).(map[string]any), interval: jsonvalue.Integer(group["interval"])}, nil
}

// group is a group of rules, nil when there is none.
func (c *Client) group(ctx context.Context, folder, name string) (map[string]any, error) {
	var out map[string]any
	err := c.call(ctx, http.MethodGet, groupRoute(folder, name), nil, nil, &out)
	if missing(err) {
		return nil, nil
	}
	return out, err
}

// rule is the whole rule of an alert block. It has a group of its own, so that its interval is its own.
func (a *Alert) rule() map[string]any {
	x := a.Spec
	evaluator := map[string]any{"type": "gt", "params": []any{float(x.Above)}}
	if x.Below != nil {
		evaluator = map[string]any{"type": "lt", "params": []any{float(x.Below)}}
	}
	source := map[string]any{"type": dashboard.PostgresType, "uid": a.source()}
	expression := map[string]any{"type": "__expr__", "uid": "__expr__"}
	number := func(n int) json.Number { return json.Number(strconv.Itoa(n)) }
	stage := func(ref, uid string, model map[string]any) map[string]any {
		model["refId"], model["intervalMs"], model["maxDataPoints"] = ref, number(dashboard.AlertInterval),
			number(rulePoints)
		return map[string]any{
			"refId": ref, "queryType": "", "datasourceUid": uid,
			"relativeTimeRange": map[string]any{"from": number(dashboard.AlertLookBack), "to": number(0)},
			"model":             model,
		}
	}
	notes := map[string]any{}
	for k, v := range map[string]string{"summary": x.Summary, "description": x.Description} {
		if v != "" {
			notes[k] = v
		}
	}
	labels := map[string]any{}
	for k, v := range x.Labels {
		labels[k] = v
	}
	return jsonvalue.Canonical(map[string]any{
		"uid": uidOf(x.Name), "title": x.Title, "folderUID": folderUID(x.Folder), "ruleGroup": uidOf(x.Name),
		"condition": "B",
		"data": []any{
			stage("A", a.source(), map[string]any{
				"datasource": source, "editorMode": "code", "rawQuery": true,
				"format": "table", "rawSql": dashboard.TrimSQL(x.Query),
			}),
			stage("B", "__expr__", map[string]any{
				"datasource": expression, "type": "threshold", "expression": "A",
				"conditions": []any{map[string]any{"evaluator": evaluator}},
			}),
		},
		"noDataState": states[x.NoData], "execErrState": "Error", "for": units.FormatDuration(x.For), "labels": labels,
		"annotations": notes,
	}).(map[string]any)
}

// states are Grafana's words for what an empty result means.
var states = map[string]string{"nodata": "NoData", "alert": "Alerting", "ok": "OK"}

func float(f *float64) json.Number {
	if f == nil {
		return "0"
	}
	return jsonvalue.Number(json.Number(strconv.FormatFloat(*f, 'g', -1, 64)))
}

// state is a rule as attributes. want is the block's own rule: data is cut down to what that speaks of.
func (o *Org) ruleState(r *rule, want map[string]any) *plan.State {
	if r == nil {
		return nil
	}
	b := r.body
	shape, sql, source, threshold := dissect(b)
	s := &plan.State{Attrs: []plan.Attr{
		{Name: "uid", Value: jsonvalue.Text(b["uid"])},
		{Name: "title", Value: jsonvalue.Text(b["title"])},
		{Name: "folder", Value: o.folderName(jsonvalue.Text(b["folderUID"])), Raw: jsonvalue.Text(b["folderUID"])},
		{Name: "group", Value: jsonvalue.Text(b["ruleGroup"])},
		{Name: "datasource", Value: o.sourceName(source), Raw: source},
		{Name: "query", Value: strings.Join(strings.Fields(sql), " ") + " " + jsonvalue.Digest(sql), Raw: sql},
		{Name: "threshold", Value: threshold},
		{Name: "for", Value: lasting(jsonvalue.Text(b["for"]))},
		{Name: "every", Value: units.FormatDuration(time.Duration(r.interval) * time.Second)},
		{Name: "no_data", Value: reverse(states, jsonvalue.Text(b["noDataState"]))},
	}}
	if want != nil {
		wanted, _, _, _ := dissect(want)
		shape = jsonvalue.Project(shape, wanted)
	}
	s.Set(plan.Attr{Name: "model", Value: jsonvalue.Digest(shape), Raw: jsonvalue.Encode(shape)})
	for _, kind := range []string{"label", "annotation"} {
		m, _ := b[kind+"s"].(map[string]any)
		for k, v := range m {
			s.Set(plan.Attr{Name: noteName(kind, k), Value: jsonvalue.Text(v)})
		}
	}
	slices.SortStableFunc(s.Attrs[11:], func(a, b plan.Attr) int { return cmp.Compare(a.Name, b.Name) })
	if b["isPaused"] == true {
		s.Set(plan.Attr{Name: "paused", Value: "true"})
	}
	return s
}

// noteName is the attribute of a label or an annotation.
func noteName(kind, key string) string {
	if kind == "annotation" && (key == "summary" || key == "description") {
		return key
	}
	return kind + " " + key
}

// dissect takes a rule's queries apart: what pipeline.hcl has words for, and the shape that is left.
func dissect(b map[string]any) (shape any, sql, source, threshold string) {
	threshold = "none"
	condition := jsonvalue.Text(b["condition"])
	list := []any{condition, jsonvalue.Text(b["execErrState"])}
	for _, d := range jsonvalue.Objects(b, "data") {
		d = jsonvalue.Canonical(d).(map[string]any)
		model, _ := d["model"].(map[string]any)
		if model == nil {
			model = map[string]any{}
		}
		delete(d, "queryType")
		if model["rawSql"] != nil && sql == "" {
			sql, source = dashboard.TrimSQL(jsonvalue.Text(model["rawSql"])), jsonvalue.Text(d["datasourceUid"])
			model["rawSql"], d["datasourceUid"] = "…", "…"
			delete(model, "datasource")
		}
		for _, c := range jsonvalue.Objects(model, "conditions") {
			e, _ := c["evaluator"].(map[string]any)
			word := map[string]string{"gt": "above", "lt": "below"}[jsonvalue.Text(e["type"])]
			params, _ := e["params"].([]any)
			if d["refId"] == condition && word != "" && len(params) > 0 && threshold == "none" {
				threshold = word + " " + jsonvalue.Describe(params[0])
				c["evaluator"] = map[string]any{}
			}
		}
		list = append(list, d)
	}
	return list, sql, source, threshold
}

// lasting reads a Prometheus duration and writes ours: 90s and 1m30s are the same.
func lasting(s string) string {
	d, err := units.ParseDuration(s)
	if s == "" || s == "0" {
		d, err = 0, nil
	}
	if err != nil {
		return s
	}
	return units.FormatDuration(d)
}

func reverse(m map[string]string, value string) string {
	for k, v := range m {
		if v == value {
			return k
		}
	}
	return value
}

// overlay puts the changes of c over the live rule: what no block can say stays, as a pause or a contact point.
func overlay(live, want map[string]any, c plan.Change) map[string]any {
	out := maps.Clone(live)
	for _, k := range []string{"id", "orgID", "updated", "provenance"} {
		delete(out, k)
	}
	for _, kind := range []string{"label", "annotation"} {
		key := kind + "s"
		have, _ := out[key].(map[string]any)
		wanted, _ := want[key].(map[string]any)
		m := map[string]any{}
		for k, v := range have {
			if d, differs := c.Diff(noteName(kind, k)); !differs || d.Cause != plan.Reset {
				m[k] = v
			}
		}
		maps.Copy(m, wanted)
		out[key] = m
	}
	for _, k := range []string{
		"uid", "title", "folderUID", "ruleGroup", "condition", "noDataState", "execErrState",
		"for",
	} {
		out[k] = want[k]
	}
	out["data"] = jsonvalue.Merge(live["data"], want["data"], nil)
	return out
}
