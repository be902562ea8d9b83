package pg

import (
	"strings"
	"testing"
)

func TestFoldedTimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ sql, typ, want string }{
		{sql: "SELECT * FROM t WHERE time > 'now'::timestamptz - interval '1 day'", want: "'now'::timestamptz = now()"},
		{sql: "SELECT timestamp 'now'", want: "timestamp 'now' = localtimestamp"},
		{sql: "SELECT TIMESTAMP(3) WITH TIME ZONE ' NOW '", want: "TIMESTAMP(3) WITH TIME ZONE ' NOW ' = now()"},
		{sql: "SELECT CAST('today' AS date), cast ( ('Tomorrow') as timestamp without time zone )", want: "CAST('today' AS date) = current_date; cast ( ('Tomorrow') as timestamp without time zone ) = current_date + 1"},
		{sql: "SELECT date 'yesterday', E'now'::time, $$now$$::pg_catalog.timetz", want: "date 'yesterday' = current_date - 1; E'now'::time = localtime; $$now$$::pg_catalog.timetz = current_time"},
		{sql: "SELECT ('now')::\"timestamptz\", date('now')", want: "('now')::\"timestamptz\" = now(); date('now') = current_date"},
		{sql: "SELECT 'today 12:30'::timestamptz(0)", want: "'today 12:30'::timestamptz(0) = current_date + time '12:30'"},
		{sql: "SELECT 1 FROM t WHERE x.time >= 'yesterday' AND 'now' > t.\"time\" AND time BETWEEN 'yesterday' AND 'today'", want: "'yesterday' = current_date - 1; 'now' = now(); 'yesterday' = current_date - 1; 'today' = current_date"},
		{sql: "SELECT age(time, 'now'), date_bin('1h', 'today', t.time), age(other, 'now')", want: "'now' = now(); 'today' = current_date"},
		{sql: "SELECT coalesce(time, 'now'), greatest('today', f(a, b), t.time), coalesce(note, 'now'), lower('now')", want: "'now' = now(); 'today' = current_date"},
		{sql: "SELECT 1 FROM t WHERE time IN ('today', 'yesterday') OR kind NOT IN ('now', 'today')", want: "'today' = current_date; 'yesterday' = current_date - 1"},
		{sql: "'now'", typ: "timestamptz", want: "'now' = now()"},
		{sql: "('today')", typ: "timestamptz", want: "('today') = current_date"},
		{sql: "'now'", typ: "text"},
		{sql: "SELECT 'now', 'now'::text, 'now'::text::timestamptz, 'today' AS date, date, 'now' FROM t WHERE state = 'now' AND kind <> 'today'"},
		{sql: "SELECT now() -- 'now'::timestamptz\n, /* timestamp 'now' */ '''now''::timestamptz', $x$'now'::date$x$, \"'now'::date\""},
		{sql: "SELECT 'nowhere'::timestamptz, 'epoch'::timestamptz, timestamp 'infinity', 'now'::timestamptz[], CAST('now' AS text), t.date 'now'"},
	} {
		var have []string
		for _, f := range FoldedTimes(c.sql, c.typ, func(name string) bool { return name == "time" }) {
			have = append(have, c.sql[f.Start:f.End]+" = "+f.Instead)
		}
		if got := strings.Join(have, "; "); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.sql, got, c.want)
		}
	}
}

func FuzzFoldedTimes(f *testing.F) {
	for _, s := range []string{"'now'::date", "date 'now'", "CAST('now' AS time(", "time BETWEEN 'now' AND 'now'", "('now'", "'now'::", "time ="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		for _, c := range FoldedTimes(sql, "date", func(string) bool { return true }) {
			if c.Start < 0 || c.End <= c.Start || c.End > len(sql) {
				t.Fatalf("%q: %+v", sql, c)
			}
		}
	})
}
