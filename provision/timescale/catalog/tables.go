package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Snapshot is the database at one moment.
type Snapshot struct {
	Caps       Capabilities
	Relations  map[string]*Relation // by name: what an unqualified name means, the engine's own left out
	Aggregates map[string]*AggregateRef
	Jobs       []Job
	// There is a hypertable in a schema that the session's user may not use. Some of TimescaleDB's views look up each
	// hypertable by its name, which PostgreSQL then refuses to each reader, also for other hypertables.
	barred bool
}

// Relation is a table, or something else with a name among tables.
type Relation struct {
	OID          uint32
	Schema, Name string
	Kind         string // pg_class.relkind: r table, p partitioned table, v view, m materialized view, f foreign table
	Comment      string
	partKey      string // "RANGE (time)", as PostgreSQL writes it
	Rows         int64  // an estimate, chunks and partitions included; -1: never analyzed
	Bytes        int64  // the same, without indexes
	Columns      []Column
	Indexes      []Index
	partial      bool // the text of some column or index was not asked for: see Catalog.whole
	Parts        []Partition
	Hyper        *Hypertable
}

// Column is a column of a table.
type Column struct {
	num        int16  // pg_attribute.attnum
	Name, Type string // Type in the language's spelling, where it knows it
	NotNull    bool
	Expr       string // of the default, or of GENERATED
	Generated  bool
	Virtual    bool // … when it is read, and stored nowhere: PostgreSQL 18
	Identity   bool
	Comment    string
}

// Index is an index of a table.
type Index struct {
	Name       string
	Constraint string // that it belongs to, "" for none
	Primary    bool
	Unique     bool
	Valid      bool
	Columns    []string
	Using      string // "" for a plain index over columns, else the text after USING
}

// Partition is a native partition. A zero time is an open bound, or one that is no time.
type Partition struct {
	Schema, Name string
	From, To     time.Time
	Rows         int64 // an estimate; -1: unknown
}

// Hypertable is TimescaleDB's side of a table.
type Hypertable struct {
	Time       string
	interval   time.Duration
	Chunks     int
	Columnar   bool // the columnstore is on
	SegmentBy  []string
	OrderBy    []string // "time DESC"
	Retention  *Job
	Conversion *Job // policy_compression
}

// AggregateRef is where a continuous aggregate belongs.
type AggregateRef struct {
	Schema, Name             string
	FromSchema, FromName     string // the hypertable that it reads, or another aggregate's materialization
	StoredSchema, StoredName string // the hypertable with its rows
	Refresh                  []*Job
}

// Job is a policy of TimescaleDB.
type Job struct {
	ID           int
	Proc         string // policy_retention, policy_compression or policy_refresh_continuous_aggregate
	Schema, Name string // of the hypertable, or the aggregate
	Scheduled    bool
	Next         *time.Time
	Every        time.Duration
	DropAfter    *time.Duration
	After        *time.Duration // of policy_compression
	Start, End   *time.Duration // of a refresh; nil is open
	number       string         // of a table that is cut by a number: dropAfter or after, as it stands in the policy
}

// Column returns the column of that name, or nil.
func (r *Relation) Column(name string) *Column {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return &r.Columns[i]
		}
	}
	return nil
}

// Index returns the index of that name, or nil.
func (r *Relation) Index(name string) *Index {
	for i := range r.Indexes {
		if r.Indexes[i].Name == name {
			return &r.Indexes[i]
		}
	}
	return nil
}

// Key returns the primary key's index, or nil.
func (r *Relation) Key() *Index {
	for i := range r.Indexes {
		if r.Indexes[i].Primary {
			return &r.Indexes[i]
		}
	}
	return nil
}

func (s *Snapshot) count(kinds ...string) (n int) {
	for _, r := range s.Relations {
		for _, k := range kinds {
			if r.Kind == k {
				n++
			}
		}
	}
	return n
}

// EngineRelations are the engine's own. They may be visible: a database user named cryptoviz has the schema cryptoviz
// in its path.
var EngineRelations = []string{
	"meta", "source", "position", "slot", "slot_day", "dead_letter", "dead_letter_hour", "gap", "rollup_day",
	"rolled_sample", "rolled_table", "rollup_state", "mode", "managed", "pause", "hint",
}

// typeNames maps PostgreSQL's long names to the language's.
var typeNames = map[string]string{"timestamp with time zone": "timestamptz"}

// read reads everything: a few queries, whatever the number of tables.
func (c *Catalog) read(ctx context.Context) (*Snapshot, error) {
	s := &Snapshot{Relations: map[string]*Relation{}, Aggregates: map[string]*AggregateRef{}}
	c.Count()
	err := pgx.BeginTxFunc(ctx, c.DB, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			counted := &countedTx{tx, c}
			var err error
			if s.Caps, err = Detect(ctx, counted); err != nil {
				return err
			}
			// compiling these queries takes longer than running them
			if err := pg.SetLocal(ctx, counted, "jit", "off"); err != nil {
				return err
			}
			if err := s.readAll(ctx, counted, c.declaredNames()); err != nil {
				return fmt.Errorf("read the database's catalog: %w", err)
			}
			c.Count()
			return errRollback
		})
	if errors.Is(err, errRollback) {
		return s, nil
	}
	return nil, c.busy(ctx, err)
}

func (s *Snapshot) readAll(ctx context.Context, tx pgx.Tx, declaredNames nameSet) error {
	// Before plainText: what is visible depends on the session's own search_path.
	byOID, err := s.readRelations(ctx, tx)
	if err != nil {
		return err
	}
	if err := pg.PlainText(ctx, tx); err != nil {
		return err
	}
	if err := s.readParts(ctx, tx, byOID, nameSet(nil).of(s.Relations, "r", "p"), declaredNames.of(s.Relations, "r",
		"p")); err != nil {
		return err
	}
	partitioned := nameSet(nil).of(s.Relations, "p")
	if len(partitioned) > 0 {
		if err := readPartitions(ctx, tx, byOID, partitioned); err != nil {
			return err
		}
	}
	if s.Caps.Version == "" {
		return nil
	}
	return s.readTimescale(ctx, tx)
}

// readRelations asks for nothing that locks a relation: pg_get_partkeydef and pg_total_relation_size do, and wait for
// who holds it.
func (s *Snapshot) readRelations(ctx context.Context, tx pgx.Tx) (map[uint32]*Relation, error) {
	byOID := map[uint32]*Relation{}
	var r Relation
	err := pg.ForEach(ctx, tx, `SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, coalesce(d.description, ''),
		coalesce((SELECT CASE p.partstrat WHEN 'r' THEN 'RANGE' WHEN 'l' THEN 'LIST' ELSE 'HASH' END || ' (' || string_agg(coalesce(quote_ident(a.attname), 'an expression'), ', ' ORDER BY k.i) || ')'
			FROM pg_partitioned_table p, unnest(p.partattrs::int2[]) WITH ORDINALITY k(num, i) LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num WHERE p.partrelid = c.oid GROUP BY p.partstrat), ''),
		CASE WHEN k.n > 0 AND k.known THEN k.rows WHEN k.n > 0 THEN -1 ELSE c.reltuples::bigint END,
		(coalesce(k.pages, 0) + greatest(c.relpages, 0)) * current_setting('block_size')::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
		LEFT JOIN LATERAL (SELECT count(*) AS n, bool_and(p.reltuples >= 0) AS known, sum(p.reltuples)::bigint AS rows, sum(p.relpages)::bigint AS pages FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid WHERE i.inhparent = c.oid) k ON true
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND pg_table_is_visible(c.oid)
		AND n.nspname <> 'information_schema' AND n.nspname !~ '^(pg_|_?timescaledb)'
		AND NOT (n.nspname = 'cryptoviz' AND c.relname::text = ANY($1))
		AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`, []any{EngineRelations},
		[]any{&r.OID, &r.Schema, &r.Name, &r.Kind, &r.Comment, &r.partKey, &r.Rows, &r.Bytes}, func() error {
			one := r
			s.Relations[r.Name], byOID[r.OID] = &one, &one
			return nil
		})
	return byOID, err
}

// readParts reads the columns and indexes of tables, and of some of them also the text of what takes a lock to write
// down.
func (s *Snapshot) readParts(ctx context.Context, tx pgx.Tx, byOID map[uint32]*Relation, oids, whole []int64) error {
	if err := readColumns(ctx, tx, byOID, oids, whole); err != nil {
		return err
	}
	return s.readIndexes(ctx, tx, byOID, oids, whole)
}

// readColumns names the relation to pg_get_expr only where it must, for a generated column: it locks it, and would wait
// for who holds it.
func readColumns(ctx context.Context, tx pgx.Tx, byOID map[uint32]*Relation, oids, whole []int64) error {
	var oid uint32
	var c Column
	return pg.ForEach(ctx, tx, `SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
		coalesce(CASE WHEN a.attgenerated = '' THEN pg_get_expr(e.adbin, 0) WHEN a.attrelid = ANY($2::bigint[]::oid[]) THEN pg_get_expr(e.adbin, e.adrelid) END, ''),
		a.attgenerated <> '', a.attgenerated = 'v', a.attidentity <> '', coalesce(d.description, '')
		FROM pg_attribute a LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
		LEFT JOIN pg_description d ON d.objoid = a.attrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
		WHERE a.attrelid = ANY($1::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum`, []any{oids, whole},
		[]any{&oid, &c.num, &c.Name, &c.Type, &c.NotNull, &c.Expr, &c.Generated, &c.Virtual, &c.Identity, &c.Comment},
		func() error {
			if short := typeNames[c.Type]; short != "" {
				c.Type = short
			}
			r := byOID[oid]
			r.Columns, r.partial = append(r.Columns, c), r.partial || c.Generated && c.Expr == ""
			return nil
		})
}

// unread stands after USING of an unusual index whose definition was not asked for.
const unread = "a definition that was not read"

// readIndexes asks for the definition of what is no plain index over columns: pg_get_indexdef locks the table, too.
func (s *Snapshot) readIndexes(ctx context.Context, tx pgx.Tx, byOID map[uint32]*Relation, oids, whole []int64) error {
	var oid uint32
	var x Index
	var keys []int16
	var definition *string
	nullsDiffer := "true"
	if s.Caps.Number >= 150000 {
		nullsDiffer = "NOT i.indnullsnotdistinct"
	}
	return pg.ForEach(ctx, tx, `SELECT i.indrelid, c.relname::text, coalesce(k.conname::text, ''), i.indisprimary, i.indisunique, i.indisvalid, i.indkey::int2[],
		CASE WHEN m.amname = 'btree' AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts AND 0 = ALL (i.indoption::int2[]) AND `+nullsDiffer+`
			AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) AS p(num, class, collation_) JOIN pg_opclass o ON o.oid = p.class
				JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = p.num WHERE NOT o.opcdefault OR p.collation_ <> a.attcollation) THEN ''
			WHEN i.indrelid = ANY($2::bigint[]::oid[]) THEN pg_get_indexdef(i.indexrelid) END
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
		LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = i.indrelid
		WHERE i.indrelid = ANY($1::bigint[]::oid[]) ORDER BY c.relname`, []any{oids, whole},
		[]any{&oid, &x.Name, &x.Constraint, &x.Primary, &x.Unique, &x.Valid, &keys, &definition}, func() error {
			one, r := x, byOID[oid]
			for _, num := range keys { // 0 is an expression
				if i := slices.IndexFunc(r.Columns, func(c Column) bool { return c.num == num }); i >= 0 {
					one.Columns = append(one.Columns, r.Columns[i].Name)
				}
			}
			if one.Using = unread; definition != nil {
				_, one.Using, _ = strings.Cut(*definition, " USING ")
			}
			r.Indexes, r.partial = append(r.Indexes, one), r.partial || definition == nil
			return nil
		})
}

// readPartitions names no relation to pg_get_expr, which would lock it. It reads times as microseconds: that has room
// for every bound, and infinity, which has no number, is an open one.
func readPartitions(ctx context.Context, tx pgx.Tx, byOID map[uint32]*Relation, oids []int64) error {
	var oid uint32
	var p Partition
	var from, to *int64
	bound := func(word string) string {
		at := "substring(k.bound FROM '" + word + " \\(''([^'']+)''\\)')::timestamptz"
		return "CASE WHEN NOT k.times THEN NULL WHEN isfinite(" + at + ") THEN " + microseconds(at) + " END"
	}
	when := func(us *int64) time.Time {
		if us == nil {
			return time.Time{}
		}
		return time.UnixMicro(*us).UTC()
	}
	return pg.ForEach(ctx, tx, `SELECT i.inhparent, n.nspname::text, c.relname::text, c.reltuples::bigint, `+bound("FROM")+`, `+bound("TO")+`
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
		LATERAL (SELECT pg_get_expr(c.relpartbound, 0) AS bound, EXISTS (SELECT FROM pg_partitioned_table t JOIN pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
			WHERE t.partrelid = i.inhparent AND t.partstrat = 'r' AND t.partnatts = 1 AND a.atttypid = 'timestamptz'::regtype) AS times) k
		WHERE i.inhparent = ANY($1::bigint[]::oid[]) ORDER BY 1, 5 NULLS FIRST`, []any{oids},
		[]any{&oid, &p.Schema, &p.Name, &p.Rows, &from, &to}, func() error {
			one := p
			one.From, one.To = when(from), when(to)
			byOID[oid].Parts = append(byOID[oid].Parts, one)
			return nil
		})
}

// KindOf is the kind of a block that could declare a relation; "" for none.
func (s *Snapshot) KindOf(r *Relation) string {
	if s.Aggregates[r.Name] != nil {
		return "aggregate"
	}
	return map[string]string{"r": "table", "p": "table", "v": "view"}[r.Kind]
}

// GrantedTo lists the addresses of the relations that a role has privileges on.
func (s *Snapshot) GrantedTo(l *Role) (out []string) {
	for _, g := range l.Grants {
		schema, name, _ := strings.Cut(g.Relation, ".")
		if rel := s.Relations[name]; rel != nil && rel.Schema == schema {
			out = append(out, s.addressOf(rel))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// addressOf is how pipeline.hcl names a live relation.
func (s *Snapshot) addressOf(r *Relation) string {
	switch {
	case s.Aggregates[r.Name] != nil:
		return "aggregate." + r.Name
	case r.Kind == "v":
		return "view." + r.Name
	}
	return "table." + r.Name
}

// SourceOf follows aggregates of aggregates down to the hypertable.
func (s *Snapshot) SourceOf(a *AggregateRef) string {
	for _, parent := range s.Aggregates {
		if parent.StoredSchema == a.FromSchema && parent.StoredName == a.FromName {
			return s.SourceOf(parent)
		}
	}
	return a.FromName
}
