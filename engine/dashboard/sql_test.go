package dashboard_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

var (
	rangeFrom = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rangeTo   = time.Date(2026, 1, 2, 0, 0, 0, 500_000_000, time.UTC)
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestMacros(t *testing.T) {
	t.Parallel()
	tests := []struct{ sql, want string }{
		{"$__time(c)", `c AS "time"`},
		{"$__timeEpoch(c)", `extract(epoch from c) as "time"`},
		{"$__timeFilter(c)", `c BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-02T00:00:00.5Z'`},
		{"$__timeFilter( t.c )", `t.c BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-02T00:00:00.5Z'`},
		{"$__timeFrom()::timestamptz, $__timeTo(x)", `'2026-01-01T00:00:00Z'::timestamptz, '2026-01-02T00:00:00.5Z'`},
		{"$__timeGroup(time,'5m') ", `floor(extract(epoch from time)/300)*300 `},
		{"$__timeGroup(time, 5m, NULL) ", `floor(extract(epoch from time)/300)*300 `},
		{"$__timeGroup(time,30d) ", `floor(extract(epoch from time)/2.592e+06)*2.592e+06 `},
		{"$__timeGroupAlias(time,'1d',previous)", `floor(extract(epoch from time)/86400)*86400 AS "time"`},
		{"$__timeGroupAlias(time,$__interval)", `floor(extract(epoch from time)/60)*60 AS "time"`},
		{"$__unixEpochFilter(c)", "c >= 1767225600 AND c <= 1767312000"},
		{"$__unixEpochNanoFilter(c)", "c >= 1767225600000000000 AND c <= 1767312000500000000"},
		{"$__unixEpochNanoFrom() $__unixEpochNanoTo()", "1767225600000000000 1767312000500000000"},
		{"$__unixEpochFrom() $__unixEpochTo()", "1767225600 1767312000"},
		{"$__unixEpochGroup(c,1h) ", "floor((c)/3600)*3600 "},
		{"$__unixEpochGroupAlias(c,1h,0)", `floor((c)/3600)*3600 AS "time"`},
		{"'$__interval_ms milliseconds', $__interval, ${__interval}", "'60000 milliseconds', 1m, 1m"},
		{"$__from ${__to} ${__from:date:iso} ${__from:date:seconds}", "1767225600000 1767312000500 2026-01-01T00:00:00.000Z 1767225600"},
		// The first call has a comma after it: every call with the same text gets the alias, here a syntax error.
		{"SELECT $__timeGroup(t,'1h'), 1 GROUP BY $__timeGroup(t,'1h')", `SELECT floor(extract(epoch from t)/3600)*3600 AS "time", 1 GROUP BY floor(extract(epoch from t)/3600)*3600 AS "time"`},
		{"SELECT $__timeGroup(t,'1h') AS x, $__timeGroup(t,'1h'), 1", `SELECT floor(extract(epoch from t)/3600)*3600 AS x, floor(extract(epoch from t)/3600)*3600, 1`},
		{"SELECT 1 -- $__nosuch(x)\n, 2 /* $__nosuch(y) */", "SELECT 1 \n, 2 "},
		{"SELECT '-- no comment', \"/* nor this\", $q$ -- nor this $q$, 'it''s -- none'", "SELECT '-- no comment', \"/* nor this\", $q$ -- nor this $q$, 'it''s -- none'"},
		{"SELECT $1, $$x$$", "SELECT $1, $$x$$"},
	}
	for _, tt := range tests {
		got, err := dashboard.Expand(tt.sql, rangeFrom, rangeTo, time.Minute, false, nil)
		if err != nil || got != tt.want {
			t.Errorf("%s\n got %s (%v)\nwant %s", tt.sql, got, err, tt.want)
		}
	}
	got, err := dashboard.Expand("$__timeGroup(time,'5m') ", rangeFrom, rangeTo, time.Minute, true, nil)
	if err != nil || got != "time_bucket('300.000s',time) " {
		t.Errorf("with TimescaleDB: %s (%v)", got, err)
	}
	for sql, want := range map[string]string{
		"$__nosuch(x)": "unknown macro $__nosuch", "$foo(x)": "unknown macro $foo", "$__timeGroup(x)": "lacks its interval", "$__timeGroup(x,often)": "no interval",
		"$__timeGroup(x,1h,never)": "fills gaps", "$__timeFilter()": "lacks its argument",
	} {
		if _, err := dashboard.Expand(sql, rangeFrom, rangeTo, time.Minute, false, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	// As in Grafana, an argument ends at the first bracket.
	if got, err := dashboard.Expand("$__timeFilter(to_timestamp(ts))", rangeFrom, rangeTo, time.Minute, false, nil); err != nil || !strings.HasPrefix(got, "to_timestamp(ts BETWEEN") {
		t.Errorf("%s (%v)", got, err)
	}
}

func TestInterpolation(t *testing.T) {
	t.Parallel()
	vars := map[string]dashboard.Var{
		"s": {Values: []string{"BTC", "O'X"}, Multi: true}, "one": {Values: []string{"BTC"}, Multi: true}, "plain": {Values: []string{"O'X"}},
		"all": {Values: []string{"a OR true"}, Raw: true, Multi: true}, "dq": {Values: []string{`say "hi"`}, Multi: true}, "none": {Multi: true},
	}
	tests := []struct{ sql, want string }{
		{"IN ($s)", "IN ('BTC','O''X')"},
		{"IN (${s})", "IN ('BTC','O''X')"},
		{"IN ([[s]])", "IN ('BTC','O''X')"},
		{"= $one", "= 'BTC'"},
		{"= '$plain'", "= 'O''X'"},
		{"WHERE $all", "WHERE a OR true"},
		{"${s:raw} ${s:csv}", "BTC,O'X BTC,O'X"},
		{"${s:sqlstring}", "'BTC','O''X'"},
		{"${dq:sqlstring}", `'say \"hi\"'`},
		{"${s:singlequote}", `'BTC','O\'X'`},
		{"${s:pipe} ${s:regex} ${one:regex}", "BTC|O'X (BTC|O'X) BTC"},
		{"${s:json}", `["BTC","O'X"]`},
		{"[[s:pipe]]", "BTC|O'X"},
		{"ANY(ARRAY[$none]::text[])", "ANY(ARRAY[]::text[])"},
		{"$nosuch ${nosuch} $__timeFilter", "$nosuch ${nosuch} $__timeFilter"},
	}
	for _, tt := range tests {
		if got, err := dashboard.Expand(tt.sql, rangeFrom, rangeTo, time.Minute, false, vars); err != nil || got != tt.want {
			t.Errorf("%s: got %s (%v), want %s", tt.sql, got, err, tt.want)
		}
	}
}

func TestInterval(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for _, tt := range []struct {
		length, least time.Duration
		points        int64
		want          string
	}{
		{day, time.Second, 1000, "1m"},
		{7 * day, time.Minute, 1000, "10m"},
		{30 * day, time.Minute, 1000, "30m"},
		{time.Hour, time.Minute, 1000, "1m"},
		{time.Hour, time.Second, 1000, "5s"},
		{365 * day, time.Minute, 50, "7d"},
		{365 * day, time.Minute, 100, "1d"},
		{20 * 365 * day, time.Minute, 10, "1y"},
		{time.Second, time.Millisecond, 1000, "1ms"},
	} {
		if got := dashboard.InUnit(dashboard.IntervalOf(tt.length, tt.least, tt.points)); got != tt.want {
			t.Errorf("%s over %d points, at least %s: %s, want %s", tt.length, tt.points, tt.least, got, tt.want)
		}
	}
}

func board(t *testing.T, sql, variables string) *spec.Dashboard {
	t.Helper()
	text, err := json.Marshal(sql)
	if err != nil {
		t.Fatal(err)
	}
	return &spec.Dashboard{Name: "x", File: "x.json", UID: "x", DataSource: &spec.DataSource{UID: "cv-main", Title: "main", MinInterval: time.Minute}, JSON: []byte(`{
		"title": "X", "schemaVersion": 41, "time": {"from": "now-7d", "to": "now"}, "templating": {"list": [` + variables + `]},
		"panels": [{"id": 3, "type": "timeseries", "title": "P", "maxDataPoints": 100, "targets": [{"refId": "B", "format": "table", "rawSql": ` + string(text) + `}]}]}`)}
}

func TestSQLOfADashboard(t *testing.T) {
	t.Parallel()
	vars := `{"name": "source", "type": "query", "query": "SELECT 1 WHERE $__timeFilter(time)", "multi": true, "includeAll": true, "current": {"value": ["$__all"]}},
		{"name": "one", "type": "query", "query": "SELECT 2", "current": {"value": ""}},
		{"name": "known", "type": "query", "query": "SELECT 3", "multi": true, "current": {"value": ["a", "b"]}},
		{"name": "everything", "type": "query", "query": "SELECT 4", "includeAll": true, "allValue": "true", "current": {"value": "$__all"}},
		{"name": "quote", "type": "custom", "query": "US dollar : USD,EUR\\,x", "includeAll": true, "current": {"value": "$__all"}},
		{"name": "first", "type": "custom", "query": "a,b"},
		{"name": "bucket", "type": "interval", "query": "1m,1h", "auto": true, "current": {"value": "$__auto"}},
		{"name": "box", "type": "textbox", "query": "typed"}`
	list, err := dashboard.SQL(board(t, "$source|$one|$known|$everything|$quote|$first|$bucket|$box|$__interval", vars))
	if err != nil {
		t.Fatal(err)
	}
	p := list[len(list)-1]
	if p.Panel != "panel P (id 3)" || p.RefID != "B" || p.SQL != "'1'|1|'a','b'|true|'USD','EUR,x'|a|2h|typed|2h" || strings.Join(p.Guessed, " ") != "one source" {
		t.Errorf("got %+v", p)
	}
	if list[0].Panel != "variable source" || !strings.HasPrefix(list[0].SQL, "SELECT 1 WHERE time BETWEEN '2025-12-26T00:00:00Z' AND '2026-01-02T00:00:00Z'") || len(list) != 5 {
		t.Errorf("got %+v", list)
	}
	list, err = dashboard.SQL(board(t, "SELECT $__nosuch(x)", ""))
	if err != nil || len(list) != 1 || list[0].Problem == "" {
		t.Errorf("got %+v, %v", list, err)
	}
	q := dashboard.AlertSQL(&spec.Alert{Name: "a", Query: "SELECT $__timeFilter(t), $__interval"})
	if q.SQL != "SELECT t BETWEEN '2026-01-01T23:50:00Z' AND '2026-01-02T00:00:00Z', 1m" || q.Panel != "alert a" {
		t.Errorf("got %+v", q)
	}
}

// Only what goes to the dashboard's own PostgreSQL is SQL of this pipeline.
func TestSQLOfOtherDataSources(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]int{
		`{"type": "grafana-postgresql-datasource", "uid": "${datasource}"}`: 1, `{"type": "postgres", "uid": "cv-main"}`: 1, `null`: 1, `"$datasource"`: 1, `"cv-main"`: 1, `{"uid": "cv-main"}`: 1,
		`{"type": "mysql", "uid": "x"}`: 0, `{"type": "grafana-postgresql-datasource", "uid": "another"}`: 0, `{"type": "__expr__", "uid": "__expr__"}`: 0, `"-- Mixed --"`: 0,
	} {
		d := board(t, "SELECT 1", "")
		d.JSON = []byte(strings.Replace(string(d.JSON), `"refId": "B"`, `"refId": "B", "datasource": `+ref, 1))
		if list, err := dashboard.SQL(d); err != nil || len(list) != want {
			t.Errorf("%s: %d queries (%v), want %d", ref, len(list), err, want)
		}
	}
}

func shipped(t *testing.T) *spec.Dashboard {
	t.Helper()
	src, err := os.ReadFile("../../dashboards/market_overview.json")
	if err != nil {
		t.Fatal(err)
	}
	return &spec.Dashboard{Name: "market_overview", File: "dashboards/market_overview.json", UID: "cv-market-overview", JSON: src, DataSource: &spec.DataSource{Name: "main", UID: "cv-main", Title: "cryptoviz", MinInterval: time.Minute}}
}

// The shipped dashboard has no lint, and PostgreSQL explains all of its SQL.
func TestShippedDashboard(t *testing.T) {
	t.Parallel()
	d := shipped(t)
	if got := dashboard.Lint(d); len(got) > 0 {
		t.Errorf("lint:\n%s", strings.Join(got, "\n"))
	}
	list, err := dashboard.SQL(d)
	if err != nil || len(list) != 17 {
		t.Fatalf("%d queries (%v)", len(list), err)
	}
	db, err := pgx.Connect(t.Context(), testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	for _, sql := range []string{
		schema.SQL,
		"CREATE TABLE raw_crypto_data (time timestamptz, source text, base text, quote text, price float8, bid float8, ask float8, high_24h float8, low_24h float8, volume_24h float8, change_24h_pct float8)",
		"CREATE TABLE crypto_data_hourly (time timestamptz, source text, base text, quote text, open float8, high float8, low float8, close float8, coverage float8)",
		"CREATE TABLE crypto_sentiment (time timestamptz, source text, value int, classification text)",
	} {
		if _, err := db.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range list {
		if q.Problem != "" || strings.Contains(q.SQL, "$") {
			t.Errorf("%s %s: %s\n%s", q.Panel, q.RefID, q.Problem, q.SQL)
		}
		if _, err := db.Exec(t.Context(), "EXPLAIN "+q.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Errorf("%s %s: %v\n%s", q.Panel, q.RefID, err, q.SQL)
		}
	}
	if _, err := db.Exec(t.Context(), "ALTER TABLE crypto_sentiment DROP COLUMN value"); err != nil {
		t.Fatal(err)
	}
	var broken []string
	for _, q := range list {
		if _, err := db.Exec(t.Context(), "EXPLAIN "+q.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			broken = append(broken, q.Panel)
		}
	}
	if strings.Join(broken, "; ") != "panel Fear & Greed (id 6)" {
		t.Errorf("a dropped column breaks %v", broken)
	}
}

// A variable is a list, and each value quoted, when it may stand at several or stands at All. A single text is put in
// as it is by the PostgreSQL plugin of 12.4, also where it could be All: the query has the quotes.
func TestVariablesInSQL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ variable, sql, want string }{
		{`"type": "custom", "query": "BTC,ETH", "includeAll": true, "current": {"value": "BTC"}`, "a = '$v'", "a = 'BTC'"},
		{`"type": "custom", "query": "BTC,ETH", "includeAll": true, "current": {"value": "O'X"}`, "a = '${v}'", "a = 'O''X'"},
		{`"type": "custom", "query": "BTC,ETH", "includeAll": true, "current": {"value": "$__all"}`, "a IN ($v)", "a IN ('BTC','ETH')"},
		{`"type": "custom", "query": "BTC", "includeAll": true, "current": {"value": "$__all"}`, "a IN ($v)", "a IN ('BTC')"},
		{`"type": "custom", "query": "BTC,ETH", "multi": true, "current": {"value": ["BTC"]}`, "a IN ($v)", "a IN ('BTC')"},
		{`"type": "custom", "query": "BTC,ETH", "multi": true, "includeAll": true, "allValue": "a", "current": {"value": ["$__all"]}`, "a IN ($v)", "a IN (a)"},
		{`"type": "query", "query": "SELECT 1", "includeAll": true, "current": {"value": "BTC"}`, "a = '$v'", "a = 'BTC'"},
		{`"type": "query", "query": "SELECT 1", "includeAll": true, "current": {"value": "$__all"}`, "a IN ($v)", "a IN ('1')"},
	} {
		d := &spec.Dashboard{UID: "x", DataSource: &spec.DataSource{UID: "d"}, JSON: []byte(`{"title": "X", "templating": {"list": [{"name": "v", ` + tt.variable + `}]},
			"panels": [{"id": 1, "type": "table", "targets": [{"refId": "A", "rawSql": "` + tt.sql + `"}]}]}`)}
		list, err := dashboard.SQL(d)
		if err != nil || len(list) == 0 || list[len(list)-1].SQL != tt.want {
			t.Errorf("%s in %s: %+v (%v), want %s", tt.variable, tt.sql, list, err, tt.want)
		}
	}
}
