package shadow

import (
	"slices"
	"testing"
)

func TestStatement(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"SELECT 1", "SELECT 1"},
		{" SELECT 1 ;; -- end; \n", "SELECT 1"},
		{"-- first\nSELECT 1 /* a ; /* b */ ; */;", "-- first\nSELECT 1"},
		{"SELECT ';' AS a, \"x;--\" FROM t;", "SELECT ';' AS a, \"x;--\" FROM t"},
		{"SELECT $$a;$$, $q$;$q$ ;", "SELECT $$a;$$, $q$;$q$"},
		{`SELECT E'it\'s;' ; --`, `SELECT E'it\'s;'`},
		{`SELECT 'a\' ;`, `SELECT 'a\'`},
		{"SELECT 'open ; -- ", "SELECT 'open ; --"},
		{"SELECT $1, a$b FROM t;", "SELECT $1, a$b FROM t"},
		{"-- nothing", ""},
		{"/* open", ""},
	} {
		if have := Statement(c.in); have != c.want {
			t.Errorf("statement(%q) = %q, want %q", c.in, have, c.want)
		}
	}
}

func TestMentions(t *testing.T) {
	t.Parallel()
	names := []string{"base", "coins", "top", "it's"}
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"SELECT * FROM Base JOIN public.\"coins\"", []string{"base", "coins"}},
		{"SELECT 'base' FROM bases -- top\n /* coins */", nil},
		{"SELECT $$ base $$ FROM \"Base\"", nil},
		{"SELECT * FROM \"it's\"", []string{"it's"}},
	} {
		if have := Mentions(c.in, names); !slices.Equal(have, c.want) {
			t.Errorf("mentions(%q) = %q, want %q", c.in, have, c.want)
		}
	}
}

func TestAppended(t *testing.T) {
	t.Parallel()
	const have = "SELECT bucket,\n    max(price) AS high\n   FROM t\n  GROUP BY bucket"
	for _, c := range []struct {
		want  string
		names []string
		exprs []string
	}{
		{"SELECT bucket,\n    max(price) AS high,\n    min(price) AS low\n   FROM t\n  GROUP BY bucket", []string{"low"}, []string{"min(price)"}},
		{"SELECT bucket,\n    max(price) AS high,\n    first(price, t) AS \"First\",\n        CASE\n            WHEN (a > ','::text) THEN sum(b)\n        END AS c\n   FROM t\n  GROUP BY bucket", []string{"First", "c"}, []string{"first(price, t)", "CASE\n            WHEN (a > ','::text) THEN sum(b)\n        END"}},
		{"SELECT bucket,\n    min(price) AS low,\n    max(price) AS high\n   FROM t\n  GROUP BY bucket", []string{"low"}, nil},
		{"SELECT bucket,\n    max(price) AS high,\n    min(price) AS low\n   FROM t\n  GROUP BY bucket, x", []string{"low"}, nil},
		{"SELECT bucket,\n    max(price) AS high,\n    low\n   FROM t\n  GROUP BY bucket", []string{"low"}, nil},
		{have, nil, nil},
	} {
		exprs, ok := appended(have, c.want, c.names)
		if ok != (c.exprs != nil) || !slices.Equal(exprs, c.exprs) {
			t.Errorf("appended(%q) = %q, %t", c.want, exprs, ok)
		}
	}
}

func TestUnqualified(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"SELECT public.good.w FROM public.good":              "SELECT        good.w FROM        good",
		`SELECT * FROM PUBLIC . "good" -- public.good`:       `SELECT * FROM          "good" -- public.good`,
		"SELECT 'public.good' FROM other.good, public.other": "SELECT 'public.good' FROM other.good, public.other",
		"SELECT db.public.good, publicgood":                  "SELECT db.public.good, publicgood",
	} {
		if got := unqualified(sql, "public", []string{"good"}); got != want {
			t.Errorf("%s: %s", sql, got)
		}
	}
}

func TestQualified(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"SELECT a.n,\n    b.a\n   FROM (a\n     JOIN b ON ((a.n = b.n)))":                                         "SELECT a.n,\n    b.a\n   FROM (m.a\n     JOIN m.b ON ((a.n = b.n)))",
		"SELECT a,\n    b\n   FROM other":                                                                         "SELECT a,\n    b\n   FROM other",
		"SELECT a\n   FROM a x,\n    b\n  WHERE (EXISTS ( SELECT 1 FROM b b_1 WHERE (b_1.n = x.n)))\n ORDER BY a": "SELECT a\n   FROM m.a x,\n    m.b\n  WHERE (EXISTS ( SELECT 1 FROM m.b b_1 WHERE (b_1.n = x.n)))\n ORDER BY a",
		"SELECT n FROM m.a UNION SELECT n FROM ONLY b":                                                            "SELECT n FROM m.a UNION SELECT n FROM ONLY m.b",
		"WITH a AS ( SELECT 1 AS n FROM b) SELECT n FROM a":                                                       "WITH a AS ( SELECT 1 AS n FROM m.b) SELECT n FROM a",
		"SELECT EXTRACT(epoch FROM a.time) AS e, 'FROM a' AS t FROM \"a\"":                                        "SELECT EXTRACT(epoch FROM a.time) AS e, 'FROM a' AS t FROM m.\"a\"",
		"SELECT count(*) AS count FROM ( SELECT a.n FROM a LIMIT 5) a":                                            "SELECT count(*) AS count FROM ( SELECT a.n FROM m.a LIMIT 5) a",
	} {
		if got := qualified(text, []string{"a", "b"}, func(string) string { return "m" }); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}
