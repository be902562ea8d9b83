package provision_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// maker makes random specs. All its names begin with the prefix, so that many seeds share servers.
type maker struct {
	*rand.Rand
	prefix    string
	n         int
	timescale bool
}

func newMaker(seed uint64, prefix string, timescale bool) *maker {
	return &maker{Rand: rand.New(rand.NewPCG(seed, 1)), prefix: prefix, timescale: timescale} //nolint:gosec // reproducible
}

func (m *maker) one(in int) bool { return m.IntN(in) == 0 }

func pick[T any](m *maker, list ...T) T { return list[m.IntN(len(list))] }

// some returns each of a list with a chance of one half, in the list's order.
func some[T any](m *maker, list []T) (out []T) {
	for _, x := range list {
		if m.one(2) {
			out = append(out, x)
		}
	}
	return out
}

func shuffled[T any](m *maker, list []T) []T {
	out := slices.Clone(list)
	m.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (m *maker) name(kind string) string {
	m.n++
	return fmt.Sprintf("%s_%s%d", m.prefix, kind, m.n)
}

// words are texts of which each has been somebody's bug.
func (m *maker) words() string {
	return pick(m, "", "plain", "it's", `say "no"`, `a\b \n`, "50 %", "${not} %{me}", "ü 漢字 🙂", "two\nlines", " blank ends ", "$1 $$ $tag$", "-- no comment", "/* nor */ this", "tab\there", "'; DROP TABLE x; --")
}

func (m *maker) title() string { return "A " + strings.TrimSpace(m.words()) + " " + m.name("x") }

func (m *maker) pipeline() *spec.Pipeline {
	p := &spec.Pipeline{Database: spec.Database{OnMissing: "degrade"}}
	for range 1 + m.IntN(3) {
		p.Topics = append(p.Topics, m.topic())
	}
	for range 1 + m.IntN(3) {
		p.Tables = append(p.Tables, m.table())
	}
	for range m.IntN(3) {
		p.Views = append(p.Views, m.view(p))
	}
	if m.timescale && m.one(2) {
		if a := m.aggregate(p); a != nil {
			p.Aggregates = append(p.Aggregates, a)
		}
	}
	for range m.IntN(3) {
		p.Roles = append(p.Roles, m.role(p))
	}
	for range 1 + m.IntN(2) {
		p.Folders = append(p.Folders, m.folder(p))
	}
	p.DataSources = append(p.DataSources, m.dataSource())
	for range m.IntN(3) {
		p.Dashboards = append(p.Dashboards, m.dashboard(p))
	}
	for range m.IntN(3) {
		p.Alerts = append(p.Alerts, m.alert(p))
	}
	return p
}

func (m *maker) topic() *spec.Topic {
	t := &spec.Topic{Name: m.name("topic"), Partitions: int32(1 + m.IntN(3)), Replication: 1, Config: map[string]string{}}
	if m.one(15) {
		t.Replication = 2 // there is one broker
	}
	for range m.IntN(5) {
		key, value := m.setting()
		t.Config[key] = value
	}
	return t
}

// setting is a key of a topic's config, with a value in one of the forms that Kafka takes.
func (m *maker) setting() (key, value string) {
	values := map[string][]string{
		"retention.ms": {"3600000", "604800000", "-1", " 86400000 "}, "retention.bytes": {"-1", "1073741824", "01000000"},
		"cleanup.policy": {"delete", "compact", "compact,delete", "delete, compact"}, "compression.type": {"producer", "zstd", "lz4", "uncompressed"},
		"segment.ms": {"3600000", "86400000"}, "segment.bytes": {"1048576", "16777216"}, "max.message.bytes": {"1000", "1048588", "2000000"},
		"min.insync.replicas": {"1", "2"}, "message.timestamp.type": {"CreateTime", "LogAppendTime"}, "min.cleanable.dirty.ratio": {"0.5", "0.50", "0.1", "1", "5e-1"},
		"unclean.leader.election.enable": {"true", "FALSE", "false"}, "preallocate": {"true", "False"}, "flush.messages": {"9223372036854775807", "10000"},
		"delete.retention.ms": {"0", "86400000"}, "max.compaction.lag.ms": {"9223372036854775807", "86400000"}, "file.delete.delay.ms": {"60000"},
		"retention.mss": {"1"}, "segment.jitter.ms": {"0", "soon"},
	}
	keys := slices.Sorted(maps.Keys(values))
	if !m.one(20) {
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == "retention.mss" || k == "segment.jitter.ms" })
	}
	key = pick(m, keys...)
	return key, pick(m, values[key]...)
}

func (m *maker) table() *spec.Table {
	t := &spec.Table{Name: m.name("table"), Description: m.words()}
	t.Columns = []*spec.Column{{Name: "k", Type: spec.Text}, {Name: "t", Type: spec.Timestamptz}}
	for range m.IntN(5) {
		t.Columns = append(t.Columns, m.column(t))
	}
	m.Shuffle(len(t.Columns), func(i, j int) { t.Columns[i], t.Columns[j] = t.Columns[j], t.Columns[i] })
	t.PrimaryKey = m.key(t)
	if m.one(2) {
		t.Hypertable = m.hypertable()
	}
	for range m.IntN(3) {
		t.Indexes = append(t.Indexes, m.index(t))
	}
	return t
}

var defaults = map[spec.ColumnType][]string{
	spec.Text:        {"'a'", "'it''s'", "''", "'x'::text", "upper('a')", "current_user", `E'a\nb'`, "'a' || 'b'", "('ü')", "NULL", "'a'::varchar(3)", "md5(random()::text)"},
	spec.Double:      {"0", "0.0", "-1.5", "1e3", "1.5::double precision", "'NaN'", "random()", "pi()", "1 / 2.0", "'infinity'", "1.5::numeric", "0.1::real"},
	spec.Numeric:     {"0", "1.50", "-1", "'-1'::numeric", "1e-8", "1::bigint", "round(1.55, 1)"},
	spec.Bigint:      {"0", "-1", "9223372036854775807", "1 + 1", "length('abc')", "'7'", "1.4", "extract(epoch FROM now())::bigint"},
	spec.Integer:     {"0", "-1", "2147483647", "1::integer", "(2)", "1::bigint", "'8'::int"},
	spec.Boolean:     {"true", "'t'", "NOT false", "1 = 2", "FALSE", "true AND NOT false"},
	spec.Timestamptz: {"now()", "'2026-01-01 00:00:00+00'", "CURRENT_TIMESTAMP", "'epoch'", "now() - interval '1 day'", "'infinity'::timestamptz", "date_trunc('day', now())"},
}

// computed are expressions of generated columns over a column c of a type.
var computed = map[spec.ColumnType]map[spec.ColumnType][]string{
	spec.Text:    {spec.Text: {"upper(c)", "c || '-' || c", "coalesce(c, 'none')"}, spec.Double: {"CASE WHEN c > 0 THEN 'up' ELSE 'down' END"}},
	spec.Double:  {spec.Double: {"c * 2", "coalesce(c, 0)", "c / nullif(c, 0)", "least(1, c)"}, spec.Integer: {"c * 1.5", "c::double precision"}},
	spec.Numeric: {spec.Integer: {"c + 0.5"}, spec.Numeric: {"round(c, 2)"}},
	spec.Bigint:  {spec.Text: {"length(c)"}, spec.Bigint: {"-c", "c + 1"}, spec.Integer: {"c * 2"}},
	spec.Integer: {spec.Text: {"char_length(c)"}, spec.Integer: {"abs(c)"}},
	spec.Boolean: {spec.Double: {"c > 0", "c IS NULL"}, spec.Text: {"c <> ''"}, spec.Boolean: {"NOT c"}},
}

// reserved names must be quoted wherever they stand.
var reserved = []string{"order", "user", "select", "end", "window", "default", "a_long_name_of_a_column_that_reaches_the_limit_of_postgresql_63"}

func (m *maker) column(t *spec.Table) *spec.Column {
	c := &spec.Column{Name: m.name("c"), Null: m.one(2), Description: m.words()}
	if name := pick(m, reserved...); m.one(4) && t.Column(name) == nil {
		c.Name = name
	}
	c.Type = m.columnType()
	m.value(t, c)
	return c
}

func (m *maker) columnType() spec.ColumnType {
	return pick(m, spec.Timestamptz, spec.Text, spec.Double, spec.Numeric, spec.Bigint, spec.Integer, spec.Boolean)
}

// value gives a column a default, an expression or neither.
func (m *maker) value(t *spec.Table, c *spec.Column) {
	c.Default, c.Generated = "", ""
	switch m.IntN(5) {
	case 0, 1:
		c.Default = pick(m, defaults[c.Type]...)
		if c.Default == "NULL" {
			c.Null = true
		}
	case 2:
		for _, from := range shuffled(m, t.Columns) {
			if texts := computed[c.Type][from.Type]; from.Generated == "" && from.Name != c.Name && texts != nil {
				c.Generated, c.Null = over(pick(m, texts...), from.Name), true
				return
			}
		}
	}
}

// over puts a column's name in the place of c.
func over(text, name string) string {
	return regexp.MustCompile(`\bc\b`).ReplaceAllLiteralString(text, `"`+name+`"`)
}

func (m *maker) key(t *spec.Table) []string {
	out := []string{"k", "t"}
	for _, c := range t.Columns {
		if c.Name != "k" && c.Name != "t" && !c.Null && c.Generated == "" && m.one(4) {
			out = append(out, c.Name)
		}
	}
	return shuffled(m, out)
}

func (m *maker) hypertable() *spec.Hypertable {
	h := &spec.Hypertable{Time: "t", ChunkInterval: pick(m, hour, 6*hour, day, 7*day)}
	if m.one(2) {
		h.Retention = pick(m, 30*day, 90*day, 36*hour+30*time.Minute)
	}
	if m.one(2) {
		h.Columnstore = &spec.Columnstore{After: pick(m, 2*hour, day)}
		if m.one(2) {
			h.Columnstore.SegmentBy = []string{"k"}
		}
		if m.one(2) {
			h.Columnstore.OrderBy = []string{pick(m, "t", "t DESC")}
		}
	}
	return h
}

func (m *maker) index(t *spec.Table) *spec.Index {
	var names []string
	for _, c := range t.Columns {
		names = append(names, c.Name)
	}
	x := &spec.Index{Name: m.name("idx"), Columns: shuffled(m, names)[:1+m.IntN(2)], Unique: m.one(5)}
	if x.Unique {
		x.Columns = shuffled(m, []string{"t", "k"})
	}
	return x
}

func (m *maker) view(p *spec.Pipeline) *spec.View {
	return &spec.View{Name: m.name("view"), Description: m.words(), Query: m.query(p, len(p.Views))}
}

// query reads one of the tables, or one of the first n views.
func (m *maker) query(p *spec.Pipeline, n int) string {
	if n > 0 && m.one(3) {
		return fmt.Sprintf(pick(m, "SELECT * FROM %s", "SELECT count(*) AS n FROM %s", "SELECT x.* FROM %s AS x WHERE true;"), p.Views[m.IntN(n)].Name)
	}
	if len(p.Tables) == 0 {
		return "SELECT v FROM (VALUES (1), (2)) AS y(v)"
	}
	t := pick(m, p.Tables...)
	text := pick(m,
		"SELECT * FROM T",
		"SELECT * FROM T WHERE k <> 'it''s' -- why not",
		"SELECT k, count(*) AS n, max(t) AS last FROM T GROUP BY k HAVING count(*) > 0 ORDER BY 2 LIMIT 10",
		"WITH a AS (SELECT k FROM T)\nSELECT a.k, b.t FROM a JOIN T b USING (k)",
		"SELECT DISTINCT ON (k) k, t FROM T ORDER BY k, t DESC;",
		"SELECT k, CASE WHEN t > now() THEN 'new' ELSE 'old' END AS \"the age\" FROM T",
		"SELECT k, row_number() OVER w AS n FROM T WINDOW w AS (PARTITION BY k ORDER BY t)",
		"SELECT x.k, one FROM T x, LATERAL (SELECT 1 AS one) y UNION ALL SELECT 'z', 2 /* the end */",
		"SELECT k, jsonb_build_object('a', 1) ->> 'a' AS j, t AT TIME ZONE 'UTC' AS local FROM T",
		"SELECT k, t::date AS day, extract(hour FROM t) AS h FROM T WHERE t BETWEEN now() - interval '1 day' AND now()",
		"SELECT \"C\" AS one, k FROM T WHERE \"C\" IS NOT NULL",
		"SELECT a.*, b.k AS other FROM T a LEFT JOIN T b ON b.k = a.k AND b.t < a.t",
	)
	return strings.ReplaceAll(ofTable(text, t), `"C"`, `"`+pick(m, t.Columns...).Name+`"`)
}

func ofTable(text string, t *spec.Table) string {
	return regexp.MustCompile(`\bT\b`).ReplaceAllLiteralString(text, t.Name)
}

func (m *maker) aggregate(p *spec.Pipeline) *spec.Aggregate {
	for _, t := range shuffled(m, p.Tables) {
		if t.Hypertable == nil || t.Hypertable.Retention > 0 {
			continue
		}
		a := &spec.Aggregate{Name: m.name("agg"), Description: m.words(), From: t, RealTime: m.one(2), Query: m.buckets(t)}
		if m.one(2) {
			a.Refresh = &spec.Refresh{Start: pick(m, 2*day, 7*day), End: pick(m, 0, hour), Every: pick(m, 10*time.Minute, hour)}
		}
		if m.one(3) {
			a.Retention = pick(m, 90*day, 365*day)
		}
		return a
	}
	return nil
}

func (m *maker) buckets(t *spec.Table) string {
	return ofTable(pick(m,
		"SELECT time_bucket('1 hour', t) AS bucket, k, count(*) AS n FROM T GROUP BY 1, 2",
		"SELECT time_bucket(interval '15 minutes', t) AS bucket, count(*) AS n, max(t) AS last FROM T GROUP BY bucket",
		"SELECT k, time_bucket('6 hours', t) AS b, min(t) AS first FROM T WHERE k <> 'x' GROUP BY k, time_bucket('6 hours', t)",
	), t)
}

func (m *maker) role(p *spec.Pipeline) *spec.Role {
	r := &spec.Role{Name: m.name("role"), Login: m.one(2), ReadOnly: m.one(2)}
	if m.one(2) {
		r.Password = spec.NewSecret(pick(m, "secret", `it's "secret" \ $1`, "another"))
	}
	if m.one(2) {
		r.Timeout = pick(m, 500*time.Millisecond, 30*time.Second, hour)
	}
	for range m.IntN(3) {
		if g := m.grant(p); g != nil {
			r.Grants = append(r.Grants, g)
		}
	}
	return r
}

func (m *maker) grant(p *spec.Pipeline) *spec.Grant {
	privileges := some(m, []string{"select", "insert", "update", "delete"})
	on := some(m, append(relations(p), "cryptoviz"))
	if len(privileges) == 0 || len(on) == 0 {
		return nil
	}
	return &spec.Grant{Privileges: privileges, On: on}
}

func relations(p *spec.Pipeline) (out []string) {
	for _, t := range p.Tables {
		out = append(out, t.Name)
	}
	for _, v := range p.Views {
		out = append(out, v.Name)
	}
	for _, a := range p.Aggregates {
		out = append(out, a.Name)
	}
	return out
}
