package spec

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/robfig/cron/v3"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

type functionValue = function.Function

// Options is what a pipeline may depend on besides its files.
type Options struct {
	Env      func(string) (string, bool) // for env(); nil: nothing is set
	Vars     map[string]string           // --var name=value
	VarFiles []VarFile                   // --var-file; later ones win
	Version  string                      // of the program, for required_version; "" skips the check
}

// VarFile is a file of variable values, read by the caller: it may lie anywhere.
type VarFile struct {
	Name string // for messages
	Src  []byte
}

type loader struct {
	fsys   fs.FS
	opt    Options
	files  map[string]*hcl.File
	diags  hcl.Diagnostics
	ctx    *hcl.EvalContext
	topics map[string]*Topic
	tables map[string]*Table
	p      *Pipeline
}

// Load reads pipeline.hcl and everything that it names. All mistakes of all files come back at once; the pipeline is
// usable only when there is no error among them. It opens no connection.
func Load(fsys fs.FS, file string, opt Options) (*Pipeline, *Diagnostics) {
	l := &loader{fsys: fsys, opt: opt, files: map[string]*hcl.File{}, topics: map[string]*Topic{}, tables: map[string]*Table{}}
	l.p = &Pipeline{File: file, FS: fsys}
	if body, _ := l.parse(file, nil); body != nil {
		l.pipeline(body)
	}
	return l.p, &Diagnostics{Diags: l.diags, Files: l.files}
}

func (l *loader) add(diags ...*hcl.Diagnostic) { l.diags = append(l.diags, diags...) }

func (l *loader) fail(r hcl.Range, summary, format string, args ...any) {
	l.add(problem(r, summary, format, args...))
}

// parse reads one file of the bundle; at is where it is named.
func (l *loader) parse(name string, at *hcl.Range) (*hclsyntax.Body, []byte) {
	src, err := readBounded(l.fsys, name)
	if err != nil {
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Cannot read " + name, Detail: sentence(err.Error()), Subject: at}
		if at == nil {
			d.Detail = sentence(err.Error()) + " Run cryptoviz in the folder that holds pipeline.hcl, or name it: --file PATH."
		}
		l.add(d)
		return nil, nil
	}
	return l.parseSource(name, src), src
}

func (l *loader) parseSource(name string, src []byte) *hclsyntax.Body {
	if diags := Prescan(src, name); diags.HasErrors() {
		l.files[name] = &hcl.File{Bytes: src[:min(len(src), MaxFile)]}
		l.add(diags...)
		return nil
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	l.add(diags...)
	if f == nil {
		return nil
	}
	l.files[name] = f
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok || diags.HasErrors() {
		return nil
	}
	return body
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func attrs(required []string, optional ...string) []hcl.AttributeSchema {
	var out []hcl.AttributeSchema
	for _, n := range required {
		out = append(out, hcl.AttributeSchema{Name: n, Required: true})
	}
	for _, n := range optional {
		out = append(out, hcl.AttributeSchema{Name: n})
	}
	return out
}

func named(kinds ...string) []hcl.BlockHeaderSchema {
	var out []hcl.BlockHeaderSchema
	for _, k := range kinds {
		out = append(out, hcl.BlockHeaderSchema{Type: k, LabelNames: []string{"name"}})
	}
	return out
}

func plain(kinds ...string) []hcl.BlockHeaderSchema {
	var out []hcl.BlockHeaderSchema
	for _, k := range kinds {
		out = append(out, hcl.BlockHeaderSchema{Type: k})
	}
	return out
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// name checks the label of a block.
func (l *loader) name(b *hcl.Block, seen map[string]hcl.Range) (string, bool) {
	name := b.Labels[0]
	if !nameForm.MatchString(name) {
		l.fail(b.LabelRanges[0], "Not a name", "A name has small letters, digits and _, begins with a letter, and is at most 48 long.")
		return name, false
	}
	if first, twice := seen[name]; twice {
		l.fail(b.LabelRanges[0], "Declared twice", "There is a %s %q already, at line %d. Rename one of them.", b.Type, name, first.Start.Line)
		return name, false
	}
	seen[name] = b.LabelRanges[0]
	return name, true
}

func (l *loader) pipeline(body *hclsyntax.Body) {
	content, diags := body.Content(&hcl.BodySchema{
		Blocks: append(named("variable", "topic", "source", "table", "rollup"), plain("cryptoviz", "kafka", "database")...),
	})
	l.add(diags...)
	blocks := content.Blocks.ByType()
	for _, kind := range []string{"cryptoviz", "kafka", "database"} {
		for i, b := range blocks[kind] {
			if i > 0 {
				l.fail(b.DefRange, "Declared twice", "There is a %s block already, at line %d.", kind, blocks[kind][0].DefRange.Start.Line)
			}
		}
	}
	l.ctx = &hcl.EvalContext{Functions: pipelineFunctions(l.fsys, l.opt.Env)}
	l.ctx.Variables = map[string]cty.Value{"var": l.variables(blocks["variable"])}
	l.header(blocks["cryptoviz"])
	l.kafka(blocks["kafka"], body)
	l.database(blocks["database"], body)
	seen := map[string]hcl.Range{}
	for _, b := range blocks["topic"] {
		l.topic(b, seen)
	}
	seen = map[string]hcl.Range{}
	for _, b := range blocks["table"] {
		l.table(b, seen)
	}
	seen, fed := map[string]hcl.Range{}, map[*Topic]string{}
	for _, b := range blocks["source"] {
		l.source(b, seen, fed)
	}
	seen = map[string]hcl.Range{}
	for _, b := range blocks["rollup"] {
		l.rollup(b, seen)
	}
	if len(blocks["source"]) == 0 && !l.diags.HasErrors() {
		l.fail(body.MissingItemRange(), "No source", "A pipeline needs at least one source block, with a topic and a table. `source \"binance\" { … }`: see the pipeline.hcl that cryptoviz comes with.")
	}
}

var versionForm = regexp.MustCompile(`^>=\s*(\d+)\.(\d+)(?:\.(\d+))?$`)

func (l *loader) header(blocks hcl.Blocks) {
	for _, raw := range blocks {
		b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "required_version")}, l.ctx)
		l.p.RequiredVersion = b.text("required_version", "")
		if l.p.RequiredVersion == "" {
			continue
		}
		m := versionForm.FindStringSubmatch(l.p.RequiredVersion)
		if m == nil {
			l.fail(b.rangeOf("required_version"), "Not a version", "Write it as \">= 0.1\".")
			continue
		}
		var have [3]int
		if n, _ := fmt.Sscanf(l.opt.Version, "%d.%d.%d", &have[0], &have[1], &have[2]); n < 2 {
			continue // a development build
		}
		var want [3]int
		for i := range want {
			want[i], _ = strconv.Atoi(m[i+1])
		}
		if slices.Compare(have[:], want[:]) < 0 {
			l.fail(b.rangeOf("required_version"), "cryptoviz too old", "This pipeline needs %s; this is cryptoviz %s. Install a newer one.", l.p.RequiredVersion, l.opt.Version)
		}
	}
}

func (l *loader) kafka(blocks hcl.Blocks, body *hclsyntax.Body) {
	if len(blocks) == 0 {
		l.fail(body.MissingItemRange(), "No kafka block", "Say where the brokers are: kafka { brokers = [\"localhost:9092\"] }.")
		return
	}
	b := l.open(blocks[0], &hcl.BodySchema{Attributes: attrs([]string{"brokers"}, "tls", "sasl_mechanism", "sasl_user", "sasl_password", "group_prefix")}, l.ctx)
	k := Kafka{
		Brokers: b.texts("brokers"), TLS: b.flag("tls", false), SASLMechanism: b.text("sasl_mechanism", ""), SASLUser: b.text("sasl_user", ""),
		SASLPassword: NewSecret(b.text("sasl_password", "")), GroupPrefix: b.text("group_prefix", "cryptoviz."), Range: b.rng,
	}
	if b.has("brokers") && len(slices.DeleteFunc(slices.Clone(k.Brokers), func(s string) bool { return strings.TrimSpace(s) == "" })) == 0 {
		l.fail(b.rangeOf("brokers"), "No brokers", "The list is empty: brokers = [\"localhost:9092\"].")
	}
	for i, broker := range k.Brokers {
		k.Brokers[i] = strings.TrimSpace(broker)
	}
	known := []string{"", "plain", "scram-sha-256", "scram-sha-512"}
	if !slices.Contains(known, k.SASLMechanism) {
		l.fail(b.rangeOf("sasl_mechanism"), "Unknown SASL mechanism", "%q is not known.%s", Clip(k.SASLMechanism), suggest(k.SASLMechanism, known[1:]))
	}
	if k.SASLMechanism != "" && k.SASLUser == "" {
		l.fail(b.rng, "No SASL user", "sasl_mechanism is set: give sasl_user and sasl_password too.")
	}
	l.p.Kafka = k
}

func (l *loader) database(blocks hcl.Blocks, body *hclsyntax.Body) {
	if len(blocks) == 0 {
		l.fail(body.MissingItemRange(), "No database block", "Say where PostgreSQL is: database { url = env(\"DATABASE_URL\") }.")
		return
	}
	b := l.open(blocks[0], &hcl.BodySchema{Attributes: attrs([]string{"url"}, "on_missing")}, l.ctx)
	d := Database{URL: NewSecret(b.text("url", "")), OnMissing: b.text("on_missing", "error"), Range: b.rng}
	if b.has("url") && d.URL.Reveal() == "" {
		l.fail(b.rangeOf("url"), "No database URL", "The value is empty: url = env(\"DATABASE_URL\").")
	}
	if d.OnMissing != "error" && d.OnMissing != "degrade" {
		l.fail(b.rangeOf("on_missing"), "Unknown value", "on_missing is \"error\" or \"degrade\".%s", suggest(d.OnMissing, []string{"error", "degrade"}))
	}
	l.p.Database = d
}

const forever = 100 * 365 * 24 * time.Hour

func (l *loader) topic(raw *hcl.Block, seen map[string]hcl.Range) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "partitions", "replication", "retention", "retention_bytes", "cleanup_policy", "compression", "config")}, l.ctx)
	t := &Topic{
		Name: name, Partitions: int32(b.integer("partitions", 1, 1, 10_000)), Replication: int16(b.integer("replication", 1, 1, 32)),
		Config: map[string]string{}, Range: b.rng,
	}
	maps.Copy(t.Config, b.textMap("config"))
	set := func(attr, key, value string) {
		if !b.has(attr) {
			return
		}
		if _, twice := t.Config[key]; twice {
			l.fail(b.rangeOf(attr), "Set twice", "%s says %s, and config says %q too. Keep one.", b.what, attr, key)
		}
		t.Config[key] = value
	}
	set("retention", "retention.ms", strconv.FormatInt(b.duration("retention", 0, time.Minute, forever).Milliseconds(), 10))
	set("retention_bytes", "retention.bytes", strconv.FormatInt(b.size("retention_bytes", 0), 10))
	set("cleanup_policy", "cleanup.policy", b.text("cleanup_policy", ""))
	set("compression", "compression.type", b.text("compression", ""))
	if ok {
		l.topics[name] = t
		l.p.Topics = append(l.p.Topics, t)
	}
}

var columnTypes = map[string]ColumnType{
	"timestamptz": Timestamptz, "text": Text, "double precision": Double, "numeric": Numeric, "bigint": Bigint, "integer": Integer, "boolean": Boolean,
}

var identifierForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func (l *loader) table(raw *hcl.Block, seen map[string]hcl.Range) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs(nil, "description", "primary_key"),
		Blocks:     append(named("column"), append(plain("hypertable"), plain("index")...)...),
	}, l.ctx)
	t := &Table{Name: name, Description: b.text("description", ""), PrimaryKey: b.texts("primary_key"), Range: b.rng}
	columns := map[string]hcl.Range{}
	for _, cb := range b.content.Blocks.OfType("column") {
		l.column(t, cb, columns)
	}
	if len(t.Columns) == 0 {
		l.fail(b.rng, "Table without columns", "%s needs column blocks: column \"time\" { type = \"timestamptz\" }.", b.what)
	}
	known := keys(columns)
	check := func(attr string, r hcl.Range, name string) *Column {
		c := t.Column(name)
		if c == nil {
			l.fail(r, "Unknown column", "%s.%s: there is no column %q.%s", b.what, attr, Clip(name), suggest(name, known))
		}
		return c
	}
	for i, k := range t.PrimaryKey {
		if slices.Contains(t.PrimaryKey[:i], k) {
			l.fail(b.rangeOf("primary_key"), "Column twice", "The primary key names %q twice.", k)
		}
		if c := check("primary_key", b.rangeOf("primary_key"), k); c != nil && (c.Null || c.Generated != "") {
			l.fail(b.rangeOf("primary_key"), "Column cannot be a key", "%q may be null or is generated; a primary key needs real values.", k)
		}
	}
	if len(t.PrimaryKey) == 0 {
		l.fail(b.rng, "No primary key", "%s needs primary_key = [\"…\"]: it is what makes a repeated sample harmless.", b.what)
	}
	for _, ib := range b.content.Blocks.OfType("index") {
		x := l.open(ib, &hcl.BodySchema{Attributes: attrs([]string{"columns"}, "name", "unique")}, l.ctx)
		idx := &Index{Columns: x.texts("columns"), Unique: x.flag("unique", false), Range: x.rng}
		idx.Name = x.text("name", strings.Join(append(append([]string{name}, idx.Columns...), "idx"), "_"))
		if !identifierForm.MatchString(idx.Name) {
			l.fail(x.rng, "Not a name", "The index name %q is not a PostgreSQL identifier of at most 63 small letters, digits and _: give name = \"…\".", Clip(idx.Name))
		}
		for _, c := range idx.Columns {
			check("index", x.rangeOf("columns"), c)
		}
		t.Indexes = append(t.Indexes, idx)
	}
	for i, hb := range b.content.Blocks.OfType("hypertable") {
		if i > 0 {
			l.fail(hb.DefRange, "Declared twice", "A table has at most one hypertable block.")
			continue
		}
		l.hypertable(t, hb, b, check)
	}
	if ok {
		l.tables[name] = t
		l.p.Tables = append(l.p.Tables, t)
	}
}

func (l *loader) column(t *Table, raw *hcl.Block, columns map[string]hcl.Range) {
	name := raw.Labels[0]
	c := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"type"}, "null", "default", "generated", "description", "unit")}, l.ctx)
	if !identifierForm.MatchString(name) {
		l.fail(raw.LabelRanges[0], "Not a column name", "A column name has small letters, digits and _, and is at most 63 long.")
		return
	}
	if first, twice := columns[name]; twice {
		l.fail(raw.LabelRanges[0], "Declared twice", "There is a column %q already, at line %d.", name, first.Start.Line)
		return
	}
	columns[name] = raw.LabelRanges[0]
	col := &Column{
		Name: name, Null: c.flag("null", false), Default: c.text("default", ""), Generated: c.text("generated", ""),
		Description: c.text("description", ""), Unit: c.text("unit", ""), Range: c.rng,
	}
	if typ := c.text("type", ""); typ != "" {
		var known bool
		if col.Type, known = columnTypes[typ]; !known {
			l.fail(c.rangeOf("type"), "Unknown column type", "%q is not a column type of this language.%s", Clip(typ), suggest(typ, keys(columnTypes)))
		}
	}
	units := []string{"price", "base", "quote", "percent", "index", "count"}
	if col.Unit != "" && !slices.Contains(units, col.Unit) {
		l.fail(c.rangeOf("unit"), "Unknown unit", "%q is not a unit.%s", Clip(col.Unit), suggest(col.Unit, units))
	}
	if col.Default != "" && col.Generated != "" {
		l.fail(c.rangeOf("generated"), "Default and generated", "A column has a default or is generated, not both.")
	}
	t.Columns = append(t.Columns, col)
}

func (l *loader) hypertable(t *Table, raw *hcl.Block, table *block, check func(string, hcl.Range, string) *Column) {
	const day = 24 * time.Hour
	h := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"time"}, "chunk_interval")}, l.ctx)
	ht := &Hypertable{Time: h.text("time", ""), ChunkInterval: h.duration("chunk_interval", day, time.Minute, 366*day), Range: h.rng}
	if ht.Time != "" {
		if c := check("hypertable", h.rangeOf("time"), ht.Time); c != nil {
			if c.Type != Timestamptz || c.Null {
				l.fail(h.rangeOf("time"), "Not a time column", "%q must be a timestamptz that is not null.", ht.Time)
			}
			if len(t.PrimaryKey) > 0 && !slices.Contains(t.PrimaryKey, ht.Time) {
				l.fail(table.rangeOf("primary_key"), "Time column not in the key", "The primary key of a hypertable must hold its time column %q.", ht.Time)
			}
		}
	}
	if day%ht.ChunkInterval != 0 && ht.ChunkInterval%day != 0 {
		l.fail(h.rangeOf("chunk_interval"), "Chunk interval", "It must divide a day (such as \"6h\") or be whole days (such as \"7d\").")
	}
	for _, idx := range t.Indexes {
		if idx.Unique && !slices.Contains(idx.Columns, ht.Time) {
			l.fail(idx.Range, "Unique index without the time column", "A unique index of a hypertable must hold its time column %q.", ht.Time)
		}
	}
	t.Hypertable = ht
}

func (l *loader) source(raw *hcl.Block, seen map[string]hcl.Range, fed map[*Topic]string) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"definition", "interval", "topic", "table"}, "enabled", "offset", "jitter", "params")}, l.ctx)
	const day = 24 * time.Hour
	s := &Source{Name: name, Enabled: b.flag("enabled", true), Interval: b.duration("interval", 0, time.Second, 7*day), Range: b.rng}
	s.Offset = b.duration("offset", 0, 0, 7*day)
	s.Jitter = b.duration("jitter", 0, 0, 7*day)
	if s.Interval > 0 {
		if day%s.Interval != 0 && s.Interval%day != 0 {
			l.fail(b.rangeOf("interval"), "Interval does not fit the day", "Slots are aligned to the day: an interval divides it (\"10s\", \"1m\", \"6h\") or is whole days.")
		}
		if s.Offset+s.Jitter >= s.Interval {
			r := b.rangeOf("offset")
			if !b.has("offset") {
				r = b.rangeOf("jitter")
			}
			l.fail(r, "Offset too long", "offset and jitter together must be shorter than the interval %s.", FormatDuration(s.Interval))
		}
	}
	if t, found := refer(b, "topic", "topic", l.topics); found {
		s.Topic = t
		if other, twice := fed[t]; twice {
			l.fail(b.rangeOf("topic"), "Topic shared", "topic.%s belongs to source %q already: each source has a topic of its own.", t.Name, other)
		}
		fed[t] = name
	}
	s.Table, _ = refer(b, "table", "table", l.tables)
	if file := b.text("definition", ""); file != "" {
		params := cty.EmptyObjectVal
		if v, _, given := b.value("params", cty.DynamicPseudoType); given {
			params = v
		}
		s.Definition = l.definition(s, path.Clean(file), b.rangeOf("definition"), params, b.rangeOf("params"))
	}
	if ok {
		l.p.Sources = append(l.p.Sources, s)
	}
}

var mergeWords = []string{"min", "max", "sum", "first", "last", "mean"}

func (l *loader) rollup(raw *hcl.Block, seen map[string]hcl.Range) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{
		Attributes: attrs([]string{"from", "into", "query"}, "schedule", "keep_raw", "late", "wait"), Blocks: plain("merge"),
	}, l.ctx)
	const day = 24 * time.Hour
	r := &Rollup{
		Name: name, Schedule: b.text("schedule", "5 0 * * *"), Query: b.text("query", ""), QueryAt: fmt.Sprintf("%s:%d", l.p.File, b.rangeOf("query").Start.Line),
		KeepRaw: b.duration("keep_raw", 0, 0, forever), Late: b.text("late", "merge"), Wait: b.duration("wait", 10*time.Minute, 0, 6*time.Hour), Range: b.rng,
	}
	if a := b.content.Attributes["query"]; a != nil {
		if call, isCall := a.Expr.(*hclsyntax.FunctionCallExpr); isCall && call.Name == "file" && len(call.Args) == 1 {
			if v, diags := call.Args[0].Value(l.ctx); !diags.HasErrors() {
				if v, _ = unmark(v); v.Type() == cty.String {
					r.QueryAt = v.AsString()
				}
			}
		}
		if strings.TrimSpace(r.Query) == "" && !l.diags.HasErrors() {
			l.fail(b.rangeOf("query"), "Empty query", "query is one SELECT with $1 and $2: start and end of the day.")
		}
		for _, p := range []string{"$1", "$2"} {
			if strings.TrimSpace(r.Query) != "" && !strings.Contains(r.Query, p) {
				l.fail(b.rangeOf("query"), "Query without "+p, "The query must use $1 and $2, the start and the end of the day: WHERE time >= $1 AND time < $2.")
			}
		}
	}
	if _, err := cron.ParseStandard(r.Schedule); err != nil || strings.Contains(r.Schedule, "TZ=") {
		l.fail(b.rangeOf("schedule"), "Not a schedule", "Five cron fields, UTC: \"5 0 * * *\" is 00:05 each day. %s", sentence(fmt.Sprint(err)))
	}
	if r.KeepRaw%day != 0 {
		l.fail(b.rangeOf("keep_raw"), "Not whole days", "keep_raw counts whole days: \"0d\", \"7d\".")
	}
	if r.Late != "merge" && r.Late != "reject" {
		l.fail(b.rangeOf("late"), "Unknown value", "late is \"merge\" or \"reject\".")
	}
	var foundFrom, foundInto bool
	r.From, foundFrom = refer(b, "from", "table", l.tables)
	r.Into, foundInto = refer(b, "into", "table", l.tables)
	if foundFrom && r.From.Hypertable == nil {
		l.fail(b.rangeOf("from"), "Table without time", "%q has no hypertable block: a rollup needs its time column and chunks.", r.From.Name)
	} else if foundFrom && r.From.Hypertable.ChunkInterval > day {
		l.fail(b.rangeOf("from"), "Chunks longer than a day", "The rollup drops whole days of %q: its chunk_interval must be \"1d\" or shorter.", r.From.Name)
	}
	if foundFrom && r.From == r.Into {
		l.fail(b.rangeOf("into"), "Rollup into its own table", "from and into must differ.")
	}
	if foundInto {
		l.merge(r, b)
	}
	if ok {
		l.p.Rollups = append(l.p.Rollups, r)
	}
}

func (l *loader) merge(r *Rollup, parent *block) {
	blocks := parent.content.Blocks.OfType("merge")
	if len(blocks) == 0 {
		if r.Late == "merge" {
			l.fail(parent.rng, "No merge block", "late = \"merge\" needs a merge block that says, column by column, how late samples join the stored hour; or set late = \"reject\".")
		}
		return
	}
	b := l.open(blocks[0], &hcl.BodySchema{Attributes: attrs([]string{"columns"}, "count", "first", "last")}, l.ctx)
	r.Merge = Merge{Columns: b.textMap("columns"), Count: b.text("count", ""), First: b.text("first", ""), Last: b.text("last", "")}
	var free []string
	for _, c := range r.Into.Columns {
		if c.Generated == "" && !slices.Contains(r.Into.PrimaryKey, c.Name) {
			free = append(free, c.Name)
		}
	}
	needs := map[string]string{}
	for _, column := range slices.Sorted(maps.Keys(r.Merge.Columns)) {
		word := r.Merge.Columns[column]
		if !slices.Contains(free, column) {
			l.fail(b.rangeOf("columns"), "Unknown column", "merge: %q is no column of %s that can be merged.%s", Clip(column), r.Into.Name, suggest(column, free))
		}
		if !slices.Contains(mergeWords, word) {
			l.fail(b.rangeOf("columns"), "Unknown merge", "%s = %q: there is no such merge.%s", column, Clip(word), suggest(word, mergeWords))
		}
		needs[word] = column
	}
	for _, c := range free {
		if _, found := r.Merge.Columns[c]; !found {
			l.fail(b.rangeOf("columns"), "Column without a merge", "Say how a late %q joins the stored one: %s = \"…\" (%s).", c, c, strings.Join(mergeWords, ", "))
		}
	}
	for word, attr := range map[string]string{"mean": r.Merge.Count, "first": r.Merge.First, "last": r.Merge.Last} {
		name := map[string]string{"mean": "count", "first": "first", "last": "last"}[word]
		if column, used := needs[word]; used && attr == "" {
			l.fail(b.rng, "Merge needs a column", "%s = %q needs `%s = \"…\"`: the column that weighs or orders it.", column, word, name)
		}
		if attr != "" && !slices.Contains(free, attr) {
			l.fail(b.rangeOf(name), "Unknown column", "merge.%s: %q is no column of %s.%s", name, Clip(attr), r.Into.Name, suggest(attr, free))
		}
	}
}
